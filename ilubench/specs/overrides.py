"""`key=value` on the command line -> typed changes of a spec, with "did you mean".

The types of the target class direct the parsing: ``3`` is a number where a number is wanted and a
string where a revision is. Order never matters: names are set before what lies below them.
"""

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, JsonValue, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from ilubench.errors import SpecError, did_you_mean
from ilubench.specs.yaml_files import load_yaml, merge_mappings

__all__ = [
    "Override",
    "PluginLookup",
    "apply_overrides",
    "convert_value",
    "from_file",
    "parse_words",
]

_EXPONENT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass(frozen=True)
class Override:
    """One `a.b.c=text` from the command line."""

    path: tuple[str, ...]
    text: str

    @property
    def key(self) -> str:
        """The dotted path."""
        return ".".join(self.path)

    def below(self, depth: int = 1) -> "Override":
        """Return the same override without its first path parts."""
        return Override(self.path[depth:], self.text)


@dataclass(frozen=True)
class PluginLookup:
    """How plugin fields are resolved: their class, and their settings in this suite.

    Attributes:
        find: (group, name) -> class.
        settings: (group, name) -> settings that the name stands for.
    """

    find: Callable[[str, str], type[BaseModel]]
    settings: Callable[[str, str], Mapping[str, JsonValue]]


def parse_words(words: Iterable[str]) -> tuple[Override, ...]:
    """Parse `key=value` words.

    Raises:
        SpecError: no `=`, an empty key, or a key given twice.
    """
    found: dict[tuple[str, ...], Override] = {}
    for word in words:
        key, equals, text = word.partition("=")
        path = tuple(key.split("."))
        if not equals or not all(path):
            raise SpecError(f"cannot read {word!r}", remedy="write key=value, e.g. method=ilu")
        if path in found:
            raise SpecError(f"{key!r} is given twice", remedy="keep one of them")
        found[path] = Override(path, text)
    return tuple(sorted(found.values(), key=lambda override: (len(override.path), override.path)))


def _flatten(prefix: str, value: object, where: str) -> Iterable[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(f"{prefix}.{key}" if prefix else str(key), inner, where)
    elif isinstance(value, list):
        if not all(isinstance(item, str | int | float) for item in value):
            raise SpecError("a list of plain values is needed", where=where, field=prefix)
        yield prefix, ",".join(str(item) for item in value)
    elif value is None or isinstance(value, str | int | float):
        yield prefix, "none" if value is None else str(value)
    else:
        raise SpecError(f"cannot use {value!r}", where=where, field=prefix, remedy="write text")


def from_file(path: Path, words: Sequence[Override] = ()) -> tuple[Override, ...]:
    """Return the overrides of a YAML file (nested or dotted keys), with ``words`` on top.

    Raises:
        SpecError: not YAML, or a key is given twice.
    """
    pairs = _flatten("", load_yaml(path), str(path))
    below = parse_words(f"{key}={text}" for key, text in pairs)
    merged = {override.path: override for override in (*below, *words)}
    return tuple(sorted(merged.values(), key=lambda override: (len(override.path), override.path)))


def _items(text: str, inner: object, key: str) -> list[object]:
    parts = [part.strip() for part in text.strip("[]()").split(",") if part.strip()]
    values: list[object] = []
    for part in parts:
        first, dots, last = part.partition("..")
        if dots and inner is int:
            try:
                start, stop = int(first), int(last)
            except ValueError:
                raise SpecError(
                    f"{part!r} is not a range", field=key, remedy="write first..last, e.g. 0..4"
                ) from None
            if stop < start:
                raise SpecError(f"the range {part!r} is empty", field=key, remedy="write 0..4")
            values.extend(range(start, stop + 1))
        else:
            values.append(convert_value(inner, part, key))
    return values


def _json(text: str, key: str) -> object:
    """Return the value of a field of any type, read as YAML; ``1e-5`` is a number."""
    if _EXPONENT.fullmatch(text):
        return float(text)
    try:
        value: object = yaml.safe_load(text)
    except yaml.YAMLError as error:
        remedy = f"given: {text!r}"
        raise SpecError("not a value that YAML can read", field=key, remedy=remedy) from error
    return value


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
        if type(None) in inner and text.lower() in ("none", "null"):
            return None
        rest = sorted((part for part in inner if part is not type(None)), key=lambda p: p is str)
        for part in rest[:-1]:  # text is the last resort, since everything is text
            try:
                return convert_value(part, text, key)
            except SpecError:
                continue
        return convert_value(rest[-1], text, key)
    if origin in (tuple, list):
        return _items(text, inner[0] if inner else str, key)
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        raise SpecError(
            f"{key!r} has fields of its own", remedy=f"set one of them: {key}.<field>=<value>"
        )
    if annotation is JsonValue or annotation is Any:
        return _json(text, key)
    try:
        value = TypeAdapter[object](cast("Any", annotation)).validate_python(text)
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        remedy = f"given: {text!r}"
        if origin is Literal:
            remedy = did_you_mean(text, [str(choice) for choice in inner])
        raise SpecError(message, field=key, remedy=remedy) from error
    return value


def _group(field: FieldInfo) -> str | None:
    for mark in field.metadata:
        group = getattr(mark, "group", None)
        if isinstance(group, str):
            return group
    return None


def _plugin(
    values: Mapping[str, JsonValue], name: str, field: FieldInfo, lookup: PluginLookup
) -> tuple[type[BaseModel], dict[str, JsonValue]] | None:
    """Return a plugin field's class and its settings: the suite's, and those given on top."""
    group = _group(field)
    given = values.get(name, field.default)
    if group is None or not isinstance(given, str | Mapping):
        return None
    use = given if isinstance(given, str) else str(given.get("use", ""))
    own = {} if isinstance(given, str) else given.get("settings", {})
    settings = dict(lookup.settings(group, use))
    if isinstance(own, Mapping):
        settings = merge_mappings(settings, own)
    values_out: dict[str, JsonValue] = {"use": use, "settings": settings}
    return lookup.find(group, use), values_out


def expand(
    model: type[BaseModel], values: Mapping[str, JsonValue], lookup: PluginLookup
) -> dict[str, JsonValue]:
    """Return ``values`` with every plugin field written out as `{use, settings}`.

    Args:
        model: the class that ``values`` are fields of.
        values: raw fields.
        lookup: how plugin names become classes and settings.
    """
    out = dict(values)
    for name, field in model.model_fields.items():
        plugin = _plugin(out, name, field, lookup)
        if plugin is not None:
            found, entry = plugin
            settings = entry["settings"]
            assert isinstance(settings, dict)
            out[name] = {"use": entry["use"], "settings": expand(found, settings, lookup)}
    return out


def _field(model: type[BaseModel], name: str, key: str) -> FieldInfo:
    if name not in model.model_fields:
        raise SpecError(
            f"unknown setting {name!r}", field=key, remedy=did_you_mean(name, model.model_fields)
        )
    return model.model_fields[name]


def _set(
    annotation: object, value: JsonValue, override: Override, key: str, depth: int
) -> JsonValue:
    """Return ``value`` changed at the override's path, for annotations without plugins."""
    if depth == len(override.path):
        return convert_value(annotation, override.text, key)  # type: ignore[return-value]
    name = override.path[depth]
    below = dict(value) if isinstance(value, Mapping) else {}
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        annotation = rest[0]
    if get_origin(annotation) in (dict, Mapping):
        inner = get_args(annotation)[1]
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        inner = _field(annotation, name, key).annotation
        for other in getattr(annotation, "instead_of", {}).get(name, ()):
            below[other] = None
    elif annotation is JsonValue or annotation is Any:
        inner = annotation
    else:
        inner = getattr(annotation, "__value__", None)
        if inner is None:
            raise SpecError(
                f"{override.path[depth - 1]!r} has no fields", field=key, remedy="drop what follows"
            )
        return _set(inner, value, override, key, depth)
    below[name] = _set(inner, below.get(name), override, key, depth + 1)
    return below


def apply_overrides(
    model: type[BaseModel],
    values: Mapping[str, JsonValue],
    overrides: Sequence[Override],
    lookup: PluginLookup,
    *,
    prefix: str = "",
) -> dict[str, JsonValue]:
    """Return ``values`` with the overrides on top, parsed by the types of ``model``.

    Args:
        model: the class that ``values`` are raw fields of.
        values: what the files gave.
        overrides: paths relative to ``model``, short paths first (as `parse` returns them).
        lookup: how plugin fields are resolved.
        prefix: what stands before the paths in messages, e.g. ``method.``

    Raises:
        SpecError: an unknown setting, or a value of another type.
    """
    out = dict(values)
    for override in overrides:
        name, key = override.path[0], prefix + override.key
        field = _field(model, name, key)
        if _group(field) is not None:
            if len(override.path) == 1:
                out[name] = override.text
                continue
            plugin = _plugin(out, name, field, lookup)
            if plugin is None:
                raise SpecError(
                    f"{name!r} is not chosen", field=key, remedy=f"add {prefix}{name}=<name>"
                )
            found, entry = plugin
            settings = entry["settings"]
            assert isinstance(settings, dict)
            below = apply_overrides(
                found, settings, (override.below(),), lookup, prefix=f"{prefix}{name}."
            )
            out[name] = {"use": entry["use"], "settings": below}
        else:
            out[name] = _set(field.annotation, out.get(name), override, key, 1)
    return expand(model, out, lookup)
