"""Figures with intervals over crossed seeds and items: pure functions of arrays.

The same items meet every seed, so a score array ``x[seed, item]`` has two crossed random factors.
The variance of its mean is estimated by ``(MS_seed + MS_item - MS_residual) / (S I)`` (Searle,
Casella & McCulloch 1992, *Variance Components*, ch. 4), with Satterthwaite's degrees of freedom
(1946, *Biometrics Bulletin* 2:110); figures that are no means have one jackknife for each mean
square (Dorfman, Berbaum & Metz 1992, *Invest. Radiol.* 27:723). `docs/derivations.md` has the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special

from ilubench.errors import DataError
from ilubench.statistics.notes import Note, NoteKind

__all__ = [
    "Array",
    "Figure",
    "MeanSquares",
    "Replicates",
    "Samples",
    "ScoreArrays",
    "Statistic",
    "all_items",
    "jackknife_figure",
    "jackknife_interval",
    "mean_figure",
    "mean_half_width",
    "mean_squares",
    "mean_variance",
    "no_figure",
    "paired_difference",
    "pick_items",
    "replicate",
    "shared_seeds",
    "stack_tables",
    "table_mean",
]

Array = NDArray[np.float64]
Kind = Literal["seeds-and-items", "seeds-only", "item-only", "none"]
Statistic = Callable[[Array, Array], Array]
"""(means of the cells [R, K], means of ``by_seed`` [1 or R, J]) -> the figure for each replicate
[R].

NaN says that the figure is undefined, infinity that it lies beyond what was observed."""

ZERO_VARIANCE = Note(NoteKind.ZERO_VARIANCE)
ROUNDING = 1e-9
MIN_ITEMS = 2


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its 95 % interval.

    Attributes:
        value: the figure, in its metric's unit; None where it is undefined (``note`` says why).
        low: lower end of the interval; None where there is none.
        high: upper end; None where there is none, or (with ``low`` given) where it is open.
        n_seeds: seeds that the figure rests on.
        n_items: items that it rests on.
        kind: what the interval covers: seeds and items, items only (one seed), seeds only (items
            held fixed), or nothing.
        note: what a reader must know beside the number.
    """

    value: float | None
    low: float | None
    high: float | None
    n_seeds: int
    n_items: int
    kind: Kind
    note: Note | None = None


@dataclass(frozen=True, eq=False)
class Samples:
    """One metric at one checkpoint.

    Attributes:
        values: [n_seeds, n_items] float64; copied, read-only.
        seeds: the rows' seeds, in any order.
        items: the columns' item ids, in any order.

    Raises:
        DataError: no seeds or items, a wrong shape, a repeated seed or item, a value that is not
        finite.
    """

    values: Array
    seeds: tuple[int, ...]
    items: tuple[str, ...]

    def __post_init__(self) -> None:
        """Validate and freeze."""
        values = np.array(self.values, dtype=np.float64)
        if not self.seeds or not self.items:
            raise DataError("a score table needs at least one seed and one item")
        if values.shape != (len(self.seeds), len(self.items)):
            shape = (len(self.seeds), len(self.items))
            raise DataError(f"a score table has shape {values.shape}, its seeds and items {shape}")
        for name, ids in (("seed", self.seeds), ("item", self.items)):
            if len(set(ids)) != len(ids):
                twice = sorted({str(x) for x in ids if ids.count(x) > 1})[:3]
                raise DataError(f"a score table has the same {name} twice: {', '.join(twice)}")
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            where = f"seed {self.seeds[row]}, item {self.items[column]!r}"
            raise DataError(f"a score is not finite ({values[row, column]}) at {where}")
        values.setflags(write=False)
        object.__setattr__(self, "values", values)


@dataclass(frozen=True, slots=True)
class MeanSquares:
    """Mean squares of a two-way table [S, I]; with one seed ``item`` alone (the others are 0)."""

    seed: float
    item: float
    residual: float
    n_seeds: int
    n_items: int


@dataclass(frozen=True, eq=False)
class ScoreArrays:
    """What a nonlinear figure is computed from.

    Attributes:
        values: [K, S, I]: K score arrays over the same seeds; NaN for a whole column [K, :, i]
            where array K was not asked item i.
        by_seed: [J, S]: seed means of what is measured on other items; only deleting a seed
            changes them.
    """

    values: Array
    by_seed: Array | None = None

    def seed_means(self) -> Array:
        """``by_seed``, or an empty [0, S] where there is none."""
        if self.by_seed is None:
            return np.empty((0, self.values.shape[1]))
        return self.by_seed


@dataclass(frozen=True, eq=False)
class Replicates:
    """A figure, and what it is without a part; not finite where it is undefined.

    Attributes:
        value: the figure.
        without_seed: [S], or empty where there is one seed.
        without_item: [I].
        without_cell: [S, I], or empty likewise.
    """

    value: float
    without_seed: Array
    without_item: Array
    without_cell: Array


def no_figure(note: Note | None, n_seeds: int = 0, n_items: int = 0) -> Figure:
    """A figure that is undefined, with the reason."""
    return Figure(None, None, None, n_seeds, n_items, "none", note)


def mean_squares(x: Array) -> MeanSquares:
    """Mean squares of the table ``x`` [S, I] (see the module's docstring).

    Raises:
        DataError: fewer than one seed or two items, or values that are not finite.
    """
    x = np.asarray(x, dtype=np.float64)
    if x.ndim != len(("seeds", "items")) or len(x) < 1:
        raise DataError(f"scores must form a table [seeds, items], not one of shape {x.shape}")
    n_seeds, n_items = x.shape
    if n_items < MIN_ITEMS:
        raise DataError(f"an interval needs at least two items, not {n_items}")
    if not np.isfinite(x).all():
        raise DataError("scores must be finite: a missing score is not a number")
    grand = x.mean()
    item = x.mean(axis=0) - grand
    ms_item = n_seeds * float(item @ item) / (n_items - 1)
    if n_seeds == 1:
        return MeanSquares(0.0, ms_item, 0.0, 1, n_items)
    seed = x.mean(axis=1) - grand
    residual = x - grand - seed[:, None] - item[None, :]
    ms_seed = n_items * float(seed @ seed) / (n_seeds - 1)
    ms_residual = float(np.square(residual).sum()) / ((n_seeds - 1) * (n_items - 1))
    return MeanSquares(ms_seed, ms_item, ms_residual, n_seeds, n_items)


def mean_variance(ms: MeanSquares) -> tuple[float, float]:
    """Variance of the grand mean and its degrees of freedom.

    Both follow the module's docstring; a single seed gives the items' variance / I with I - 1.
    """
    cells = ms.n_seeds * ms.n_items
    df_seed, df_item = float(ms.n_seeds - 1), float(ms.n_items - 1)
    if ms.n_seeds == 1:
        return ms.item / cells, df_item
    total = ms.seed + ms.item - ms.residual
    floor = max(ms.seed, ms.item)
    if total <= floor * (1 + ROUNDING):
        if abs(ms.seed - ms.item) <= floor * ROUNDING:  # sparse 0/1 tables tie exactly
            return floor / cells, min(df_seed, df_item)
        return floor / cells, df_seed if ms.seed > ms.item else df_item
    spread = ms.seed**2 / df_seed + ms.item**2 / df_item + ms.residual**2 / (df_seed * df_item)
    # total > floor >= 0, so spread > 0 unless squares underflow
    df = total**2 / spread if spread > 0.0 else min(df_seed, df_item)
    return total / cells, max(df, min(df_seed, df_item))


def mean_figure(x: Array, *, level: float = 0.95) -> Figure:
    """The mean of ``x`` [S, I] with its crossed interval.

    Raises:
        DataError: no seed, fewer than two items, or values that are not finite.
    """
    ms = mean_squares(x)
    return _figure(float(np.mean(x)), ms, scale=float(np.abs(x).max()), level=level)


def jackknife_figure(cells: ScoreArrays, statistic: Statistic, *, level: float = 0.95) -> Figure:
    """A nonlinear figure of means over crossed seeds and items, with its jackknife interval.

    Args:
        cells: the score arrays.
        statistic: the figure from means, vectorised over replicates; it makes every selection
            itself, so that each replicate repeats it.
        level: coverage of the interval.

    Raises:
        DataError: no seed or fewer than two items in one of the arrays.
    """
    return jackknife_interval(replicate(cells, statistic), level=level)


def replicate(cells: ScoreArrays, statistic: Statistic) -> Replicates:
    """A nonlinear figure of means, and what it is without each seed, item and cell.

    Raises:
        DataError: no seed or fewer than two items in one of the arrays.
    """
    n_seeds = cells.values.shape[1]
    asked = np.logical_not(np.isnan(cells.values).any(axis=1))
    if n_seeds < 1 or (asked.sum(axis=1) < MIN_ITEMS).any():
        raise DataError("an interval needs at least one seed and two items in every score array")
    means = np.nansum(cells.values, axis=(1, 2)) / (n_seeds * asked.sum(axis=1))
    value = float(statistic(means[None], cells.seed_means().mean(axis=1)[None])[0])
    return Replicates(value, *_replicates(cells, asked, statistic))


def jackknife_interval(found: Replicates, *, level: float = 0.95) -> Figure:
    """A figure with the interval that its replicates say."""
    value, n_items = found.value, len(found.without_item)
    n_seeds = max(len(found.without_seed), 1)
    if not np.isfinite(value):
        return no_figure(Note(NoteKind.UNDEFINED), n_seeds, n_items)
    parts = (found.without_seed, found.without_item, found.without_cell)
    if not all(np.isfinite(part).all() for part in parts):
        return Figure(value, None, None, n_seeds, n_items, "none", Note(NoteKind.NO_INTERVAL))
    return _figure(value, _jackknife_squares(value, parts), scale=abs(value), level=level)


# --- tables: seeds and items that belong together ---


def shared_seeds(tables: Iterable[Samples], once: Iterable[Samples] = ()) -> tuple[int, ...]:
    """Seeds that every table has, ascending.

    A table of ``once`` that has a single seed was measured once for all and sets no condition.

    Raises:
        DataError: there is none.
    """
    conditions = {t.seeds for t in tables} | {t.seeds for t in once if len(t.seeds) > 1}
    shared = set.intersection(*map(set, conditions)) if conditions else set()
    if not shared:
        lists = " | ".join(", ".join(map(str, seeds)) for seeds in sorted(conditions))
        raise DataError(f"no seed is shared by all the scores of a figure: {lists}")
    return tuple(sorted(shared))


def pick_items(table: Samples, seeds: Sequence[int], items: Sequence[str]) -> Array:
    """Rows ``seeds`` and columns ``items`` of a table, [S, I]; a single row is repeated."""
    if table.seeds == seeds and table.items == items:
        return table.values
    column = {item: i for i, item in enumerate(table.items)}
    row = {seed: i for i, seed in enumerate(table.seeds)}
    once = len(row) == 1
    rows = [0 if once else row[seed] for seed in seeds]
    return np.ascontiguousarray(table.values[np.ix_(rows, [column[i] for i in items])])


def stack_tables(tables: Sequence[Samples], seeds: Sequence[int], items: Sequence[str]) -> Array:
    """Tables side by side, [K, S, I]; NaN for items that a table lacks."""
    stacked = np.full((len(tables), len(seeds), len(items)), np.nan)
    for layer, table in zip(stacked, tables, strict=True):
        if table.items == items:
            layer[:] = pick_items(table, seeds, items)
            continue
        has = set(table.items)
        own = [i for i, item in enumerate(items) if item in has]
        layer[:, own] = pick_items(table, seeds, [items[i] for i in own])
    return stacked


def all_items(tables: Iterable[Samples]) -> tuple[str, ...]:
    """The items of all tables, sorted."""
    return tuple(sorted({item for table in tables for item in table.items}))


def table_mean(table: Samples) -> Figure:
    """The mean of one table; bit-identical whatever the order of its rows and columns."""
    return mean_figure(pick_items(table, sorted(table.seeds), all_items([table])))


def paired_difference(a: Samples, b: Samples, what: str) -> Figure:
    """Mean of a - b, paired by seed and item.

    Raises:
        DataError: other items, or no shared seed.
    """
    if set(a.items) != set(b.items):
        raise DataError(f"{what}: the two models were not asked the same items")
    seeds, items = shared_seeds([a, b]), all_items([a])
    return mean_figure(pick_items(a, seeds, items) - pick_items(b, seeds, items))


def mean_half_width(se: float, n_items: int, *, level: float = 0.95) -> float:
    """Half the width of the interval of a mean over items, from its standard error."""
    return _half_width(se, n_items - 1.0, level)


# --- inside ---


def _half_width(se: float, df: float, level: float) -> float:
    return float(special.stdtrit(df, 0.5 + level / 2) * se)


def _figure(value: float, ms: MeanSquares, *, scale: float, level: float) -> Figure:
    """Put the interval around ``value``; ``scale`` is the size against which rounding is judged."""
    kind: Kind = "item-only" if ms.n_seeds == 1 else "seeds-and-items"
    var, df = mean_variance(ms)
    if np.sqrt(var) <= ROUNDING * scale:
        return Figure(value, value, value, ms.n_seeds, ms.n_items, kind, ZERO_VARIANCE)
    half = _half_width(float(np.sqrt(var)), df, level)
    return Figure(value, value - half, value + half, ms.n_seeds, ms.n_items, kind)


def _replicates(
    cells: ScoreArrays, asked: NDArray[np.bool_], statistic: Statistic
) -> tuple[Array, Array, Array]:
    """The statistic with one seed [S], one item [I] and one cell [S, I] left out.

    With one seed there is only the second (the first and the last are empty).
    """
    x = np.where(asked[:, None, :], cells.values, 0.0)
    n_seeds = x.shape[1]
    count = asked.sum(axis=1).astype(np.float64)  # items of each array [K]
    total = x.sum(axis=(1, 2))
    fixed = cells.seed_means().mean(axis=1)[None]
    left = (n_seeds * (count[:, None] - asked)).T
    without_item = statistic((total[:, None] - x.sum(axis=1)).T / left, fixed)
    if n_seeds == 1:
        return np.empty(0), without_item, np.empty((0, 0))
    seed_means = (total[:, None] - x.sum(axis=2)).T / ((n_seeds - 1) * count)
    by_seed = cells.seed_means()
    others = (by_seed.sum(axis=1)[:, None] - by_seed).T / (n_seeds - 1)
    without_seed = statistic(seed_means, others)
    left = (n_seeds * count[:, None] - asked).T
    rows = [statistic((total[:, None] - x[:, s]).T / left, fixed) for s in range(n_seeds)]
    return without_seed, without_item, np.stack(rows)


def _jackknife_squares(value: float, parts: tuple[Array, ...]) -> MeanSquares:
    """Mean squares of the pseudo-values; constants cancel, so deviations from ``value`` serve.

    Centring first keeps the rounding of ``n t - (n - 1) t_(-i)`` out of the sums.
    """
    without_seed, without_item, without_cell = (part - value for part in parts)
    n_seeds, n_items = max(len(without_seed), 1), len(without_item)
    item = (n_items - 1) * (without_item - without_item.mean())
    ms_item = n_seeds * float(item @ item) / (n_items - 1)
    if n_seeds == 1:
        return MeanSquares(0.0, ms_item, 0.0, 1, n_items)
    seed = (n_seeds - 1) * (without_seed - without_seed.mean())
    ms_seed = n_items * float(seed @ seed) / (n_seeds - 1)
    cell = (n_seeds * n_items - 1) * without_cell
    return MeanSquares(ms_seed, ms_item, mean_squares(cell).residual, n_seeds, n_items)
