"""What a tuning takes from a suite, and what it gives back to the suite's `methods`."""

from collections.abc import Mapping
from typing import Any, cast

from pydantic import JsonValue

from ilubench.interfaces.discovery import PluginField, name_plugin
from ilubench.records.keys import digest
from ilubench.records.likeness import STATED
from ilubench.specs import Spec, SuiteSpec
from ilubench.specs.merging import INSTEAD_OF, merge_mappings

__all__ = ["suite_digest", "suite_settings"]

_SAID_ELSEWHERE = {"name", "version", "methods", "tuning", "tuning_seeds"}
"""What a tuning's record says itself: of `methods` and `tuning`, what they come to."""

_NO_MATTER = {"title", "description", "citation", "retrain", "core_unseen", "seeds", "gates"}
"""What changes no figure of a tuning."""


def suite_digest(suite: SuiteSpec) -> str:
    """Return a digest of what a tuning's figures depend on in its suite, besides the methods.

    Models, data, scorers, metrics, lengths and types; of the attacks only the data, on which
    methods may train. So it stays as it is when the chosen settings are written into `methods`.
    It covers what the suite says; what is in files, the keys of the jobs cover.
    """
    left_out: dict[str, Any] = dict.fromkeys(_SAID_ELSEWHERE | _NO_MATTER | {"attacks"}, True)
    kept = suite.model_dump(mode="json", exclude={**left_out, **STATED})
    data: dict[str, JsonValue] = {
        name: spec.model_dump(mode="json", include={"data", "generators"})
        for name, spec in sorted(suite.attacks.items())
    }
    return digest({**kept, "attacks": data})


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
        found = merge_mappings(found, _nested(method, path.split(".")))
    return found


def _nested(holder: Spec, path: list[str]) -> dict[str, JsonValue]:
    name = path[0]
    field = type(holder).model_fields[name]
    group = next((m.group for m in field.metadata if isinstance(m, PluginField)), None)
    if len(path) == 1:
        cleared = [n for n in INSTEAD_OF.get(name, ()) if n in type(holder).model_fields]
        if group is not None:
            named = name_plugin(group, getattr(holder, name)).use
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
    return {name: {"use": name_plugin(group, inner).use, "settings": below}}
