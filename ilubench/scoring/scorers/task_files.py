"""lm-eval task files, read without lm-eval: where a task is defined and what it measures."""

import difflib
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from pydantic import JsonValue

from ilubench.errors import SpecError, did_you_mean
from ilubench.specs import Direction, Estimator
from ilubench.specs.yaml_files import read_yaml, task_file, task_names
from ilubench.specs.yaml_text import YamlLoader

__all__ = ["Member", "Reference", "TaskFacts", "task_facts"]

Config: TypeAlias = dict[str, JsonValue]

_DEFAULT_METRICS = {
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
    "loglikelihood": ("acc",),
}
_MEANS = frozenset({"acc", "acc_norm", "acc_mutual_info", "exact_match", "brier_score"})
"""Metrics that lm-eval averages where a task does not name an aggregation."""

_GROUP_FIELDS = frozenset(
    {"group", "group_alias", "task", "aggregate_metric_list", "metadata", "tag"}
)
"""What a group's file says about the group; the rest it lays over its tasks."""


class Reference(str):
    """A `!function` of a task file: the name of Python code, not a value."""

    __slots__ = ()


@dataclass(frozen=True)
class Member:
    """One task: of a group, or the task itself.

    Attributes:
        name: the task's name inside lm-eval.
        folder: of the file that defines it.
        changes: fields that the groups above lay over its own.
        config: its fields, included and laid over ones among them.
    """

    name: str
    folder: Path
    changes: Config
    config: Config

    @property
    def subset(self) -> str:
        """Its `dataset_name` (an MMLU subject); its name where it has none."""
        return str(self.config.get("dataset_name") or self.name)

    @property
    def num_fewshot(self) -> int:
        """Examples in the prompt."""
        shots = self.config.get("num_fewshot")
        return shots if isinstance(shots, int) else 0

    @property
    def own_examples(self) -> bool:
        """Whether the file brings its few-shot examples along."""
        examples = self.config.get("fewshot_config")
        return isinstance(examples, dict) and "samples" in examples

    @property
    def code_laid_over(self) -> tuple[str, ...]:
        """Python code that the groups above lay over the task's fields."""
        return tuple(_references(self.changes))


@dataclass(frozen=True)
class TaskFacts:
    """What a task's files say.

    Attributes:
        name: the task's or group's name inside lm-eval.
        is_group: it stands for several tasks.
        members: those tasks; the one task itself where it is no group.
        files: all that determine the scores: the task's file, those of a group's members, what
            they include, and the Python files beside them that a `!function` names.
        names: (lm-eval's metric, its filter) -> the name of the scorer's metric.
        estimators: the scorer's metric -> how its samples become one number.
        directions: the scorer's metric -> which values are better.
    """

    name: str
    is_group: bool
    members: tuple[Member, ...]
    files: tuple[Path, ...]
    names: Mapping[tuple[str, str], str]
    estimators: Mapping[str, Estimator]
    directions: Mapping[str, Direction]


class _Loader(YamlLoader):
    """Reads lm-eval's files; a `!function` becomes a Reference."""

    own = ("!",)


_Loader.add_multi_constructor(
    "!", lambda loader, _suffix, node: Reference(loader.construct_scalar(node))
)


def _references(value: object) -> Iterator[Reference]:
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _references(inner)


def _code(reference: Reference, folder: Path) -> Iterator[Path]:
    """Yield the Python file beside the task file, as lm-eval looks for it; none for a package's."""
    module = reference.rpartition(".")[0]
    path = folder / f"{module.replace('.', '/')}.py"
    if module and path.is_file():
        yield path


def _read(path: Path, above: tuple[Path, ...] = ()) -> tuple[Config, tuple[Path, ...]]:
    """Return a task file's fields, with those it includes below, and the files behind them."""
    if path in above:
        raise SpecError("includes itself", where=str(path), field="include")
    _, config = read_yaml(path, _Loader)
    if not isinstance(config, dict):
        raise SpecError("the top level must be a mapping of fields", where=str(path))
    merged: Config = {}
    named = (_code(reference, path.parent) for reference in _references(config))
    files: tuple[Path, ...] = (path, *(file for found in named for file in found))
    included = config.pop("include", None)
    for name in included if isinstance(included, list) else [included] if included else []:
        if not isinstance(name, str):
            raise SpecError("must be a file's name", where=str(path), field="include")
        below, more = _read(path.parent / name, (*above, path))
        merged |= below
        files += more
    return merged | config, files


def _defining(name: str, files: Sequence[Path]) -> Path | None:
    """Return the file that defines a task, group or tag; one of that name is looked at first."""
    line = re.compile(
        rb"""^['"]?(?:task|group|tag)['"]?:\s*['"]?"""
        + re.escape(name.encode())
        + rb"""['"]?\s*$""",
        re.MULTILINE,
    )
    likely = [path for path in files if path.stem.lstrip("_") == name]
    return next((path for path in (*likely, *files) if line.search(path.read_bytes())), None)


@cache
def _builtin_files() -> tuple[Path, ...]:
    """Return the files of lm-eval's own tasks; none when it is not installed."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        return ()
    return tuple(sorted((Path(spec.origin).parent / "tasks").rglob("*.yaml")))


@cache
def _builtin(name: str) -> Path | None:
    """Return the file that defines one of lm-eval's own tasks, groups or tags."""
    return _defining(name, _builtin_files())


def _locate(name: str, beside: Path | None = None) -> Path:
    if name.endswith((".yaml", ".yml")) or name in task_names("evals"):
        return task_file("evals", name)
    found = _defining(name, sorted(beside.glob("*.yaml"))) if beside else None
    found = found or _builtin(name)
    if found is None:
        own, file = task_names("evals"), f"{name}.yaml"
        near = difflib.get_close_matches(name, [*own, *(path.stem for path in _builtin_files())], 1)
        remedy = did_you_mean(name, [file] if Path(file).is_file() else near or own)
        remedy += " (or a task of lm-eval, or a file that ends in .yaml)"
        raise SpecError(f"unknown evaluation task {name!r}", field="task", remedy=remedy)
    return found


def _tags(config: Config) -> tuple[JsonValue, ...]:
    given = config.get("tag")
    return tuple(given) if isinstance(given, list) else (given,)


def _tagged(tag: str, folder: Path) -> list[tuple[str, Path]]:
    """Return the tasks with a tag, by name: those in the folder, else lm-eval's own."""
    marked = tag.encode()
    likely = [path for path in _builtin_files() if path.parent != folder]
    for files in (sorted(folder.glob("*.yaml")), likely):
        found = [
            (str(config["task"]), path)
            for path in files
            if marked in path.read_bytes()
            for config in [_read(path)[0]]
            if tag in _tags(config) and isinstance(config.get("task"), str)
        ]
        if found:
            return sorted(found)
    return []


def _resolve(
    name: str, file: Path, over: Config, above: tuple[str, ...] = ()
) -> tuple[list[Member], tuple[Path, ...]]:
    """Return the tasks that a task, group or tag stands for, and the files that say so.

    Args:
        name: of the task, group or tag; empty for whatever the file defines.
        file: where it is defined.
        over: fields that are laid over the tasks' own.
        above: names of the groups that it is in.
    """
    if name and name in above:
        raise SpecError(f"{name!r} contains itself", where=str(file), field="task")
    config, files = _read(file)
    listed, folder = config.get("task"), file.parent
    if isinstance(listed, list):
        below = {key: value for key, value in config.items() if key not in _GROUP_FIELDS}
        members, more = _listed(listed, folder, below | over, (*above, name))
        return members, files + more
    if name and config.get("task") != name:
        tasks = _tagged(name, folder)
        parts = [_resolve(task, path, over, (*above, name)) for task, path in tasks]
        return _joined(parts)
    return [Member(str(config.get("task")), folder, over, config | over)], files


def _listed(
    entries: Sequence[JsonValue], folder: Path, over: Config, above: tuple[str, ...]
) -> tuple[list[Member], tuple[Path, ...]]:
    """Return the tasks that a group lists, and their files; an entry's own changes win."""
    parts = []
    for entry in entries:
        given = dict(entry) if isinstance(entry, dict) else {"task": entry}
        inner = given.get("task")
        changes = {key: value for key, value in given.items() if key not in _GROUP_FIELDS}
        if isinstance(inner, list):  # a group written inside the group
            parts.append(_listed(inner, folder, changes | over, above))
            continue
        name = str(given.get("group") or inner)
        parts.append(_resolve(name, _locate(name, folder), over | changes, above))
    return _joined(parts)


def _joined(
    parts: Sequence[tuple[list[Member], tuple[Path, ...]]],
) -> tuple[list[Member], tuple[Path, ...]]:
    members = [member for found, _ in parts for member in found]
    return members, tuple(file for _, files in parts for file in files)


def _names(config: Config) -> dict[tuple[str, str], str]:
    listed = config.get("metric_list")
    if isinstance(listed, list):
        metrics = [
            str(entry["metric"])
            for entry in listed
            if isinstance(entry, dict)
            and entry.get("metric")
            and not isinstance(entry["metric"], Reference)
            and entry.get("aggregation", "mean" if str(entry["metric"]) in _MEANS else "") == "mean"
        ]
    else:
        kind = str(config.get("output_type", "generate_until"))
        metrics = list(_DEFAULT_METRICS.get(kind, ()))
    listed = config.get("filter_list")
    entries = listed if isinstance(listed, list) else [{"name": "none"}]
    filters = [str(entry["name"]) for entry in entries if isinstance(entry, dict)]
    return {
        (metric, name): metric if place == 0 else f"{metric}_{name.split('-')[0]}"
        for metric in metrics
        for place, name in enumerate(filters)
    }


def _estimators(config: Config, names: Mapping[tuple[str, str], str]) -> dict[str, Estimator]:
    """Return a mean over items for each metric, or what else the group's file asks for.

    lm-eval averages over the group's tasks, not its groups: by size (hence over items), or each
    task alike where `weight_by_size` is false.
    """
    listed = config.get("aggregate_metric_list")
    entries = listed if isinstance(listed, list) else [listed]
    alike = {
        (str(entry.get("metric")), name)
        for entry in entries
        if isinstance(entry, dict) and entry.get("weight_by_size") is False
        for name in _filters(entry, names)
    }
    return {
        public: Estimator(kind="group_mean" if key in alike else "mean")
        for key, public in names.items()
    }


def _directions(config: Config, names: Mapping[tuple[str, str], str]) -> dict[str, Direction]:
    listed = config.get("metric_list")
    said = {"brier_score": False} | {
        str(entry.get("metric")): entry["higher_is_better"]
        for entry in (listed if isinstance(listed, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("higher_is_better"), bool)
    }
    return {
        public: "higher" if said.get(metric, True) else "lower"
        for (metric, _), public in names.items()
    }


def _filters(entry: Config, names: Mapping[tuple[str, str], str]) -> list[str]:
    given = entry.get("filter_list")
    if given is None:
        return [name for _, name in names]
    return [str(one) for one in (given if isinstance(given, list) else [given])]


@cache
def task_facts(name: str) -> TaskFacts:
    """Find a task: in `tasks/evals`, at a path that ends in `.yaml`, or among lm-eval's own.

    The first filter of a task gives its metrics their plain names; the metrics of another are named
    after it: `exact_match` (strict) and `exact_match_flexible`.

    Raises:
        SpecError: no such task, or none of its metrics is a mean over items.
    """
    file = _locate(name)
    config, files = _read(file)
    own = str(config.get("group") or config.get("task"))
    is_path = name.endswith((".yaml", ".yml"))
    members, more = _resolve("" if is_path else name, file, {})
    if not members:
        raise SpecError("the group has no tasks", where=str(file), field="task")
    names = _names(members[0].config)
    for member in members[1:]:
        if _names(member.config) != names:
            problem = f"{members[0].name} and {member.name} have different metrics"
            raise SpecError(problem, where=str(file), remedy="name the group's tasks one by one")
    if not names:
        raise SpecError("no metric is a mean over items", where=str(file), field="metric_list")
    return TaskFacts(
        name=own if is_path else name,
        is_group=isinstance(config.get("task"), list) or not (is_path or own == name),
        members=tuple(members),
        files=tuple(dict.fromkeys(files + more)),
        names=names,
        estimators=_estimators(config, names),
        directions=_directions(members[0].config, names),
    )
