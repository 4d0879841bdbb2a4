"""From per-sample values to one number and its standard error, by the estimator's name. Pure."""

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ilubench.errors import DataError
from ilubench.specs import Estimator
from ilubench.statistics.intervals import Array

__all__ = ["Texts", "auc", "estimate"]

Texts: TypeAlias = NDArray[np.object_]


def estimate(
    estimator: Estimator,
    values: Sequence[float] | Array,
    groups: Sequence[str] | Texts,
    labels: Sequence[str] | Texts,
) -> tuple[float, float | None]:
    """Return a metric's value and its standard error over items (None where there is none).

    Args:
        estimator: how the samples are put together.
        values: finite scores [n].
        groups: subset of each item [n]; used by `group_mean`.
        labels: class of each item, `0` or `1` [n]; used by `auc`.

    Raises:
        DataError: no values, or labels that are not `0` and `1`.
    """
    if not len(values):
        raise DataError("no values; an empty set measures nothing")
    found, spread = _plain(estimator, np.asarray(values, dtype=np.float64), groups, labels)
    if estimator.relative_to is not None:
        scale = 100.0 / estimator.relative_to
        found = (found - estimator.relative_to) * scale
        spread = None if spread is None else spread * scale
    return found, spread


def _plain(
    estimator: Estimator,
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
    groups: Sequence[str] | Texts,
    labels: Sequence[str] | Texts,
) -> tuple[float, float | None]:
    if estimator.kind == "mean":
        return _mean(values)
    if estimator.kind == "auc":
        if set(labels) != {"0", "1"}:
            raise DataError(f"an AUC needs items labelled 0 and 1; found {sorted(set(labels))}")
        mark = np.asarray(labels, dtype=object) == "1"
        return auc(values[mark], values[~mark])
    kinds = np.asarray(groups, dtype=object)  # of text, each would be as long as the longest
    means = [_mean(values[kinds == name]) for name in sorted(set(groups))]
    spreads = [spread for _, spread in means if spread is not None]
    se = math.sqrt(math.fsum(s * s for s in spreads)) / len(means)
    mean = math.fsum(value for value, _ in means) / len(means)
    return mean, se if len(spreads) == len(means) else None


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float | None]:
    n = len(values)
    mean = math.fsum(values) / n
    spread = math.fsum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(spread / (n - 1) / n) if n > 1 else None


def auc(
    positive: np.ndarray[tuple[int], np.dtype[np.float64]],
    negative: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> tuple[float, float | None]:
    """Return P(positive > negative) + P(equal)/2 and its standard error.

    The variance is that of DeLong, DeLong and Clarke-Pearson (1988): from each item's own rate of
    wins over the other class; None with fewer than two items of a class.

    Args:
        positive: values [m] of the items labelled 1.
        negative: values [n] of the items labelled 0.
    """
    from scipy import stats  # takes a second to import, and few metrics are an AUC

    m, n = len(positive), len(negative)
    ranks = stats.rankdata(np.concatenate([positive, negative]))  # ties share their mean rank
    wins = (ranks[:m] - stats.rankdata(positive)) / n
    losses = 1.0 - (ranks[m:] - stats.rankdata(negative)) / m
    value = math.fsum(wins) / m
    if min(m, n) < 2:
        return value, None
    return value, math.sqrt(wins.var(ddof=1) / m + losses.var(ddof=1) / n)
