"""Variance components of a complete crossed table with named factors. Pure.

The ANOVA estimator (Searle, Casella & McCulloch 1992, *Variance Components*, ch. 4) with the
modified large-sample intervals of Ting, Burdick, Graybill, Jeyaratnam & Lu 1990 (*J. Statist.
Comput. Simul.* 35:135). `docs/derivations.md` has both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import prod
from typing import TypeAlias

import numpy as np
from scipy import special

from ilubench.errors import DataError, did_you_mean
from ilubench.statistics.intervals import ROUNDING, Array

__all__ = ["MIN_LEVELS", "Component", "Factorial", "Level", "decompose_variance"]

Level: TypeAlias = int | str
LEVEL = 0.95
MIN_LEVELS = 2


@dataclass(frozen=True, eq=False)
class Factorial:
    """A complete table of scores with named factors.

    Attributes:
        values: one axis a factor; copied, read-only.
        factors: the axes' names.
        levels: the levels of each axis, in its order.

    Raises:
        DataError: shapes that do not fit, a factor twice, one level, or a value that is not finite.
    """

    values: Array
    factors: tuple[str, ...]
    levels: tuple[tuple[Level, ...], ...]

    def __post_init__(self) -> None:
        """Validate and freeze."""
        values = np.array(self.values, dtype=np.float64)
        shape = tuple(map(len, self.levels))
        if values.shape != shape or len(self.factors) != len(shape):
            raise DataError(f"scores of shape {values.shape} for factors {self.factors}: {shape}")
        if len(set(self.factors)) != len(self.factors) or not self.factors:
            raise DataError(f"factors need different names, at least one: {self.factors}")
        for name, levels in zip(self.factors, self.levels, strict=True):
            if len(set(levels)) != len(levels):
                raise DataError(f"factor {name!r} has a level twice")
            if len(levels) < MIN_LEVELS:
                raise DataError(f"factor {name!r} has one level; a component needs at least two")
        if not np.isfinite(values).all():
            at = np.argwhere(~np.isfinite(values))[0]
            names = zip(self.factors, self.levels, at, strict=True)
            where = ", ".join(f"{name} {levels[k]!r}" for name, levels, k in names)
            raise DataError(f"a score is not finite at {where}")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class Component:
    """The variance that a factor, or a combination of factors, adds.

    Attributes:
        factors: its factors; all of them together are the residual.
        variance: ANOVA estimate, at least 0, in squared units of the score.
        low: lower end of its 95 % interval, at least 0.
        high: upper end, at least 0.
        cell_share: of the variance of a single score, 0-1.
        mean_share: of the variance of the grand mean, 0-1.
        df: degrees of freedom of its mean square.
        negative: the estimate before it was set to 0; None where it is not negative.
    """

    factors: tuple[str, ...]
    variance: float
    low: float
    high: float
    cell_share: float
    mean_share: float
    df: int
    negative: float | None

    @property
    def name(self) -> str:
        """The factors' names, crossed."""
        return " x ".join(self.factors)


def decompose_variance(table: Factorial, *, fixed: Sequence[str] = ()) -> tuple[Component, ...]:
    """Return the variance components of all factors and their combinations, residual last.

    Args:
        table: the scores.
        fixed: factors whose levels are chosen rather than sampled. A combination of such factors
            alone has no component; the others are estimated as without (the mixed model in which
            the interactions do not sum to zero), and have the meaning "shared by the levels of
            the fixed factors", or not.

    Raises:
        DataError: a fixed factor that the table lacks.
    """
    for name in fixed:
        if name not in table.factors:
            raise DataError(f"no factor {name!r}; {did_you_mean(name, table.factors)}")
    shape = table.values.shape
    axes = range(len(shape))
    subsets = [own for size in range(1, len(shape) + 1) for own in combinations(axes, size)]
    squares = {own: _mean_square(table.values, own) for own in subsets}
    df = {own: prod(shape[k] - 1 for k in own) for own in subsets}
    rounding = (ROUNDING * float(np.abs(table.values).max())) ** 2
    estimates, ends = {}, {}
    for own in subsets:
        above = [other for other in subsets if set(own) <= set(other)]
        scale = 1 / prod(shape[k] for k in axes if k not in own)
        terms = [
            _Term((-1) ** (len(other) - len(own)) * scale * squares[other], df[other])
            for other in above
        ]
        if all(table.factors[k] in fixed for k in own):
            continue
        estimates[own] = sum(term.value for term in terms)
        ends[own] = _interval(terms)
    kept = {own: max(value, 0.0) for own, value in estimates.items()}
    of_mean = {own: value / prod(shape[k] for k in own) for own, value in kept.items()}
    return tuple(
        Component(
            factors=tuple(table.factors[k] for k in own),
            variance=kept[own],
            low=ends[own][0],
            high=ends[own][1],
            cell_share=_share(kept[own], sum(kept.values())),
            mean_share=_share(of_mean[own], sum(of_mean.values())),
            df=df[own],
            negative=value if value < -rounding else None,
        )
        for own, value in estimates.items()
    )


# --- mean squares and their intervals ---


@dataclass(frozen=True, slots=True)
class _Term:
    """A mean square times its coefficient, and its degrees of freedom."""

    value: float
    df: int


def _mean_square(values: Array, own: tuple[int, ...]) -> float:
    """Mean square of a combination of axes."""
    others = tuple(k for k in range(values.ndim) if k not in own)
    effect = values.mean(axis=others) if others else values
    for axis in range(effect.ndim):
        effect = effect - effect.mean(axis=axis, keepdims=True)
    copies = prod(values.shape[k] for k in others)
    df = prod(values.shape[k] - 1 for k in own)
    return float(copies * np.square(effect).sum() / df)


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _interval(terms: Sequence[_Term]) -> tuple[float, float]:
    """Modified large-sample interval of a sum of independent scaled chi-squares.

    The upper end is the lower end of the negated sum, negated (Burdick & Graybill 1992,
    *Confidence Intervals on Variance Components*, sec. 3.3).
    """
    low = _lower(terms)
    high = -_lower([_Term(-term.value, term.df) for term in terms])
    return max(0.0, low), max(0.0, high)


def _lower(terms: Sequence[_Term]) -> float:
    alpha = (1 - LEVEL) / 2
    plus = [term for term in terms if term.value > 0]
    minus = [term for term in terms if term.value < 0]
    spread = sum((_g(term.df, alpha) * term.value) ** 2 for term in plus)
    spread += sum((_h(term.df, alpha) * term.value) ** 2 for term in minus)
    for a in plus:
        for b in minus:
            f = special.fdtri(a.df, b.df, 1 - alpha)
            own = (_g(a.df, alpha) * f) ** 2 + _h(b.df, alpha) ** 2
            spread += ((f - 1) ** 2 - own) / f * a.value * -b.value
    for a, b in combinations(plus, 2):
        both = _g(a.df + b.df, alpha) ** 2 * (a.df + b.df) ** 2 / (a.df * b.df)
        own = _g(a.df, alpha) ** 2 * a.df / b.df + _g(b.df, alpha) ** 2 * b.df / a.df
        spread += (both - own) / (len(plus) - 1) * a.value * b.value
    return float(sum(term.value for term in terms)) - math.sqrt(max(spread, 0.0))


def _g(df: int, alpha: float) -> float:
    """1 - df / (upper alpha point of chi-square)."""
    return 1 - df / float(special.chdtri(df, alpha))


def _h(df: int, alpha: float) -> float:
    """Df / (lower alpha point of chi-square) - 1."""
    return df / float(special.chdtri(df, 1 - alpha)) - 1
