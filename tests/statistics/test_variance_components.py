"""Variance components: hand-computed tables, known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2  # type: ignore[import-untyped, unused-ignore]
from synthetic import World

from ilubench.errors import DataError
from ilubench.statistics.intervals import mean_squares, mean_variance
from ilubench.statistics.variance_components import Component, Factorial, decompose_variance


def factorial(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], *names: str) -> Factorial:
    return Factorial(values, names, tuple(tuple(range(n)) for n in values.shape))


def by_name(parts: tuple[Component, ...]) -> dict[str, Component]:
    return {part.name: part for part in parts}


def test_two_factors_by_hand() -> None:
    """Mean squares 13.5, 6.5 and 1.5: (13.5 - 1.5) / 3, (6.5 - 1.5) / 2, 1.5."""
    table = factorial(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 8.0]]), "seed", "item")
    seed, item, rest = decompose_variance(table)
    assert [part.name for part in (seed, item, rest)] == ["seed", "item", "seed x item"]
    assert [part.variance for part in (seed, item, rest)] == pytest.approx([4.0, 2.5, 1.5])
    assert [part.df for part in (seed, item, rest)] == [1, 2, 2]
    assert seed.cell_share == pytest.approx(4.0 / 8.0)
    of_mean = (4.0 / 2, 2.5 / 3, 1.5 / 6)
    assert [p.mean_share for p in (seed, item, rest)] == pytest.approx(
        [v / sum(of_mean) for v in of_mean]
    )
    assert (rest.low, rest.high) == pytest.approx(
        (2 * 1.5 / chi2.ppf(0.975, 2), 2 * 1.5 / chi2.ppf(0.025, 2))
    )


def test_components_add_up_to_the_interval_s_variance() -> None:
    """Without a negative estimate, the mean's variance is that of `intervals`."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(6, 30)) + rng.normal(size=(6, 1)) + rng.normal(size=(1, 30))
    parts = decompose_variance(factorial(x, "seed", "item"))
    total = parts[0].variance / 6 + parts[1].variance / 30 + parts[2].variance / 180
    assert total == pytest.approx(mean_variance(mean_squares(x))[0])


def test_a_negative_estimate_is_0_and_said() -> None:
    """Rows with equal means and large interaction: the seed's estimate is -MS_residual / I."""
    parts = decompose_variance(factorial(np.array([[0.0, 1.0], [1.0, 0.0]]), "seed", "item"))
    assert (parts[0].variance, parts[0].low) == (0.0, 0.0)
    assert parts[0].negative == pytest.approx(-0.5)
    assert parts[2].negative is None
    assert parts[2].cell_share == 1.0


def test_three_factors_by_hand() -> None:
    """Additive effects only: each factor has its own variance, the interactions have none."""
    a, b, c = np.array([0.0, 2.0]), np.array([1.0, 2.0, 3.0]), np.array([0.0, 4.0])
    x = a[:, None, None] + b[None, :, None] + c[None, None]
    parts = by_name(decompose_variance(factorial(x, "a", "b", "c")))
    assert len(parts) == 7
    for key, expected in (("a", 2.0), ("b", 1.0), ("c", 8.0), ("a x b", 0.0), ("a x b x c", 0.0)):
        assert parts[key].variance == pytest.approx(expected, abs=1e-12)
        assert parts[key].negative is None


def test_one_factor_is_the_sample_variance() -> None:
    x = np.array([1.0, 2.0, 4.0, 9.0])
    (only,) = decompose_variance(factorial(x, "seed"))
    assert only.variance == pytest.approx(x.var(ddof=1))


def test_fixed_factors_have_no_component() -> None:
    """The attack's own line goes, the others stay as they are."""
    x = np.random.default_rng(0).normal(size=(2, 4, 5))
    table = factorial(x, "attack", "seed", "item")
    every = by_name(decompose_variance(table))
    mixed = by_name(decompose_variance(table, fixed=("attack",)))
    assert set(every) - set(mixed) == {"attack"}
    assert all(mixed[key].variance == every[key].variance for key in mixed)
    assert sum(part.mean_share for part in mixed.values()) == pytest.approx(1.0)
    with pytest.raises(DataError, match="no factor 'atack'; did you mean 'attack'"):
        decompose_variance(table, fixed=("atack",))


def test_factors_in_any_order() -> None:
    """Transposing the table permutes the components."""
    x = np.random.default_rng(2).normal(size=(3, 4, 5))
    one = {frozenset(p.factors): p for p in decompose_variance(factorial(x, "a", "b", "c"))}
    two = {
        frozenset(p.factors): p
        for p in decompose_variance(factorial(x.transpose(2, 0, 1), "c", "a", "b"))
    }
    assert one.keys() == two.keys()
    for key, part in one.items():
        other = two[key]
        assert (other.variance, other.low, other.high) == pytest.approx(
            (part.variance, part.low, part.high)
        )


@pytest.mark.parametrize(
    ("values", "names", "words"),
    [
        (np.ones((1, 3)), ("seed", "item"), "'seed' has one level"),
        (np.ones((2, 3)), ("seed",), "for factors"),
        (np.ones((2, 3)), ("seed", "seed"), "different names"),
        (np.array([1.0, np.nan]), ("seed",), "not finite at seed 1"),
    ],
)
def test_bad_tables(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], names: tuple[str, ...], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        factorial(values, *names)


# --- known truth ---


@pytest.mark.parametrize("n_seeds", [5, 10])
@pytest.mark.parametrize("seed_sd", [0.1, 0.3, 1.0])
def test_two_factor_intervals_cover(n_seeds: int, seed_sd: float) -> None:
    """Normal effects: 95 % intervals have the components in 92-98 % of tables; no bias."""
    rng = np.random.default_rng([n_seeds, round(10 * seed_sd)])
    truth, count = (seed_sd**2, 0.25, 1.0), 400
    hits, sums = np.zeros(3), np.zeros(3)
    for _ in range(count):
        x = rng.normal(size=(n_seeds, 60)) + seed_sd * rng.normal(size=(n_seeds, 1))
        x += 0.5 * rng.normal(size=(1, 60))
        parts = decompose_variance(factorial(x, "seed", "item"))
        hits += [part.low <= t <= part.high for part, t in zip(parts, truth, strict=True)]
        sums += [part.variance for part in parts]
    assert (hits / count >= 0.92).all(), hits
    assert (hits / count <= 0.98).all(), hits
    assert sums[1:] / count == pytest.approx(truth[1:], rel=0.05)


def test_factorial_design_separates_what_a_run_cannot() -> None:
    """Target, unlearning and order crossed: each variance is found, with its interval."""
    rng = np.random.default_rng(5)
    names, sizes = ("target", "unlearn", "order", "item"), (4, 4, 4, 30)
    sds = {"target": 0.2, "unlearn": 0.6, "order": 0.3, "item": 1.0}
    count, hits, sums = 120, dict.fromkeys(sds, 0), dict.fromkeys(sds, 0.0)
    for _ in range(count):
        x = 0.5 * rng.normal(size=sizes)
        for axis, key in enumerate(names):
            shape = [n if k == axis else 1 for k, n in enumerate(sizes)]
            x = x + sds[key] * rng.normal(size=shape)
        parts = by_name(decompose_variance(factorial(x, *names)))
        for key, sd in sds.items():
            hits[key] += parts[key].low <= sd**2 <= parts[key].high
            sums[key] += parts[key].variance
    for key, sd in sds.items():
        assert hits[key] / count >= 0.88, (key, hits)
        assert sums[key] / count == pytest.approx(sd**2, rel=0.25), key


def test_intervals_of_the_seed_line_on_0_1_scores() -> None:
    """Multiple choice: the seed's component, estimated from many tables, is covered."""
    rng = np.random.default_rng(11)
    world, count = World(n_seeds=5, seed=0.3), 300
    tables = world.tables(rng, (0.6,), world.items(rng, count))[:, 0]
    parts = [decompose_variance(factorial(x, "seed", "item"))[0] for x in tables]
    many = World(n_seeds=400, seed=0.3)
    (whole,) = many.tables(rng, (0.6,), many.items(rng, 1))[:, 0]
    truth = decompose_variance(factorial(whole, "seed", "item"))[0].variance
    hits = sum(part.low <= truth <= part.high for part in parts)
    assert 0.90 <= hits / count <= 0.99
