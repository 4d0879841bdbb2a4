"""From score tables to one row of the robustness table: pure functions, no files, no torch.

The caller hands over scores on 0-1, direction-adjusted (higher = better forgotten; utility:
higher = better), the figures are those of the metrics specification, section "Robustness", with
the intervals of :mod:`ilubench.statistics.intervals`. Which observations a figure rests on:

- *Seeds.* A figure uses the seeds that everything in it shares. What was measured once because it
  is deterministic (the one seed row of an ``unlearned_*`` table, such as the original model's
  f_0) is repeated for every seed; an attack's tables never are.
- *Items.* A course may score a subset of the forget items (an attack that trains on half of
  them); its recovery is then taken against f_0 and f_u on the same items.
- *Utility* is measured on other items. Its filter in the worst case is repeated when a seed is
  left out, and held when a forget item is; the utility items' own sampling error does not enter
  that interval.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ilubench.errors import DataError
from ilubench.statistics.half_life import crossing_figure
from ilubench.statistics.intervals import (
    Array,
    Figure,
    Samples,
    ScoreArrays,
    Statistic,
    all_items,
    jackknife_figure,
    mean_figure,
    no_figure,
    paired_difference,
    pick_items,
    shared_seeds,
    stack_tables,
    table_mean,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import (
    KEPT_UTILITY,
    ROUNDING,
    AttackFigures,
    Chances,
    Course,
    MethodRuns,
    RobustnessRow,
    StepFigures,
    UtilityFigures,
)
from ilubench.statistics.trials import all_keep, trial_figures
from ilubench.statistics.worst_case import find_worst_case

__all__ = ["aggregate", "ra_samples", "weighted_samples", "why_undefined"]

NO_STEPS = Note(NoteKind.NO_STEPS)
NO_ORDER = Note(NoteKind.NO_ORDER)
ONLY_FURTHER = Note(NoteKind.ONLY_FURTHER)
COLLAPSED_UTILITY = 0.50
HALF = 0.5


def aggregate(
    method: MethodRuns,
    original: MethodRuns,
    chances: Chances,
    *,
    core: tuple[str, ...] = (),
    retrain: MethodRuns | None = None,
    control: str | None = None,
) -> RobustnessRow:
    """All robustness figures of a method.

    Args:
        method: the method's scores; at least one attack.
        original: those of the original model (method ``none``) under the same attacks.
        chances: chance levels.
        core: the suite's core attacks for ``ra_core``.
        retrain: scores of the model that never knew, for the never-knew difference.
        control: the attack beside which the others are reported.

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
    worst_case, worst_at = find_worst_case(method, chances)
    benign = [course for course in method.courses if not course.further]
    names = tuple(course.attack for course in benign)
    missing = [name for name in core if name not in names]
    ra_core = None
    if missing:
        ra_core = no_figure(Note(NoteKind.CORE_NOT_RUN, tuple(missing)))
    elif core:
        ra_core = _ra([course for course in method.courses if course.attack in core])
    return RobustnessRow(
        status="unknown" if kept is None else "collapsed" if kept < COLLAPSED_UTILITY else "ok",
        forget_original=table_mean(original.unlearned_forget),
        forget_unlearned=table_mean(method.unlearned_forget),
        forget_chance=chances.forget,
        utility=utility,
        attacks=tuple(
            replace(
                _attack(c, method, original, chances, retrain),
                beyond_control=_beyond(c, control, method, original, chances),
            )
            for c in method.courses
        ),
        ra_attacks=names,
        ra=_ra(benign) if benign else no_figure(ONLY_FURTHER),
        ra_core_attacks=core,
        ra_core=ra_core,
        worst_case=worst_case,
        worst_at=worst_at,
        recovery=_recovery_figure(method, original, benign, _final(benign))
        if benign
        else no_figure(ONLY_FURTHER),
    )


def _ratio(part: Samples, whole: Samples, chance: float) -> Figure:
    """(part - chance) / (whole - chance) of a utility metric; ``whole`` may be a single row."""
    if set(part.items) != set(whole.items):
        raise DataError("utility was not measured on the same items")
    seeds = shared_seeds([part], [whole])
    items = all_items([part])
    cells = stack_tables([part, whole], seeds, items)
    if cells[1].mean() - chance <= ROUNDING:
        return no_figure(Note(NoteKind.UTILITY_AT_CHANCE), len(seeds), len(items))

    def statistic(means: Array, _: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio: Array = (means[:, 0] - chance) / (means[:, 1] - chance)
        return ratio

    return jackknife_figure(ScoreArrays(cells), statistic)


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


def ra_samples(courses: Sequence[Course]) -> Samples:
    """What each seed and item contributes to RA, the mean over attacks of the quartiles' mean.

    The mean of the contributions is RA (see :func:`weighted_samples`).

    Raises:
        DataError: no seed is shared by the courses.
    """
    picked = [[c.forget[c.steps.index(step)] for step in c.quartile_steps] for c in courses]
    tables = [table for group in picked for table in group]
    weights = [1 / (len(group) * len(picked)) for group in picked for _ in group]
    return weighted_samples(tables, weights)


def weighted_samples(tables: Sequence[Samples], weights: Sequence[float]) -> Samples:
    """What each seed and item contributes to a weighted mean of tables' means.

    The mean of the contributions is that mean. Where a table k has I_k of the I items, an item
    contributes ``I / I_k`` times its deviation from the table's mean, or nothing: the influence of
    that item on a sum of means over different items (delta method).

    Args:
        tables: over any items.
        weights: one a table; they add up to 1.

    Raises:
        DataError: no seed is shared by the tables.
    """
    seeds, items = shared_seeds(tables), all_items(tables)
    share, cells = np.array(weights), stack_tables(tables, seeds, items)
    asked = np.logical_not(np.isnan(cells).any(axis=1))
    if asked.all():
        return Samples(np.tensordot(share, cells, axes=1), seeds, items)
    means = np.nanmean(cells, axis=(1, 2))
    deviation = np.where(asked[:, None], cells - means[:, None, None], 0.0)
    scale = share * len(items) / asked.sum(axis=1)
    values = share @ means + np.tensordot(scale, deviation, axes=1)
    return Samples(values, seeds, items)


def _ra(courses: Sequence[Course]) -> Figure:
    """RA with its interval."""
    return table_mean(ra_samples(courses))


def _recovery(means: Array) -> Array:
    """(f_u - f_t) / (f_u - f_0) from means [R, (f_0, f_u, f_t...)]; [R, steps]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        recovery: Array = (means[:, 1:2] - means[:, 2:]) / (means[:, 1:2] - means[:, :1])
    return recovery


def why_undefined(before: Array, after: Array) -> Note | None:
    """Why recovery is undefined where f_0 is ``before`` and f_u ``after`` [S, I]; None if not."""
    forgotten = mean_figure(after - before)
    if forgotten.high is not None and forgotten.high < 0:
        return Note(NoteKind.BELOW_ORIGINAL)
    if forgotten.low is None or forgotten.low <= 0:
        return Note(NoteKind.NOT_FORGOTTEN)
    return None


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


def _recovery_cells(
    method: MethodRuns, original: MethodRuns, courses: Sequence[Course]
) -> Array | Figure:
    """(f_0, f_u, f_t...) of each course [K, S, I]; why not where f_u - f_0 may be 0."""
    once = (original.unlearned_forget, method.unlearned_forget)
    seeds = shared_seeds((table for course in courses for table in course.forget), once)
    items = all_items(course.forget[0] for course in courses)
    layers = []
    for course in courses:
        own = all_items(course.forget[:1])
        before, after = (Samples(pick_items(table, seeds, own), seeds, own) for table in once)
        layers += [before, after, *course.forget]
        note = why_undefined(before.values, after.values)
        if note:
            return no_figure(note, len(seeds), len(items))
    return stack_tables(layers, seeds, items)


def _recovery_figure(
    method: MethodRuns, original: MethodRuns, courses: Sequence[Course], statistic: Statistic
) -> Figure:
    """A figure of the recovery along ``courses``."""
    cells = _recovery_cells(method, original, courses)
    return cells if isinstance(cells, Figure) else jackknife_figure(ScoreArrays(cells), statistic)


def _half_life(method: MethodRuns, original: MethodRuns, course: Course) -> Figure:
    """Steps until recovery first reaches one half: until f_t falls to (1 - half) f_u + half f_0."""
    cells = _recovery_cells(method, original, [course])
    if isinstance(cells, Figure):
        return cells
    return crossing_figure(course.steps, cells[2:] - ((1 - HALF) * cells[1] + HALF * cells[0]))


def _attack(
    course: Course,
    method: MethodRuns,
    original: MethodRuns,
    chances: Chances,
    retrain: MethodRuns | None,
) -> AttackFigures:
    """All figures of one attack."""
    why = NO_ORDER if course.trials else NO_STEPS
    return AttackFigures(
        attack=course.attack,
        steps=tuple(_step(course, k, method, chances) for k in range(len(course.steps))),
        ra=no_figure(NO_ORDER) if course.trials else _ra([course]),
        recovery=_recovery_figure(method, original, [course], _final([course])),
        half_life=no_figure(why) if course.levels else _half_life(method, original, course),
        area=no_figure(why)
        if course.levels
        else _recovery_figure(method, original, [course], _area(course)),
        fa_difference=_fa_difference(course, original),
        never_knew=None if retrain is None else _never_knew(course, retrain),
        trials=trial_figures(course.trials) if course.trials else None,
    )


def _beyond(
    course: Course, control: str | None, method: MethodRuns, original: MethodRuns, chances: Chances
) -> Figure | None:
    """Recovery at the final step, the attack's - the control's: (f_c - f_a) / (f_u - f_0).

    None can be given beside a control that destroyed the model, which brings nothing back.
    """
    if control is None or course.attack == control or course.levels:
        return None
    other = method.course(control)
    note = _why_apart(course, other, method, chances)
    if note or other is None:
        return no_figure(note)
    final, content_free = course.forget[-1], other.forget[-1]
    tables = (original.unlearned_forget, method.unlearned_forget, final, content_free)
    seeds, items = shared_seeds(tables[2:], tables[:2]), all_items([final])
    cells = np.stack([pick_items(table, seeds, items) for table in tables])
    note = why_undefined(cells[0], cells[1])
    if note:
        return no_figure(note, len(seeds), len(items))

    def statistic(means: Array, _: Array) -> Array:
        attack, free = (_recovery(means[:, (0, 1, place)])[:, 0] for place in (2, 3))
        difference: Array = attack - free
        return difference

    return jackknife_figure(ScoreArrays(cells), statistic)


def _why_apart(
    course: Course, control: Course | None, method: MethodRuns, chances: Chances
) -> Note | None:
    """Why an attack cannot be held against the control; None if it can."""
    if control is None:
        return Note(NoteKind.ATTACK_MISSING)
    final, content_free = course.forget[-1], control.forget[-1]
    if not set(final.items) <= set(content_free.items):
        return Note(NoteKind.OTHER_ITEMS)
    if not set(final.seeds) & set(content_free.seeds):
        return Note(NoteKind.NO_SHARED_SEED)
    kept = _step(control, len(control.steps) - 1, method, chances).utility_kept.value
    if kept is not None and kept < COLLAPSED_UTILITY:
        return Note(NoteKind.CONTROL_DESTROYS, numbers=(kept,))
    return None


def _step(course: Course, k: int, method: MethodRuns, chances: Chances) -> StepFigures:
    """The means at the k-th checkpoint."""
    pairs = zip(course.utility[k], method.unlearned_utility, chances.utility, strict=True)
    kept = [_ratio(now, before, chance) for now, before, chance in pairs]
    undefined = next((figure for figure in kept if figure.value is None), None)
    worst = undefined or kept[_least(kept) or 0]
    counts = k > 0 and (course.trials is None or all_keep(course.trials))
    return StepFigures(
        step=course.steps[k],
        forget=table_mean(course.forget[k]),
        utility=tuple(table_mean(table) for table in course.utility[k]),
        utility_kept=worst,
        eligible=counts and worst.value is not None and worst.value >= KEPT_UTILITY - ROUNDING,
        fa=None if course.fa is None else table_mean(course.fa[k]),
        level=course.levels[k - 1] if course.levels and k else "",
    )


def _same_course(course: Course, reference: MethodRuns, who: str) -> Course | Figure:
    """The same attack on a reference model, or why there is none."""
    other = reference.course(course.attack)
    if other is None:
        return no_figure(Note(NoteKind.NOT_ATTACKED, (who, course.attack)))
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
        return no_figure(Note(NoteKind.NO_FA))
    return paired_difference(course.fa[-1], other.fa[-1], f"FA of {course.attack!r}")


def _never_knew(course: Course, retrain: MethodRuns) -> Figure:
    """Forget metric at the final step, method - retrain."""
    other = _same_course(course, retrain, "retrained")
    if isinstance(other, Figure):
        return other
    if not set(course.forget[-1].seeds) & set(other.forget[-1].seeds):
        return no_figure(Note(NoteKind.RETRAIN_SHARES_NO_SEED))
    return paired_difference(course.forget[-1], other.forget[-1], f"attack {course.attack!r}")
