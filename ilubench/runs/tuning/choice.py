"""Which of the tried settings is chosen: the rule, without files or models. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ilubench.errors import DataError

__all__ = [
    "Tried",
    "blend_with_best",
    "choose_setting",
    "closest_setting",
    "has_forgotten_all",
    "is_eligible",
    "is_open",
    "least_kept",
    "share_forgotten",
]

_ROUNDING = 1e-9
_NOTHING_LEFT = 0.01
"""Share of what was known that may be left where all counts as forgotten."""


@dataclass(frozen=True, slots=True)
class Tried:
    """What the rule looks at: of a setting that failed, nothing.

    Attributes:
        forgotten: see :func:`forgotten`; None if the setting failed.
        kept: see :func:`least_kept`; None likewise.
        whole: whether it was tried on every tuning seed.
    """

    forgotten: float | None
    kept: float | None
    whole: bool = True


def share_forgotten(forget: Mapping[str, float], chance: Mapping[str, float]) -> float:
    """Return how much is forgotten, over all forget metrics: 1 = none of it is known.

    Each metric counts from 0 (all known) to its chance level, relative to that level, so that none
    counts more than another. What lies beyond chance counts as chance: a model that avoids the
    right answer knows it.

    Args:
        forget: label -> forget metric, 0 = known, higher = better forgotten.
        chance: label -> the same of a model that knows nothing.

    Raises:
        DataError: no metric, or a chance level of 0: nothing could be forgotten.
    """
    if not forget:
        raise DataError("no forget metric was measured")
    low = [label for label in forget if chance[label] <= _ROUNDING]
    if low:
        raise DataError(f"{low[0]}: a model that knows nothing is at 0; give the metric's `chance`")
    shares = [min(value, chance[label]) / chance[label] for label, value in forget.items()]
    return math.fsum(shares) / len(shares)


def least_kept(
    after: Mapping[str, float], before: Mapping[str, float], chance: Mapping[str, float]
) -> float:
    """Return the share of the original model's utility above chance that the worst metric keeps.

    A metric in which the original model is not above chance has nothing to keep, and does not
    count.

    Args:
        after: label -> the unlearned model's utility, higher = better.
        before: label -> the original's.
        chance: label -> of a model that can do nothing.

    Raises:
        DataError: the original is above chance in no metric.
    """
    shares = [
        (value - chance[label]) / (before[label] - chance[label])
        for label, value in after.items()
        if before[label] - chance[label] > _ROUNDING
    ]
    if not shares:
        raise DataError(
            f"the original model is above chance in no utility metric ({', '.join(after)}): "
            "what a setting keeps cannot be said"
        )
    return min(shares)


def is_eligible(trial: Tried, needed: float) -> bool:
    """Whether a setting did not fail and keeps the share ``needed`` of the utility."""
    kept = (trial.kept or 0.0) >= needed - _ROUNDING
    return trial.whole and trial.forgotten is not None and kept


def blend_with_best(
    mean: Mapping[str, float], best: Mapping[str, float], measured: float
) -> dict[str, float]:
    """Return label -> the mean over all seeds, if those that are left had the best value.

    Args:
        mean: over the seeds that were measured.
        best: what the others could have.
        measured: share of the seeds that were measured.
    """
    return {
        label: measured * value + (1.0 - measured) * best[label] for label, value in mean.items()
    }


def is_open(at_best: Tried, needed: float, chosen: Tried | None) -> bool:
    """Whether a setting can still be chosen.

    Args:
        at_best: its figures if the seeds that are left forgot all and lost nothing.
        needed: share of the original's utility.
        chosen: the choice among the settings before it.
    """
    before = [] if chosen is None else [chosen]
    return choose_setting([*before, at_best], needed) == len(before)


def has_forgotten_all(trial: Tried) -> bool:
    """Whether there is nothing left to forget, so that no setting could do better."""
    return trial.forgotten is not None and trial.forgotten >= 1.0 - _NOTHING_LEFT


def choose_setting(trials: Sequence[Tried], needed: float) -> int | None:
    """Return the place of the setting that forgets most among those that keep the utility.

    Of equals the one that keeps more utility, then the one tried first.

    Args:
        trials: in the order in which they were tried.
        needed: share of the original's utility.

    Returns:
        None if no setting keeps it.
    """
    ranked = [
        (round(trial.forgotten or 0.0, 9), round(trial.kept or 0.0, 9), -place)
        for place, trial in enumerate(trials)
        if is_eligible(trial, needed)
    ]
    return -max(ranked)[2] if ranked else None


def closest_setting(trials: Sequence[Tried]) -> int | None:
    """Return the place of the setting that keeps most utility; None if all failed."""
    ranked = [(t.kept, -place) for place, t in enumerate(trials) if t.kept is not None]
    return -max(ranked)[1] if ranked else None
