"""What of a mapping stays when another is laid over it: by `extends`, `<<`, settings or words."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml
from pydantic import JsonValue

__all__ = ["INSTEAD_OF", "merge_mappings", "resolve_merges"]

INSTEAD_OF: Mapping[str, tuple[str, ...]] = {
    "steps": ("epochs",),
    "epochs": ("steps",),
    "hub": ("path", "packaged", "generated", "revision", "sha256"),
    "path": ("hub", "packaged", "generated", "revision", "subset", "sha256"),
    "packaged": ("hub", "path", "revision", "sha256"),
    "generated": ("hub", "path", "revision", "subset"),
}
"""Field -> fields of what is below that mean nothing any more where it gets another value."""

_MERGE = "tag:yaml.org,2002:merge"


def merge_mappings(
    base: Mapping[str, JsonValue], over: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Return ``base`` with ``over`` on top: mappings merge, everything else is replaced.

    A field that stands in the place of others (`path` of `hub`, `steps` of `epochs`) drops them. A
    reference to another plugin (`use`) replaces the one below whole: its settings are not ours.
    """
    is_reference = set(over) <= {"use", "settings"} and "use" in over and "use" in base
    if is_reference and over["use"] != base["use"]:
        return dict(over)
    plain = {key: value for key, value in over.items() if _is_plain(value)}
    gone = _replaced(plain, {key: value for key, value in base.items() if _is_plain(value)})
    merged = {key: value for key, value in base.items() if key not in gone}
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            merged[key] = merge_mappings(below, value)
        else:
            merged[key] = value
    return merged


def _is_plain(value: object) -> bool:
    return value is not None and not isinstance(value, Mapping | list)


def _replaced(over: Mapping[str, object], base: Mapping[str, object]) -> set[str]:
    changed = (name for name, value in over.items() if base.get(name) != value)
    return {other for name in changed for other in INSTEAD_OF.get(name, ()) if other in base}


def resolve_merges(node: yaml.Node, open_nodes: tuple[yaml.Node, ...] = ()) -> None:
    """Put what `<<` names into the mappings of a document, in place, as `merge_mappings` would.

    The merge is YAML's: of the top level of a mapping alone.

    Raises:
        yaml.MarkedYAMLError: `<<` is given twice in a mapping, names none, or names its own.
    """
    if node in open_nodes:
        return
    inside = (*open_nodes, node)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            resolve_merges(item, inside)
    if not isinstance(node, yaml.MappingNode):
        return
    for _, value in node.value:
        resolve_merges(value, inside)
    given = [(key, value) for key, value in node.value if key.tag == _MERGE]
    if len(given) > 1:
        raise _wrong("`<<` is given twice; write <<: [*one, *other]", given[1][0])
    own = [pair for pair in node.value if pair[0].tag != _MERGE]
    for key, value in given:
        lists = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for below in lists:
            if not isinstance(below, yaml.MappingNode) or below in inside:
                raise _wrong("`<<` needs a mapping with fields of its own, e.g. <<: *name", key)
            own = _laid_over(below.value, own)
    node.value = own


def _wrong(problem: str, node: yaml.Node) -> yaml.MarkedYAMLError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _laid_over(below: Iterable[tuple[Any, Any]], own: list[tuple[Any, Any]]) -> list[Any]:
    """Pairs of nodes: those of ``own``, behind those of ``below`` that they leave."""
    plain = [
        {key.value: value.value for key, value in pairs if _is_scalar(key) and _is_scalar(value)}
        for pairs in (own, below)
    ]
    gone = _replaced(*plain) | {key.value for key, _ in own if _is_scalar(key)}
    return [pair for pair in below if not (_is_scalar(pair[0]) and pair[0].value in gone)] + own


def _is_scalar(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and not node.tag.endswith(":null")
