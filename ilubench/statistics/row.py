"""What the aggregator reads and returns: score tables of a method's runs, and its row's figures.

Scores are on 0-1 and direction-adjusted: higher = better forgotten; utility: higher = better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ilubench.errors import DataError
from ilubench.statistics.intervals import Array, Figure, Samples

__all__ = [
    "FA",
    "KEPT_UTILITY",
    "ROUNDING",
    "AttackFigures",
    "Chances",
    "Course",
    "MethodRuns",
    "RobustnessRow",
    "Status",
    "StepFigures",
    "TrialFigures",
    "Trials",
    "UtilityFigures",
    "attacks_of",
    "quartile_steps",
    "trial_level",
    "trial_number",
]

RA_SHARES = (0.25, 0.5, 1.0)

FA = "fa"
"""Name of the fine-tuning-accuracy scorer in an attack's scores."""

KEPT_UTILITY = 0.90
"""Share of the unlearned model's utility above chance that a checkpoint of the worst case keeps."""

ROUNDING = 1e-12  # .9 * u is not a binary fraction

_TRIAL = "trial-"

Status: TypeAlias = Literal["ok", "collapsed", "unknown", "incomplete", "diverged"]


def quartile_steps(steps: Sequence[int]) -> tuple[int, ...]:
    """Return the scored steps nearest to the first quartile, the median and the end of a course.

    Args:
        steps: optimizer steps of the checkpoints, ascending; those at 0 do not count.
    """
    later = [step for step in steps if step > 0]
    if not later:
        raise DataError("no checkpoint after step 0: RA needs at least one")
    return tuple(
        min(later, key=lambda step, share=share: abs(step - share * later[-1]))  # type: ignore[misc]
        for share in RA_SHARES
    )


def trial_level(number: int) -> str:
    """Return the level of an attacker's trial; of those of a course none is stronger by its name.

    Args:
        number: from 1, failed trials counted.
    """
    return f"{_TRIAL}{number:03d}"


def trial_number(level: str) -> int | None:
    """Return the number of the trial that a level names; None where it names none."""
    number = level.removeprefix(_TRIAL)
    return int(number) if number != level and number.isdecimal() else None


@dataclass(frozen=True, eq=False)
class Trials:
    """The trials of an attack that tunes, on one model: every seed's attacker made its own.

    Attributes:
        numbers: of the trials, ascending; the n-th of one seed has other settings than another's.
        forget: [n_trials, n_seeds, n_items] the forget metric; NaN where a seed's trial failed.
        kept: [n_trials, n_seeds] share of the seed's own unlearned model's utility above chance
            that is left, in the worst metric; minus infinity where the trial failed.
        seeds: of the second axis.
        items: of the third.
    """

    numbers: tuple[int, ...]
    forget: Array
    kept: Array
    seeds: tuple[int, ...]
    items: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Course:
    """One attack on one model, scored along its steps.

    An attack that tunes has no course, but the strongest trial that keeps the utility: its only
    checkpoint, of each seed its own.

    Attributes:
        attack: the attack's name.
        steps: optimizer steps of the checkpoints, ascending; 0 (before the attack) first, the
            total last.
        forget: the forget metric, one table a step.
        utility: the utility metrics, one tuple of tables a step, the metrics always in the same
            order.
        fa: fine-tuning accuracy on any scale (higher = better), one table a step; None if not
            measured.
        quartile_steps: the steps at 25, 50 and 100 % that RA averages.
        total_steps: the attack's steps.
        levels: names of the checkpoints after the first, for an attack that takes no steps: its
            `steps` only count them, all are `quartile_steps`, and no time follows from them.
        further: whether RA and the mean recovery leave it out; the worst case never does.
        trials: all trials, for an attack that tunes.

    Raises:
        DataError: steps and tables that do not fit each other, or items that change along the
        course.
    """

    attack: str
    steps: tuple[int, ...]
    forget: tuple[Samples, ...]
    utility: tuple[tuple[Samples, ...], ...]
    fa: tuple[Samples, ...] | None
    quartile_steps: tuple[int, ...]
    total_steps: int
    levels: tuple[str, ...] = ()
    further: bool = False
    trials: Trials | None = None

    def __post_init__(self) -> None:
        """Validate."""

        def fail(reason: str) -> DataError:
            return DataError(f"attack {self.attack!r}: {reason}")

        n = len(self.steps)
        if n <= 1 or self.steps[0] != 0 or self.steps != tuple(sorted(set(self.steps))):
            raise fail(f"steps must ascend from 0 and go beyond it, not {self.steps}")
        if self.steps[-1] != self.total_steps:
            raise fail(f"the last scored step is {self.steps[-1]} of {self.total_steps}")
        if not self.quartile_steps or not set(self.quartile_steps) <= set(self.steps[1:]):
            raise fail(f"the quartile steps {self.quartile_steps} are not among {self.steps[1:]}")
        if self.quartile_steps[-1] != self.total_steps:
            raise fail("the last of the quartile steps must be the final step")
        if len(self.levels) not in (0, n - 1):
            raise fail(f"{len(self.levels)} levels for {n - 1} checkpoints")
        fa = self.forget if self.fa is None else self.fa
        if not len(self.forget) == len(self.utility) == len(fa) == n:
            raise fail(f"{n} steps need {n} tables of each metric")
        if not self.utility[0] or len({len(step) for step in self.utility}) != 1:
            raise fail("every step needs the same utility metrics, at least one")
        for tables in (self.forget, fa, *zip(*self.utility, strict=True)):
            if len({frozenset(table.items) for table in tables}) > 1:
                raise fail("the items of a metric change along the course")


@dataclass(frozen=True, eq=False)
class MethodRuns:
    """A method's scores: after unlearning, and along every attack.

    For the original model (method ``none``) ``unlearned_forget`` is f_0.
    """

    unlearned_forget: Samples
    unlearned_utility: tuple[Samples, ...]
    courses: tuple[Course, ...]

    def __post_init__(self) -> None:
        """Validate."""
        names = [course.attack for course in self.courses]
        if len(set(names)) != len(names):
            raise DataError(f"an attack appears twice: {', '.join(names)}")
        if not self.unlearned_utility:
            raise DataError("at least one utility metric is needed")
        for course in self.courses:
            if not set(course.forget[0].items) <= set(self.unlearned_forget.items):
                raise DataError(
                    f"attack {course.attack!r} scores items that the unlearned model was not asked"
                )
            before, during = self.unlearned_utility, course.utility[0]
            if [set(t.items) for t in before] != [set(t.items) for t in during]:
                raise DataError(
                    f"attack {course.attack!r}: its utility items are not the unlearned model's"
                )

    def course(self, attack: str) -> Course | None:
        """The course of that attack, if it was run."""
        return next((course for course in self.courses if course.attack == attack), None)


@dataclass(frozen=True, slots=True)
class Chances:
    """Chance level of the forget metric (as adjusted) and of each utility metric."""

    forget: float
    utility: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class UtilityFigures:
    """Utility of the original and the unlearned model, one figure a metric.

    ``kept`` is (unlearned - chance) / (original - chance); ``worst`` is the index of the metric
    that kept least (None where no original model's utility is above chance).
    """

    original: tuple[Figure, ...]
    unlearned: tuple[Figure, ...]
    kept: tuple[Figure, ...]
    worst: int | None


@dataclass(frozen=True, slots=True)
class StepFigures:
    """The means at one checkpoint.

    ``utility_kept`` is the chance-corrected utility relative to the unlearned model's, that of
    the worst metric; ``eligible`` says whether it counts for the worst case. ``level`` names the
    checkpoint of an attack that takes no steps; then ``step`` only counts.
    """

    step: int
    forget: Figure
    utility: tuple[Figure, ...]
    utility_kept: Figure
    eligible: bool
    fa: Figure | None
    level: str = ""

    @property
    def name(self) -> str:
        """The checkpoint, for people: its step, or its level."""
        return self.level or str(self.step)


@dataclass(frozen=True, slots=True)
class TrialFigures:
    """What an attacker who tunes reached: means over the seeds of what each one's trials reached.

    The trials are selected on the items that the figures are taken over: lower than what fresh
    items would show.

    Attributes:
        n_trials: the highest number of a trial that was scored.
        top_n: how many trials of each seed ``top_n_average`` is over.
        worst_case: the lowest forget metric of all trials, whatever utility they leave.
        top_n_average: the mean of the lowest ``top_n``, likewise.
        bounded_worst_case: the lowest of the trials that keep the utility.
        best_so_far: the same after 1, 2, ... trials.
        seeds: ascending.
        strongest: of each seed, the number of the trial behind ``bounded_worst_case``.
    """

    n_trials: int
    top_n: int
    worst_case: Figure
    top_n_average: Figure
    bounded_worst_case: Figure
    best_so_far: tuple[Figure, ...]
    seeds: tuple[int, ...]
    strongest: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AttackFigures:
    """One attack: the course and what follows from it (``recovery`` is at the final step).

    ``fa_difference`` (method - original) and ``never_knew`` (forget metric, method - retrain) are
    at the final step, paired by seed and item; ``never_knew`` is None without a retrained model. Of
    an attack that takes no steps all these are at the last level; it has no half-life and no area.
    Of one that tunes they are at the strongest trial; it has no RA either, but ``trials``.
    """

    attack: str
    steps: tuple[StepFigures, ...]
    ra: Figure
    recovery: Figure
    half_life: Figure
    area: Figure
    fa_difference: Figure
    never_knew: Figure | None
    trials: TrialFigures | None = field(default=None, metadata={"since": 6})
    beyond_control: Figure | None = field(default=None, metadata={"since": 6})


@dataclass(frozen=True, slots=True)
class RobustnessRow:
    """One method's row. ``ra_attacks`` and ``ra_core_attacks`` say what RA was averaged over.

    ``status`` is "unknown" where the original's utility is not above chance in any metric.
    ``worst_case`` is over all attacks that were run, ``worst_at`` its attack and step.
    ``recovery`` is the mean over the attacks of RA of their final recovery.
    """

    status: Status
    forget_original: Figure
    forget_unlearned: Figure
    forget_chance: float
    utility: UtilityFigures
    attacks: tuple[AttackFigures, ...]
    ra_attacks: tuple[str, ...]
    ra: Figure
    ra_core_attacks: tuple[str, ...]
    ra_core: Figure | None
    worst_case: Figure
    worst_at: tuple[str, int] | None
    recovery: Figure


def attacks_of(rows: Mapping[str, RobustnessRow]) -> dict[str, AttackFigures]:
    """Return attack -> its figures in the first metric that has it; FA, utility are alike in all.

    A metric lacks an attack that it cannot be asked under, so that rows of one run may differ.
    """
    return {part.attack: part for row in reversed([*rows.values()]) for part in row.attacks}
