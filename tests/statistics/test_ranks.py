"""Ranks from paired differences, planned comparisons, and methods at matched forgetting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured import read
from places import LEADERBOARDS
from scipy import stats  # type: ignore[import-untyped, unused-ignore]
from synthetic import World, course_runs

from ilubench.errors import DataError
from ilubench.records.rows import method_runs
from ilubench.records.scores import method_samples
from ilubench.records.wording import note_text
from ilubench.statistics.aggregate import ra_samples
from ilubench.statistics.intervals import (
    ZERO_VARIANCE,
    Samples,
    mean_figure,
    no_figure,
    paired_difference,
)
from ilubench.statistics.matched_forgetting import Strength, Sweep, at_forgetting, compare_matched
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.ranks import (
    Entrant,
    Ranks,
    adjust_holm,
    compare_methods,
    compare_unpaired,
    detectable_difference,
    pair_text,
    table_text,
)
from ilubench.statistics.row import Course, MethodRuns, quartile_steps

MINI = LEADERBOARDS / "mini" / "measured"
ITEMS = tuple(f"i{k:02}" for k in range(12))


def table(mean: float, seeds: Sequence[int], noise: int, spread: float = 0.05) -> Samples:
    """A table of exactly that mean, with noise of its own."""
    values = np.random.default_rng(noise).normal(size=(len(seeds), len(ITEMS)))
    return Samples(mean + spread * (values - values.mean()), tuple(seeds), ITEMS)


def entrant(
    name: str,
    mean: float,
    seeds: Sequence[int] = range(5),
    *,
    barred: Note | None = None,
    noise: int = 0,
) -> Entrant:
    own = table(mean, seeds, noise or sum(map(ord, name)))
    return Entrant(name, course_runs([own, own]).courses, barred)


def ranks(found: Ranks) -> dict[str, int | None]:
    return {row.name: row.rank for row in found.rows}


def notes(found: Ranks) -> dict[str, Note | None]:
    return {row.name: row.note for row in found.rows}


# --- p-values and their adjustment ---


def test_holm_by_hand() -> None:
    """Of .01, .04, .03: 3 x .01, then 2 x .03, then .04, never less than the one before."""
    assert adjust_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_holm([0.5, 0.9]) == [1.0, 1.0]
    assert adjust_holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_plain_and_bonferroni(p: list[float]) -> None:
    """Never below the p-value or above Bonferroni's, and in the same order."""
    adjusted = adjust_holm(p)
    for own, other in zip(p, adjusted, strict=True):
        assert own <= other <= min(1.0, len(p) * own) + 1e-12
    order = np.argsort(p, kind="stable")
    assert (np.diff(np.array(adjusted)[order]) >= 0).all()


def test_a_pair_is_the_paired_interval() -> None:
    """Difference and interval are those of the crossed table; p is .05 where it touches 0."""
    a, b = entrant("a", 0.6), entrant("b", 0.5)
    pair = compare_methods([a, b]).pairs[0]
    expected = paired_difference(ra_samples(a.courses), ra_samples(b.courses), "RA")
    assert pair.difference == expected
    assert expected.value is not None
    assert expected.low is not None
    touching = entrant("a", 0.6 - expected.low)
    assert compare_methods([touching, b]).pairs[0].p == pytest.approx(0.05, abs=1e-6)
    flipped = compare_methods([b, a]).pairs[0]
    assert flipped.difference.value == pytest.approx(-expected.value)
    assert flipped.p == pytest.approx(pair.p)


def test_detectable_by_the_noncentral_t() -> None:
    """The t test at that size has power .8, and the table uses alpha / pairs."""
    size = detectable_difference(0.04, 7.3, alpha=0.05 / 6, power=0.8)
    critical = stats.t.ppf(1 - 0.05 / 12, 7.3)
    assert stats.nct.sf(critical, 7.3, size / 0.2) == pytest.approx(0.8, abs=1e-5)
    assert detectable_difference(0.04, 1e7) == pytest.approx(0.2 * (1.959964 + 0.841621), rel=1e-4)
    two = compare_methods([entrant("a", 0.5), entrant("b", 0.5)])
    three = compare_methods([entrant("a", 0.5), entrant("b", 0.5), entrant("c", 0.5)])
    assert two.detectable is not None
    assert three.detectable is not None
    assert two.detectable[0] == two.detectable[1] == two.pairs[0].detectable
    assert three.pairs[0].detectable is not None
    assert three.pairs[0].detectable > two.detectable[0]
    sizes = [pair.detectable for pair in three.pairs if pair.detectable is not None]
    assert three.detectable == (min(sizes), max(sizes))


# --- ranks ---


def test_ranks_count_the_better_rows() -> None:
    """Two tied at the top, one clearly below, one barred and still shown."""
    rows = [
        entrant("low", 0.3),
        entrant("top", 0.8),
        entrant("tie", 0.8),
        entrant("gone", 0.9, barred=Note(NoteKind.COLLAPSED)),
    ]
    found = compare_methods(rows)
    assert ranks(found) == {"low": 3, "top": 1, "tie": 1, "gone": None}
    assert notes(found)["gone"] == Note(NoteKind.COLLAPSED)
    assert found.rows[1].ties == ("tie",)
    assert found.rows[3].ra.value == pytest.approx(0.9)
    assert len(found.pairs) == 3
    again = compare_methods(rows[::-1])
    assert ranks(again) == ranks(found)


def test_pairing_needs_two_shared_seeds() -> None:
    """Single seeds go first, then the row that fits fewest others; what is left is ranked."""
    found = compare_methods(
        [
            entrant("a", 0.5, (0, 1, 2)),
            entrant("b", 0.6, (1, 2, 3)),
            entrant("apart", 0.7, (2, 8, 9)),
            entrant("one", 0.7, (1,)),
        ]
    )
    assert {name for name, rank in ranks(found).items() if rank} == {"a", "b"}
    assert notes(found)["apart"] == Note(NoteKind.FEW_SHARED_SEEDS, ("a", "b"))
    assert notes(found)["one"] == Note(NoteKind.ONE_SEED)
    assert [pair.difference.n_seeds for pair in found.pairs] == [2]


def test_no_rank_without_a_partner() -> None:
    """Two rows without shared seeds are both set aside; one alone has nobody to be ranked with."""
    apart = compare_methods([entrant("a", 0.5, (0, 1)), entrant("b", 0.6, (2, 3))])
    assert set(ranks(apart).values()) == {None}
    assert notes(apart)["a"] == Note(NoteKind.FEW_SHARED_SEEDS, ("b",))
    alone = compare_methods(
        [entrant("a", 0.5), entrant("b", 0.6, barred=Note(NoteKind.INCOMPLETE))]
    )
    assert notes(alone) == {"a": Note(NoteKind.ALONE), "b": Note(NoteKind.INCOMPLETE)}
    assert (alone.pairs, alone.detectable) == ((), None)
    assert "no two rows" in table_text(len(alone.pairs), alone.detectable)


@pytest.mark.parametrize("mean", [0.6, 0.5])
def test_a_difference_without_variance_has_no_rank(mean: float) -> None:
    """No test can rest on it, also where it is 0; the others keep their ranks."""
    rows = [entrant("a", mean, noise=1), entrant("b", 0.5, noise=1)]
    two = compare_methods(rows)
    assert (two.pairs, set(ranks(two).values())) == ((), {None})
    assert notes(two) == {
        "a": Note(NoteKind.NO_VARIANCE, ("b",)),
        "b": Note(NoteKind.NO_VARIANCE, ("a",)),
    }
    more = compare_methods([*rows, entrant("c", 0.2), entrant("d", 0.9)])
    assert ranks(more) == {"a": None, "b": None, "c": 2, "d": 1}
    twin = compare_methods([*rows, replace(rows[0], name="twin"), entrant("c", 0.2)])
    assert notes(twin)["a"] == Note(NoteKind.NO_VARIANCE, ("b", "twin"))
    assert notes(twin)["c"] == Note(NoteKind.ALONE)


def test_two_items_without_variance_have_no_p() -> None:
    """Means a ten-thousandth apart, over two items and three seeds that all score alike."""
    tables = [Samples(np.full((3, 2), 5 + d), (0, 1, 2), ("i", "j")) for d in (0.0, 1e-4)]
    rows = [Entrant(f"m{k}", course_runs([table, table]).courses) for k, table in enumerate(tables)]
    assert set(ranks(compare_methods(rows)).values()) == {None}
    welch = compare_unpaired(*rows)
    assert (welch.p, welch.significant, welch.difference.note) == (None, False, ZERO_VARIANCE)
    assert "no p, since nothing varies" in pair_text(welch)


@pytest.mark.parametrize(("items", "barred"), [(2, True), (3, False)])
def test_two_items_have_no_rank(items: int, *, barred: bool) -> None:
    """They vary, and their spread is a single number: whatever it is, it is no measure."""
    names = tuple("ijk"[:items])
    base = np.array([[0.1, 0.4, 0.2], [0.2, 0.3, 0.25], [0.1, 0.35, 0.3]])[:, :items]
    tables = [Samples(base + d, (0, 1, 2), names) for d in (0.0, 0.3 * base)]
    rows = [Entrant(f"m{k}", course_runs([table, table]).courses) for k, table in enumerate(tables)]
    found = compare_methods(rows)
    assert (found.pairs == ()) == barred
    few = Note(NoteKind.FEW_ITEMS, numbers=(2,))
    assert set(notes(found).values()) == ({few} if barred else {None})


def test_text() -> None:
    """A pair and a table, as they are printed."""
    found = compare_methods([entrant("a", 0.8), entrant("b", 0.3), entrant("c", 0.3)])
    assert pair_text(found.pairs[0]).startswith("a - b: 0.500 [")
    assert "differs; detectable 0.0" in pair_text(found.pairs[0])
    assert "not told apart" in pair_text(found.pairs[2])
    assert "3 pairs, power 0.8" in table_text(len(found.pairs), found.detectable)


def test_other_rows_do_not_stand_in_one_table() -> None:
    """Other attacks, steps or items are refused by name, and so are no rows and a name twice."""
    a = entrant("a", 0.5)
    other = replace(a.courses[0], attack="z")
    with pytest.raises(DataError, match="b and a differ in attacks"):
        compare_methods([a, Entrant("b", (other,))])
    fewer = Samples(np.ones((5, 2)), tuple(range(5)), ITEMS[:2])
    with pytest.raises(DataError, match="b and a differ"):
        compare_methods([a, Entrant("b", course_runs([fewer, fewer]).courses)])
    with pytest.raises(DataError, match="appears twice: a"):
        compare_methods([a, a])
    with pytest.raises(DataError, match="no rows"):
        compare_methods([])
    with pytest.raises(DataError, match="no attack was run"):
        compare_methods([Entrant("a", ())])


def test_attacks_on_parts_of_the_items() -> None:
    """An attack that scores half of the items: the contributions' mean is RA, as is the interval's.

    A sum of means over different items, by the delta method: hand-computed for one seed.
    """
    whole, half = table(0.5, (0,), 1), table(0.8, (0,), 2)
    half = Samples(half.values[:, :6], half.seeds, ITEMS[:6])
    utility = course_runs([whole, whole]).courses[0].utility
    courses = tuple(
        Course(name, (0, 25), (own, own), utility, None, quartile_steps((0, 25)), 25)
        for name, own in (("a", whole), ("b", half))
    )
    samples = ra_samples(courses)
    expected = (whole.values.mean() + half.values.mean()) / 2
    assert samples.values.mean() == pytest.approx(expected)
    influence = (whole.values[0] - whole.values.mean()) / 2
    influence[:6] += 2 * (half.values[0] - half.values.mean()) / 2
    assert samples.values[0] - expected == pytest.approx(influence)


# --- planned comparisons ---


def test_unpaired_is_welch() -> None:
    """scipy's Welch test on the per-seed means, with its interval."""
    a, b = entrant("a", 0.55, (0, 1, 2, 3)), entrant("b", 0.5, (7, 8, 9))
    pair = compare_unpaired(a, b)
    means = [ra_samples(one.courses).values.mean(axis=1) for one in (a, b)]
    expected = stats.ttest_ind(*means, equal_var=False)
    assert pair.p == pair.p_holm == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (pair.difference.low, pair.difference.high) == pytest.approx(tuple(interval))
    assert (pair.difference.kind, pair.difference.n_seeds) == ("seeds-only", 7)
    assert pair.detectable is not None
    assert pair.detectable == pytest.approx(
        detectable_difference(
            ((interval[1] - interval[0]) / 2 / stats.t.ppf(0.975, expected.df)) ** 2, expected.df
        )
    )
    with pytest.raises(DataError, match="b: a comparison over seeds needs two"):
        compare_unpaired(a, entrant("b", 0.5, (3,)))
    same = Samples(np.full((2, 2), 0.5), (0, 1), ("x", "y"))
    flat = [Entrant(name, course_runs([same, same]).courses) for name in "ab"]
    pair = compare_unpaired(*flat)
    assert (pair.p, pair.significant) == (None, False)


# --- matched forgetting ---


def strength(
    name: str, after: float, *finals: float, noise: int = 0, spread: float = 0.02
) -> Strength:
    """A run with that f_u; the final forget metric of each attack."""
    before = table(after, range(4), noise, spread)
    parts = [
        course_runs([before, table(final, range(4), noise + k + 1, spread)], f"attack {k}")
        for k, final in enumerate(finals)
    ]
    courses = tuple(part.courses[0] for part in parts)
    return Strength(name, replace(parts[0], courses=courses))


def original() -> MethodRuns:
    one = course_runs([table(0.2, (0,), 50)] * 2)
    return replace(one, courses=())


SWEEP = Sweep(
    "m",
    (
        strength("strong", 0.8, 0.5, noise=10),
        strength("weak", 0.4, 0.38, noise=20),
        strength("middle", 0.6, 0.4, noise=30),
    ),
)


def test_interpolation_by_hand() -> None:
    """Recoveries .1 at .4, .5 at .6 and .5 at .8, given in another order."""
    assert at_forgetting(SWEEP, original(), 0.5)[0].value == pytest.approx(0.3)
    assert at_forgetting(SWEEP, original(), 0.7)[0].value == pytest.approx(0.5)
    assert at_forgetting(SWEEP, original(), 0.5, "final")[0].value == pytest.approx(0.39)
    at_end = at_forgetting(SWEEP, original(), 0.8)[0]
    assert at_end.value == pytest.approx(0.5)
    assert at_end.kind == "seeds-and-items"
    assert at_end.low is not None
    assert at_end.low < 0.5


def test_interpolation_is_the_mean_over_attacks() -> None:
    """Two attacks: recoveries (0 and 1) and (.5 and 1)."""
    sweep = Sweep("m", (strength("a", 0.4, 0.4, 0.2), strength("b", 0.6, 0.4, 0.2, noise=9)))
    assert at_forgetting(sweep, original(), 0.5)[0].value == pytest.approx((0.5 + 0.75) / 2)


def test_no_figure_outside_the_sweep() -> None:
    """Nothing is extrapolated, and one run is no sweep."""
    beyond = at_forgetting(SWEEP, original(), 0.81)[0]
    assert note_text(beyond.note) == "n/a: f_u 0.810 is outside the sweep, 0.400-0.800"
    assert beyond.value is None
    nothing = strength("nothing", 0.2, 0.2, noise=70)
    with_it = Sweep("m", (*SWEEP.points, nothing))
    figure, left_out = at_forgetting(with_it, original(), 0.5)
    assert figure.value == pytest.approx(0.3)
    assert left_out == ("nothing",)
    assert at_forgetting(with_it, original(), 0.3, "final")[0].value == pytest.approx(0.29)
    alone = at_forgetting(Sweep("m", (SWEEP.points[0], nothing)), original(), 0.8)
    assert alone == (no_figure(Note(NoteKind.TOO_FEW_RUNS)), ("nothing",))


def test_interpolated_interval_is_the_delta_method() -> None:
    """The final metric at f: linear in all means, with the slope's share of f_u's uncertainty."""
    low, high = SWEEP.points[1].runs, SWEEP.points[2].runs
    figure = at_forgetting(SWEEP, original(), 0.5, "final")[0]
    slope, share = (0.4 - 0.38) / (0.6 - 0.4), 0.5
    linear = (1 - share) * (low.courses[0].forget[-1].values - slope * low.unlearned_forget.values)
    linear = linear + share * (
        high.courses[0].forget[-1].values - slope * high.unlearned_forget.values
    )
    expected = mean_figure(linear)
    assert expected.low is not None
    assert expected.value is not None
    assert figure.low is not None
    assert figure.value is not None
    assert figure.value - figure.low == pytest.approx(expected.value - expected.low, rel=0.03)


def test_near_runs_are_compared_directly() -> None:
    """Runs .01 apart are paired, each once; the difference is that of their recoveries."""
    other = Sweep(
        "n",
        (
            strength("n strong", 0.79, 0.2 + 0.59 * 0.25, noise=40),
            strength("n stronger", 0.815, 0.5, noise=45),
            strength("n weak", 0.3, 0.3, noise=50),
        ),
    )
    (pair,) = compare_matched(SWEEP, other, original())
    assert (pair.a, pair.b, pair.how) == ("strong", "n strong", "runs")
    assert pair.f_u == pytest.approx((0.8, 0.79))
    assert pair.difference.value == pytest.approx(0.5 - 0.75)
    assert pair.difference.low is not None


def test_far_runs_are_interpolated() -> None:
    """No run within .02: both sweeps at the middle of the range that they share."""
    other = Sweep("n", (strength("x", 0.5, 0.5, noise=40), strength("y", 0.7, 0.2, noise=50)))
    (pair,) = compare_matched(SWEEP, other, original())
    assert (pair.a, pair.b, pair.how) == ("m", "n", "interpolated")
    assert pair.f_u == pytest.approx((0.6, 0.6))
    assert pair.difference.value == pytest.approx(0.5 - 0.5)
    apart = Sweep("n", (strength("x", 0.9, 0.5, noise=40), strength("y", 0.95, 0.2, noise=50)))
    (none,) = compare_matched(SWEEP, apart, original())
    assert (none.f_u, none.difference.value) == (None, None)
    assert "share no f_u (0.400-0.800 and 0.900-0.950)" in note_text(none.difference.note)
    nothing = Sweep("n", (strength("nothing", 0.2, 0.2, noise=70),))
    (empty,) = compare_matched(SWEEP, nothing, original())
    assert empty.difference.note == Note(NoteKind.NO_RECOVERY, ("n",))


def test_bad_sweeps() -> None:
    """No runs, a name twice, other attacks, no attack."""
    with pytest.raises(DataError, match="different names"):
        Sweep("m", (SWEEP.points[0], SWEEP.points[0]))
    with pytest.raises(DataError, match="two and strong differ"):
        Sweep("m", (SWEEP.points[0], strength("two", 0.5, 0.4, 0.3)))
    bare = Strength("bare", replace(SWEEP.points[0].runs, courses=()))
    with pytest.raises(DataError, match="bare: no attack"):
        Sweep("m", (bare,))


def test_interpolated_recovery_covers() -> None:
    """Between f_u .5 and .7: the true polygon's recovery at .6 is in 95 % of the intervals."""
    rng = np.random.default_rng(3)
    world, count, before = World(n_seeds=5, n_items=80), 200, 0.25
    items = world.items(rng, count)
    layers = world.tables(rng, (0.5, 0.45, 0.7, 0.5), items)
    firsts = world.untrained(rng, before, items)
    truth = (0.05 / 0.25 + 0.2 / 0.45) / 2
    hits = 0
    for scores, first in zip(layers, firsts, strict=True):
        tables = [world.table(values) for values in scores]
        runs = [course_runs(tables[:2]), course_runs(tables[2:])]
        sweep = Sweep("m", tuple(Strength(str(k), one) for k, one in enumerate(runs)))
        one = replace(course_runs([world.table(first)] * 2), courses=())
        figure = at_forgetting(sweep, one, 0.6)[0]
        hits += figure.low is not None and figure.low <= truth <= (figure.high or -math.inf)
    assert 0.89 <= hits / count <= 0.99


# --- the committed result sets ---


CORE = ("agnews", "sst2", "winogrande", "mnli", "qqp")


def measured(method: Path, metric: int) -> Entrant:
    record, experiment = read(method)
    seeded = experiment.method.seeded and experiment.method_name != "none"
    who = "reference" if experiment.method_name == "none" else "method"
    found = method_samples(pq.read_table(method / "samples.parquet"), who, seeded=seeded)
    names, suite = [attack.name for attack in experiment.attacks], experiment.suite
    runs = method_runs(suite, names, found, suite.primary_forget[metric])
    assert len(record.seeds) == 10
    return Entrant(method.name, tuple(c for c in runs.courses if c.attack in CORE))


@pytest.mark.parametrize(("metric", "differ"), [(0, True), (1, False), (2, True)])
def test_the_pair_that_was_fixed_in_advance(metric: int, *, differ: bool) -> None:
    """NPO and RMU over ten seeds: multiple choice, recitation, questions; both beat none.

    Paired by seed and item, and by per-seed means as if they shared no seed (Welch).
    """
    rows = [measured(MINI / name, metric) for name in ("npo", "rmu", "none")]
    found = compare_methods(rows)
    welch = compare_unpaired(*rows[:2])
    print(
        table_text(len(found.pairs), found.detectable),
        *map(pair_text, (*found.pairs, welch)),
        sep="\n",
    )
    pair, *with_none = found.pairs
    assert (pair.a, pair.b) == ("npo", "rmu")
    assert all(other.significant for other in with_none)
    assert pair.significant == welch.significant == differ
    assert ranks(found) == {"npo": 1, "rmu": 1 + differ, "none": 3}
    assert welch.difference.value == pytest.approx(pair.difference.value, abs=1e-9)
