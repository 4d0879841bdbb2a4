"""The lowest forget metric that any attack reached while it kept the utility. Pure."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ilubench.statistics.intervals import (
    Array,
    Figure,
    Replicates,
    ScoreArrays,
    all_items,
    jackknife_interval,
    no_figure,
    pick_items,
    replicate,
    shared_seeds,
    stack_tables,
)
from ilubench.statistics.row import (
    KEPT_UTILITY,
    ROUNDING,
    Chances,
    MethodRuns,
    Trials,
)
from ilubench.statistics.trials import NONE_KEPT, all_keep, lowest_trials

__all__ = ["find_worst_case"]


def find_worst_case(method: MethodRuns, chances: Chances) -> tuple[Figure, tuple[str, int] | None]:
    """Return the least forgotten checkpoint that keeps the utility, and where it is.

    An attack that tunes counts if every seed has a trial that keeps it; which of them is the
    strongest is looked at again in each replicate, as which checkpoint is the lowest.
    """
    courses = [c for c in method.courses if c.trials is None or all_keep(c.trials)]
    points = [(c, k) for c in courses for k in range(1, len(c.steps))]
    if not points:
        return no_figure(NONE_KEPT), None
    forget = [c.forget[k] for c, k in points]
    utility = [table for c, k in points for table in c.utility[k]]
    seeds, items = shared_seeds([*forget, *utility], method.unlearned_utility), all_items(forget)
    by_seed = np.stack(
        [
            pick_items(table, seeds, sorted(table.items)).mean(axis=1)
            for table in (*method.unlearned_utility, *utility)
        ]
    )
    cells, chance = stack_tables(forget, seeds, items), np.array(chances.utility)
    steady = np.array([c.trials is None for c, _ in points])

    def candidates(means: Array, utilities: Array) -> Array:
        """[R, points]: the forget metric where the utility is kept, else infinity."""
        above = utilities.reshape(len(utilities), -1, len(chance)) - chance
        before, after = above[:, :1], above[:, 1:]
        kept = ((after >= KEPT_UTILITY * before - ROUNDING) & (before > ROUNDING)).all(axis=2)
        return np.where(kept, means, np.inf)

    def lowest(means: Array, utilities: Array) -> Array:
        least: Array = candidates(means, utilities)[:, steady].min(axis=1)
        return least

    found = [replicate(ScoreArrays(cells, by_seed), lowest)] if steady.any() else []
    found += [lowest_trials(_of_seeds(c.trials, seeds), items=items) for c in courses if c.trials]
    figure = jackknife_interval(_least(found))
    if figure.value is None:
        return replace(figure, note=NONE_KEPT), None
    means = np.nanmean(cells, axis=(1, 2))[None]
    course, k = points[int(candidates(means, by_seed.mean(axis=1)[None]).argmin())]
    return figure, (course.attack, course.steps[k])


def _least(found: Sequence[Replicates]) -> Replicates:
    parts = zip(*((f.without_seed, f.without_item, f.without_cell) for f in found), strict=True)
    return Replicates(min(f.value for f in found), *(np.min(part, axis=0) for part in parts))


def _of_seeds(trials: Trials, seeds: Sequence[int]) -> Trials:
    rows = [trials.seeds.index(seed) for seed in seeds]
    forget, kept = trials.forget[:, rows], trials.kept[:, rows]
    return replace(trials, forget=forget, kept=kept, seeds=tuple(seeds))
