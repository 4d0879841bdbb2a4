"""Which roles and models a run reads."""

from collections.abc import Iterator

from ilubench.data.hub.models import TOKENIZER
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.roles import needed_roles
from ilubench.specs import DataSource, ModelSource, TargetSpec

__all__ = ["needed_models", "needed_places"]


def needed_places(experiment: Experiment) -> dict[str, DataSource]:
    """Return place -> source of the roles that are needed, inputs of their generators first.

    A place is what `data.<place>=FILE` sets.
    """
    tables, suite = experiment.tables, experiment.suite
    roles = [*needed_roles(experiment)]
    never = suite.retrain
    if never is not None and never.model is None and never.recipe is not None:
        roles += [*never.recipe.text, *never.recipe.tokenizer.text]
    found: dict[str, DataSource] = {}
    for role in dict.fromkeys(roles):
        source = tables.source(role)
        if source.generated:
            name = source.generated.split(".")[0]
            inputs = suite.all_generators()[name].inputs
            found |= {f"{name}.{key}": below for key, below in inputs.items()}
        found.setdefault(role, source)
    return found


def needed_models(experiment: Experiment) -> Iterator[tuple[str, ModelSource | TargetSpec]]:
    """Yield field -> model that a run loads, or trains by a recipe."""
    suite = experiment.suite
    yield ("suite.target.model", suite.target.model or suite.target)
    if suite.target.tokenizer is not None:
        yield (TOKENIZER, suite.target.tokenizer)
    retrain = suite.retrain
    if retrain is not None and experiment.run.never_knew and experiment.attacks:
        yield ("suite.retrain.model", retrain.model or retrain)
    for name in type(experiment.method).model_fields:
        value = getattr(experiment.method, name)
        if isinstance(value, ModelSource):
            yield (f"method.{name}", value)
