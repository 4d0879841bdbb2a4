"""A chosen setting as a suite file's `methods` section takes it."""

from collections.abc import Mapping
from typing import cast

from pydantic import JsonValue

from ilubench.loading import merge
from ilubench.plugins import PluginField, reference
from ilubench.specs import Spec

__all__ = ["suite_settings"]


def suite_settings(method: Spec, settings: Mapping[str, object]) -> dict[str, JsonValue]:
    """Return settings by path as nested fields of a method.

    A field of a wrapped method (`base.beta`) names that method; a field that excludes others
    (`train.steps`) clears them, so that what the suite's shared settings say does not stand beside
    it.

    Args:
        method: the method that has these settings.
        settings: path -> value.
    """
    found: dict[str, JsonValue] = {}
    for path in sorted(settings, key=lambda path: path.count(".")):
        found = merge(found, _nested(method, path.split(".")))
    return found


def _nested(holder: Spec, path: list[str]) -> dict[str, JsonValue]:
    name = path[0]
    field = type(holder).model_fields[name]
    group = next((m.group for m in field.metadata if isinstance(m, PluginField)), None)
    if len(path) == 1:
        cleared = getattr(type(holder), "instead_of", {}).get(name, ())
        if group is not None:
            named = reference(group, getattr(holder, name)).use
            return {name: named}
        dumped = holder.model_dump(mode="json", include={name})
        return {**dict.fromkeys(cleared), name: dumped[name]}
    inner = getattr(holder, name)
    if not isinstance(inner, Spec):  # a mapping: its keys are no fields
        dumped = holder.model_dump(mode="json", include={name})
        return {name: cast("JsonValue", dumped[name])}
    below = _nested(inner, path[1:])
    if group is None:
        return {name: below}
    return {name: {"use": reference(group, inner).use, "settings": below}}
