"""Rows of a role divided among the tasks of a group, as data sets that lm-eval takes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ilubench.errors import DataError, SpecError, did_you_mean
from ilubench.interfaces import Row, ScoreContext
from ilubench.scoring.scorers.task_files import Member, TaskFacts

__all__ = ["OwnData", "Roles", "chosen_members", "own_data"]

OwnData: TypeAlias = dict[str, tuple[Sequence[int], dict[str, Any]]]
"""Task name -> positions of its rows in the role, and the settings that put them in place."""

_SHOWN = 8


@dataclass(frozen=True)
class Roles:
    """Which rows a task is asked and shows.

    Attributes:
        data: role of the items.
        fewshot: role of the few-shot examples.
        num_fewshot: examples in the prompt; None for what the task says.
        split_by: column that divides the rows among a group's tasks.
    """

    data: str
    fewshot: str | None
    num_fewshot: int | None
    split_by: str

    def shots(self, member: Member) -> int:
        """Return the number of examples that a task shows."""
        return member.num_fewshot if self.num_fewshot is None else self.num_fewshot


def chosen_members(facts: TaskFacts, subjects: Sequence[str]) -> tuple[Member, ...]:
    """Return the tasks of some subjects of a group; all where none is named.

    Raises:
        SpecError: an unknown subject, or subjects of a single task.
    """
    if subjects and not facts.is_group:
        problem = f"{facts.name} is one task, not a group"
        raise SpecError(problem, field="subjects", remedy="leave subjects out")
    known = [member.subset for member in facts.members]
    for subject in subjects:
        if subject not in known:
            problem = f"{facts.name} has no task of {subject!r}"
            raise SpecError(problem, field="subjects", remedy=did_you_mean(subject, known))
    chosen = subjects or known
    return tuple(member for member in facts.members if member.subset in chosen)


def own_data(
    facts: TaskFacts, members: Sequence[Member], roles: Roles, context: ScoreContext
) -> OwnData:
    """Return what puts the roles' rows in place of each task's data set.

    Args:
        facts: of the task or group.
        members: the tasks to ask.
        roles: of the rows.
        context: has the rows.

    Raises:
        DataError: no rows, too few examples, or rows that do not fit the group's tasks.
        SpecError: a task shows examples and no role has them.
    """
    items = _divided(facts, members, context, roles.data, roles.split_by)
    shown: Mapping[str, Sequence[int]] = {}
    showing = [member for member in members if roles.shots(member)]
    if roles.fewshot is not None and showing:
        shown = _divided(facts, showing, context, roles.fewshot, roles.split_by)
    own: OwnData = {}
    for member in members:
        rows = context.rows(roles.data)
        splits = {"test": [rows[place] for place in items[member.name]]}
        have = 0
        if roles.fewshot is not None and member in showing:
            examples = [context.rows(roles.fewshot)[place] for place in shown[member.name]]
            have = len(examples)
            if roles.fewshot == roles.data:
                have -= 1  # an item is no example of itself: lm-eval sees to it within one split
            else:
                splits["fewshot"] = examples
        _check_examples(member, roles, have)
        for name, role in (("test", roles.data), ("fewshot", roles.fewshot)):
            _check_columns(splits.get(name, ()), str(role))
        where = "test" if roles.fewshot == roles.data and member in showing else "fewshot"
        own[member.name] = items[member.name], _in_place(splits, where)
    return own


def _check_examples(member: Member, roles: Roles, have: int) -> None:
    shots = roles.shots(member)
    if roles.fewshot is None and shots and not member.own_examples:
        raise SpecError(
            f"{member.name} shows {shots} examples and no role has them",
            field="fewshot",
            remedy="set fewshot to a role of data, or num_fewshot to 0",
        )
    if roles.fewshot is not None and have < shots:
        raise DataError(
            f"data.{roles.fewshot}: {member.name} shows {shots} examples and there are {have}"
            f"{' besides the item asked' if roles.fewshot == roles.data else ''}; "
            "give more, or set num_fewshot"
        )


def _check_columns(rows: Sequence[Row], role: str) -> None:
    """Raise where a row lacks a column of the first: a data set would hold a None there."""
    for row in rows:
        lacking = sorted(set(rows[0]) - set(row))
        if lacking:
            shown = row.get("id", dict(row))
            raise DataError(f"data.{role}: item {shown!r} has no column {lacking[0]!r}; add it")


def _in_place(splits: Mapping[str, Sequence[Row]], examples: str) -> dict[str, Any]:
    return {
        "custom_dataset": _data_set(splits),
        "dataset_path": None,
        "dataset_name": None,
        "dataset_kwargs": None,
        "training_split": None,
        "validation_split": None,
        "test_split": "test",
        "fewshot_split": examples if examples in splits else None,
    }


def _divided(
    facts: TaskFacts, members: Sequence[Member], context: ScoreContext, role: str, column: str
) -> Mapping[str, Sequence[int]]:
    rows = context.rows(role)
    if not rows:
        raise DataError(f"data.{role}: no rows; an empty set measures nothing")
    if not facts.is_group:
        return {members[0].name: range(len(rows))}
    divided = divide(rows, facts.members, column, role)
    without = [member.subset for member in members if not divided[member.name]]
    if without:
        raise DataError(
            f"data.{role}: no rows of {column} {_listed(without)}; give them, or set subjects to "
            "those that are to be asked"
        )
    return divided


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(map(repr, names[:_SHOWN])) + more


def divide(
    rows: Sequence[Row], members: Sequence[Member], column: str, role: str
) -> dict[str, list[int]]:
    """Return task name -> positions of its rows: those whose ``column`` is the task's subset.

    Args:
        rows: of the role.
        members: all tasks of the group.
        column: of the rows; its values are the tasks' `dataset_name`.
        role: named in errors.

    Raises:
        DataError: a row lacks the column, or its value is no task's subset.
    """
    positions: dict[str, list[int]] = {member.subset: [] for member in members}
    for number, row in enumerate(rows):
        if column not in row:
            raise DataError(
                f"data.{role}: row {number + 1} has no column {column!r}, by which the rows are "
                f"divided among the group's tasks (split_by); {did_you_mean(column, row)}"
            )
        value = str(row[column])
        if value not in positions:
            raise DataError(
                f"data.{role}: row {number + 1}: {column}={value!r} belongs to no task of the "
                f"group; {did_you_mean(value, positions)}"
            )
        positions[value].append(number)
    return {member.name: positions[member.subset] for member in members}


def _data_set(splits: Mapping[str, Sequence[Row]]) -> Callable[..., Mapping[str, Any]]:
    """Return what lm-eval calls for a data set: the rows in memory, nothing cached on disk."""

    def custom_dataset(**_: object) -> Mapping[str, Any]:
        import datasets  # type: ignore[import-untyped, unused-ignore]

        return {
            name: datasets.Dataset.from_list([dict(row) for row in rows])
            for name, rows in splits.items()
        }

    return custom_dataset
