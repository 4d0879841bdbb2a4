"""The trials of an attack that tunes, from its samples: each seed's own, and the strongest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ilubench.errors import DataError
from ilubench.statistics.intervals import Array, Samples
from ilubench.statistics.row import Course, Trials, trial_number
from ilubench.statistics.trials import share_kept, strongest_trials

if TYPE_CHECKING:
    from ilubench.records.scores import Measured

__all__ = ["TrialScores", "has_trials", "stack_trials", "strongest_course"]


@dataclass(frozen=True, eq=False)
class TrialScores:
    """One metric of the trials.

    Attributes:
        numbers: of the trials, ascending.
        seeds: ascending.
        items: in order.
        values: [n_trials, n_seeds, n_items]; NaN where a seed's trial failed.
        before: the unlearned model's.
    """

    numbers: tuple[int, ...]
    seeds: tuple[int, ...]
    items: tuple[str, ...]
    values: Array
    before: Samples | None = None


def has_trials(runs: "Mapping[int, Measured]") -> bool:
    """Whether the checkpoints of an attack are trials, of which each seed has its own."""
    levels = {level for run in runs.values() for level in run.levels.values() if level}
    return bool(levels) and all(trial_number(level) is not None for level in levels)


def stack_trials(runs: "Mapping[int, Measured]", metric: tuple[str, str], what: str) -> TrialScores:
    """Return a metric's scores of all trials, on its own scale.

    Raises:
        DataError: they are not of the same items.
    """
    found = {
        (number, seed): run.steps[step][metric]
        for seed, run in runs.items()
        for step, level in run.levels.items()
        if (number := trial_number(level)) is not None
    }
    numbers, seeds = sorted({number for number, _ in found}), sorted(runs)
    items = next(iter(found.values())).items
    if any(one.items != items for one in found.values()):
        raise DataError(f"{what}: its trials were scored on other items")
    values = np.full((len(numbers), len(seeds), len(items)), np.nan)
    for (number, seed), one in found.items():
        values[numbers.index(number), seeds.index(seed)] = one.values
    return TrialScores(tuple(numbers), tuple(seeds), items, values)


def strongest_course(
    attack: str, forget: TrialScores, utility: Sequence[TrialScores], chances: Sequence[float]
) -> Course:
    """Return the course whose only checkpoint is each seed's strongest trial.

    Args:
        attack: its name.
        forget: the forget metric, turned so that higher = better forgotten.
        utility: the utility metrics, higher = better.
        chances: their levels.
    """
    seeds = forget.seeds
    after = np.stack([one.values.mean(axis=2) for one in utility], axis=-1)
    before = np.stack([_before(one).values.mean(axis=1) for one in utility], axis=-1)
    kept = share_kept(after, before, np.array(chances))
    kept = np.where(np.isnan(after).any(axis=-1), -np.inf, kept)
    trials = Trials(forget.numbers, forget.values, kept, seeds, forget.items)
    chosen = strongest_trials(trials), np.arange(len(seeds))
    picked = [Samples(one.values[chosen], seeds, one.items) for one in (forget, *utility)]
    return Course(
        attack=attack,
        steps=(0, 1),
        forget=(_before(forget), picked[0]),
        utility=(tuple(map(_before, utility)), tuple(picked[1:])),
        fa=None,
        quartile_steps=(1,),
        total_steps=1,
        levels=("strongest",),
        further=True,
        trials=trials,
    )


def _before(scores: TrialScores) -> Samples:
    assert scores.before is not None
    return scores.before
