"""Chance levels as a run measured them, and whether a score is better. Pure."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.records.results import ScoreSummary
from ilubench.specs import MetricSpec, SuiteSpec, turned
from ilubench.statistics.intervals import mean_half_width

__all__ = ["at_chance", "chance_text", "sampled_chances", "with_chances"]


def sampled_chances(suite: SuiteSpec, samples: pa.Table) -> SuiteSpec:
    """Return a suite with the chance levels that a run's samples of the untouched model say."""
    if not suite.measures_chance:
        return suite
    own = samples.filter(pc.equal(samples["who"], "untouched"))
    means = own.group_by(["scorer", "metric"], use_threads=False).aggregate([("value", "mean")])
    found = {(line["scorer"], line["metric"]): line["value_mean"] for line in means.to_pylist()}
    return with_chances(suite, found)


def with_chances(suite: SuiteSpec, found: Mapping[tuple[str, str], float]) -> SuiteSpec:
    """Return a suite with measured chance levels.

    A level that was not measured stays as it is; whoever needs it is told.

    Args:
        suite: as it is stated.
        found: (scorer, metric) -> the untouched model's score.
    """

    def known(metric: MetricSpec) -> MetricSpec:
        level = found.get((metric.chance_measured_by or "", metric.metric))
        return metric if level is None else metric.model_copy(update={"chance": level})

    names = ("primary_forget", "utility")
    return suite.model_copy(update={n: tuple(map(known, getattr(suite, n))) for n in names})


def at_chance(score: ScoreSummary, spec: MetricSpec) -> bool:
    """Whether a score is no better than chance beyond its 95 % interval over items.

    A single item has no interval, and shows nothing.
    """
    above = turned(score.value, spec) - turned(spec.chance_level, spec)
    return score.se is None or above <= mean_half_width(score.se, score.n)


def chance_text(score: ScoreSummary, spec: MetricSpec | None) -> str:
    """Return a metric's chance level, and whether a score is no better; empty where none states."""
    if spec is None:
        return ""
    if spec.chance_measured_by is not None:
        return "measured by runs"
    return f"{spec.chance_level:g}{': no better' if at_chance(score, spec) else ''}"
