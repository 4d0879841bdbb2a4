"""What a suite's `methods` say: settings of methods, and variants of them under labels."""

import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, JsonValue

from ilubench.errors import PluginError, SpecError, did_you_mean
from ilubench.interfaces.discovery import PluginField, find_plugin, list_entries
from ilubench.interfaces.sources import list_settings
from ilubench.specs import FromSuite, PluginRef, RecipeSpec, SuiteSpec
from ilubench.specs.merging import merge_mappings

__all__ = [
    "check_methods",
    "check_suite_models",
    "made_by_recipe",
    "method_settings",
    "method_variants",
    "stands_for",
]

_SHARED = "default"
"""The entry whose settings all methods share."""

_LABEL = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def method_variants(suite: SuiteSpec) -> dict[str, PluginRef]:
    """Return label -> the method that it stands for, and the label's own settings.

    `ilu-control: {use: ilu, penalty: cross_entropy}` is the method `ilu` with the suite's settings
    for `ilu` and, over them, the variant's.
    """
    return {
        label: PluginRef(use=str(own["use"]), settings={k: v for k, v in own.items() if k != "use"})
        for label, own in suite.methods.items()
        if "use" in own
    }


def check_methods(suite: SuiteSpec, where: Path | str) -> None:
    """Find names in a suite's `methods` that mean nothing, or two things; no plugin is imported.

    Args:
        suite: the suite.
        where: its file, for messages.

    Raises:
        SpecError: a label that is the name of a method, so that it would stand in its place (for
            `none`: in the original model's); a label of a label; or a name of no method.
    """
    installed, labels = list_entries("methods"), method_variants(suite)
    for name in suite.methods:
        use = labels[name].use if name in labels else None
        wrong = _entry(name, installed) if use is None else _label(name, use, installed, labels)
        if wrong is not None:
            problem, remedy = wrong
            field = f"methods.{name}"
            raise SpecError(problem, where=str(where), field=field, remedy=remedy)


def _entry(name: str, installed: Mapping[str, str]) -> tuple[str, str] | None:
    """Return what is wrong with an entry of settings, and the remedy."""
    if name in installed or name == _SHARED or ":" in name:  # a method may be given by its file
        return None
    remedy = f"{did_you_mean(name, [*installed, _SHARED])} (a variant of a method needs `use`)"
    return "no method of this name is installed", remedy


def _label(
    name: str, use: str, installed: Mapping[str, str], labels: Mapping[str, PluginRef]
) -> tuple[str, str] | None:
    """Return what is wrong with a variant's label or `use`, and the remedy."""
    if name in installed:
        problem = f"this is the name of a method, and would stand for {use!r} in its place"
        return problem, f"give the variant a label of its own, e.g. {use}-2, or leave `use` out"
    if name == _SHARED:
        return "these are the settings that all methods share, no variant", "leave `use` out"
    if not _LABEL.fullmatch(name):
        return "this cannot be a label", "use lower case letters, digits, - and _, at most 64"
    if use in labels:
        remedy = f"write use: {labels[use].use}" if use != name else "name the method in `use`"
        return f"`use` is {use!r}, a label; a variant is one of a method", remedy
    if use not in installed and ":" not in use:
        return f"`use` is {use!r}, no installed method", did_you_mean(use, installed)
    return None


def stands_for(suite: SuiteSpec, ref: PluginRef) -> PluginRef:
    """Return the method that a name asks for: itself, or what it is a label of.

    Raises:
        PluginError: neither a method nor a label of the suite.
    """
    labels = method_variants(suite)
    if ref.use in labels:
        own = labels[ref.use]
        return PluginRef(use=own.use, settings=merge_mappings(own.settings, ref.settings))
    installed = list_entries("methods")
    if ref.use not in installed and ":" not in ref.use:
        remedy = _joined(ref.use, installed) or did_you_mean(ref.use, [*installed, *labels])
        raise PluginError(f"unknown method {ref.use!r}; {remedy}")
    return ref


def _joined(name: str, installed: Mapping[str, str]) -> str:
    """Return the words for a method on a base, where a name joins two, as `npo+sam` does."""
    parts = [part for part in re.split(r"[\s,+/&_-]+|\(|\)", name.casefold()) if part]
    if len(parts) != 2 or not set(parts) <= set(installed):
        return ""
    wraps = [p for p in parts if any(s.name == "base" for s in list_settings(installed[p]))]
    if not wraps:
        return f"a run of each is method={parts[0]},{parts[1]}"
    holder = wraps[0] if len(wraps) == 1 else parts[1]
    base = next(part for part in parts if part != holder)
    return f"write method={holder} method.base={base}"


def method_settings(suite: SuiteSpec, use: str) -> dict[str, JsonValue]:
    """Return a method's settings in a suite: the shared ones, its models, the method's own.

    Args:
        suite: the suite.
        use: the method, no label.

    Raises:
        PluginError: the method is missing or broken.
    """
    method = find_plugin("methods", use)
    own, shared = suite.methods.get(use, {}), suite.methods.get(_SHARED, {})
    fields = method.model_fields
    marks = [mark for field in fields.values() for mark in field.metadata]
    lent = {name for mark in marks if isinstance(mark, PluginField) for name in mark.lends}
    mine = {key: value for key, value in shared.items() if key in fields and key not in lent}
    return merge_mappings({**mine, **_suite_models(suite, method)}, own)


def _suite_models(suite: SuiteSpec, method: type[BaseModel]) -> dict[str, JsonValue]:
    """Return the fields of a method that are a model of the suite, as far as it has weights."""
    found: dict[str, JsonValue] = {}
    for name, mark in _marked(method):
        given = getattr(suite, mark.model)
        if given is not None and given.model is not None:
            found[name] = given.model.model_dump(mode="json")
    return found


def _marked(method: type[BaseModel]) -> list[tuple[str, FromSuite]]:
    fields = method.model_fields.items()
    return [(n, mark) for n, field in fields for mark in field.metadata if type(mark) is FromSuite]


def check_suite_models(
    suite: SuiteSpec, method: type[BaseModel], settings: Mapping[str, JsonValue]
) -> None:
    """Raise where a method needs a model that the suite has neither weights nor a recipe of.

    Raises:
        SpecError: says how to give them.
    """
    for name, mark in _marked(method):
        if name not in settings and getattr(suite, mark.model) is None:
            problem = f"suite {suite.name} has no `{mark.model}` weights, and no recipe of them"
            remedy = f"give a folder: suite.{mark.model}.model.path=FOLDER"
            raise SpecError(problem, field=f"method.{name}", remedy=remedy)


def made_by_recipe(suite: SuiteSpec, method: BaseModel) -> RecipeSpec | None:
    """Return the recipe by which a method's model of the suite is made; None where it has weights.

    Such a method has nothing to compute itself: its result is that model.
    """
    for name, mark in _marked(type(method)):
        given = getattr(suite, mark.model)
        if getattr(method, name) is None and given is not None:
            recipe: RecipeSpec | None = given.recipe
            return recipe
    return None
