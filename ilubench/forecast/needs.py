"""Which roles and models a run reads."""

from collections.abc import Iterator
from typing import Literal

from ilubench.data.hub.models import TOKENIZER
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.roles import needed_roles
from ilubench.runs.stages.untouched import UNTOUCHED
from ilubench.specs import DataSource, ModelSource, SuiteSpec, TargetSpec

__all__ = ["needed_models", "needed_places"]


def needed_places(*experiments: Experiment) -> dict[str, DataSource]:
    """Return place -> source of the roles that are needed, inputs of their generators first.

    A place is what `data.<place>=FILE` sets.
    """
    tables, suite = experiments[0].tables, experiments[0].suite
    roles = [role for one in experiments for role in needed_roles(one)]
    found: dict[str, DataSource] = {}
    for role in dict.fromkeys(roles):
        source = tables.source(role)
        if source.generated:
            name = source.generated.split(".")[0]
            inputs = suite.all_generators()[name].inputs
            found |= {f"{name}.{key}": below for key, below in inputs.items()}
        found.setdefault(role, source)
    return found


def needed_models(*experiments: Experiment) -> Iterator[tuple[str, ModelSource | TargetSpec]]:
    """Yield field -> model that runs load, or train by a recipe; each once."""
    experiment, suite = experiments[0], experiments[0].suite
    yield ("suite.target.model", suite.target.model or suite.target)
    if suite.target.tokenizer is not None:
        yield (TOKENIZER, suite.target.tokenizer)
    begun = _pretrained(suite, "target", suite.target)
    retrain = suite.retrain
    if retrain is not None and experiment.measures_retrain:
        yield ("suite.retrain.model", retrain.model or retrain)
        begun |= _pretrained(suite, "retrain", retrain)
    source = suite.untouched_model if suite.measures_chance else None
    if source is not None and source not in begun.values():
        begun[UNTOUCHED] = source
    yield from begun.items()
    found: list[tuple[str, ModelSource]] = []
    for method in (one.method for one in experiments):
        for name in type(method).model_fields:
            value = getattr(method, name)
            if isinstance(value, ModelSource) and (f"method.{name}", value) not in found:
                found.append((f"method.{name}", value))
    yield from found


def _pretrained(
    suite: SuiteSpec, name: Literal["target", "retrain"], model: TargetSpec
) -> dict[str, ModelSource]:
    """Field -> the weights that a recipe begins with, where the model is made by it."""
    if model.model is None and model.recipe is not None and model.recipe.init is not None:
        return {suite.init_field(name): model.recipe.init}
    return {}
