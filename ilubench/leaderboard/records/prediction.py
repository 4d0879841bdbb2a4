"""Two measurements of one row, with other seeds: is the difference more than chance? Pure.

The items are the same on both sides, so that their effects cancel in the difference of two means;
each seed's mean ``y_s`` is a draw of one variance if the row is honest, estimated from both sides
(Student's two samples)::

    Var(mean_V - mean_S) = (A + E/I) (1/S + 1/V)
    A + E/I  <-  ((S - 1) s_S^2 + (V - 1) s_V^2) / (S + V - 2)      s^2: of the seeds' means

With m figures each interval has the level ``1 - .05/m`` (Bonferroni). The worst checkpoint and the
utility metric that was kept least are chosen once, by the mean over the seeds of both sides: two
minima would differ by the number of their seeds alone. `docs/verification.md` derives all of it and
says how well it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from ilubench.errors import DataError, UsageError
from ilubench.leaderboard.records.models import Comparison
from ilubench.records.comparing import check_alike
from ilubench.records.finished import FinishedRun
from ilubench.records.markdown import cell, table
from ilubench.records.rows import chance_levels
from ilubench.statistics.aggregate import ra_samples
from ilubench.statistics.intervals import ROUNDING
from ilubench.statistics.row import KEPT_UTILITY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ilubench.statistics.intervals import Array, Samples
    from ilubench.statistics.row import Chances, Course, MethodRuns

__all__ = ["NUMERICS", "Sides", "compare_runs", "compare_scores", "comparison_table"]

ALPHA = 0.05
"""Probability that a verification disputes an honest row, at most."""

NUMERICS = 0.02
"""Least half-width of an interval, on the metric's scale: how far two machines' scores of one and
the same model may lie apart."""

SEEDS = 2
DIGITS = 9


@dataclass(frozen=True, eq=False)
class Sides:
    """One primary metric, measured twice.

    Attributes:
        label: of the metric.
        submitted: scores of the row.
        verified: scores with other seeds, on the same items and attacks.
        chances: chance levels of the metrics.
        core: attacks of RA_core; empty where they were not all run.
        original: utility of the original model, (submitted, verified) for each utility metric.
        utility: the utility metrics' labels.
    """

    label: str
    submitted: MethodRuns
    verified: MethodRuns
    chances: Chances
    core: tuple[str, ...]
    original: tuple[tuple[float, float], ...]
    utility: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class _Twice:
    """A figure's value for each seed of both sides; a single value where there is no randomness."""

    metric: str
    figure: str
    submitted: Array
    verified: Array

    @property
    def drawn(self) -> bool:
        """Whether it differs by seed."""
        return min(len(self.submitted), len(self.verified)) >= SEEDS

    @property
    def pooled(self) -> float:
        """Mean over the seeds of both sides; rounded, so that ties are ties on every machine."""
        return round(float(np.concatenate([self.submitted, self.verified]).mean()), DIGITS)

    def compared(self, level: float) -> Comparison:
        """The difference with its interval (see the module)."""
        submitted, verified = float(self.submitted.mean()), float(self.verified.mean())
        half = max(NUMERICS, self._half(level) if self.drawn else 0.0)
        difference = verified - submitted
        return Comparison(
            metric=self.metric,
            figure=self.figure,
            submitted=submitted,
            verified=verified,
            low=difference - half,
            high=difference + half,
        )

    def _half(self, level: float) -> float:
        sides = (self.submitted, self.verified)
        df = sum(len(y) - 1 for y in sides)
        pooled = sum(float(np.square(y - y.mean()).sum()) for y in sides) / df
        error = np.sqrt(pooled * sum(1 / len(y) for y in sides))
        return float(special.stdtrit(df, 0.5 + level / 2) * error)


def compare_runs(submitted: FinishedRun, verified: FinishedRun) -> tuple[Comparison, ...]:
    """Compare a row with a measurement of the same with other seeds.

    The intervals of all figures together hold with 95 %
    (:mod:`ilubench.leaderboard.records.prediction` derives them); one that excludes 0 disputes the
    row.

    Returns:
        For each primary metric: after unlearning, RA_core, worst case; then the utility kept.

    Raises:
        UsageError: the runs are not alike (named), or share seeds.
        DataError: fewer than two seeds on a side, no samples, a course that is missing, or other
            items.
    """
    check_alike([submitted, verified])
    _check_seeds(submitted, verified)
    labels = [label for label in submitted.rows if label in verified.rows]
    if not labels or submitted.rows.keys() ^ verified.rows.keys():
        both = " and ".join(
            f"{run.path} has {', '.join(run.rows) or 'none'}" for run in (submitted, verified)
        )
        raise DataError(f"rows of other metrics: {both}; attack the model in both")
    return compare_scores([_sides(label, submitted, verified) for label in labels])


def compare_scores(metrics: Sequence[Sides]) -> tuple[Comparison, ...]:
    """Compare the scores of a row with others of the same, by all figures that it is judged by.

    Raises:
        DataError: other attacks or items on the two sides.
    """
    for sides in metrics:
        _check_items(sides)
    figures = [figure for sides in metrics for figure in _forget(sides)]
    figures += _utility(metrics[0])
    level = 1 - ALPHA / max(1, sum(figure.drawn for figure in figures))
    return tuple(figure.compared(level) for figure in figures)


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """Return comparisons as a Markdown table, one row a figure."""
    head = ("metric", "figure", "submitted", "verified", "difference", "95 %, all together", "")
    rows = [
        (
            cell(one.metric),
            cell(one.figure),
            f"{one.submitted:.3f}",
            f"{one.verified:.3f}",
            f"{one.verified - one.submitted:+.3f}",
            f"[{one.low:+.3f}, {one.high:+.3f}]",
            "disputed" if one.disputed else "",
        )
        for one in comparisons
    ]
    return table(head, rows)


# --- the figures ---


def _forget(sides: Sides) -> Iterator[_Twice]:
    a, b = sides.submitted, sides.verified
    yield _twice(sides.label, "after unlearning", a.unlearned_forget, b.unlearned_forget)
    courses = [
        [course for course in runs.courses if not sides.core or course.attack in sides.core]
        for runs in (a, b)
    ]
    name = "RA_core" if sides.core else "RA"
    yield _twice(sides.label, name, ra_samples(courses[0]), ra_samples(courses[1]))
    points = [point for pair in _pairs(sides) for point in _points(sides, *pair)]
    if points:
        yield min(points, key=lambda point: point.pooled)


def _pairs(sides: Sides) -> list[tuple[Course, Course]]:
    others = {course.attack: course for course in sides.verified.courses}
    return [(course, others[course.attack]) for course in sides.submitted.courses]


def _points(sides: Sides, one: Course, other: Course) -> Iterator[_Twice]:
    """The course's checkpoints that keep the utility, by the seeds of both sides."""
    chance = sides.chances.utility
    kept = [
        [_twice("", "", a, b).pooled - c for a, b, c in zip(*tables, chance, strict=True)]
        for tables in zip(one.utility, other.utility, strict=True)
    ]
    for k in range(1, len(one.steps)):
        pairs = zip(kept[k], kept[0], strict=True)
        if all(u > 0 and now >= KEPT_UTILITY * u - ROUNDING for now, u in pairs):
            place = one.levels[k - 1] if one.levels else f"step {one.steps[k]}"
            name = f"worst case: {one.attack}, {place}"
            yield _twice(sides.label, name, one.forget[k], other.forget[k])


def _utility(sides: Sides) -> list[_Twice]:
    """The utility kept, (u - chance) / (u_0 - chance), in the metric that was kept least."""
    found = []
    tables = zip(sides.submitted.unlearned_utility, sides.verified.unlearned_utility, strict=True)
    for label, pair, before, chance in zip(
        sides.utility, tables, sides.original, sides.chances.utility, strict=True
    ):
        if min(before) - chance <= ROUNDING:
            continue  # nothing to keep
        kept = [
            (_by_seed(table) - chance) / (u - chance) for table, u in zip(pair, before, strict=True)
        ]
        found.append(_Twice(label, "utility kept", kept[0], kept[1]))
    return [min(found, key=lambda one: one.pooled)] if found else []


def _twice(metric: str, figure: str, submitted: Samples, verified: Samples) -> _Twice:
    return _Twice(metric, figure, _by_seed(submitted), _by_seed(verified))


def _by_seed(table: Samples) -> Array:
    means: Array = table.values.mean(axis=1)
    return means


# --- what must fit ---


def _sides(label: str, submitted: FinishedRun, verified: FinishedRun) -> Sides:
    runs = (submitted, verified)
    for run in runs:
        if run.rows[label].status in ("incomplete", "diverged"):
            raise DataError(
                f"{run.path}: {label} is {run.rows[label].status}: a seed or an attack is missing; "
                "run it again"
            )
    suite = submitted.suite
    assert suite is not None  # there are scores
    metric = next(one for one in suite.primary_forget if one.label == label)
    originals = [
        [float(table.values.mean()) for table in run.original(label).unlearned_utility]
        for run in runs
    ]
    return Sides(
        label=label,
        submitted=submitted.scores(label),
        verified=verified.scores(label),
        chances=chance_levels(suite, metric),
        core=submitted.rows[label].ra_core_attacks,
        original=tuple(zip(*originals, strict=True)),
        utility=tuple(one.label for one in suite.utility),
    )


def _check_seeds(submitted: FinishedRun, verified: FinishedRun) -> None:
    for run in (submitted, verified):
        n = len(run.record.seeds)
        if n < SEEDS:
            raise DataError(
                f"{run.path} has {n} seed, which shows no spread: a comparison with other seeds "
                f"needs at least {SEEDS} on each side; five find differences half as large"
            )
    shared = sorted(set(submitted.record.seeds) & set(verified.record.seeds))
    if shared:
        raise UsageError(
            f"{submitted.path} and {verified.path} share the seeds {', '.join(map(str, shared))}: "
            "a measurement with the same seeds is no new one; give others"
        )


def _check_items(sides: Sides) -> None:
    """Refuse sides that were not attacked and asked alike."""
    names = [
        [course.attack for course in runs.courses] for runs in (sides.submitted, sides.verified)
    ]
    if sorted(names[0]) != sorted(names[1]):
        raise DataError(f"{sides.label}: attacked with {names[0]} and with {names[1]}")
    one, other = sides.submitted, sides.verified
    tables = [(one.unlearned_forget, other.unlearned_forget)]
    tables += zip(one.unlearned_utility, other.unlearned_utility, strict=True)
    tables += [(a.forget[-1], b.forget[-1]) for a, b in _pairs(sides)]
    for a, b in tables:
        if set(a.items) != set(b.items):
            raise DataError(f"{sides.label}: the two sides were not asked the same items")
    for a_course, b_course in _pairs(sides):
        if (a_course.steps, a_course.levels) != (b_course.steps, b_course.levels):
            raise DataError(f"{sides.label}: {a_course.attack} was scored at other checkpoints")
