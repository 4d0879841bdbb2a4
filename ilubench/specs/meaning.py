"""What the fields of a spec mean, as its own class says: types, ranges, defaults, meanings."""

import inspect
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

__all__ = ["FieldMeaning", "field_meanings", "spec_within", "summary_of"]

_ATTRIBUTE = re.compile(r"^ {4}(\w+): +(.*(?:\n {8}.*)*)", re.MULTILINE)
_BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
_TYPES: Mapping[object, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
}


class FieldMeaning(NamedTuple):
    """A field: what may stand there, what stands there unless something is given, and what for."""

    name: str
    type: str
    range: str
    default: str
    meaning: str


def summary_of(model: type) -> str:
    """Return a class's docstring without the list of its fields."""
    return re.split(r"\n+Attributes:", inspect.cleandoc(model.__doc__ or ""))[0]


def field_meanings(model: type[BaseModel], *, nested: bool = True) -> Iterator[FieldMeaning]:
    """Yield the fields of a spec; those of a spec within it follow it, unless not ``nested``."""
    told = _attributes(model)
    for name, field in model.model_fields.items():
        meaning = field.description or told.get(name, "")
        kind = _type_text(field.annotation)
        yield FieldMeaning(name, kind, _range_text(field), _default_text(field), meaning)
        within = spec_within(field.annotation)
        if nested and within is not None:
            for below in field_meanings(within):
                yield below._replace(name=f"{name}.{below.name}")


def _attributes(model: type) -> dict[str, str]:
    """Return what the docstrings of a class and of those above it say of their fields."""
    found: dict[str, str] = {}
    for owner in reversed(model.__mro__):
        doc = inspect.cleandoc(owner.__dict__.get("__doc__") or "")
        section = re.search(r"^Attributes:\n(.*?)(?=^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
        if section:
            told = _ATTRIBUTE.findall(section.group(1))
            found.update({name: " ".join(text.split()) for name, text in told})
    return found


def spec_within(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    """Return the spec that a field holds; None where it holds plain values, or a plugin."""
    parts = [annotation]
    if get_origin(annotation) in (Union, types.UnionType):
        parts = [part for part in get_args(annotation) if part is not type(None)]
    first = parts[0]
    own = isinstance(first, type) and issubclass(first, BaseModel)
    return first if own and not inspect.isabstract(first) else None


def _type_text(annotation: Any) -> str:  # noqa: ANN401
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_text(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join("none" if part is type(None) else _type_text(part) for part in inner)
    if origin in (tuple, list):
        return f"list of {_type_text(inner[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "plugin" if inspect.isabstract(annotation) else "fields"
    return _TYPES.get(annotation, "any value" if origin is None else "mapping")


def _range_text(field: FieldInfo) -> str:
    marks = [*field.metadata]
    for part in get_args(field.annotation):
        marks += getattr(part, "__metadata__", ())
    bounds = [
        f"{sign} {getattr(mark, name):g}"
        for mark in marks
        for name, sign in _BOUNDS.items()
        if isinstance(getattr(mark, name, None), int | float)
    ]
    return ", ".join(bounds)


def _default_text(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return str(getattr(value, "use", ""))
    if value is None:
        return "none"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ",".join(map(str, value))
    return "" if isinstance(value, Mapping) else str(value)
