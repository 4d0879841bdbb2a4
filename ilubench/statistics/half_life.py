"""When a mean first falls to zero: a time with an interval by inversion of tests. Pure.

A half-life is the first time at which a contrast of means, such as ``f_t - (f_u + f_0) / 2``,
reaches 0. Along linear interpolation the contrast at any time t is itself a mean over crossed seeds
and items, with the interval ``L(t)..U(t)`` of :mod:`ilubench.statistics.intervals`. The times at
which 0 lies in that interval form the confidence set of the crossing (Fieller 1954, *J. R. Statist.
Soc. B* 16:175, for a ratio; here for a zero of a polygon):

- the low end is the first t with ``L(t) <= 0``: before it, the mean is above 0 with confidence. If
  the true crossing is at T, ``L(T) > 0`` has probability 2.5 %;
- the high end is the first t with ``U(t) <= 0``: there, the mean has fallen to 0 with confidence.
  Where no observed time has that, the end is open.

A crossing that was not observed still has a low end, unless the mean stays above 0 with confidence.
The delta method and the jackknife linearise the time instead; both fail where the course is flat or
ends before the crossing (they covered 60 % for true crossings just before the end).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from scipy import special

from ilubench.errors import DataError
from ilubench.statistics.intervals import (
    ROUNDING,
    ZERO_VARIANCE,
    Array,
    Figure,
    Kind,
    MeanSquares,
    mean_squares,
    mean_variance,
    no_figure,
)
from ilubench.statistics.notes import Note, NoteKind

__all__ = ["crossing_figure"]

PARTS = 50  # of each segment, on which the ends are sought; the variance is a parabola there


def crossing_figure(times: Sequence[float], z: Array, *, level: float = 0.95) -> Figure:
    """The first time at which the mean of ``z``, linear between the times, is 0 or below.

    Args:
        times: ascending, at least two.
        z: scores at each time [K, S, I]; finite.
        level: coverage of the interval.

    Returns:
        The time. Where it was not reached: no value, the note `BEYOND`, and the low end if earlier
        times cannot be excluded. The high end is None, with a note, where it lies beyond T.

    Raises:
        DataError: times that do not fit the scores, no seed, fewer than two items, or a score that
        is not finite.
    """
    if len(times) <= 1 or len(z) != len(times) or list(times) != sorted(set(times)):
        raise DataError(f"{len(z)} tables for the times {list(times)}; they must ascend")
    n_seeds, n_items = z.shape[1:]
    grid, mean, half = _band(np.array(times, dtype=np.float64), z, level)
    value, low, high = (_first(grid, line) for line in (mean, mean - half, mean + half))
    beyond = Note(NoteKind.BEYOND, numbers=(float(times[-1]),))
    if low is None:
        return no_figure(beyond, n_seeds, n_items)
    kind: Kind = "item-only" if n_seeds == 1 else "seeds-and-items"
    if value is None:
        return Figure(None, low, None, n_seeds, n_items, kind, beyond)
    note = replace(beyond, kind=NoteKind.OPEN_END) if high is None else None
    if half.max() <= ROUNDING * np.abs(z).max():
        note = ZERO_VARIANCE
    return Figure(value, low, high, n_seeds, n_items, kind, note)


def _band(times: Array, z: Array, level: float) -> tuple[Array, Array, Array]:
    """Times of a fine grid, the mean there, and half the width of its interval."""
    ends = [mean_squares(table) for table in z]
    middles = [mean_squares((a + b) / 2) for a, b in pairwise(z)]
    share = np.linspace(0.0, 1.0, PARTS + 1)
    spreads = []
    for first, middle, last in zip(ends[:-1], middles, ends[1:], strict=True):
        squares = [
            _parabola(share, *(getattr(ms, name) for ms in (first, middle, last)))
            for name in ("seed", "item", "residual")
        ]
        for seed, item, residual in zip(*squares, strict=True):
            ms = MeanSquares(seed, item, residual, first.n_seeds, first.n_items)
            spreads.append(mean_variance(ms))
    var, df = np.array(spreads).T
    half = special.stdtrit(df, 0.5 + level / 2) * np.sqrt(var)
    width = np.diff(times)
    grid = (times[:-1, None] + share * width[:, None]).ravel()
    return grid, np.interp(grid, times, z.mean(axis=(1, 2))), half


def _parabola(share: Array, first: float, middle: float, last: float) -> Array:
    """The mean square of a mixture of two tables: a parabola in the share of the second."""
    bend = 2 * (first - 2 * middle + last)
    slope = 4 * middle - 3 * first - last
    return np.maximum(first + slope * share + bend * share**2, 0.0)


def _first(grid: Array, line: Array) -> float | None:
    """The first time at which a polygon is 0 or below."""
    below = line <= 0
    if not below.any():
        return None
    k = int(below.argmax())
    if k == 0 or line[k - 1] <= line[k]:
        return float(grid[k])
    share = line[k - 1] / (line[k - 1] - line[k])
    return float(grid[k - 1] + share * (grid[k] - grid[k - 1]))
