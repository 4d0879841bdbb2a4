"""Whether a score is better than that of a model that knows nothing. Pure."""

from ilubench.records.results import ScoreSummary
from ilubench.specs import MetricSpec, turned
from ilubench.statistics.intervals import mean_half_width

__all__ = ["at_chance", "chance_text"]


def at_chance(score: ScoreSummary, spec: MetricSpec) -> bool:
    """Whether a score is no better than chance beyond its 95 % interval over items.

    A single item has no interval, and shows nothing.
    """
    above = turned(score.value, spec) - turned(spec.chance, spec)
    return score.se is None or above <= mean_half_width(score.se, score.n)


def chance_text(score: ScoreSummary, spec: MetricSpec | None) -> str:
    """Return a metric's chance level, and whether a score is no better; empty where none states."""
    if spec is None:
        return ""
    return f"{spec.chance:g}{': no better' if at_chance(score, spec) else ''}"
