"""A suite's scorers: made, and whether they have what the suite wants of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from ilubench.errors import SpecError, did_you_mean
from ilubench.interfaces import Scorer
from ilubench.interfaces.discovery import create_plugin
from ilubench.records.ranges import is_beyond, range_of, range_text
from ilubench.specs import DataSource, Estimator, FineTuningAccuracySpec, MetricSpec, SuiteSpec

__all__ = ["check_chats", "check_metric", "create_scorers"]


def check_metric(scorer: Scorer, spec: MetricSpec | FineTuningAccuracySpec, where: str) -> None:
    """Raise unless a scorer has a metric that is a mean over items, and can have the chance level.

    Raises:
        SpecError: it has not, or cannot.
    """
    known = scorer.metrics()
    if spec.metric not in known:
        remedy = did_you_mean(spec.metric, known)
        raise SpecError(f"the scorer has no metric {spec.metric!r}", where=where, remedy=remedy)
    if known[spec.metric] != Estimator():
        problem = f"{spec.metric!r} is not a mean over items ({known[spec.metric].kind})"
        remedy = (
            "a row's or composite's must be one; the scorer itself may stay: its score is shown"
        )
        raise SpecError(problem, where=where, remedy=remedy)
    bounds = range_of(scorer.ranges, spec.metric)
    said = spec.chance if "chance" in spec.model_fields_set else None
    if isinstance(said, float) and is_beyond(said, bounds):
        problem = f"chance is {said:g}, no score of {spec.metric!r}: {range_text(bounds)}"
        remedy = "give the raw score of a model that knows nothing, no percentage"
        raise SpecError(problem, where=where, remedy=remedy)


def check_chats(scorer: Scorer, data: Mapping[str, DataSource], where: str) -> None:
    """Raise where a scorer that asks no chat is given rows that are one.

    Raises:
        SpecError: names the role.
    """
    for role in scorer.item_roles():
        if not scorer.chats and role in data and data[role].chat:
            problem = f"{type(scorer).__name__} asks no chat: it has its text go on as it stands"
            remedy = "leave chat out there, or give the scorer a role without"
            raise SpecError(problem, where=where, field=f"data.{role}.chat", remedy=remedy)


def _check_averaged(scorer: Scorer, metric: str, said: MetricSpec | None, where: str) -> None:
    """Raise where a harmonic mean of a metric says nothing: of scores below 0, or better so."""
    way = said.direction if said else scorer.directions().get(metric)
    low, _ = scorer.ranges.get(metric, (0.0, None))
    problem = ""
    if low is None or low < 0:
        problem = "its scores may be below 0"
    elif way == "lower":
        problem = "a lower score is the better one"
    if problem:
        remedy = "name metrics of which higher means better"
        raise SpecError(f"no harmonic mean of {metric!r}: {problem}", where=where, remedy=remedy)


def create_scorers(suite: SuiteSpec, source: Path) -> dict[str, Scorer]:
    """Return a suite's scorers, by name; ``source`` is named in errors.

    Raises:
        SpecError: a setting is wrong, or a scorer lacks a metric of the suite.
        PluginError: one is missing or broken.
    """
    scorers = {
        name: cast("Scorer", create_plugin("scorers", ref, source=f"{source}: scorers.{name}"))
        for name, ref in suite.scorers.items()
    }
    for spec in suite.metrics:
        for name in spec.scorers:
            check_metric(scorers[name], spec, f"{source}: {spec.label}")
    for name, scorer in scorers.items():
        check_chats(scorer, suite.data, f"{source}: scorers.{name}")
    for composite in suite.composites:
        for name, metric in composite.metrics:
            where = f"{source}: {composite.label}"
            spec = MetricSpec(label=composite.label, scorer=name, metric=metric)
            check_metric(scorers[name], spec, where)
            if composite.kind == "harmonic_mean":
                _check_averaged(scorers[name], metric, suite.metric_of(name, metric), where)
    return scorers
