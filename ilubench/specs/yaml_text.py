"""YAML texts: read as users expect them and within bounds, and written so that they are read so."""

import math
import re
from collections.abc import Hashable
from typing import Any, ClassVar

import yaml

from ilubench.specs.merging import resolve_merges
from ilubench.specs.untrusted import MAX_DEPTH, MAX_WHOLE

__all__ = ["MAX_YAML", "YamlLoader", "compose_yaml", "parse_yaml", "write_yaml"]


class YamlLoader(yaml.SafeLoader):
    """YAML 1.1 as users expect it: ``1e-5`` is a number, a key given twice an error.

    Attributes:
        own: how further tags begin that it reads.
    """

    own: ClassVar[tuple[str, ...]] = ()
    _composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Return the next node, until there are too many: reading on would take long."""
        node = super().compose_node(parent, index)
        self._composed += 1
        if node is not None and self._composed > MAX_NODES:
            raise _too_many(node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping, each key of which is hashable and there once."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                problem = "a key must be plain text (quote text that begins with a brace)"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: Any) -> int | float:  # noqa: ANN401
        """Return a number that is finite and, if whole, of 64 bits."""
        make = self.construct_yaml_int if node.tag.endswith("int") else self.construct_yaml_float
        try:
            value: int | float = make(node)
            if math.isfinite(value) and (isinstance(value, float) or abs(value) < MAX_WHOLE):
                return value
        except (ValueError, LookupError, OverflowError):  # 5,000 digits; !!int of a word
            pass
        problem = f"{node.value[:40]!r} is no number of at most 64 bits"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


_TAG = "tag:yaml.org,2002:"
_FLOAT = r"[-+]?(?:\d[\d_]*\.\d*|\.\d+|(?:\d[\d_]*(?:\.\d*)?|\.\d+)[eE][-+]?\d+)"
_PLAIN = {
    "int": (r"[-+]?(?:0|[1-9][\d_]*)|0x[\da-fA-F]+", "-+0123456789"),
    "float": (_FLOAT, "-+0123456789."),
}
"""Kinds of numbers: how they are written, and their first signs. 012, 1:30 and dates are text."""

YamlLoader.yaml_implicit_resolvers = {
    sign: [pair for pair in pairs if pair[0] in (f"{_TAG}bool", f"{_TAG}null", f"{_TAG}merge")]
    for sign, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, (_pattern, _signs) in _PLAIN.items():
    YamlLoader.add_constructor(_TAG + _kind, YamlLoader.construct_number)
    YamlLoader.add_implicit_resolver(_TAG + _kind, re.compile(rf"^(?:{_pattern})$"), list(_signs))

_BOOL, _WORDS = f"{_TAG}bool", yaml.SafeLoader.bool_values


class _Dumper(yaml.SafeDumper):
    """Quotes what this or any other reader takes for a number."""


def _write_text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    # single quotes would fold these line breaks into others
    style = '"' if re.search("[\x85\u2028\u2029]", value) else None
    return dumper.represent_scalar(f"{_TAG}str", value, style=style)


_Dumper.add_representer(str, _write_text)
_Dumper.add_implicit_resolver(f"{_TAG}float", re.compile(rf"^(?:{_FLOAT})$"), list("-+0123456789."))

_KINDS = {f"{_TAG}{kind}" for kind in ("map", "seq", "str", "bool", "null", "merge", *_PLAIN)}

MAX_YAML = 500_000
"""Bytes of a YAML file: the settings of 200 attacks."""

MAX_NODES = 60_000
"""Keys and values of a YAML file, those that an alias repeats counted each time; PyYAML reads so
many in about 2 s."""


def parse_yaml(text: str) -> object:
    """Return what a YAML text holds.

    Raises:
        ValueError: it is no YAML, or more than a file may hold.
    """
    try:
        return compose_yaml(text)[1]
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError("no YAML") from error


def write_yaml(value: object) -> str:
    """Return what `load_yaml` reads as the same: text that looks like a number in quotes."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def compose_yaml(text: str, kind: type[YamlLoader] = YamlLoader) -> tuple[yaml.Node | None, object]:
    """Return the nodes of a YAML text, each with its line, and what it holds.

    Raises:
        yaml.YAMLError: it is no YAML, or more than a file may hold.
        RecursionError: it is nested too deeply.
    """
    loader = kind(text)  # refuses characters that YAML does not have
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _count(node, {}, kind.own)
        resolve_merges(node)
        return node, loader.construct_document(node)
    finally:
        loader.dispose()


def _count(
    node: yaml.Node, known: dict[yaml.Node, int], own: tuple[str, ...], depth: int = 0
) -> int:
    """Return the values in a node, and refuse what would not end, or is no plain value."""
    problem = ""
    if not (node.tag in _KINDS or node.tag.startswith(own)) or (
        node.tag == _BOOL and str(node.value).lower() not in _WORDS
    ):
        problem = f"the tag {node.tag.removeprefix(_TAG)[:40]!r} means nothing here"
    elif depth > MAX_DEPTH:
        problem = f"nested deeper than {MAX_DEPTH}"
    elif known.setdefault(node, -1) == -2:
        problem = "an alias names what it stands in"
    if not problem and known[node] < 0 and not isinstance(node, yaml.ScalarNode):
        known[node] = -2  # while what is in it is counted
        pairs = isinstance(node, yaml.MappingNode)
        inner = [one for pair in node.value for one in pair] if pairs else node.value
        known[node] = 1 + sum(_count(one, known, own, depth + 1) for one in inner)
        if known[node] > MAX_NODES:
            raise _too_many(node.start_mark)
    if problem:
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return max(1, known[node])


def _too_many(mark: yaml.Mark) -> yaml.MarkedYAMLError:
    problem = f"more than {MAX_NODES} values, with those that aliases repeat"
    return yaml.constructor.ConstructorError(None, None, problem, mark)
