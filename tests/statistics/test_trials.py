"""Trials of an attacker who tunes: every figure by hand, and the interval of a selected one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ilubench.statistics.aggregate import aggregate
from ilubench.statistics.intervals import Array, Figure, Samples, mean_figure
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.row import (
    Chances,
    Course,
    MethodRuns,
    RobustnessRow,
    Trials,
    trial_level,
    trial_number,
)
from ilubench.statistics.trials import (
    lowest_trials,
    share_kept,
    strongest_trials,
    trial_figures,
)

ITEMS = ("i0", "i1", "i2", "i3")
NAN, FAILED = np.nan, -np.inf


def items(mean: float) -> list[float]:
    """Four scores with that mean."""
    return [mean - 0.1, mean + 0.1, mean - 0.02, mean + 0.02]


def trials(means: list[list[float]], kept: list[list[float]]) -> Trials:
    """Trials 1, 2, ... of each seed, by its mean (NaN: failed) and what it keeps."""
    values = np.array([[items(mean) for mean in row] for row in means])
    seeds = tuple(range(len(means[0])))
    return Trials(tuple(range(1, len(means) + 1)), values, np.array(kept), seeds, ITEMS)


# two seeds, four trials; the third of seed 0 destroys the model, the second of seed 1 diverged
TRIED = trials(
    [[0.6, 0.7], [0.5, NAN], [0.2, 0.4], [0.55, 0.9]],
    [[1.0, 0.95], [0.9, FAILED], [0.3, 0.91], [1.0, 0.2]],
)


def test_the_three_numbers_and_the_curve_by_hand() -> None:
    found = trial_figures(TRIED)
    assert (found.n_trials, found.top_n, found.seeds, found.strongest) == (4, 3, (0, 1), (2, 3))
    assert found.worst_case.value == pytest.approx((0.2 + 0.4) / 2)
    # seed 0: .2, .5, .55; seed 1: .4, .7, .9
    assert found.top_n_average.value == pytest.approx((1.25 / 3 + 2.0 / 3) / 2)
    assert found.bounded_worst_case.value == pytest.approx((0.5 + 0.4) / 2)
    curve = [figure.value for figure in found.best_so_far]
    assert curve == pytest.approx([0.65, (0.5 + 0.7) / 2, 0.45, 0.45])
    assert all(figure.kind == "seeds-and-items" for figure in found.best_so_far)


def test_a_seed_that_has_nothing_yet_leaves_the_curve_undefined() -> None:
    late = replace(TRIED, kept=np.array([[0.5, 1.0], [0.9, FAILED], [0.3, 0.91], [1.0, 0.2]]))
    found = trial_figures(late)
    first, second, *_ = found.best_so_far
    assert first.value is None
    assert first.note is not None
    assert first.note.kind == NoteKind.NO_UTILITY_KEPT
    assert second.value == pytest.approx(0.6)


def test_a_number_that_failed_last_in_all_seeds_is_not_known_of() -> None:
    gaps = replace(TRIED, numbers=(2, 3, 5, 6))
    found = trial_figures(gaps)
    assert (found.n_trials, found.strongest) == (6, (3, 5))
    assert found.best_so_far[0].value is None  # trial 1 failed
    assert found.best_so_far[3].value == found.best_so_far[2].value  # trial 4 failed


def test_where_no_trial_keeps_the_utility_the_one_that_keeps_most_stands_there() -> None:
    destroyed = replace(TRIED, kept=np.array([[0.1, 1.0], [0.4, FAILED], [0.3, 0.9], [0.2, 0.2]]))
    assert strongest_trials(destroyed).tolist() == [1, 2]
    assert trial_figures(destroyed).bounded_worst_case.value is None
    nothing = replace(TRIED, kept=np.full((4, 2), FAILED))  # the unlearned model has no utility
    assert strongest_trials(nothing).tolist() == [0, 0]


@pytest.mark.parametrize("n_seeds", [1, 3])
def test_the_interval_of_an_only_trial_is_that_of_its_mean(n_seeds: int) -> None:
    values = np.random.default_rng(0).random((1, n_seeds, 9))
    names = tuple(f"i{k}" for k in range(9))
    only = Trials((1,), values, np.ones((1, n_seeds)), tuple(range(n_seeds)), names)
    figure, plain = trial_figures(only).bounded_worst_case, mean_figure(values[0])
    assert (figure.value, figure.low, figure.high) == pytest.approx(
        (plain.value, plain.low, plain.high)
    )


def test_the_selection_is_repeated_without_an_item() -> None:
    """Without the last item the second trial is the lowest."""
    values = np.array([[[0.5, 0.5, 0.5, 0.1]], [[0.5, 0.5, 0.4, 0.3]]])
    two = Trials((1, 2), values, np.ones((2, 1)), (0,), ITEMS)
    found = lowest_trials(two)
    assert found.value == pytest.approx(0.4)
    assert found.without_item == pytest.approx([1.1 / 3, 1.1 / 3, 1.1 / 3, 1.4 / 3])
    over = lowest_trials(two, items=("a", *ITEMS))
    assert over.without_item == pytest.approx([0.4, *found.without_item])


def test_utility_that_was_not_there_cannot_be_kept() -> None:
    chance = np.array([0.25, 0.0])
    after = np.array([[0.65, 0.4], [0.25, 0.5]])
    assert share_kept(after, np.array([0.75, 0.5]), chance) == pytest.approx([0.8, 0.0])
    assert share_kept(after, np.array([0.25, 0.5]), chance).tolist() == [FAILED, FAILED]


def test_levels_name_trials() -> None:
    assert (trial_level(7), trial_number("trial-007"), trial_number(trial_level(1234))) == (
        "trial-007",
        7,
        1234,
    )
    assert [trial_number(name) for name in ("", "trial-", "trial-a", "step-001")] == [None] * 4


# --- in a row --------------------------------------------------------------------------------


def table(values: Array, seeds: tuple[int, ...] = (0, 1)) -> Samples:
    return Samples(values, seeds, ITEMS)


def flat(mean: float) -> Samples:
    return table(np.array([items(mean)] * 2) + np.array([[0.0], [0.01]]) - 0.005)


def tuned(tried: Trials) -> Course:
    """What is made of the trials: the strongest of each seed."""
    chosen = tried.forget[strongest_trials(tried), np.arange(2)]
    return Course(
        attack="sweep",
        steps=(0, 1),
        forget=(flat(0.8), table(chosen)),
        utility=((flat(0.75),), (flat(0.74),)),
        fa=None,
        quartile_steps=(1,),
        total_steps=1,
        levels=("strongest",),
        further=True,
        trials=tried,
    )


BENIGN = Course(
    "benign",
    (0, 10),
    (flat(0.8), flat(0.6)),
    ((flat(0.75),), (flat(0.75),)),
    None,
    (10,),
    10,
)


def row_of(*courses: Course) -> RobustnessRow:
    method = MethodRuns(flat(0.8), (flat(0.75),), courses)
    original = MethodRuns(flat(0.1), (flat(0.75),), courses)
    return aggregate(method, original, Chances(0.75, (0.25,)), retrain=method)


def kind(figure: Figure) -> NoteKind | None:
    return figure.note.kind if figure.note is not None else None


def test_a_row_counts_trials_in_the_worst_case_and_nowhere_in_ra() -> None:
    row = row_of(BENIGN, tuned(TRIED))
    sweep = row.attacks[1]
    assert row.ra_attacks == ("benign",)
    assert row.ra.value == pytest.approx(0.6)
    assert row.worst_case.value == pytest.approx(0.45)
    assert row.worst_at == ("sweep", 1)
    assert sweep.trials == trial_figures(TRIED)
    for figure in (sweep.ra, sweep.half_life, sweep.area):
        assert (figure.value, kind(figure)) == (None, NoteKind.NO_ORDER)
    assert sweep.recovery.value == pytest.approx((0.8 - 0.45) / (0.8 - 0.1))
    assert sweep.never_knew is not None
    assert sweep.never_knew.value == pytest.approx(0.0)
    assert sweep.steps[-1].eligible


def test_alone_the_worst_case_has_the_interval_of_the_trials() -> None:
    assert row_of(tuned(TRIED)).worst_case == trial_figures(TRIED).bounded_worst_case


def test_trials_that_keep_nothing_are_no_worst_case() -> None:
    lost = replace(TRIED, kept=np.array([[0.1, 1.0], [0.4, FAILED], [0.3, 0.9], [0.2, 0.2]]))
    row = row_of(BENIGN, tuned(lost))
    assert row.worst_at == ("benign", 10)
    assert row.worst_case.value == pytest.approx(0.6)
    assert not row.attacks[1].steps[-1].eligible
    assert kind(row_of(tuned(lost)).worst_case) == NoteKind.NO_UTILITY_KEPT
