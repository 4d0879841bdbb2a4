"""Which columns a task reads, and as what: text that is printed, a number, a list of options."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ilubench.data.values import Cell, Unusable, describe_value, list_in, number_in, text_in
from ilubench.errors import DataError, did_you_mean
from ilubench.interfaces import Row
from ilubench.scoring.scorers.task_files import Member, Reference

if TYPE_CHECKING:
    import pyarrow as pa
    from jinja2 import nodes

__all__ = ["Reading", "as_table", "column_values", "named_columns", "read_columns"]

_TEMPLATES = ("description", "doc_to_choice", "doc_to_target", "doc_to_text", "gen_prefix")

_OF_TEXT = frozenset(dir(str)) - frozenset(dir(list)) - frozenset(dir(dict))
"""Methods that text alone has."""


@dataclass
class Reading:
    """How a task reads a column.

    Attributes:
        shown: it is printed in a prompt, handled as text, or one of the options.
        number: it is compared with numbers, or counts options.
        list: it holds options, one an element.
        optional: the template asks first whether there is any.
        code: Python code may read it, as `datasets` would give it.
    """

    shown: bool = False
    number: bool = False
    list: bool = False
    optional: bool = False
    code: bool = False


def named_columns(member: Member) -> tuple[str, ...]:
    """Return the columns that a task's templates name; none where its own code may read any."""
    if _has_code(member.config):
        return ()
    whole = (member.config.get(f"doc_to_{part}") for part in ("choice", "target", "text"))
    words = {value for value in whole if isinstance(value, str) and value.isidentifier()}
    found: dict[str, Reading] = {}
    for field, template in _templates(member.config):
        _note(field, template, words, found)
    return tuple(sorted(found))


def read_columns(member: Member, rows: Sequence[Row], role: str) -> Mapping[str, Reading]:
    """Return the columns that a task reads of some rows; all, where its own code may read any.

    Args:
        member: the task.
        rows: at least one.
        role: of the rows, for errors.

    Raises:
        DataError: the rows have no column that a template reads.
    """
    if _has_code(member.config):
        return {column: Reading(code=True) for column in rows[0]}
    known = dict.fromkeys(column for row in rows for column in row)
    found: dict[str, Reading] = {"id": Reading()}
    for field, template in _templates(member.config):
        _note(field, template, known, found)
    if member.config.get("output_type") == "multiple_choice":
        target = found.get(str(member.config.get("doc_to_target")), Reading())
        target.number = True
    for column, reading in found.items():
        if column not in known and column != "id" and not reading.optional:
            problem = f"there is no column {column!r}, which {member.name} reads"
            raise DataError(f"data.{role}: {problem}; {did_you_mean(column, known)}")
    return {column: reading for column, reading in found.items() if column in known}


def _has_code(config: Mapping[str, JsonValue]) -> bool:
    def named(value: JsonValue) -> bool:
        if isinstance(value, dict | list):
            return any(map(named, value.values() if isinstance(value, dict) else value))
        return isinstance(value, Reference)

    asks = {key: value for key, value in config.items() if key != "metric_list"}
    return "class" in config or "use_prompt" in config or named(asks)


def _templates(config: Mapping[str, JsonValue]) -> Iterator[tuple[str, str]]:
    for field in _TEMPLATES:
        value = config.get(field)
        parts = list(value.values()) if isinstance(value, dict) else value
        for part in parts if isinstance(parts, list) else [parts]:
            if isinstance(part, str):
                yield field, part
    below = config.get("fewshot_config")
    if isinstance(below, dict):
        yield from _templates(below)


def _note(field: str, template: str, known: Container[str], found: dict[str, Reading]) -> None:
    """Add how a template reads its columns; one that is a column's name is that column."""
    import jinja2
    from jinja2 import nodes

    if template in known or (field == "doc_to_target" and template.isidentifier()):
        reading = found.setdefault(template, Reading())
        reading.list |= field == "doc_to_choice"
        reading.shown |= field == "doc_to_text"
        return
    try:
        tree = jinja2.Environment(autoescape=False).parse(template)
    except jinja2.TemplateError:
        return  # lm-eval says what is wrong with it
    names = list(tree.find_all(nodes.Name))
    own = {name.name for name in names if name.ctx != "load"} | {"loop", "range", "dict", "cycler"}
    for name in names:
        if name.name not in own:
            found.setdefault(name.name, Reading())
    uses = _Uses(found)
    for node in tree.find_all(nodes.Node):
        uses.see(node, field)


class _Uses:
    """What the nodes of a template do with the columns in them."""

    def __init__(self, found: dict[str, Reading]) -> None:
        self._found = found
        self._places: dict[str, set[object]] = {}

    def _of(self, node: object) -> Reading:
        return self._found.get(getattr(node, "name", ""), Reading())

    def see(self, node: "nodes.Node", field: str) -> None:
        """Note what one node does."""
        self._printed(node, field)
        self._computed(node)
        self._listed(node)

    def _printed(self, node: "nodes.Node", field: str) -> None:
        from jinja2 import nodes

        match node:
            case nodes.Output():
                for part in node.nodes:
                    self._of(part).shown |= isinstance(part, nodes.Name) and field == "doc_to_text"
                    self._of(part).list |= isinstance(part, nodes.Name) and field == "doc_to_choice"
            case nodes.List() if field == "doc_to_choice":
                for part in node.items:
                    self._of(part).shown |= isinstance(part, nodes.Name)
            case nodes.Call(node=nodes.Getattr(node=nodes.Name() as name, attr=attr)):
                self._of(name).shown |= attr in _OF_TEXT

    def _computed(self, node: "nodes.Node") -> None:
        from jinja2 import nodes

        match node:
            case nodes.If(test=test) | nodes.CondExpr(test=test):
                for name in (test, *test.find_all(nodes.Name)):
                    self._of(name).optional |= isinstance(name, nodes.Name)
                inner = test.node if isinstance(test, nodes.Not) else test
                self._of(inner).number |= isinstance(inner, nodes.Name)  # "0" is true, 0 is not
            case nodes.Test() | nodes.Filter(name="default" | "d"):
                self._of(node.node).optional = True
            case (
                nodes.Compare(expr=left, ops=[nodes.Operand(expr=right)])
                | nodes.BinExpr(left=left, right=right)
            ):
                for one, other in ((left, right), (right, left)):
                    if isinstance(other, nodes.Const) and isinstance(other.value, int):
                        self._of(one).number = True
            case nodes.Getitem(arg=nodes.Name() as place):
                self._of(place).number = True

    def _listed(self, node: "nodes.Node") -> None:
        from jinja2 import nodes

        match node:
            case (
                nodes.For(iter=nodes.Name() as name)
                | nodes.Filter(node=nodes.Name() as name, name="join")
            ):
                self._of(name).list = True
            case nodes.Getitem(node=nodes.Name() as held, arg=nodes.Name()):
                self._of(held).list = True
            case nodes.Getitem(node=nodes.Name() as held, arg=nodes.Const(value=int() as place)):
                # a first letter may be meant; several single letters are not
                places = self._places.setdefault(held.name, set())
                places.add(place)
                self._of(held).list |= len(places) > 1


def column_values(
    column: str, rows: Sequence[Row], reading: Reading, where: str
) -> list[JsonValue]:
    """Return a column's values as a task reads them, of one kind.

    A CSV's cells become numbers where every one is a whole number and the task computes with it, or
    has code of its own, which expects what `datasets` makes of a CSV; lists where it wants options.

    Args:
        column: its name.
        rows: of the task.
        reading: what the task does with it.
        where: beginning of errors.

    Raises:
        DataError: names the first row whose value does not fit.
    """
    values = [row.get(column) for row in rows]
    for place, value in enumerate(values):
        if problem := _problem(value, reading):
            raise DataError(f"{where}: {_item(rows, place)}: column {column!r} {problem}")
    if reading.list:
        return [None if value is None else _alike(list_in(value) or ()) for value in values]
    computes = reading.number or reading.code
    numbers = [number_in(value) for value in values]
    if computes and None not in numbers and any(isinstance(value, Cell) for value in values):
        return list(numbers)
    if reading.shown and not computes:
        return [value if isinstance(value, bool) else text_in(value) for value in values]
    return values if computes else _alike(values)


def _alike(values: Sequence[JsonValue]) -> list[JsonValue]:
    """The values; where they are text and numbers ("3a" among 1 and 2), all of them as text."""
    kinds = {str if isinstance(value, str) else type(value) for value in values}
    kinds.discard(type(None))
    if len(kinds) < 2 or not kinds <= {str, int, float}:
        return list(values)
    return [text_in(value) for value in values]


def _item(rows: Sequence[Row], place: int) -> str:
    return f"item {rows[place]['id']!r}" if "id" in rows[place] else f"row {place + 1}"


def _problem(value: JsonValue, reading: Reading) -> str:
    """What is wrong with a value; empty where nothing is."""
    if isinstance(value, Unusable):
        return f"is {describe_value(value)}, which no task can read; leave it out"
    if value is None:
        return (
            ""
            if reading.optional or reading.code
            else "is null, not text; give text, or leave the row out"
        )
    if not reading.list:
        listed = reading.shown and isinstance(value, list | dict)
        return f"is {describe_value(value)}, not text" if listed else ""
    held = list_in(value)
    if held is None:
        return f'is {describe_value(value)}, and a list is wanted: ["a", "b"]'
    wrong = [below for below in held if below is None or isinstance(below, Unusable)]
    return f"holds {describe_value(wrong[0])}, and a list of texts is wanted" if wrong else ""


def as_table(columns: Mapping[str, list[JsonValue]], rows: Sequence[Row], where: str) -> "pa.Table":
    """Return columns as an Arrow table.

    Args:
        columns: name -> values of the rows.
        rows: to name one in errors.
        where: beginning of errors.

    Raises:
        DataError: names the column, and the rows whose values are of two kinds.
    """
    import pyarrow as pa

    made = {}
    for name, values in columns.items():
        try:
            made[name] = pa.array(values)
        except (pa.ArrowException, OverflowError) as error:
            raise DataError(f"{where}: {_two_kinds(name, values, rows)}") from error
    return pa.table(made)


def _two_kinds(name: str, values: Sequence[JsonValue], rows: Sequence[Row]) -> str:
    import pyarrow as pa

    first = next(place for place, value in enumerate(values) if value is not None)
    for place, value in enumerate(values):
        try:
            pa.array([values[first], value])
        except (pa.ArrowException, OverflowError):
            both = describe_value(values[first]), describe_value(value)
            if isinstance(value, int) and value.bit_length() > 63:
                return f"{_item(rows, place)}: column {name!r} has a number of over 18 digits"
            return (
                f"column {name!r} is {both[0]} in {_item(rows, first)} and {both[1]} in "
                f"{_item(rows, place)}, of another kind; give all rows the same, or leave it out"
            )
    return f"column {name!r} is of several kinds; give all rows the same, or leave it out"
