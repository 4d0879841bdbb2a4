"""Rows of evaluation items: never none, each with a stable name."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from ilubench.data.values import describe_value, row_name, text_in
from ilubench.errors import DataError, ItemError, did_you_mean
from ilubench.interfaces import Row

__all__ = ["groups_of", "item_ids", "name_items", "take_rows", "text_of"]


def take_rows(rows: Sequence[Row], limit: int | None, role: str) -> list[Row]:
    """Return the first ``limit`` rows (None: all).

    Raises:
        DataError: there are none.
    """
    if not rows:
        raise DataError(f"data.{role}: no rows; an empty set measures nothing")
    return list(rows[:limit])


def text_of(row: Row, column: str, role: str) -> str:
    """Return a column that must hold text, or a number, which counts as its text.

    Raises:
        DataError: it does not.
    """
    text = text_in(row.get(column))
    if text:
        return text
    where = row_name(role, row)
    if column not in row:
        raise DataError(f"{where}: column {column!r} is missing; {did_you_mean(column, row)}")
    problem = f"column {column!r} is {describe_value(row[column])}, not text"
    raise DataError(f"{where}: {problem}; give text, or leave the row out")


def item_ids(rows: Sequence[Mapping[str, object]], where: str) -> list[str]:
    """Return a name for each row: its `id`, else its number.

    Raises:
        DataError: two rows have the same name.
    """
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        given = row.get("id")
        name = str(number if given is None else given)
        if name in seen:
            both = f"rows {seen[name]} and {number}"
            raise DataError(f"{where}: the id {name!r} occurs twice ({both}); ids must differ")
        seen[name] = number
    return list(seen)


def groups_of(rows: Sequence[Row], column: str | None, role: str) -> dict[str, str]:
    """Return item -> the subset that a column puts it in; nothing without a column.

    Raises:
        DataError: a row without text in that column.
    """
    if column is None:
        return {}
    names = item_ids(rows, f"data.{role}")
    return {name: text_of(row, column, role) for name, row in zip(names, rows, strict=True)}


@contextmanager
def name_items(items: Sequence[str], role: str) -> Iterator[None]:
    """Name the item in an engine's error, which knows its position only."""
    try:
        yield
    except ItemError as error:
        name = f"data.{role}: item {items[error.position]!r}"
        raise ItemError(error.position, error.problem, name=name) from error
