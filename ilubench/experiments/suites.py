"""A suite's YAML, `extends` resolved and the words' changes made -> a SuiteSpec."""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, JsonValue

from ilubench.errors import SpecError, did_you_mean
from ilubench.experiments.method_settings import check_methods, method_variants
from ilubench.specs import AttackSpec, DataSource, ModelSource, PluginRef, SuiteSpec
from ilubench.specs.overrides import Override, PluginLookup, apply_overrides
from ilubench.specs.protocols import with_own_protocols
from ilubench.specs.suite_files import attack_name, load_suite
from ilubench.specs.yaml_files import validate_spec

__all__ = ["NO_PLUGINS", "change_suite", "check_recipes", "read_suite", "suite_variants"]


def _no_plugins(group: str, use: str) -> type[BaseModel]:
    raise SpecError(f"{group} {use!r} cannot be set here")


NO_PLUGINS = PluginLookup(_no_plugins, lambda _group, _use: {})
"""For specs whose fields are no plugins that could be set one by one."""


def read_suite(
    name: str,
    overrides: Sequence[Override] = (),
    data: Sequence[Override] = (),
    target: ModelSource | None = None,
    attacks: Sequence[str] = (),
) -> tuple[SuiteSpec, Path]:
    """Return a suite with changes, and the file that it came from.

    Args:
        name: of a suite, or its file.
        overrides: what follows `suite.`.
        data: what follows `data.`: a role's local file, or a field of its source.
        target: a model in the place of the suite's.
        attacks: names or files; those that the suite has not it gets, shipped ones or a file's.

    Raises:
        SpecError: no such suite or attack, it is wrong, or a change is.
    """
    raw, path = load_suite(name, attacks)
    for word in attacks:
        if attack_name(word) != word and ".py:" not in word:  # a file of its own
            own = cast("Any", raw)["attacks"][attack_name(word)]
            validate_spec(AttackSpec, own, source=Path(word))
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
    before = copy.deepcopy(raw)
    if data:
        raw = _data_overrides(raw, data)
    if overrides:
        _forget_stated(raw, overrides)
        raw = apply_overrides(SuiteSpec, raw, overrides, NO_PLUGINS, prefix="suite.")
    return validate_spec(SuiteSpec, with_own_protocols(before, raw), source=source)


def check_recipes(suite: SuiteSpec, overrides: Sequence[Override]) -> None:
    """Refuse words on a recipe that makes nothing, since weights are given.

    Args:
        suite: with the words' changes.
        overrides: what follows `suite.`.

    Raises:
        SpecError: names the word, and what would make it count.
    """
    for override in overrides:
        name = override.path[0]
        given = suite.unused_recipes.get(name)
        if given is not None and override.path[1:2] == ("recipe",):
            problem = f"the {name} model's weights are given ({given}), and no recipe makes them"
            remedy = f"add suite.{name}.model=none to make them by the recipe"
            if any(one.path[:2] == (name, "model") for one in overrides):
                remedy = f"leave one of the two out, this or suite.{name}.model"
            raise SpecError(problem, field=f"suite.{override.key}", remedy=remedy)


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
        source, change = places[role], override.below(role.count(".") + 1)
        if role == override.key:
            change = Override(("path",), override.text)
        prefix = f"data.{role}."
        changed = apply_overrides(DataSource, source, (change,), NO_PLUGINS, prefix=prefix)
        source.clear()
        source.update(changed)
    return raw


def _forget_stated(raw: Mapping[str, JsonValue], overrides: Sequence[Override]) -> None:
    """Drop what a suite states of its models' files where the overrides name other models.

    Other weights bring their own tokenizer: the suite's stays only where the overrides speak of it.
    """
    models = ("target", "retrain", "untouched")
    for override in overrides:
        *above, name = override.path
        if name not in ("hub", "path", "packaged") or above[:1] not in ([one] for one in models):
            continue
        holder: Any = raw
        for part in above:
            holder = (holder or {}).get(part)
        for stated in ("license", "gated", "about"):
            (holder or {}).pop(stated, None)
        own = (other.path[:2] == (above[0], "tokenizer") for other in overrides)
        if above[1:] == ["model"] and not any(own):
            cast("Any", raw.get(above[0]) or {}).pop("tokenizer", None)
