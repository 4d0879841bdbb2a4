"""`key=value` on the command line -> typed changes of a spec, with "did you mean".

The types of the target class direct the parsing: ``3`` is a number where a number is wanted and a
string where a revision is. Order never matters: names are set before what lies below them.
"""

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, JsonValue
from pydantic.fields import FieldInfo

from ilubench.errors import SpecError, did_you_mean
from ilubench.specs.merging import INSTEAD_OF, merge_mappings
from ilubench.specs.run import RunSpec
from ilubench.specs.score import ScoreSpec
from ilubench.specs.untrusted import shorten
from ilubench.specs.values import NO_VALUE, convert_value
from ilubench.specs.yaml_files import load_nodes, task_names

__all__ = [
    "Override",
    "PluginLookup",
    "apply_overrides",
    "from_file",
    "nested_settings",
    "parse_words",
]


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
    """Parse `key=value` words; a value that begins with ``~/`` is a path below the home folder.

    Raises:
        SpecError: no `=`, an empty key, several words in one, or a key given twice.
    """
    given = tuple(words)
    found: dict[tuple[str, ...], Override] = {}
    for word in given:
        key, _, text = word.partition("=")
        if not _is_word(word):
            raise SpecError(f"cannot read {word!r}", remedy=_what_to_write(word, given))
        path = tuple(key.split("."))
        if path in found:
            joined = f"write {key}={found[path].text},{text}"
            remedy = joined if _is_list(word) and len(path) == 1 else "keep one of them"
            raise SpecError(f"{key!r} is given twice", remedy=remedy)
        found[path] = Override(path, str(Path(text).expanduser()) if text[:2] == "~/" else text)
    return tuple(sorted(found.values(), key=lambda override: (len(override.path), override.path)))


_DIVIDED = re.compile(r"""^[\s'"\[\](){}]|,|[\s'"\[\](){}]$""")
"""What the items of a list that is written as words cannot have."""

_FIELDS = {**ScoreSpec.model_fields, **RunSpec.model_fields}
_KEY = re.compile(r"[^\s.=-][^\s.=]*(?:\.[^\s.=]+)*")


def _is_word(word: str) -> bool:
    key, equals, text = word.partition("=")
    if not equals or not _KEY.fullmatch(key) or (key in _FIELDS and not text.strip()):
        return False
    # templates may hold anything; they lie below `data.<role>.` and `suite.<field>.`
    free = key.startswith(("data.", "suite.")) and key.count(".") > 1
    return free or not any(f"{head}=" in text for head in _heads(text))


def _heads(text: str) -> list[str]:
    """Return what looks like the key of a further word within a value."""
    known = (*_FIELDS, "data", "attack")
    keys = re.findall(r"\s([\w.-]+)\s*=", text)
    return [key for key in keys if key.split(".")[0] in known]


def _what_to_write(word: str, words: Sequence[str]) -> str:
    """Return the words that were meant: in quotes, with blanks around `=`, or for commas."""
    meant: list[str] = []
    for one in words:
        pieces = [one] if _is_word(one) else re.sub(r"\s*=\s*", "=", one).split()
        for piece in pieces:
            before = meant[-1] if meant else ""
            if piece.startswith("--"):
                meant.append(piece.lstrip("-") + ("" if "=" in piece else "="))
            elif piece.startswith("=") or (before.endswith("=") and "=" not in piece):
                meant[-1:] = [before + piece]
            elif "=" not in piece and _is_list(before):
                meant[-1] = f"{before.rstrip(',')},{piece.strip(',')}"
            else:
                meant.append(piece)
    meant = [one.rstrip(",") for one in meant]
    if meant != list(words) and all(map(_is_word, meant)):
        return f"write {' '.join(one for one in meant if one not in words)}"
    key = word.partition("=")[0]
    example = f"{key}=<value>" if key in _FIELDS else "method=ilu"
    if re.fullmatch(r"[a-z][\w-]*", word) and word not in _FIELDS:
        heads = {"suite": "suites", "attacks": "attacks"}
        head = next((head for head, kind in heads.items() if word in task_names(kind)), "method")
        example = f"{head}={word}"
    return f"write key=value, e.g. {example}"


def _is_list(word: str) -> bool:
    key = word.partition("=")[0]
    field = _FIELDS.get(key)
    if field is None:
        return key.startswith(("method.", "attack."))
    parts = get_args(field.annotation)
    return key == "method" or tuple in (get_origin(field.annotation), *map(get_origin, parts))


def _flatten(prefix: str, node: yaml.Node, where: str) -> Iterable[tuple[str, str]]:
    """Yield dotted keys with the text that stands in the file: 0123 may be a revision."""
    line = f"{where}:{node.start_mark.line + 1}"
    if isinstance(node, yaml.SequenceNode):
        text = ",".join(_item(item, line, prefix) for item in node.value)
        yield prefix, f"[{text}]" if "." in prefix or not text else text
    elif node.tag.endswith(":null") or (prefix and node.value == []):
        remedy = "leave the field out, or write none where nothing is meant"
        raise SpecError("is blank", where=line, field=prefix, remedy=remedy)
    elif isinstance(node, yaml.MappingNode):
        for key, inner in node.value:
            yield from _flatten(f"{prefix}.{key.value}" if prefix else key.value, inner, where)
    else:
        yield prefix, node.value


def _item(node: yaml.Node, line: str, field: str) -> str:
    """Return the text of a list's item, which stays one item when the list is read as words are."""
    if not isinstance(node, yaml.ScalarNode):
        raise SpecError("a list of plain values is needed", where=line, field=field)
    if node.tag.endswith(":null") or not node.value.strip():
        raise SpecError(
            "a value of its list is blank", where=line, field=field, remedy="leave it out"
        )
    if _DIVIDED.search(node.value):
        problem = f"{shorten(node.value)} would be divided, or lose signs, in a list of words"
        raise SpecError(problem, where=line, field=field, remedy="write it in the suite's file")
    return str(node.value)


def from_file(path: Path, words: Sequence[Override] = ()) -> tuple[Override, ...]:
    """Return the overrides of a YAML file (nested or dotted keys), with ``words`` on top.

    Raises:
        SpecError: not YAML, a field is blank, or a key is given twice.
    """
    pairs = _flatten("", load_nodes(path), str(path))
    below = parse_words(f"{key}={text}" for key, text in pairs)
    merged = {override.path: override for override in (*below, *words)}
    return tuple(sorted(merged.values(), key=lambda override: (len(override.path), override.path)))


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
        nested = [key[: key.rfind(name)] + one for one in nested_settings(model, name)]
        remedy = did_you_mean(name, model.model_fields)
        remedy = f"did you mean {' or '.join(map(repr, nested))}?" if nested else remedy
        raise SpecError(f"unknown setting {name!r}", field=key, remedy=remedy)
    return model.model_fields[name]


def nested_settings(model: type[BaseModel], name: str) -> list[str]:
    """Return where a field of that name lies one level deeper."""
    return [
        f"{outer}.{name}"
        for outer, field in model.model_fields.items()
        if isinstance(field.annotation, type)
        and issubclass(field.annotation, BaseModel)
        and name in field.annotation.model_fields
    ]


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
        if depth + 1 == len(override.path):
            below = _without_replaced(annotation, below, override)
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


def _without_replaced(
    model: type[BaseModel], values: Mapping[str, JsonValue], override: Override
) -> dict[str, JsonValue]:
    """Return fields of ``model`` without those in whose place another value of a field stands."""
    name = override.path[-1]
    same = override.text == values.get(name) or override.text.lower() in NO_VALUE
    gone = set() if same else {*INSTEAD_OF.get(name, ())} & model.model_fields.keys()
    return {key: value for key, value in values.items() if key not in gone}


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
            if len(override.path) == 1:
                out = _without_replaced(model, out, override)
            out[name] = _set(field.annotation, out.get(name), override, key, 1)
    return expand(model, out, lookup)
