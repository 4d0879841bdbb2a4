"""The trials of an attacker who tunes: the strongest of them, and the figures over all. Pure.

Every seed's attacker tunes for itself, so that trials are selected seed by seed and what they reach
is averaged. Which trial is the strongest follows from the items: the selection is repeated when an
item is left out. Whether a trial keeps the utility is measured on other items, and is held.
"""

import numpy as np
from numpy.typing import NDArray

from ilubench.statistics.intervals import (
    Array,
    Figure,
    Replicates,
    jackknife_interval,
    no_figure,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import KEPT_UTILITY, ROUNDING, TrialFigures, Trials

__all__ = [
    "all_keep",
    "lowest_trials",
    "share_kept",
    "strongest_trials",
    "trial_figures",
]

TOP_N = 3
NONE_KEPT = Note(NoteKind.NO_UTILITY_KEPT, numbers=(KEPT_UTILITY,))


def share_kept(after: Array, before: Array, chance: Array) -> Array:
    """Return the share of utility above chance that is left, in the worst metric [...].

    Minus infinity where there was none in some metric.

    Args:
        after: utility metrics [..., M].
        before: those of the unlearned model, broadcast against them.
        chance: their chance levels [M].
    """
    had = before - chance
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(had > ROUNDING, (after - chance) / had, -np.inf)
    least: Array = share.min(axis=-1)
    return least


def all_keep(trials: Trials) -> bool:
    """Whether every seed has a trial that keeps the utility."""
    return bool(_keeps(trials).any(axis=0).all())


def strongest_trials(trials: Trials) -> NDArray[np.intp]:
    """Return the place of each seed's strongest trial [S].

    It has the lowest forget metric of those that keep the utility. Of a seed where none does it is
    the one that keeps most.
    """
    means = np.where(_counting(trials), trials.forget.mean(axis=2), np.inf)
    found: NDArray[np.intp] = means.argmin(axis=0)
    return found


def lowest_trials(
    trials: Trials, n: int = 1, *, bounded: bool = True, items: tuple[str, ...] = ()
) -> Replicates:
    """Return the mean of each seed's ``n`` lowest trials, averaged over the seeds.

    Args:
        trials: at least ``n`` of them in every seed.
        n: how many.
        bounded: only those that keep the utility; of a seed without any, the one that keeps most.
        items: that the replicates are over; by default the trials' own, which must be among them.
    """
    counting = _counting(trials) if bounded else _scored(trials)
    n_seeds, n_items = trials.forget.shape[1:]

    def lowest(means: Array) -> Array:  # [T, S, ...] -> [S, ...]
        shape = counting.shape + (1,) * (means.ndim - 2)
        found: Array = np.sort(np.where(counting.reshape(shape), means, np.inf), axis=0)[:n]
        mean: Array = found.mean(axis=0)
        return mean

    means = trials.forget.mean(axis=2)
    own = lowest(means)
    left = lowest((means[..., None] * n_items - trials.forget) / (n_items - 1))
    value = float(own.mean())
    items = items or trials.items
    column = {item: place for place, item in enumerate(items)}
    asked = [column[item] for item in trials.items]
    without_item = np.full(len(items), value)
    without_item[asked] = left.mean(axis=0)
    if n_seeds == 1:
        return Replicates(value, np.empty(0), without_item, np.empty((0, 0)))
    without_cell = np.full((n_seeds, len(items)), value)
    # a cell's pseudo-value is then its deviation from its own seed's figure
    without_cell[:, asked] += (left - own[:, None]) * (n_items - 1) / (n_seeds * n_items - 1)
    return Replicates(value, (own.sum() - own) / (n_seeds - 1), without_item, without_cell)


def trial_figures(trials: Trials) -> TrialFigures:
    """Return the figures over all trials."""
    top_n = min(TOP_N, int(_scored(trials).sum(axis=0).min()))
    chosen = strongest_trials(trials)
    last = trials.numbers[-1]
    so_far = [_first(trials, number) for number in range(1, last + 1)]
    return TrialFigures(
        n_trials=last,
        top_n=top_n,
        worst_case=jackknife_interval(lowest_trials(trials, bounded=False)),
        top_n_average=jackknife_interval(lowest_trials(trials, top_n, bounded=False)),
        bounded_worst_case=so_far[-1],
        best_so_far=tuple(so_far),
        seeds=trials.seeds,
        strongest=tuple(trials.numbers[place] for place in chosen),
    )


# --- inside ---


def _scored(trials: Trials) -> NDArray[np.bool_]:
    """Which trials did not fail [T, S]."""
    return np.logical_not(np.isnan(trials.forget).any(axis=2))


def _keeps(trials: Trials) -> NDArray[np.bool_]:
    """Which trials keep the utility [T, S]; a failed one keeps none."""
    return trials.kept >= KEPT_UTILITY - ROUNDING


def _counting(trials: Trials) -> NDArray[np.bool_]:
    """Which trials of each seed may be its strongest [T, S]; at least one of each."""
    keeps = _keeps(trials)
    left = np.where(_scored(trials), np.maximum(trials.kept, -np.finfo(float).max), -np.inf)
    most = np.arange(len(left))[:, None] == left.argmax(axis=0)
    return np.where(keeps.any(axis=0), keeps, most)


def _first(trials: Trials, number: int) -> Figure:
    """The bounded worst case of the trials up to a number; undefined if a seed has none by then."""
    n = sum(one <= number for one in trials.numbers)
    first = Trials(
        trials.numbers[:n], trials.forget[:n], trials.kept[:n], trials.seeds, trials.items
    )
    if not all_keep(first):
        return no_figure(NONE_KEPT, len(trials.seeds), len(trials.items))
    return jackknife_interval(lowest_trials(first))
