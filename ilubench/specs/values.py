"""Text -> a value of the type that is wanted: ``3`` is a number, or text, as the field says."""

import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from ilubench.errors import SpecError, did_you_mean
from ilubench.specs.untrusted import MAX_WHOLE, shorten
from ilubench.specs.yaml_text import parse_yaml

__all__ = ["NO_VALUE", "convert_value", "problem_in_words"]

NO_VALUE = ("none", "null")
"""Words, in capitals or not, for no value."""

MOST_NUMBERS = 10_000
"""Numbers that one range may stand for, and values of a list."""

_WHOLE = re.compile(r"[-+]?\d{1,18}")

_RANGES: tuple[tuple[str, Callable[[int, int], str]], ...] = (
    (r"(\d{1,9})\s*(?:-|:|to|\.{3}|…)\s*(\d{1,9})", lambda a, b: f"{a}..{b}"),
    (r"range\(\s*()(\d{1,9})\s*\)", lambda _, b: f"0..{b - 1}"),
    (r"range\(\s*(\d{1,9})\s*,\s*(\d{1,9})\s*\)", lambda a, b: f"{a}..{b - 1}"),
)
"""How others write a range of whole numbers, and how it is written here."""


def _range_written_otherwise(text: str) -> str:
    """Return what to write for a range or list in another language's signs; empty: it is none."""
    for pattern, written in _RANGES:
        found = re.fullmatch(pattern, text.strip())
        if found:
            first, last = found.groups()
            return written(int(first or 0), int(last))
    parts = re.split(r"[\s;+]+", text.strip())
    return ",".join(parts) if len(parts) > 1 and all(map(_WHOLE.fullmatch, parts)) else ""


def _numbers(text: str, key: str, part: str) -> list[object]:
    """Return the numbers of ``first..last``."""
    first, _, last = part.partition("..")
    if not (_WHOLE.fullmatch(first) and _WHOLE.fullmatch(last)):
        written = _range_written_otherwise(text) or "first..last, e.g. 0..4"
        raise SpecError(f"{part!r} is not a range", field=key, remedy=f"write {written}")
    start, stop = int(first), int(last)
    if stop < start:
        raise SpecError(f"the range {part!r} is empty", field=key, remedy="write 0..4")
    if stop - start >= MOST_NUMBERS:
        problem = f"the range {part!r} has {stop - start + 1} numbers, more than {MOST_NUMBERS}"
        raise SpecError(problem, field=key, remedy="write a shorter one, e.g. 0..4")
    return list(range(start, stop + 1))


def _items(text: str, inner: object, key: str) -> list[object]:
    whole = _plain_type(inner) is int
    parts = [part.strip(" \t'\"") for part in text.strip("[](){} ").split(",")]
    if len(parts) > MOST_NUMBERS:
        problem = f"must have {MOST_NUMBERS} entries at most, and has {len(parts)}"
        raise SpecError(problem, field=key, remedy="write fewer")
    if whole:
        written = [_range_written_otherwise(part) or part for part in parts]
        meant = _range_written_otherwise(text.strip("[]{} ")) or ",".join(written)
        if meant != ",".join(parts):
            raise SpecError(f"cannot read {text!r}", field=key, remedy=f"write {key}={meant}")
    values: list[object] = []
    for part in parts:
        if whole and ".." in part:
            numbers = _numbers(text, key, part)
            values += [convert_value(inner, str(number), key) for number in numbers]
        elif part:
            values.append(convert_value(inner, part, key))
    return values


def _plain_type(annotation: object) -> object:
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


def _json(text: str, key: str) -> object:
    """Return the value of a field of any type, read as YAML; ``1e-5`` is a number."""
    try:
        return _ANY.validate_python(parse_yaml(text))
    except ValueError as error:
        raise SpecError(
            "not a value that YAML can read", field=key, remedy=f"given: {shorten(text)}"
        ) from error


_PROBLEMS = {
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
    "finite_number": "must be finite",
    **dict.fromkeys(("bool_parsing", "bool_type"), "must be true or false"),
    "string_type": "must be text",
    "string_too_short": "must be text of {min_length} characters or more",
    "too_short": "must have {min_length} or more entries, and has {actual_length}",
    "too_long": "must have {max_length} entries at most, and has more",
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must have fields"),
}
"""Kind of a problem in pydantic -> what it is in our words."""


def problem_in_words(error: Mapping[str, Any]) -> str:
    """Return what is wrong with a value, from one of pydantic's `errors()`."""
    words = _PROBLEMS.get(error["type"])
    if words is None:
        return str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return words.format(**error.get("ctx", {}))


_FINITE = ConfigDict(allow_inf_nan=False)
_ANY: TypeAdapter[object] = TypeAdapter(JsonValue, config=_FINITE)


def _one_of(kinds: Sequence[object], text: str, key: str) -> object:
    if type(None) in kinds and text.lower() in NO_VALUE:
        return None
    rest = sorted((part for part in kinds if part is not type(None)), key=lambda p: p is str)
    for part in rest[:-1]:  # text is the last resort, since everything is text
        try:
            value = convert_value(part, text, key)
        except SpecError:
            continue
        if type(value) is not int or str(value) == text or rest[-1] is not str:
            return value  # 0123 is text, where text may stand
    return convert_value(rest[-1], text, key)


def convert_value(annotation: object, text: str, key: str) -> object:
    """Return ``text`` as the annotated type.

    Args:
        annotation: a field's type.
        text: what stands after the `=`.
        key: the whole key, for messages.

    Raises:
        SpecError: the text is no such value.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return _one_of(inner, text, key)
    if origin in (tuple, list):
        return _items(text, inner[0] if inner else str, key)
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        raise SpecError(
            f"{key!r} has fields of its own", remedy=f"set one of them: {key}.<field>=<value>"
        )
    if annotation is JsonValue or annotation is Any:
        return _json(text, key)
    if origin is Literal:
        text = next((c for c in inner if str(c).casefold() == text.casefold()), text)
    if _plain_type(annotation) is int and re.fullmatch(r"\d+-\d+", text):
        # pydantic would read 0-4 as -4
        raise SpecError("not a whole number", field=key, remedy=f"given: {shorten(text)}")
    try:
        adapter = TypeAdapter[object](cast("Any", annotation), config=_FINITE)
        value = adapter.validate_python(text)
    except ValidationError as error:
        message, remedy = problem_in_words(error.errors()[0]), f"given: {shorten(text)}"
        if origin is Literal:
            message = f"unknown value {text!r}"
            remedy = did_you_mean(text, [str(choice) for choice in inner])
        raise SpecError(message, field=key, remedy=remedy) from error
    if isinstance(value, int) and abs(value) >= MAX_WHOLE:
        raise SpecError("must be below 2**63", field=key, remedy=f"given: {shorten(text)}")
    return value
