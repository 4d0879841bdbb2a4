"""Which settings of a tuning are carried on: what cannot be chosen any more costs nothing more."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from ilubench.records.results import FailureRecord
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.tuning.asked import Tuning
from ilubench.runs.tuning.choice import (
    Tried,
    blend_with_best,
    choose_setting,
    has_forgotten_all,
    is_open,
    least_kept,
    share_forgotten,
)
from ilubench.runs.tuning.figures import Figures, original_figures, trial_figures
from ilubench.runs.tuning.records import OriginalFigures

__all__ = ["Search", "TuningPlan"]


@dataclass(frozen=True)
class TuningPlan:
    """The jobs of a tuning.

    Attributes:
        plan: all jobs, the target's and the original model's first.
        original: the original model's jobs.
        trials: the jobs of each trial; two settings that mean the same share them.
    """

    plan: Plan
    original: tuple[Job, ...]
    trials: tuple[tuple[Job, ...], ...]


class Search:
    """A tuning's course: seed by seed, some settings at a time.

    What was carried on is decided when all jobs before have ended, by their figures alone: not by
    which ended first, or what else is in the store. So a search that goes on after a kill, or on
    another machine, decides the same.

    Args:
        tuning: what is asked.
        planned: its jobs.
        failures: of the jobs so far, by key; the caller adds to it.
        drop: told of each job that is not carried out.

    Attributes:
        carried: of each setting, the seeds that it was tried on.
        ended: why not all settings were tried.
    """

    def __init__(
        self,
        tuning: Tuning,
        planned: TuningPlan,
        failures: Mapping[str, FailureRecord],
        drop: Callable[[Job], None],
    ) -> None:
        """Nothing is read yet."""
        self._tuning, self._planned, self._failures, self._drop = tuning, planned, failures, drop
        self._plan = planned.plan
        self._seeds = self._plan.experiment.seeds
        self._offered: set[str] = set()
        self._found: dict[tuple[int, int], Figures] = {}
        self.carried: list[list[int]] = [[] for _ in planned.trials]
        self.ended: Literal["", "no gain", "all forgotten"] = ""

    @cached_property
    def original(self) -> OriginalFigures:
        """The original model's figures.

        Raises:
            JobError: it could not be made or scored.
        """
        return original_figures(self._plan, self._planned.original, self._failures)

    def batches(self) -> Iterator[Sequence[Job]]:
        """Yield the jobs that come next; those before have ended.

        Raises:
            DataError: the original model's utility is not above chance: no setting can be judged.
            JobError: it could not be made or scored.
        """
        yield self._fresh([self._plan.jobs[0], *self._planned.original])
        original = self.original
        share_forgotten(original.forget, original.forget_chance)
        least_kept(original.utility, original.utility, original.utility_chance)
        count = len(self.carried)
        size = self._tuning.spec.patience or count
        for start in range(0, count, size):
            wave = range(start, min(start + size, count))
            before = self._choice()
            for seed in self._seeds:
                going = [place for place in wave if self._goes_on(place, before)]
                for place in going:
                    self.carried[place].append(seed)
                for place in set(wave).difference(going):
                    self._drop_rest(place)
                yield self._fresh([job for place in going for job in self.jobs(place, seed)])
            chosen = self._choice()
            if chosen is not None and wave.stop < count:
                if has_forgotten_all(self.tried(chosen)):
                    self.ended = "all forgotten"
                elif chosen == before:
                    self.ended = "no gain"
            if self.ended:
                break
        for place in range(count):
            self._drop_rest(place)

    def jobs(self, place: int, *seeds: int) -> list[Job]:
        """Return a setting's jobs of some seeds; none given: of those that it was tried on."""
        chosen = seeds or self.carried[place]
        return [job for job in self._planned.trials[place] if job.seed in chosen]

    def figures(self, place: int) -> Figures | None:
        """Return a setting's figures over the seeds that it was tried on; None if one failed."""
        jobs = self.jobs(place)
        if not all(self._plan.is_done(job) for job in jobs if job.stage == "score"):
            return None
        known = (place, len(self.carried[place]))
        if known not in self._found:
            experiment = self._tuning.trials[place].experiment
            self._found[known] = trial_figures(self._plan, experiment, jobs)
        return self._found[known]

    def tried(self, place: int, *, at_best: bool = False) -> Tried:
        """Return what the rule looks at of a setting.

        Args:
            place: of the setting.
            at_best: as if the seeds that are left forgot all and lost nothing.
        """
        found, original = self.figures(place), self.original
        if found is None:
            return Tried(None, None)
        measured = len(self.carried[place]) / len(self._seeds)
        forget, utility = found.forget, found.utility
        if at_best:
            forget = blend_with_best(forget, original.forget_chance, measured)
            utility = blend_with_best(utility, original.utility, measured)
        return Tried(
            share_forgotten(forget, original.forget_chance),
            least_kept(utility, original.utility, original.utility_chance),
            whole=at_best or measured == 1.0,
        )

    def _goes_on(self, place: int, before: int | None) -> bool:
        if not self.carried[place]:
            return True
        best = None if before is None else self.tried(before)
        return is_open(self.tried(place, at_best=True), self._tuning.spec.utility_kept, best)

    def _choice(self) -> int | None:
        tried = [self.tried(place) for place, seeds in enumerate(self.carried) if seeds]
        return choose_setting(tried, self._tuning.spec.utility_kept)

    def _drop_rest(self, place: int) -> None:
        """Tell of a setting's jobs that are not carried out; one that means the same has none."""
        for job in self._fresh(self._planned.trials[place]):
            self._drop(job)

    def _fresh(self, jobs: Sequence[Job]) -> list[Job]:
        found = {job.key: job for job in jobs if job.key not in self._offered}
        self._offered |= found.keys()
        return list(found.values())
