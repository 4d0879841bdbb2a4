"""Intervals within bounds: by hand, properties, and how often they have the truth near a bound."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import binom  # type: ignore[import-untyped, unused-ignore]
from synthetic import World

from ilubench.statistics.bounds import Range, cut_difference, keep_within, negated
from ilubench.statistics.intervals import Array, Figure, mean_figure

SHARE: Range = (0.0, 1.0)
HIGH = Figure(0.962, 0.907, 1.016, 5, 128, "seeds-and-items")


def ends(figure: Figure) -> tuple[float | None, float | None]:
    return figure.low, figure.high


def test_a_share_has_its_interval_on_the_logit_scale() -> None:
    """Half width .0545 over .962 x .038, around logit .962."""
    centre, half = math.log(0.962 / 0.038), 0.0545 / (0.962 * 0.038)
    wanted = [1 / (1 + math.exp(-end)) for end in (centre - half, centre + half)]
    found = keep_within(HIGH, SHARE)
    assert ends(found) == pytest.approx(wanted)
    assert (found.value, found.n_seeds, found.kind) == (0.962, 5, "seeds-and-items")


def test_percentages_are_shares_times_100() -> None:
    percent = replace(HIGH, value=96.2, low=90.7, high=101.6)
    wanted = [100 * (end or 0) for end in ends(keep_within(HIGH, SHARE))]
    assert ends(keep_within(percent, (0.0, 100.0))) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("figure", "bounds", "wanted"),
    [
        (Figure(0.1, -0.1, 0.3, 5, 9, "seeds-and-items"), (0.0, None), (0.0, 0.3)),
        (Figure(0.1, -0.1, 0.3, 5, 9, "seeds-and-items"), (None, 0.2), (-0.1, 0.2)),
        (Figure(1.0, 0.9, 1.1, 5, 9, "seeds-and-items"), SHARE, (0.9, 1.0)),
        (Figure(0.1, -0.1, 0.3, 5, 9, "seeds-and-items"), (None, None), (-0.1, 0.3)),
        (Figure(1.0, 1.0, 1.0, 5, 9, "seeds-and-items"), SHARE, (1.0, 1.0)),
        (Figure(0.5, None, None, 5, 9, "none"), SHARE, (None, None)),
        (Figure(None, None, None, 0, 0, "none"), SHARE, (None, None)),
    ],
    ids=["least", "most", "on a bound", "unbounded", "no width", "no interval", "no value"],
)
def test_what_has_no_logit_is_cut_or_left(
    figure: Figure, bounds: Range, wanted: tuple[float | None, float | None]
) -> None:
    assert ends(keep_within(figure, bounds)) == wanted


def test_a_difference_is_cut_at_its_own_bounds() -> None:
    """Two shares differ by 1 at most; the end that a p-value speaks of stays."""
    figure = Figure(0.6, 0.1, 1.1, 5, 9, "seeds-and-items")
    assert ends(cut_difference(figure, SHARE)) == (0.1, 1.0)
    assert ends(cut_difference(replace(figure, value=-70, low=-130, high=-10), (0, 100))) == (
        -100,
        -10,
    )
    assert cut_difference(figure, (0.0, None)) == figure


def test_negated() -> None:
    assert negated((0.0, None)) == (None, -0.0)
    assert negated((None, 2.0)) == (-2.0, None)


scores = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 5), st.integers(2, 6)),
    elements=st.integers(0, 8).map(lambda n: n / 8),
)


@given(scores)
def test_it_lies_within_and_has_its_value(x: Array) -> None:
    found = keep_within(mean_figure(x), SHARE)
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value - 1e-12 <= found.high <= 1


@given(scores)
def test_turned_scores_have_the_turned_interval(x: Array) -> None:
    one, other = (keep_within(mean_figure(table), SHARE) for table in (x, 1 - x))
    assert [1 - (end or 0) for end in ends(other)] == pytest.approx(ends(one)[::-1], abs=1e-9)


@pytest.mark.parametrize("count", [150, pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["binary", "clipped"])
@pytest.mark.parametrize("n_seeds", [5, 10])
def test_it_covers_near_the_bounds(kind: str, n_seeds: int, count: int) -> None:
    """In 92-99 % of tables, and not less often than the interval that leaves the bounds."""
    world = World("binary" if kind == "binary" else "clipped", n_seeds, 80)
    for mean in (0.02, 0.05, 0.5, 0.95, 0.98):
        rng = np.random.default_rng([n_seeds, round(1000 * mean)])
        tables = world.tables(rng, (mean,), world.items(rng, count))[:, 0]
        plain = [mean_figure(table) for table in tables]
        wide = [one for one in plain if one.low != one.high]  # the others are all 0, or all 1
        hits = [
            sum((one.low or 0) <= mean <= (one.high or 0) for one in figures)
            for figures in (wide, [keep_within(one, SHARE) for one in wide])
        ]
        shares = " ".join(f"{hit / len(wide):.3f}" for hit in hits)
        print(f"{kind} {n_seeds} seeds, mean {mean}: plain, within {shares}")
        assert binom.ppf(1e-4, len(wide), 0.92) <= hits[1] <= binom.ppf(1 - 1e-4, len(wide), 0.99)
        assert hits[1] >= hits[0] - 0.01 * len(wide)
