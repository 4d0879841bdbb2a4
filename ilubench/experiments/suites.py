"""A suite's YAML, `extends` resolved and the words' changes made -> a SuiteSpec."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, JsonValue

from ilubench.errors import SpecError, did_you_mean
from ilubench.experiments.method_settings import check_methods, method_variants
from ilubench.specs import DataSource, ModelSource, PluginRef, SuiteSpec
from ilubench.specs.overrides import Override, PluginLookup, apply_overrides
from ilubench.specs.suite_files import load_suite
from ilubench.specs.yaml_files import validate_spec

__all__ = ["NO_PLUGINS", "change_suite", "read_suite", "suite_variants"]


def _no_plugins(group: str, use: str) -> type[BaseModel]:
    raise SpecError(f"{group} {use!r} cannot be set here")


NO_PLUGINS = PluginLookup(_no_plugins, lambda _group, _use: {})
"""For specs whose fields are no plugins that could be set one by one."""


def read_suite(
    name: str,
    overrides: Sequence[Override] = (),
    data: Sequence[Override] = (),
    target: ModelSource | None = None,
) -> tuple[SuiteSpec, Path]:
    """Return a suite with changes, and the file that it came from.

    Args:
        name: of a suite, or its file.
        overrides: what follows `suite.`.
        data: what follows `data.`: a role's local file, or a field of its source.
        target: a model in the place of the suite's.

    Raises:
        SpecError: no such suite or attack, it is wrong, or a change is.
    """
    raw, path = load_suite(name)
    validate_spec(SuiteSpec, raw, source=path)  # the file is right before it is changed
    if target is not None:
        raw["target"] = {"model": target.model_dump(mode="json")}
    suite = change_suite(raw, overrides, data, source=f"suite {name}")
    check_methods(suite, path)
    return suite, path


def change_suite(
    raw: dict[str, JsonValue],
    overrides: Sequence[Override],
    data: Sequence[Override],
    *,
    source: str,
) -> SuiteSpec:
    """Return a suite with changes.

    Args:
        raw: its fields.
        overrides: what follows `suite.`.
        data: what follows `data.`.
        source: of the fields, for messages.

    Raises:
        SpecError: a field or a change is wrong.
    """
    if data:
        raw = _data_overrides(raw, data)
    if overrides:
        raw = _other_weights(raw, overrides)
        raw = apply_overrides(SuiteSpec, raw, overrides, NO_PLUGINS, prefix="suite.")
    return validate_spec(SuiteSpec, raw, source=source)


def suite_variants(name: str) -> dict[str, PluginRef]:
    """Return the labels of a suite's `methods`: what each stands for, and its own settings.

    Raises:
        SpecError: no such suite, or it is wrong.
    """
    suite, _ = read_suite(name)
    return method_variants(suite)


# --- inside ---


def _sources(raw: Mapping[str, JsonValue]) -> dict[str, dict[str, Any]]:
    """Return `data.<place>` -> raw source: roles, those of attacks, the inputs of generators.

    An attack whose role is generated may have a generator of its own name; then its input, which
    has the rows of the hub, is what a local file stands for.
    """
    suite = cast("dict[str, Any]", raw)
    places = dict(suite.get("data") or {})
    attacks = {name: attack or {} for name, attack in (suite.get("attacks") or {}).items()}
    for owner, attack in attacks.items():
        places |= {f"{owner}.{name}": s for name, s in (attack.get("data") or {}).items()}
    groups = [suite.get("generators"), *(attack.get("generators") for attack in attacks.values())]
    for group in groups:
        for owner, values in (group or {}).items():
            places |= {f"{owner}.{name}": s for name, s in (values.get("inputs") or {}).items()}
    return places


def _data_overrides(
    raw: dict[str, JsonValue], overrides: Sequence[Override]
) -> dict[str, JsonValue]:
    """Point roles at local files, or set fields of their sources."""
    places = _sources(raw)
    for override in overrides:
        heads = (".".join(override.path[:length]) for length in range(len(override.path), 0, -1))
        role = next((head for head in heads if head in places), None)
        if role is None:
            remedy = did_you_mean(override.key, places)
            raise SpecError(
                f"unknown data role {override.key!r}", field=f"data.{override.key}", remedy=remedy
            )
        source = places[role]
        if role == override.key:
            for name in ("hub", "revision", "subset", "generated"):
                source.pop(name, None)
            source["path"] = override.text
        else:
            change = override.below(role.count(".") + 1)
            prefix = f"data.{role}."
            source.update(apply_overrides(DataSource, source, (change,), NO_PLUGINS, prefix=prefix))
    return raw


def _other_weights(
    raw: dict[str, JsonValue], overrides: Sequence[Override]
) -> dict[str, JsonValue]:
    """Drop where the suite's models come from when the overrides say another place.

    Other weights bring their own tokenizer: the suite's stays only where the overrides speak of it.
    """
    places = ("hub", "path", "packaged")
    old = (*places, "revision", "sha256", "license", "gated")
    changed: dict[str, JsonValue] = {}
    for name in ("target", "retrain"):
        told = {o.path[1:] for o in overrides if o.path[0] == name}
        given = dict(cast("Mapping[str, Any]", raw.get(name) or {}))
        if any(("model", place) in told for place in places) and all(
            path[:1] != ("tokenizer",) for path in told
        ):
            given.pop("tokenizer", None)
        for part in ("model", "tokenizer"):
            if given.get(part) and any((part, place) in told for place in places):
                given[part] = {k: value for k, value in given[part].items() if k not in old}
        recipe = given.get("recipe") or {}
        if recipe.get("init") and any(("recipe", "init", place) in told for place in places):
            init = {k: value for k, value in recipe["init"].items() if k not in old}
            given["recipe"] = {**recipe, "init": init}
        changed |= {name: given} if given else {}
    return {**raw, **changed}
