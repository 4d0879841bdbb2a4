"""What is tried of a method where the suite does not say it: what it proposes for the model."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import yaml
from pydantic import JsonValue

from ilubench.errors import SpecError
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.method_settings import stands_for
from ilubench.experiments.method_words import create_method
from ilubench.interfaces.discovery import find_plugin
from ilubench.runs.stages.workbench import make_bench
from ilubench.specs import Plain, PluginRef, SearchSpec

__all__ = ["propose_search", "search_text"]


def propose_search(suite: Experiment, name: str) -> tuple[str, SearchSpec]:
    """Return a label, and the search that a method proposes for the suite's model.

    Args:
        suite: the suite, resolved.
        name: a method, or a label of the suite's `methods`, whose own settings are kept.

    Raises:
        SpecError: the method trains nothing, or proposes nothing; or a setting is wrong.
        PluginError: it is unknown or broken.
        ModelError: the model's configuration cannot be read.
    """
    ref = stands_for(suite.suite, PluginRef(use=name))
    label = name.rpartition(":")[2].lower()
    field = f"tuning.searches.{label}"
    if not find_plugin("methods", ref.use).trains:
        problem = f"{ref.use} trains nothing, so that there is nothing to tune"
        raise SpecError(problem, field=field, remedy="name another method")
    method = create_method(suite.suite, ref, (), Path(suite.run.suite))
    found = method.propose_search(make_bench(suite).target_config)
    if found is None:
        problem = f"{ref.use} proposes no search, and the suite says none"
        remedy = "write what is to be tried there, or define propose_search in its class"
        raise SpecError(problem, field=field, remedy=remedy)
    own = {path: value for path, value in _paths(ref.settings) if path not in found.space}
    use = ref.use if ref.use != label else None
    return label, SearchSpec(use=use, fixed={**own, **found.fixed}, space=found.space)


def _paths(
    settings: Mapping[str, JsonValue], before: str = ""
) -> Iterator[tuple[str, Plain | tuple[Plain, ...]]]:
    """Yield nested settings by their paths; a plugin's name by the path of its field."""
    for name, value in settings.items():
        path = f"{before}.{name}" if before else name
        if isinstance(value, Mapping) and "use" in value:
            yield path, str(value["use"])
            yield from _paths(cast("dict[str, JsonValue]", value.get("settings") or {}), path)
        elif isinstance(value, Mapping):
            yield from _paths(value, path)
        elif isinstance(value, list):
            yield path, cast("tuple[Plain, ...]", tuple(value))
        else:
            yield path, value


def search_text(searches: Mapping[str, SearchSpec]) -> str:
    """Return searches as a suite file has them.

    Args:
        searches: by label.
    """
    found: dict[str, JsonValue] = {}
    for label, search in searches.items():
        said = search.model_dump(mode="json", exclude_defaults=True)
        found[label] = said if len(said) > 1 else said["space"]
    return yaml.safe_dump(
        {"tuning": {"searches": found}}, sort_keys=False, default_flow_style=None
    ).rstrip()
