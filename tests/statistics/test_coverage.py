"""Simulated records with known truth: what the intervals, ranks and detectable sizes promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom  # type: ignore[import-untyped, unused-ignore]
from synthetic import World, course_runs

from ilubench.statistics.aggregate import aggregate
from ilubench.statistics.bounds import RowRanges, bounded_row
from ilubench.statistics.half_life import crossing_figure
from ilubench.statistics.intervals import Array, Figure, mean_figure
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.ranks import Entrant, compare_methods
from ilubench.statistics.row import Chances

CHANCES = Chances(0.75, (0.25,))
RANGES = RowRanges((0.0, 1.0), ((0.0, 1.0),), {})
QUICK, SLOW = 150, 2000
WORLDS = [World(kind, seeds) for kind in ("binary", "clipped") for seeds in (5, 10)]
BEFORE = 0.3
COURSES = {
    "early": (0.8, 0.7, 0.6, 0.52, 0.48),  # half-life 65.6 of 100 steps
    "late": (0.8, 0.78, 0.70, 0.65, 0.541),  # half-life 97.9
    "never": (0.8, 0.78, 0.74, 0.70, 0.62),
    "tied": (0.8, 0.6, 0.6, 0.6, 0.6),  # four equal minima
}


def name(world: World) -> str:
    return f"{world.kind}-{world.n_seeds}"


def low_enough(hits: int, count: int, rate: float) -> bool:
    """Whether so many hits are likely (1 in 10,000 for one side) at that rate."""
    return bool(hits >= binom.ppf(1e-4, count, rate))


def within(hits: int, count: int, low: float, high: float) -> bool:
    """Whether the hits agree with a true rate between the two, up to simulation error."""
    return low_enough(hits, count, low) and low_enough(count - hits, count, 1 - high)


def covers(figure: Figure, truth: float) -> bool:
    """Whether the interval has the truth; a time that was not reached is a truth of infinity."""
    if figure.value is None:
        low = math.inf if figure.low is None else figure.low
        beyond = figure.note is not None and figure.note.kind == NoteKind.BEYOND
        return beyond and (low <= truth or math.isinf(truth))
    assert figure.low is not None
    return figure.low <= truth and (figure.high is None or truth <= figure.high)


def half_life(recovery: Sequence[float]) -> float:
    for k, now in enumerate(recovery):
        if now >= 0.5:
            before = recovery[k - 1]
            return 25 * (k - 1) + 25 * (0.5 - before) / (now - before)
    return math.inf


def truths(means: Sequence[float]) -> dict[str, float]:
    recovery = [(means[0] - now) / (means[0] - BEFORE) for now in means]
    return {
        "f_u": means[0],
        "RA": (means[1] + means[2] + means[4]) / 3,
        "recovery": recovery[-1],
        "area": float(np.trapezoid(recovery)) / 4,
        "worst case": min(means[1:]),
        "half-life": half_life(recovery),
    }


def covered(world: World, means: Sequence[float], count: int) -> dict[str, int]:
    """How often each figure's interval has its truth."""
    truth = truths(means)
    hits = dict.fromkeys(truth, 0)
    rng = np.random.default_rng([world.n_seeds, round(1000 * sum(means))])
    for method, original in world.runs(rng, BEFORE, means, count):
        row = bounded_row(aggregate(method, original, CHANCES), RANGES)
        a = row.attacks[0]
        found = (row.forget_unlearned, row.ra, row.recovery, a.area, row.worst_case, a.half_life)
        for (key, value), figure in zip(truth.items(), found, strict=True):
            hits[key] += covers(figure, value)
    return hits


SLOWLY = pytest.param(SLOW, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("course", "count"),
    [
        ("early", QUICK),
        ("late", QUICK),
        *(pytest.param(course, SLOW, marks=pytest.mark.slow) for course in COURSES),
    ],
)
@pytest.mark.parametrize("world", WORLDS, ids=name)
def test_intervals_cover(world: World, course: str, count: int) -> None:
    """Every figure's 95 % interval has the truth about as often as it says."""
    truth = truths(COURSES[course])
    for key, hits in covered(world, COURSES[course], count).items():
        high = 1.0 if math.isinf(truth[key]) else 0.97  # an open end has it for certain
        print(f"{course:6} {name(world):10} {key} {hits / count:.3f}")
        assert within(hits, count, 0.93, high), f"{key}: {hits} of {count}"


def test_the_check_can_fail() -> None:
    """Intervals that ignore the seeds (as one long list of scores) are found out."""
    world = replace(WORLDS[0], seed=0.3)
    rng = np.random.default_rng(0)
    tables = world.tables(rng, (0.6,), world.items(rng, QUICK))[:, 0]
    pooled = [mean_figure(values.reshape(1, -1)) for values in tables]
    hits = sum(covers(figure, 0.6) for figure in pooled)
    assert not within(hits, QUICK, 0.93, 0.97)


# --- ranks ---


def entrants(world: World, tables: Array) -> list[Entrant]:
    """One entrant for each table [S, I], attacked once with one checkpoint."""
    return [
        Entrant(f"m{k}", course_runs([world.table(values)] * 2).courses)
        for k, values in enumerate(tables)
    ]


def four_methods(
    world: World, means: Sequence[float], rng: np.random.Generator, count: int
) -> Array:
    """Methods that meet the same seeds and items, each with its own effects; [count, 4, S, I]."""
    return world.tables(rng, means, world.items(rng, count))


def false_rankings(world: World, count: int) -> int:
    rng = np.random.default_rng(world.n_seeds)
    tables = four_methods(world, (0.6,) * 4, rng, count)
    found = (compare_methods(entrants(world, one)) for one in tables)
    return sum(any(pair.significant for pair in table.pairs) for table in found)


@pytest.mark.parametrize("count", [QUICK, SLOWLY])
@pytest.mark.parametrize("world", WORLDS, ids=name)
def test_equal_methods_tie(world: World, count: int) -> None:
    """Four methods with one mean are told apart in at most 5 % of the tables."""
    hits = false_rankings(world, count)
    print(f"{name(world):10} falsely ranked {hits / count:.3f}")
    assert within(hits, count, 0.0, 0.05), f"{hits} of {count}"


def stated_sizes(world: World, count: int) -> list[float]:
    """What tables of four equal methods state as detectable in their first pair."""
    rng = np.random.default_rng(99)
    tables = four_methods(world, (0.6,) * 4, rng, count)
    pairs = [compare_methods(entrants(world, one)).pairs[0] for one in tables]
    return [pair.detectable for pair in pairs if pair.detectable is not None]


def found(world: World, size: float, count: int) -> tuple[int, int]:
    """In how many tables of four methods a planted difference is found.

    Returns:
        By Holm's strictest step alone, for which the size is stated; by Holm.
    """
    rng = np.random.default_rng(7)
    tables = four_methods(world, (0.6, 0.6 + size, 0.6, 0.6), rng, count)
    pairs = [compare_methods(entrants(world, one)).pairs[0] for one in tables]
    return sum(pair.p is not None and pair.p <= 0.05 / 6 for pair in pairs), sum(
        pair.significant for pair in pairs
    )


@pytest.mark.parametrize("count", [QUICK, SLOWLY])
@pytest.mark.parametrize("world", WORLDS, ids=name)
def test_a_detectable_difference_is_found(world: World, count: int) -> None:
    """A planted difference of the size that tables state, on average, is found in about 80 %."""
    size = float(np.mean(stated_sizes(world, count)))
    strict, holm = found(world, size, count)
    print(
        f"{name(world):10} size {size:.3f} found {strict / count:.3f}, by Holm {holm / count:.3f}"
    )
    assert within(strict, count, 0.77, 0.83), f"{strict} of {count}"
    assert holm >= strict
    half, _ = found(world, size / 2, count)
    assert half < strict / 2


# --- crossings by hand ---


def test_crossing_by_hand() -> None:
    """Means 2, 1, -1: zero half-way in the second segment; the ends follow from the intervals."""
    noise = np.array([[0.3, -0.3, 0.1, -0.1], [-0.2, 0.2, 0.4, -0.4]])
    z = np.stack([noise + mean for mean in (2.0, 1.0, -1.0)])
    figure = crossing_figure((0, 10, 20), z)
    assert figure.value == pytest.approx(15)
    own = mean_figure(noise)
    assert own.high is not None
    assert (figure.low, figure.high) == pytest.approx((15 - 5 * own.high, 15 + 5 * own.high))
    late = crossing_figure((0, 10, 20), z + 1 + own.high / 2)
    assert (late.value, late.high) == (None, None)
    assert late.note == Note(NoteKind.BEYOND, numbers=(20,))
    assert late.low == pytest.approx(20 - 2.5 * own.high)
    assert crossing_figure((0, 10, 20), z + 2 + own.high).low is None
