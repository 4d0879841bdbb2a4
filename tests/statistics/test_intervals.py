"""Intervals over crossed seeds and items: hand-computed cases, properties, simulated coverage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ilubench.errors import DataError
from ilubench.statistics.intervals import (
    ZERO_VARIANCE,
    Array,
    MeanSquares,
    Samples,
    ScoreArrays,
    jackknife_figure,
    mean_figure,
    mean_squares,
    mean_variance,
    pick_items,
    shared_seeds,
    stack_tables,
)
from ilubench.statistics.notes import Note, NoteKind

scores = hnp.arrays(
    np.float64,
    st.tuples(st.integers(2, 5), st.integers(2, 6)),
    elements=st.integers(0, 8).map(lambda n: n / 8),
)


def first(means: Array, _: Array) -> Array:
    """The mean of the first array: a linear statistic."""
    return means[:, 0]


def least(means: Array, _: Array) -> Array:
    """The minimum over the arrays."""
    smallest: Array = means.min(axis=1)
    return smallest


# --- by hand ---------------------------------------------------------------------------------


def test_mean_squares_by_hand() -> None:
    """Rows 1 2 3 and 3 4 8: grand 3.5, rows 2 and 5, columns 2, 3, 5.5."""
    ms = mean_squares(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]]))
    assert ms.seed == pytest.approx(3 * (1.5**2 + 1.5**2))
    assert ms.item == pytest.approx(2 * (1.5**2 + 0.5**2 + 2.0**2) / 2)
    residuals = [0.5, 0.5, -1.0, -0.5, -0.5, 1.0]
    assert ms.residual == pytest.approx(sum(r * r for r in residuals) / 2)
    var, df = mean_variance(ms)
    assert var == pytest.approx((13.5 + 6.5 - 1.5) / 6)
    assert df == pytest.approx(18.5**2 / (13.5**2 / 1 + 6.5**2 / 2 + 1.5**2 / 2))


@pytest.mark.parametrize(
    ("ms", "expected"),
    [
        (MeanSquares(1.0, 4.0, 2.0, 3, 10), (4.0 / 30, 9.0)),
        (MeanSquares(4.0, 1.0, 2.0, 3, 10), (4.0 / 30, 2.0)),
        (MeanSquares(0.0, 4.0, 0.0, 1, 10), (4.0 / 10, 9.0)),
    ],
    ids=["no seed effect", "no item effect", "one seed"],
)
def test_floor_keeps_the_larger_mean_square(ms: MeanSquares, expected: tuple[float, float]) -> None:
    """A negative component counts as 0; the degrees of freedom are those of what is left."""
    assert mean_variance(ms) == pytest.approx(expected)


def test_one_seed_is_the_items_t_interval() -> None:
    """0, 0, 1, 1: mean .5, variance 1/3, t_3 = 3.182446."""
    figure = mean_figure(np.array([[0.0, 0.0, 1.0, 1.0]]))
    half = 3.182446 * math.sqrt(1 / 12)
    assert (figure.kind, figure.n_seeds, figure.n_items) == ("item-only", 1, 4)
    assert (figure.low, figure.high) == pytest.approx((0.5 - half, 0.5 + half))
    jack = jackknife_figure(ScoreArrays(np.array([[[0.0, 0.0, 1.0, 1.0]]])), first)
    assert (jack.low, jack.high, jack.kind) == pytest.approx((figure.low, figure.high, "item-only"))


def test_no_variance_is_said() -> None:
    """Equal scores: an interval without width, and a note."""
    figure = mean_figure(np.full((3, 5), 0.1))
    assert figure.low == figure.value == figure.high == pytest.approx(0.1)
    assert figure.note == ZERO_VARIANCE


@pytest.mark.parametrize(
    "x",
    [np.ones((2, 1)), np.ones((0, 3)), np.ones(3), np.array([[1.0, np.nan]])],
    ids=["one item", "no seed", "no table", "nan"],
)
def test_errors(x: Array) -> None:
    """No data is an error, never a number."""
    with pytest.raises(DataError):
        mean_figure(x)


def test_jackknife_errors() -> None:
    """A score array with a single item has no interval, whatever the others have."""
    cells = np.array([[[1.0, np.nan, np.nan], [0.0, np.nan, np.nan]], np.ones((2, 3))])
    with pytest.raises(DataError, match="two items"):
        jackknife_figure(ScoreArrays(cells), least)


def test_ratio_is_the_delta_method() -> None:
    """The jackknife of a ratio of means approaches the linearised variance."""
    rng = np.random.default_rng(0)
    x = rng.normal(1.0, 0.2, (2, 6, 400)) + rng.normal(0, 0.1, (2, 6, 1))
    a, b = x.mean(axis=(1, 2))
    figure = jackknife_figure(ScoreArrays(x), lambda m, _: m[:, 0] / m[:, 1])
    linear = mean_figure(a / b + (x[0] - a) / b - (x[1] - b) * a / b**2)
    assert figure.value == pytest.approx(a / b)
    assert figure.low == pytest.approx(linear.low, abs=2e-3)
    assert figure.high == pytest.approx(linear.high, abs=2e-3)


def test_missing_items_are_left_out() -> None:
    """An array that was asked two of four items has their mean; the others weigh nothing."""
    x = np.array([[[0.0, 1.0, np.nan, np.nan], [1.0, 1.0, np.nan, np.nan]]])
    figure = jackknife_figure(ScoreArrays(x), first)
    assert figure.value == pytest.approx(0.75)
    assert figure.low is not None
    assert figure.low < 0.75


def test_filter_by_seed_is_repeated() -> None:
    """A filter that one seed decides: no interval is claimed."""
    x = np.array([[[0.1, 0.2, 0.3], [0.2, 0.3, 0.5]]])

    def filtered(means: Array, by_seed: Array) -> Array:
        return np.where(by_seed[:, 0] > 0.4, means[:, 0], np.nan)

    decided = jackknife_figure(ScoreArrays(x, np.array([[1.0, 0.2]])), filtered)
    assert decided.value == pytest.approx(1.6 / 6)
    assert (decided.low, decided.kind) == (None, "none")
    assert decided.note == Note(NoteKind.NO_INTERVAL)
    clear = jackknife_figure(ScoreArrays(x, np.array([[1.0, 0.9]])), filtered)
    assert clear.low is not None
    never = jackknife_figure(ScoreArrays(x, np.array([[0.1, 0.2]])), filtered)
    assert (never.value, never.kind) == (None, "none")


def test_tables_are_matched_by_name() -> None:
    """Rows and columns are found by seed and item; a single row is repeated."""
    table = Samples(np.array([[1.0, 2.0], [3.0, 4.0]]), (7, 3), ("b", "a"))
    once = Samples(np.array([[5.0, 6.0]]), (0,), ("a", "c"))
    assert shared_seeds([table], [once]) == (3, 7)
    assert pick_items(table, (3, 7), ("a", "b")).tolist() == [[4.0, 3.0], [2.0, 1.0]]
    both = stack_tables([table, once], (3, 7), ("a", "b", "c"))
    np.testing.assert_array_equal(both[1], [[5.0, np.nan, 6.0]] * 2)
    with pytest.raises(DataError, match=r"no seed is shared.*0 \| 7, 3"):
        shared_seeds([table, once])
    with pytest.raises(DataError):
        shared_seeds([])


# --- properties ------------------------------------------------------------------------------


@given(scores)
def test_jackknife_of_a_mean_is_the_mean(x: Array) -> None:
    """The three jackknives reproduce the mean squares exactly."""
    a, b = mean_figure(x), jackknife_figure(ScoreArrays(x[None]), first)
    assert b.value == pytest.approx(a.value)
    assert b.low == pytest.approx(a.low, abs=1e-9)
    assert b.high == pytest.approx(a.high, abs=1e-9)


@given(scores, st.integers(0, 10_000))
def test_order_does_not_matter(x: Array, seed: int) -> None:
    """Permuting seeds and items leaves the interval unchanged."""
    rng = np.random.default_rng(seed)
    y = x[rng.permutation(x.shape[0])][:, rng.permutation(x.shape[1])]
    a, b = mean_figure(x), mean_figure(y)
    assert (b.value, b.low, b.high) == pytest.approx((a.value, a.low, a.high), abs=1e-12)


@given(scores, st.floats(0.1, 10), st.floats(-5, 5))
def test_equivariance(x: Array, scale: float, shift: float) -> None:
    """The interval scales and shifts with the scores."""
    a, b = mean_figure(x), mean_figure(scale * x + shift)
    assert None not in (a.value, a.low, a.high)
    expected = [scale * v + shift for v in (a.value, a.low, a.high) if v is not None]
    assert [b.value, b.low, b.high] == pytest.approx(expected, abs=1e-9)


@given(scores)
def test_interval_surrounds_its_value(x: Array) -> None:
    """Low <= value <= high, with equality only without variance."""
    figure = mean_figure(x)
    assert figure.low is not None
    assert figure.high is not None
    assert figure.value is not None
    assert figure.low <= figure.value <= figure.high
    assert (figure.low == figure.high) == (figure.note == ZERO_VARIANCE)


@given(scores)
def test_every_item_twice_adds_no_variance(x: Array) -> None:
    """Copies of the items never add variance, and never remove that of the seeds."""
    twice = np.concatenate([x, x], axis=1)
    var, _ = mean_variance(mean_squares(x))
    again, _ = mean_variance(mean_squares(twice))
    assert again <= var + 1e-12
    ms = mean_squares(x)
    assert again >= ms.seed / x.size - 1e-12


@given(scores)
def test_repeating_a_seed_adds_no_certainty_about_items(x: Array) -> None:
    """One row copied S times: the variance stays the items' own."""
    assume(np.ptp(x[0]) > 0)
    single = mean_figure(x[:1])
    copies = mean_figure(np.repeat(x[:1], 4, axis=0))
    assert (copies.low, copies.high) == pytest.approx((single.low, single.high))


@settings(max_examples=30)
@given(hnp.arrays(np.float64, (4, 3, 5), elements=st.floats(0, 1, width=16)))
def test_least_is_the_least(x: Array) -> None:
    """A minimum is the least mean, and identical arrays give the interval of one."""
    figure = jackknife_figure(ScoreArrays(x), least)
    assert figure.value == pytest.approx(x.mean(axis=(1, 2)).min())
    same = jackknife_figure(ScoreArrays(np.repeat(x[:1], 3, axis=0)), least)
    alone = mean_figure(x[0])
    assert same.low == pytest.approx(alone.low, abs=1e-9)
    assert replace(same, value=0, low=0, high=0) == replace(alone, value=0, low=0, high=0)


# --- simulation ------------------------------------------------------------------------------


@pytest.mark.parametrize("n_seeds", [5, 10])
@pytest.mark.parametrize(("seed_sd", "item_sd"), [(0.1, 0.5), (0.3, 0.5), (0.3, 1.0)])
def test_coverage_of_means(n_seeds: int, seed_sd: float, item_sd: float) -> None:
    """95 % intervals over crossed random effects contain the truth in 92-98 % of replicates."""
    rng = np.random.default_rng([n_seeds, round(10 * seed_sd), round(10 * item_sd)])
    replicates, hits = 800, 0
    for _ in range(replicates):
        x = rng.normal(size=(n_seeds, 60))
        x += rng.normal(0, seed_sd, (n_seeds, 1)) + rng.normal(0, item_sd, (1, 60))
        figure = mean_figure(x)
        assert figure.low is not None
        assert figure.high is not None
        hits += figure.low <= 0 <= figure.high
    coverage = hits / replicates
    print(f"mean: {n_seeds} seeds, sd {seed_sd} and {item_sd}: {coverage:.3f}")
    assert 0.92 <= coverage <= 0.98
