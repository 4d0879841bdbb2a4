"""Rows of a role divided among the tasks of a group, as data sets that lm-eval takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ilubench.data.values import row_name
from ilubench.errors import DataError, SpecError, did_you_mean
from ilubench.interfaces import Row, ScoreContext
from ilubench.scoring.scorers.task_columns import as_table, column_values, read_columns
from ilubench.scoring.scorers.task_files import Member, TaskFacts

if TYPE_CHECKING:
    import pyarrow as pa

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
        asked = [rows[place] for place in items[member.name]]
        splits = {"test": _table(member, asked, roles.data)}
        have, where = 0, "fewshot"
        if roles.fewshot is not None and member in showing:
            examples = [context.rows(roles.fewshot)[place] for place in shown[member.name]]
            have = len(examples)
            if roles.fewshot == roles.data:
                have -= 1  # an item is no example of itself: lm-eval sees to it within one split
                where = "test"
            elif examples:
                splits["fewshot"] = _table(member, examples, roles.fewshot)
        _check_examples(member, roles, have)
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


def _table(member: Member, rows: Sequence[Row], role: str) -> "pa.Table":
    """The columns that a task reads, as a table; others do no harm, whatever they hold."""
    where = f"data.{role}"
    columns = read_columns(member, rows, role)
    for place, row in enumerate(rows):
        lacking = [name for name, use in columns.items() if name not in row and not use.optional]
        if lacking:  # a data set would hold a None there
            name = row_name(role, row, place)
            raise DataError(f"{name} has no column {lacking[0]!r}; add it")
    values = {name: column_values(name, rows, use, where) for name, use in columns.items()}
    return as_table(values, rows, where)


def _in_place(splits: Mapping[str, "pa.Table"], examples: str) -> dict[str, Any]:
    def custom_dataset(**_: object) -> Mapping[str, Any]:
        """What lm-eval calls for a data set: the rows in memory, nothing cached on disk."""
        import datasets  # type: ignore[import-untyped, unused-ignore]

        in_memory = datasets.table.InMemoryTable
        return {name: datasets.Dataset(in_memory(table)) for name, table in splits.items()}

    return {
        "custom_dataset": custom_dataset,
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
