"""Intervals of bounded quantities, kept within their bounds; pure functions.

A mean of scores between two bounds has its interval on the logit scale (delta method): the half
width that it has on its own scale, divided by the logit's derivative there, around the logit of the
mean. What has one bound, and a difference, has its interval cut at the bound, which takes nothing
from its coverage; a difference's must go on agreeing with its p-value. Ratios (recovery, utility
kept) have no bounds. `docs/derivations.md` has sources and simulations.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

from ilubench.statistics.intervals import Figure
from ilubench.statistics.row import AttackFigures, RobustnessRow, StepFigures, TrialFigures

__all__ = [
    "UNBOUNDED",
    "Range",
    "RowRanges",
    "bounded_row",
    "cut_difference",
    "keep_within",
    "negated",
]

Range: TypeAlias = tuple[float | None, float | None]
"""The lowest and the highest value that a score can have; None where there is no bound."""

UNBOUNDED: Range = (None, None)


@dataclass(frozen=True, slots=True)
class RowRanges:
    """What a row's scores lie between, as they are turned: the forget metric, utility, each FA."""

    forget: Range
    utility: tuple[Range, ...]
    fa: Mapping[str, Range]


def negated(bounds: Range) -> Range:
    """Return the range of the negative."""
    low, high = bounds
    return (None if high is None else -high, None if low is None else -low)


def keep_within(figure: Figure, bounds: Range) -> Figure:
    """Return a mean with its interval within the bounds of what it is the mean of."""
    low, high = bounds
    value, ends = figure.value, (figure.low, figure.high)
    if value is None or ends[0] is None or ends[1] is None or ends[0] == ends[1]:
        return figure
    if low is None or high is None or not low < value < high:
        return _cut(figure, bounds)
    width, place = high - low, (value - low) / (high - low)
    half = (ends[1] - ends[0]) / 2 / width / (place * (1 - place))
    centre = math.log(place / (1 - place))
    shares = (_expit(centre - half), _expit(centre + half))
    return replace(figure, low=low + width * shares[0], high=low + width * shares[1])


def cut_difference(figure: Figure, bounds: Range) -> Figure:
    """Return a difference of means of scores within the bounds, its interval cut at its own."""
    low, high = bounds
    if low is None or high is None:
        return figure
    return _cut(figure, (low - high, high - low))


def bounded_row(row: RobustnessRow, ranges: RowRanges) -> RobustnessRow:
    """Return a row whose intervals of bounded quantities lie within their bounds."""

    def forget(figure: Figure) -> Figure:
        return keep_within(figure, ranges.forget)

    def utility(figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
        return tuple(map(keep_within, figures, ranges.utility))

    return replace(
        row,
        forget_original=forget(row.forget_original),
        forget_unlearned=forget(row.forget_unlearned),
        utility=replace(
            row.utility,
            original=utility(row.utility.original),
            unlearned=utility(row.utility.unlearned),
        ),
        attacks=tuple(_attack(part, ranges, forget, utility) for part in row.attacks),
        ra=forget(row.ra),
        ra_core=None if row.ra_core is None else forget(row.ra_core),
        worst_case=forget(row.worst_case),
    )


# --- inside ---


def _attack(
    part: AttackFigures,
    ranges: RowRanges,
    forget: Callable[[Figure], Figure],
    utility: Callable[[tuple[Figure, ...]], tuple[Figure, ...]],
) -> AttackFigures:
    fa = ranges.fa.get(part.attack, UNBOUNDED)

    def step(point: StepFigures) -> StepFigures:
        return replace(
            point,
            forget=forget(point.forget),
            utility=utility(point.utility),
            fa=None if point.fa is None else keep_within(point.fa, fa),
        )

    never = part.never_knew
    return replace(
        part,
        steps=tuple(map(step, part.steps)),
        ra=forget(part.ra),
        fa_difference=cut_difference(part.fa_difference, fa),
        never_knew=None if never is None else cut_difference(never, ranges.forget),
        trials=None if part.trials is None else _trials(part.trials, forget),
    )


def _trials(found: TrialFigures, forget: Callable[[Figure], Figure]) -> TrialFigures:
    return replace(
        found,
        worst_case=forget(found.worst_case),
        top_n_average=forget(found.top_n_average),
        bounded_worst_case=forget(found.bounded_worst_case),
        best_so_far=tuple(map(forget, found.best_so_far)),
    )


def _cut(figure: Figure, bounds: Range) -> Figure:
    low, high = bounds
    return replace(
        figure,
        low=figure.low if figure.low is None or low is None else max(figure.low, low),
        high=figure.high if figure.high is None or high is None else min(figure.high, high),
    )


def _expit(x: float) -> float:
    """The logit's inverse, without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))
