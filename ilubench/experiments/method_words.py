"""What words say of methods: which ones, and their settings."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from ilubench.errors import PluginError, SpecError
from ilubench.experiments.method_settings import check_suite_models, method_settings
from ilubench.interfaces import Method
from ilubench.interfaces.discovery import PluginField, create_plugin, find_plugin
from ilubench.specs import PluginRef, SuiteSpec
from ilubench.specs.merging import merge_mappings
from ilubench.specs.overrides import Override, PluginLookup, apply_overrides
from ilubench.specs.values import convert_value

__all__ = ["check_shared", "create_method", "named_methods", "naming_method"]


def named_methods(text: str) -> list[PluginRef]:
    """Return the methods that `method=A,B` names.

    Raises:
        SpecError: none is named.
    """
    names = cast("list[str]", convert_value(tuple[str, ...], text, "method"))
    if not names:
        raise SpecError("no method is given", field="method", remedy="write method=ilu")
    return [PluginRef(use=name) for name in names]


@contextmanager
def naming_method(label: str) -> Iterator[None]:
    """Say of errors within which of several methods is meant; an empty label adds nothing."""
    try:
        yield
    except SpecError as error:
        raise error.at(error.where or (f"method {label}" if label else "")) from error


def check_shared(methods: Mapping[str, PluginRef], overrides: Sequence[Override]) -> None:
    """Refuse a setting that only some of the methods have.

    Args:
        methods: by the names that they were asked for.
        overrides: the words, without `method.`

    Raises:
        SpecError: names one that lacks it, and the words that set it for another alone.
    """
    fields = {label: find_plugin("methods", ref.use).model_fields for label, ref in methods.items()}
    for override in overrides:
        name = override.path[0]
        have = [label for label, known in fields.items() if name in known]
        lack = [label for label in fields if label not in have]
        if have and lack:
            problem = f"{lack[0]} has no setting {name!r}, and a word is for all methods"
            # a suite's word takes no method by its file, and nothing below another plugin's name
            marks = fields[have[0]][name].metadata if len(override.path) > 1 else []
            apart = ":" in have[0] or any(isinstance(mark, PluginField) for mark in marks)
            remedy = f"for {have[0]} alone: suite.methods.{have[0]}.{override.key}={override.text}"
            remedy = f"run {have[0]} by itself" if apart else remedy
            raise SpecError(problem, field=f"method.{override.key}", remedy=remedy)


def create_method(
    suite: SuiteSpec, ref: PluginRef, overrides: Sequence[Override], source: Path
) -> Method:
    """Return a method with a suite's settings for it, and those of words over them.

    Args:
        suite: its settings and its models.
        ref: the method.
        overrides: the words, without `method.`
        source: the suite's file, for messages.

    Raises:
        SpecError: an unknown setting or a wrong value, or a model that the suite lacks.
        PluginError: the method is missing or broken, or is none.
    """
    lookup = PluginLookup(
        find_plugin, lambda group, use: method_settings(suite, use) if group == "methods" else {}
    )
    found = find_plugin("methods", ref.use)
    if not issubclass(found, Method):
        raise PluginError(f"{ref.use!r} is not a method (a subclass of ilubench.interfaces.Method)")
    settings = merge_mappings(method_settings(suite, ref.use), ref.settings)
    settings = apply_overrides(found, settings, overrides, lookup, prefix="method.")
    check_suite_models(suite, found, settings)
    label = f"method {ref.use} (settings of {source.name} and of the words)"
    return cast(
        "Method", create_plugin("methods", PluginRef(use=ref.use, settings=settings), source=label)
    )
