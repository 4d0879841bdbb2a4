"""Methods compared at the same forgetting: recovery against f_u over a strength sweep. Pure.

A method that forgets less has less to recover, so methods are also compared where their f_u agree.
A sweep is several runs of one method at different strengths. What is compared is the mean over the
attacks of the final recovery, or of the final forget metric.

**At a given f_u** the figure is linear between the two runs whose f_u enclose it. The runs are
joined in the order of their f_u, not of their strength. Outside the sweep's range there is no
figure. The interval is the crossed jackknife of :mod:`ilubench.statistics.intervals`; each
replicate orders the runs and interpolates anew, so that the uncertainty of every run's own f_u
enters. A replicate whose range ends just before the given f_u continues its last segment: a jump to
"no figure" there would be an artefact of the deletion.

**Two methods at matched f_u.** Pairs of runs whose f_u differ by at most .02 are compared directly,
by (seed, item); nearest pairs first, each run once. Where there is none, both sweeps are
interpolated in the middle of the range of f_u that they share. The pairs are chosen by their
measured f_u, and the choice is not repeated in the replicates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ilubench.errors import DataError
from ilubench.statistics.aggregate import why_undefined
from ilubench.statistics.intervals import (
    ROUNDING,
    Array,
    Figure,
    Samples,
    ScoreArrays,
    all_items,
    jackknife_figure,
    no_figure,
    pick_items,
    shared_seeds,
    stack_tables,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import MethodRuns

__all__ = ["MatchedPair", "Quantity", "Strength", "Sweep", "at_forgetting", "compare_matched"]

MATCHED = 0.02
Quantity = Literal["recovery", "final"]


@dataclass(frozen=True, eq=False)
class Strength:
    """One run of a sweep; ``name`` says its strength, such as "npo, 3 epochs"."""

    name: str
    runs: MethodRuns


@dataclass(frozen=True, eq=False)
class Sweep:
    """Runs of one method at different strengths, in any order.

    Raises:
        DataError: no runs, a name twice, or runs under other attacks or on other items.
    """

    method: str
    points: tuple[Strength, ...]

    def __post_init__(self) -> None:
        """Validate."""
        names = [point.name for point in self.points]
        if not names or len(set(names)) != len(names):
            raise DataError(f"{self.method}: a sweep needs runs of different names, not {names}")
        _alike(self.points)


@dataclass(frozen=True, slots=True)
class MatchedPair:
    """Two methods at the same forgetting.

    Attributes:
        a: the first method's run, or the method where its sweep was interpolated.
        b: the second's.
        f_u: forget metric after unlearning of both; equal where interpolated, None if there is no
            common f_u.
        difference: the quantity, a - b, with its interval.
        how: two runs as measured, or both sweeps interpolated.
    """

    a: str
    b: str
    f_u: tuple[float, float] | None
    difference: Figure
    how: Literal["runs", "interpolated"]


def at_forgetting(
    sweep: Sweep, original: MethodRuns, f_u: float, what: Quantity = "recovery"
) -> tuple[Figure, tuple[str, ...]]:
    """A sweep's recovery (or final forget metric) at a given f_u.

    Args:
        sweep: at least two runs.
        original: the original model's runs, for f_0.
        f_u: forget metric after unlearning, 0-1.
        what: the figure.

    Returns:
        The figure, without a value outside the sweep's range or where fewer than two runs have a
        recovery; and the runs that were left out because theirs is undefined.

    Raises:
        DataError: no seed is shared by the runs, or too few items.
    """
    usable, left_out = _usable(sweep, original, what)
    if len(usable) <= 1:
        return no_figure(Note(NoteKind.TOO_FEW_RUNS)), left_out
    table = _cells([usable], original)
    x = _points(table, usable, what).f_u[0]
    if not x.min() - ROUNDING <= f_u <= x.max() + ROUNDING:
        numbers = (f_u, float(x.min()), float(x.max()))
        return no_figure(Note(NoteKind.OUTSIDE_SWEEP, numbers=numbers)), left_out

    def statistic(means: Array, _: Array) -> Array:
        points = _split(means, [usable], what)[0]
        return _interpolate(points, f_u)

    return jackknife_figure(ScoreArrays(table), statistic), left_out


def compare_matched(
    a: Sweep, b: Sweep, original: MethodRuns, what: Quantity = "recovery"
) -> tuple[MatchedPair, ...]:
    """Two methods at matched f_u: pairs of runs where there are any, else interpolated.

    Raises:
        DataError: other attacks or items, no shared seed, or too few items.
    """
    _alike((*a.points, *b.points))
    (left, _), (right, _) = (_usable(sweep, original, what) for sweep in (a, b))
    if not left or not right:
        empty = a.method if not left else b.method
        figure = no_figure(Note(NoteKind.NO_RECOVERY, (empty,)))
        return (MatchedPair(a.method, b.method, None, figure, "runs"),)
    pairs = _near(left, right)
    if pairs:
        return tuple(_direct(one, other, original, what) for one, other in pairs)
    return (_interpolated((a.method, left), (b.method, right), original, what),)


# --- inside ---


@dataclass(frozen=True, eq=False)
class _Points:
    """f_u and the quantity of a sweep's runs, [R, runs] each."""

    f_u: Array
    value: Array


def _interpolate(points: _Points, at: float) -> Array:
    """The quantity at f_u = ``at``, linear between the neighbours in f_u; [R]."""
    order = np.argsort(points.f_u, axis=1, kind="stable")
    x = np.take_along_axis(points.f_u, order, axis=1)
    y = np.take_along_axis(points.value, order, axis=1)
    start = np.clip((x <= at).sum(axis=1) - 1, 0, x.shape[1] - 2)
    row = np.arange(len(x))
    width = x[row, start + 1] - x[row, start]
    apart = width > ROUNDING
    share = np.where(apart, (at - x[row, start]) / np.where(apart, width, 1.0), 0.5)
    found: Array = y[row, start] + share * (y[row, start + 1] - y[row, start])
    return found


def _layers(runs: MethodRuns, original: MethodRuns, seeds: Sequence[int]) -> list[Samples]:
    """f_u of a run, then (f_0, f_u, final) of each attack on that attack's items."""
    layers = [runs.unlearned_forget]
    for course in runs.courses:
        own = all_items(course.forget[:1])
        once = (original.unlearned_forget, runs.unlearned_forget)
        layers += [Samples(pick_items(table, seeds, own), tuple(seeds), own) for table in once]
        layers.append(course.forget[-1])
    return layers


def _seeds(runs: Sequence[MethodRuns], original: MethodRuns) -> tuple[int, ...]:
    finals = (course.forget[-1] for one in runs for course in one.courses)
    once = [one.unlearned_forget for one in runs]
    return shared_seeds(finals, [original.unlearned_forget, *once])


def _cells(sweeps: Sequence[Sequence[Strength]], original: MethodRuns) -> Array:
    """All layers of all runs of all sweeps over their shared seeds, [K, S, I]."""
    runs = [point.runs for points in sweeps for point in points]
    seeds = _seeds(runs, original)
    layers = [layer for one in runs for layer in _layers(one, original, seeds)]
    return stack_tables(layers, seeds, all_items(layers))


def _split(
    means: Array, sweeps: Sequence[Sequence[Strength]], what: Quantity
) -> tuple[_Points, ...]:
    """Means [R, K] as the points of each sweep."""
    size = 1 + 3 * len(sweeps[0][0].runs.courses)
    layers = means.reshape(len(means), -1, size)
    parts = layers[..., 1:].reshape(*layers.shape[:2], -1, 3)
    before, after, final = (parts[..., k] for k in range(3))
    if what == "final":
        value = final.mean(axis=2)
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            value = ((after - final) / (after - before)).mean(axis=2)
    ends = np.cumsum([len(points) for points in sweeps])[:-1]
    halves = (np.split(array, ends, axis=1) for array in (layers[..., 0], value))
    return tuple(_Points(f_u, own) for f_u, own in zip(*halves, strict=True))


def _points(table: Array, points: Sequence[Strength], what: Quantity) -> _Points:
    return _split(np.nanmean(table, axis=(1, 2))[None], [points], what)[0]


def _usable(
    sweep: Sweep, original: MethodRuns, what: Quantity
) -> tuple[list[Strength], tuple[str, ...]]:
    """Runs whose quantity is defined, and the names of the others."""
    left_out = tuple(
        point.name
        for point in sweep.points
        if what == "recovery" and _undefined(point.runs, original)
    )
    return [point for point in sweep.points if point.name not in left_out], left_out


def _undefined(runs: MethodRuns, original: MethodRuns) -> bool:
    seeds = _seeds([runs], original)
    for course in runs.courses:
        own = all_items(course.forget[:1])
        once = (original.unlearned_forget, runs.unlearned_forget)
        if why_undefined(*(pick_items(table, seeds, own) for table in once)):
            return True
    return False


def _f_u(point: Strength) -> float:
    return float(point.runs.unlearned_forget.values.mean())


def _near(left: Sequence[Strength], right: Sequence[Strength]) -> list[tuple[Strength, Strength]]:
    """Pairs with f_u at most .02 apart, nearest first, each run once."""
    apart = sorted(
        (abs(_f_u(a) - _f_u(b)), i, j) for i, a in enumerate(left) for j, b in enumerate(right)
    )
    pairs: list[tuple[int, int]] = []
    for distance, i, j in apart:
        free = all(i != one and j != other for one, other in pairs)
        if free and distance <= MATCHED + ROUNDING:
            pairs.append((i, j))
    return [(left[i], right[j]) for i, j in pairs]


def _direct(a: Strength, b: Strength, original: MethodRuns, what: Quantity) -> MatchedPair:
    def statistic(means: Array, _: Array) -> Array:
        one, other = _split(means, ([a], [b]), what)
        difference: Array = one.value[:, 0] - other.value[:, 0]
        return difference

    figure = jackknife_figure(ScoreArrays(_cells(([a], [b]), original)), statistic)
    return MatchedPair(a.name, b.name, (_f_u(a), _f_u(b)), figure, "runs")


def _interpolated(
    a: tuple[str, Sequence[Strength]],
    b: tuple[str, Sequence[Strength]],
    original: MethodRuns,
    what: Quantity,
) -> MatchedPair:
    """Both sweeps in the middle of the range that they share."""
    sweeps = (a[1], b[1])
    table = _cells(sweeps, original)
    reach = [points.f_u[0] for points in _split(np.nanmean(table, axis=(1, 2))[None], sweeps, what)]
    low, high = max(float(x.min()) for x in reach), min(float(x.max()) for x in reach)
    if min(map(len, sweeps)) <= 1 or low > high:
        ends = tuple(float(end) for x in reach for end in (x.min(), x.max()))
        figure = no_figure(Note(NoteKind.NO_COMMON_LEVEL, numbers=ends))
        return MatchedPair(a[0], b[0], None, figure, "interpolated")
    middle = (low + high) / 2

    def statistic(means: Array, _: Array) -> Array:
        one, other = _split(means, sweeps, what)
        difference: Array = _interpolate(one, middle) - _interpolate(other, middle)
        return difference

    figure = jackknife_figure(ScoreArrays(table), statistic)
    return MatchedPair(a[0], b[0], (middle, middle), figure, "interpolated")


def _alike(points: Sequence[Strength]) -> None:
    """Refuse runs that were not attacked and asked alike."""
    first = points[0]
    for point in points:
        if not point.runs.courses:
            raise DataError(f"{point.name}: no attack was run, so nothing can come back")
        if _shape(point.runs) != _shape(first.runs):
            raise DataError(
                f"{point.name} and {first.name} differ in attacks, their steps or items; "
                "only like runs can be matched"
            )


def _shape(runs: MethodRuns) -> tuple[object, ...]:
    courses = tuple(
        (course.attack, course.total_steps, frozenset(course.forget[0].items))
        for course in runs.courses
    )
    return (frozenset(runs.unlearned_forget.items), *courses)
