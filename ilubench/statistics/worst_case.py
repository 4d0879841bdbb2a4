"""The lowest forget metric that any attack reached while it kept the utility. Pure."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from ilubench.statistics.intervals import (
    Array,
    Figure,
    Replicates,
    ScoreArrays,
    all_items,
    jackknife_interval,
    pick_items,
    replicate,
    shared_seeds,
    stack_tables,
)
from ilubench.statistics.row import (
    KEPT_UTILITY,
    ROUNDING,
    Chances,
    Course,
    MethodRuns,
    Trials,
)
from ilubench.statistics.trials import NONE_KEPT, lowest_trials

__all__ = ["find_worst_case"]

Point: TypeAlias = tuple[Course, int]
"""A checkpoint after the first, by its place in its course."""


def find_worst_case(method: MethodRuns, chances: Chances) -> tuple[Figure, tuple[str, int] | None]:
    """Return the least forgotten checkpoint that keeps the utility, and where it is."""
    points = [(c, k) for c in method.courses for k in range(1, len(c.steps))]
    utility = [table for c, k in points for table in c.utility[k]]
    seeds = shared_seeds([*(c.forget[k] for c, k in points), *utility], method.unlearned_utility)
    search = _Search(method, np.array(chances.utility), seeds, points)
    tuned = [[point] for point in points if point[0].trials is not None]
    groups = [[point for point in points if point[0].trials is None], *tuned]
    found = [search.lowest(group) for group in groups if group]
    parts = zip(*((f.without_seed, f.without_item, f.without_cell) for f in found), strict=True)
    least = Replicates(min(f.value for f in found), *(np.min(part, axis=0) for part in parts))
    figure = jackknife_interval(least)
    if figure.value is None:
        return replace(figure, note=NONE_KEPT), None
    course, k = points[int(search.means(points).argmin())]
    return figure, (course.attack, course.steps[k])


class _Search:
    """What the candidates of a row share.

    Args:
        method: whose.
        chance: of the utility metrics.
        seeds: that all scores have.
        points: all candidates.
    """

    def __init__(
        self, method: MethodRuns, chance: Array, seeds: Sequence[int], points: Sequence[Point]
    ) -> None:
        self._before, self._chance, self._seeds = method.unlearned_utility, chance, seeds
        self._items = all_items(c.forget[k] for c, k in points)

    def means(self, points: Sequence[Point]) -> Array:
        """The forget metric where the utility is kept, else infinity [points]."""
        cells = self._cells(points)
        means = np.nanmean(cells.values, axis=(1, 2))[None]
        found: Array = self._candidates(means, cells.seed_means().mean(axis=1)[None])[0]
        return found

    def lowest(self, points: Sequence[Point]) -> Replicates:
        """The lowest of candidates, whose utility is looked at again in each replicate."""
        found = replicate(self._cells(points), lambda *both: self._candidates(*both).min(axis=1))
        trials = points[0][0].trials
        if trials is None:
            return found
        # the strongest trial is, too
        own = lowest_trials(_of_seeds(trials, self._seeds), items=self._items)
        return Replicates(
            own.value if np.isfinite(found.value) else np.inf,
            np.where(np.isfinite(found.without_seed), own.without_seed, np.inf),
            np.where(np.isfinite(found.without_item), own.without_item, np.inf),
            np.where(np.isfinite(found.without_cell), own.without_cell, np.inf),
        )

    def _cells(self, points: Sequence[Point]) -> ScoreArrays:
        forget = [c.forget[k] for c, k in points]
        tables = (*self._before, *(table for c, k in points for table in c.utility[k]))
        by_seed = [pick_items(t, self._seeds, sorted(t.items)).mean(axis=1) for t in tables]
        return ScoreArrays(stack_tables(forget, self._seeds, self._items), np.stack(by_seed))

    def _candidates(self, means: Array, utilities: Array) -> Array:
        """[R, points]: the forget metric where the utility is kept, else infinity."""
        above = utilities.reshape(len(utilities), -1, len(self._chance)) - self._chance
        before, after = above[:, :1], above[:, 1:]
        kept = ((after >= KEPT_UTILITY * before - ROUNDING) & (before > ROUNDING)).all(axis=2)
        return np.where(kept, means, np.inf)


def _of_seeds(trials: Trials, seeds: Sequence[int]) -> Trials:
    rows = [trials.seeds.index(seed) for seed in seeds]
    return replace(
        trials, forget=trials.forget[:, rows], kept=trials.kept[:, rows], seeds=tuple(seeds)
    )
