"""Tasks in lm-eval's format as the fields of a suite, so that they are scored like any suite's."""

import re
from collections.abc import Container, Mapping, Sequence

from pydantic import JsonValue

from ilubench.errors import SpecError
from ilubench.scoring.scorers.task_files import Member, TaskFacts, task_facts
from ilubench.specs import ModelSource, ScoreSpec

__all__ = ["tasks_suite"]

_FILES = frozenset({"json", "csv", "parquet"})
"""A `dataset_path` of these stands for local files, which `data_files` names."""


def tasks_suite(asked: ScoreSpec, model: ModelSource) -> dict[str, JsonValue]:
    """Return the fields of a suite that has nothing but tasks to score.

    A task's rows are those of its file, else of the data set that the task itself names. A group
    needs a file for one score over all its tasks; without one, each of them has its own.

    Args:
        asked: the tasks, and the files that were given for them.
        model: to score.

    Raises:
        SpecError: no such task, or no rows or examples are named for one.
    """
    data: dict[str, JsonValue] = {}
    scorers: dict[str, JsonValue] = {}
    files = zip(asked.task, _each(asked, "data"), _each(asked, "fewshot"), strict=True)
    for task, rows, shown in files:
        facts = task_facts(task)
        whole = bool(rows) or not facts.is_group
        for member in facts.members[: 1 if whole else None]:
            name = _slug(facts.name if whole else member.name, scorers)
            settings: dict[str, JsonValue] = {"task": task if whole else member.name, "data": name}
            data[name] = {"path": rows} if rows else _own_rows(member, _splits(member)[:2], task)
            if _shows(facts, member, asked, whole=whole):
                role = settings["fewshot"] = f"{name}_fewshot"
                data[role] = _examples(member, rows, shown, task)
            given: Mapping[str, JsonValue] = {
                "num_fewshot": asked.num_fewshot,
                "limit": asked.limit,
                "split_by": asked.split_by if facts.is_group else None,
            }
            settings |= {key: value for key, value in given.items() if value is not None}
            scorers[name] = {"use": "lm_eval", "settings": settings}
    return {
        "name": "-".join(scorers)[:64].rstrip("-"),
        "version": 1,
        "title": f"Tasks of lm-eval: {', '.join(asked.task)}",
        "target": {"model": model.model_dump(mode="json")},
        "data": data,
        "scorers": scorers,
    }


# --- inside ---


def _each(asked: ScoreSpec, field: str) -> Sequence[str]:
    """Return the file of each task; empty where none is given."""
    given: tuple[str, ...] = getattr(asked, field)
    if len(given) in (0, 1):
        return (given or ("",)) * len(asked.task)
    if len(given) != len(asked.task):
        problem = f"{len(given)} files for {len(asked.task)} tasks"
        raise SpecError(problem, field=field, remedy="give one, or one for each task in order")
    return given


def _slug(name: str, taken: Container[str]) -> str:
    """Return a name that a scorer can have, which no other has."""
    short = re.sub("[^a-z0-9_-]", "_", name.lower()).lstrip("_-")[:50] or "task"
    number = 1
    while (found := short if number == 1 else f"{short}-{number}") in taken:
        number += 1
    return found


def _shows(facts: TaskFacts, member: Member, asked: ScoreSpec, *, whole: bool) -> bool:
    """Whether examples must come from a role."""
    members = facts.members if whole else (member,)
    return any(
        (one.num_fewshot if asked.num_fewshot is None else asked.num_fewshot)
        and not one.own_examples
        for one in members
    )


def _splits(member: Member) -> list[str]:
    """Return the splits that a task names: of its items, then of its examples, the first counts."""
    names = ("test_split", "validation_split", "fewshot_split", "training_split")
    config = member.config | member.changes
    return [str(config.get(name) or "") for name in names]


def _examples(member: Member, rows: str, shown: str, task: str) -> JsonValue:
    if shown:
        return {"path": shown}
    if rows:
        problem = f"{task} shows examples before each item, and there are none"
        raise SpecError(problem, field="fewshot", remedy="add fewshot=FILE, or num_fewshot=0")
    test, validation, *own = _splits(member)
    return _own_rows(member, [*own, validation if test else ""], task)


def _own_rows(member: Member, splits: Sequence[str], task: str) -> JsonValue:
    """Return the data set that a task names itself."""
    config = member.config | member.changes
    path, split = config.get("dataset_path"), next(filter(None, splits), "")
    told = config.get("dataset_kwargs")
    kwargs = told if isinstance(told, dict) else {}
    if not isinstance(path, str) or not path or not split:
        lacks = "splits" if isinstance(path, str) and path else "a data set"
        problem = f"{task} has no rows: {member.name} does not name {lacks}"
        raise SpecError(problem, field="task", remedy="add data=FILE")
    if path in _FILES:
        files = kwargs.get("data_files")
        file = files.get(split) if isinstance(files, dict) else files
        if isinstance(file, list) and len(file) == 1:
            (file,) = file
        if not isinstance(file, str):
            problem = f"{task} does not name one file for its split {split!r}"
            raise SpecError(problem, field="task", remedy="add data=FILE")
        return {"path": file}
    source: dict[str, JsonValue] = {"hub": path, "split": split}
    for name, value in (
        ("subset", config.get("dataset_name")),
        ("revision", kwargs.get("revision")),
    ):
        if value is not None:
            source[name] = value
    return source
