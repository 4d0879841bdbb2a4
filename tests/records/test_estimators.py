"""Estimators against hand computations and independent implementations."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ilubench.errors import DataError
from ilubench.records.estimators import auc, estimate
from ilubench.specs import Estimator

MEAN, GROUPS, AUC = (Estimator.model_validate(name) for name in ("mean", "group_mean", "auc"))


def test_mean() -> None:
    value, se = estimate(MEAN, [1.0, 2.0, 6.0], ["", "", ""], ["", "", ""])
    assert value == 3.0
    assert se == pytest.approx(math.sqrt(7.0 / 3))  # variance 7 over 3 items
    assert estimate(MEAN, [4.0], [""], [""]) == (4.0, None)


def test_group_mean_weighs_groups_alike() -> None:
    values, groups = [1.0, 1.0, 1.0, 0.0, 0.5], ["a", "a", "a", "b", "b"]
    value, se = estimate(GROUPS, values, groups, [""] * 5)
    assert value == pytest.approx((1.0 + 0.25) / 2)
    assert se == pytest.approx(0.25 / 2)  # group b: spread .3536 over sqrt 2; group a: none
    assert estimate(GROUPS, [1.0, 0.0, 1.0], ["a", "a", "b"], [""] * 3) == (0.75, None)


@given(
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
    st.lists(st.integers(0, 6), min_size=1, max_size=12),
)
def test_auc_is_the_share_of_pairs_won(positive: list[int], negative: list[int]) -> None:
    pairs = [(p > n) + 0.5 * (p == n) for p, n in itertools.product(positive, negative)]
    value, _ = auc(np.array(positive, float), np.array(negative, float))
    assert value == pytest.approx(sum(pairs) / len(pairs))


def test_auc_standard_error_by_simulation() -> None:
    rng = np.random.default_rng(0)
    found, claimed = [], []
    for _ in range(2000):
        value, se = auc(rng.normal(0.7, 1, 40), rng.normal(0, 1, 60))
        assert se is not None
        found.append(value)
        claimed.append(se)
    assert np.mean(claimed) == pytest.approx(np.std(found), rel=0.05)


def test_relative_change_in_percent() -> None:
    values, labels = [1.0, 2.0, 3.0, 4.0], ["0", "1", "0", "1"]
    plain, se = estimate(AUC, values, [""] * 4, labels)
    assert plain == 0.75
    assert se is not None
    relative = Estimator(kind="auc", relative_to=0.5)
    change, spread = estimate(relative, values, [""] * 4, labels)
    assert (change, spread) == (50.0, se * 200)


def test_refusals() -> None:
    with pytest.raises(DataError, match="no values"):
        estimate(MEAN, [], [], [])
    with pytest.raises(DataError, match="labelled 0 and 1"):
        estimate(AUC, [1.0, 2.0], ["", ""], ["1", "1"])
