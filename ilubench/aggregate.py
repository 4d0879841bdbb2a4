"""From score tables to one row of the robustness table: pure functions, no files, no torch.

The caller hands over scores on 0-1, direction-adjusted (higher = better forgotten; utility:
higher = better), the figures are those of the metrics specification, section "Robustness", with
the intervals of :mod:`ilubench.intervals`. Which observations a figure rests on:

- *Seeds.* A figure uses the seeds that everything in it shares. What was measured once because it
  is deterministic (the one seed row of an ``unlearned_*`` table, such as the original model's
  f_0) is repeated for every seed; an attack's tables never are.
- *Items.* A course may score a subset of the forget items (an attack that trains on half of
  them); its recovery is then taken against f_0 and f_u on the same items.
- *Utility* is measured on other items. Its filter in the worst case is repeated when a seed is
  left out, and held when a forget item is; the utility items' own sampling error does not enter
  that interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from ilubench.errors import DataError
from ilubench.intervals import (
    Array,
    Cells,
    Figure,
    Samples,
    Statistic,
    all_items,
    jackknife_figure,
    mean_figure,
    no_figure,
    paired_difference,
    pick,
    shared_seeds,
    stack,
    table_mean,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AttackFigures",
    "Chances",
    "Course",
    "Figure",
    "MethodRuns",
    "RobustnessRow",
    "Samples",
    "StepFigures",
    "UtilityFigures",
    "aggregate",
]

KEPT_UTILITY = 0.90
COLLAPSED_UTILITY = 0.50
HALF = 0.5
ROUNDING = 1e-12  # .9 * u is not a binary fraction


@dataclass(frozen=True, eq=False)
class Course:
    """One attack on one model, scored along its steps.

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
    the worst metric; ``eligible`` says whether it counts for the worst case.
    """

    step: int
    forget: Figure
    utility: tuple[Figure, ...]
    utility_kept: Figure
    eligible: bool
    fa: Figure | None


@dataclass(frozen=True, slots=True)
class AttackFigures:
    """One attack: the course and what follows from it (``recovery`` is at the final step).

    ``fa_difference`` (method - original) and ``never_knew`` (forget metric, method - retrain) are
    at the final step, paired by seed and item; ``never_knew`` is None without a retrained model.
    """

    attack: str
    steps: tuple[StepFigures, ...]
    ra: Figure
    recovery: Figure
    half_life: Figure
    area: Figure
    fa_difference: Figure
    never_knew: Figure | None


@dataclass(frozen=True, slots=True)
class RobustnessRow:
    """One method's row. ``ra_attacks`` and ``ra_core_attacks`` say what RA was averaged over.

    ``status`` is "unknown" where the original's utility is not above chance in any metric.
    ``worst_at`` is the attack and step of the worst case. ``recovery`` is the mean over the
    attacks of their final recovery.
    """

    status: Literal["ok", "collapsed", "unknown", "incomplete", "diverged"]
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


def aggregate(
    method: MethodRuns,
    original: MethodRuns,
    chances: Chances,
    *,
    core: tuple[str, ...] = (),
    retrain: MethodRuns | None = None,
) -> RobustnessRow:
    """All robustness figures of a method.

    Args:
        method: the method's scores; at least one attack.
        original: those of the original model (method ``none``) under the same attacks.
        chances: chance levels.
        core: the suite's core attacks for ``ra_core``.
        retrain: scores of the model that never knew, for the never-knew difference.

    Raises:
        DataError: no attack, no shared seed, other items or metrics than the original's, or a
        single item.
    """
    if not method.courses:
        raise DataError("no attack was run: a robustness row needs at least one")
    if set(method.unlearned_forget.items) != set(original.unlearned_forget.items):
        raise DataError("the method and the original model were not asked the same forget items")
    utility = _utility(method, original, chances)
    kept = None if utility.worst is None else utility.kept[utility.worst].value
    worst_case, worst_at = _worst_case(method, chances)
    names = tuple(course.attack for course in method.courses)
    missing = [name for name in core if name not in names]
    ra_core = None
    if missing:
        ra_core = no_figure(f"core attacks not run: {', '.join(missing)}")
    elif core:
        ra_core = _ra([course for course in method.courses if course.attack in core])
    return RobustnessRow(
        status="unknown" if kept is None else "collapsed" if kept < COLLAPSED_UTILITY else "ok",
        forget_original=table_mean(original.unlearned_forget),
        forget_unlearned=table_mean(method.unlearned_forget),
        forget_chance=chances.forget,
        utility=utility,
        attacks=tuple(_attack(c, method, original, chances, retrain) for c in method.courses),
        ra_attacks=names,
        ra=_ra(method.courses),
        ra_core_attacks=core,
        ra_core=ra_core,
        worst_case=worst_case,
        worst_at=worst_at,
        recovery=_recovery_figure(method, original, method.courses, _final(method.courses)),
    )


def _ratio(part: Samples, whole: Samples, chance: float) -> Figure:
    """(part - chance) / (whole - chance) of a utility metric; ``whole`` may be a single row."""
    if set(part.items) != set(whole.items):
        raise DataError("utility was not measured on the same items")
    seeds = shared_seeds([part], [whole])
    items = all_items([part])
    cells = stack([part, whole], seeds, items)
    if cells[1].mean() - chance <= ROUNDING:
        note = "undefined: the utility to compare with is not above chance"
        return no_figure(note, len(seeds), len(items))

    def statistic(means: Array, _: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Array = (means[:, 0] - chance) / (means[:, 1] - chance)
        return ratio

    return jackknife_figure(Cells(cells), statistic)


def _least(figures: Sequence[Figure]) -> int | None:
    """Index of the smallest defined figure."""
    defined = [(figure.value, k) for k, figure in enumerate(figures) if figure.value is not None]
    return min(defined)[1] if defined else None


def _utility(method: MethodRuns, original: MethodRuns, chances: Chances) -> UtilityFigures:
    """Utility before and after unlearning."""
    after, before = method.unlearned_utility, original.unlearned_utility
    if not len(after) == len(before) == len(chances.utility):
        counts = f"{len(after)}, {len(before)} and {len(chances.utility)}"
        raise DataError(f"utility metrics of method, original and chance levels: {counts}")
    triples = zip(after, before, chances.utility, strict=True)
    kept = tuple(_ratio(a, b, chance) for a, b, chance in triples)
    return UtilityFigures(
        tuple(table_mean(table) for table in before),
        tuple(table_mean(table) for table in after),
        kept,
        _least(kept),
    )


def _ra(courses: Sequence[Course]) -> Figure:
    """Mean over attacks of the mean at the quartile steps."""
    picked = [[c.forget[c.steps.index(step)] for step in c.quartile_steps] for c in courses]
    tables = [table for group in picked for table in group]
    weights = np.array([1 / (len(group) * len(picked)) for group in picked for _ in group])
    seeds = shared_seeds(tables)
    cells = stack(tables, seeds, all_items(tables))
    if np.isnan(cells).any():
        return jackknife_figure(Cells(cells), lambda means, _: means @ weights)
    return mean_figure(np.tensordot(weights, cells, axes=1))


def _worst_case(method: MethodRuns, chances: Chances) -> tuple[Figure, tuple[str, int] | None]:
    """The least forgotten checkpoint that keeps the utility, and where it is."""
    points = [(c, k) for c in method.courses for k in range(1, len(c.steps))]
    forget = [c.forget[k] for c, k in points]
    utility = [table for c, k in points for table in c.utility[k]]
    seeds = shared_seeds([*forget, *utility], method.unlearned_utility)
    tables = (*method.unlearned_utility, *utility)
    by_seed = np.stack([pick(t, seeds, sorted(t.items)).mean(axis=1) for t in tables])
    cells = Cells(stack(forget, seeds, all_items(forget)), by_seed)
    chance = np.array(chances.utility)

    def candidates(means: Array, utilities: Array) -> Array:
        """[R, points]: the forget metric where the utility is kept, else infinity."""
        above = utilities.reshape(len(utilities), -1, len(chance)) - chance
        before, after = above[:, :1], above[:, 1:]
        kept = ((after >= KEPT_UTILITY * before - ROUNDING) & (before > ROUNDING)).all(axis=2)
        return np.where(kept, means, np.inf)

    def statistic(means: Array, utilities: Array) -> Array:
        least: Array = candidates(means, utilities).min(axis=1)
        return np.where(np.isinf(least), np.nan, least)

    figure = jackknife_figure(cells, statistic)
    if figure.value is None:
        note = f"n/a: no checkpoint keeps {KEPT_UTILITY:.0%} of the unlearned model's utility"
        return replace(figure, note=note), None
    means = np.nanmean(cells.values, axis=(1, 2))[None]
    course, k = points[int(candidates(means, by_seed.mean(axis=1)[None]).argmin())]
    return figure, (course.attack, course.steps[k])


def _recovery(means: Array) -> Array:
    """(f_u - f_t) / (f_u - f_0) from means [R, (f_0, f_u, f_t...)]; [R, steps]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        recovery: Array = (means[:, 1:2] - means[:, 2:]) / (means[:, 1:2] - means[:, :1])
    return recovery


def _final(courses: Sequence[Course]) -> Statistic:
    """Recovery at the final step, averaged over the courses."""
    ends = np.cumsum([len(c.steps) + 2 for c in courses])[:-1]

    def statistic(means: Array, _: Array) -> Array:
        finals = [_recovery(part)[:, -1] for part in np.split(means, ends, axis=1)]
        final: Array = np.mean(finals, axis=0)
        return final

    return statistic


def _area(course: Course) -> Statistic:
    """Recovery averaged over equal steps (trapezoids)."""
    steps = np.array(course.steps, dtype=np.float64)

    def statistic(means: Array, _: Array) -> Array:
        area: Array = np.trapezoid(_recovery(means), steps, axis=1) / steps[-1]
        return area

    return statistic


def _half_life(course: Course) -> Statistic:
    """Steps until recovery first reaches one half, interpolated; infinite if it never does."""
    steps = np.array(course.steps, dtype=np.float64)

    def statistic(means: Array, _: Array) -> Array:
        recovery = _recovery(means)
        reached = recovery >= HALF
        at = reached.argmax(axis=1)
        before = np.maximum(at - 1, 0)
        row = np.arange(len(recovery))
        start = recovery[row, before]
        rise = np.where(at > 0, recovery[row, at] - start, 1.0)
        share = np.where(at > 0, HALF - start, 0.0) / np.where(rise > 0, rise, 1.0)
        time = steps[before] + share * (steps[at] - steps[before])
        return np.where(reached.any(axis=1), time, np.inf)

    return statistic


def _recovery_figure(
    method: MethodRuns,
    original: MethodRuns,
    courses: Sequence[Course],
    statistic: Statistic,
    *,
    censor: float | None = None,
) -> Figure:
    """A figure of the recovery along ``courses``; undefined where f_u - f_0 may be 0."""
    once = (original.unlearned_forget, method.unlearned_forget)
    seeds = shared_seeds((table for course in courses for table in course.forget), once)
    items = all_items(course.forget[0] for course in courses)
    layers = []
    for course in courses:
        own = all_items(course.forget[:1])
        before, after = (Samples(pick(table, seeds, own), seeds, own) for table in once)
        layers += [before, after, *course.forget]
        forgotten = mean_figure(after.values - before.values)
        if forgotten.high is not None and forgotten.high < 0:
            note = "undefined: f_u is below f_0, nothing was forgotten"
            return no_figure(note, len(seeds), len(items))
        if forgotten.low is None or forgotten.low <= 0:
            note = "undefined: the interval of f_u - f_0 contains 0"
            return no_figure(note, len(seeds), len(items))
    cells = Cells(stack(layers, seeds, items))
    return jackknife_figure(cells, statistic, censor=censor)


def _attack(
    course: Course,
    method: MethodRuns,
    original: MethodRuns,
    chances: Chances,
    retrain: MethodRuns | None,
) -> AttackFigures:
    """All figures of one attack."""
    end = float(course.total_steps)
    life = _half_life(course)
    return AttackFigures(
        attack=course.attack,
        steps=tuple(_step(course, k, method, chances) for k in range(len(course.steps))),
        ra=_ra([course]),
        recovery=_recovery_figure(method, original, [course], _final([course])),
        half_life=_recovery_figure(method, original, [course], life, censor=end),
        area=_recovery_figure(method, original, [course], _area(course)),
        fa_difference=_fa_difference(course, original),
        never_knew=None if retrain is None else _never_knew(course, retrain),
    )


def _step(course: Course, k: int, method: MethodRuns, chances: Chances) -> StepFigures:
    """The means at the k-th checkpoint."""
    pairs = zip(course.utility[k], method.unlearned_utility, chances.utility, strict=True)
    kept = [_ratio(now, before, chance) for now, before, chance in pairs]
    undefined = next((figure for figure in kept if figure.value is None), None)
    worst = undefined or kept[_least(kept) or 0]
    return StepFigures(
        step=course.steps[k],
        forget=table_mean(course.forget[k]),
        utility=tuple(table_mean(table) for table in course.utility[k]),
        utility_kept=worst,
        eligible=k > 0 and worst.value is not None and worst.value >= KEPT_UTILITY - ROUNDING,
        fa=None if course.fa is None else table_mean(course.fa[k]),
    )


def _same_course(course: Course, reference: MethodRuns, who: str) -> Course | Figure:
    """The same attack on a reference model, or why there is none."""
    other = reference.course(course.attack)
    if other is None:
        return no_figure(f"n/a: the {who} model was not attacked with {course.attack}")
    if other.total_steps != course.total_steps:
        steps = f"{course.total_steps} and {other.total_steps}"
        raise DataError(
            f"attack {course.attack!r} took {steps} steps on the method and the {who} model"
        )
    return other


def _fa_difference(course: Course, original: MethodRuns) -> Figure:
    """Fine-tuning accuracy at the final step, method - original."""
    other = _same_course(course, original, "original")
    if isinstance(other, Figure):
        return other
    if course.fa is None or other.fa is None:
        return no_figure("n/a: fine-tuning accuracy was not measured")
    return paired_difference(course.fa[-1], other.fa[-1], f"FA of {course.attack!r}")


def _never_knew(course: Course, retrain: MethodRuns) -> Figure:
    """Forget metric at the final step, method - retrain."""
    other = _same_course(course, retrain, "retrained")
    if isinstance(other, Figure):
        return other
    return paired_difference(course.forget[-1], other.forget[-1], f"attack {course.attack!r}")
