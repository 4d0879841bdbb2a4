"""Robustness figures: hand-computed cases, properties, errors, simulated coverage."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm  # type: ignore[import-untyped, unused-ignore]

from ilubench.errors import DataError
from ilubench.statistics.aggregate import _beyond, aggregate
from ilubench.statistics.intervals import ZERO_VARIANCE, Figure, Samples, no_figure
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import Chances, Course, MethodRuns, RobustnessRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

STEPS = (0, 25, 50, 75, 100)
QUARTILES = (25, 50, 100)
CHANCES = Chances(0.75, (0.25,))
DETOUR = (0.8, 0.8, 0.7, 0.6, 0.6)


def table(
    mean: float, seeds: Sequence[int] = (0, 1), n_items: int = 8, *, spread: float = 0.05
) -> Samples:
    """A table with exactly that mean, in which seeds, items and cells differ."""
    rows, columns = np.arange(len(seeds))[:, None], np.arange(n_items)[None, :]
    values = spread * (0.2 * rows + np.cos(columns) + 0.3 * np.sin(3 * rows * columns + columns))
    items = tuple(f"i{k}" for k in range(n_items))
    return Samples(mean + values - values.mean(), tuple(seeds), items)


def course(
    attack: str = "a",
    forget: Sequence[float] = (0.8, 0.7, 0.6, 0.5, 0.2),
    utility: Sequence[float] = (0.65,) * 5,
    fa: Sequence[float] | None = (0.1, 0.2, 0.3, 0.4, 0.5),
    seeds: Sequence[int] = (0, 1),
) -> Course:
    """A course of 100 steps with those means."""
    return Course(
        attack,
        STEPS,
        tuple(table(mean, seeds) for mean in forget),
        tuple((table(mean, seeds, 6),) for mean in utility),
        None if fa is None else tuple(table(mean, seeds, 5) for mean in fa),
        QUARTILES,
        100,
    )


def runs(
    forget: float, utility: float, *courses: Course, seeds: Sequence[int] = (0, 1)
) -> MethodRuns:
    """A model's runs with one utility metric."""
    return MethodRuns(table(forget, seeds), (table(utility, seeds, 6),), courses)


ORIGINAL = runs(0.2, 0.75, course("a", fa=(0.1, 0.2, 0.3, 0.5, 0.7)), seeds=(99,))
TWO = runs(
    0.8,
    0.65,
    course("a", utility=(0.65, 0.65, 0.62, 0.61, 0.5)),
    course("b", DETOUR, (0.65, 0.6, 0.65, 0.65, 0.65), fa=None),
)


def near(figure: Figure | None, value: float) -> bool:
    """The figure has that value and an interval around it."""
    assert figure is not None
    assert figure.value == pytest.approx(value, abs=1e-9)
    assert figure.low is not None
    return figure.low <= value + 1e-9


# --- by hand ---------------------------------------------------------------------------------


def test_row_by_hand() -> None:
    """Two attacks, one utility metric; every figure worked out on paper."""
    row = aggregate(TWO, ORIGINAL, CHANCES, core=("b",))
    a, b = row.attacks
    assert row.status == "ok"
    assert near(row.forget_original, 0.2)
    assert near(row.forget_unlearned, 0.8)
    assert row.forget_original.kind == "item-only"
    assert row.forget_unlearned.kind == "seeds-and-items"
    assert row.ra_attacks == ("a", "b")
    assert near(a.ra, 0.5)
    assert near(b.ra, 0.7)
    assert near(row.ra, 0.6)
    assert near(row.ra_core, 0.7)
    assert near(a.recovery, 1.0)
    assert near(b.recovery, 1 / 3)
    assert near(row.recovery, 2 / 3)
    assert near(a.half_life, 75)
    assert b.half_life.value is None
    assert b.half_life.note == Note(NoteKind.BEYOND, numbers=(100,))
    assert near(a.area, 0.375)
    assert near(a.fa_difference, -0.2)
    assert a.never_knew is None
    assert (b.fa_difference.value, b.fa_difference.kind) == (None, "none")
    assert [step.step for step in a.steps] == list(STEPS)
    assert [near(s.forget, v) for s, v in zip(a.steps, (0.8, 0.7, 0.6, 0.5, 0.2), strict=True)]
    assert near(a.steps[-1].fa, 0.5)
    assert b.steps[0].fa is None


def test_worst_case_by_hand() -> None:
    """Utility .65 above chance .25: the limit is .61, which step 75 of "a" just keeps."""
    row = aggregate(TWO, ORIGINAL, CHANCES)
    assert row.worst_case.value == pytest.approx(0.5)
    assert row.worst_at == ("a", 75)
    assert [s.eligible for s in row.attacks[0].steps] == [False, True, True, True, False]
    assert [s.eligible for s in row.attacks[1].steps] == [False, False, True, True, True]
    assert near(row.attacks[0].steps[-1].utility_kept, 0.25 / 0.4)
    assert row.ra_core is None


def test_half_life_interpolates() -> None:
    """Recovery 1/6 at 25 and 5/6 at 50: one half at 37.5; the interval is in steps."""
    one = runs(0.8, 0.65, course(forget=(0.8, 0.7, 0.3, 0.3, 0.3)))
    life = aggregate(one, ORIGINAL, CHANCES).attacks[0].half_life
    assert near(life, 37.5)
    assert life.high is not None
    assert 37.5 < life.high < 100


def test_half_life_is_the_first_time() -> None:
    """Knowledge that comes back and goes again has its first time."""
    one = runs(0.8, 0.65, course(forget=(0.8, 0.2, 0.8, 0.2, 0.2)))
    assert near(aggregate(one, ORIGINAL, CHANCES).attacks[0].half_life, 12.5)


def test_collapsed_and_no_eligible_checkpoint() -> None:
    """Utility .45 of .75 keeps .4 of what is above chance; no checkpoint keeps it."""
    broken = runs(0.8, 0.45, course(utility=(0.45, 0.3, 0.3, 0.3, 0.3)))
    row = aggregate(broken, ORIGINAL, CHANCES)
    assert row.status == "collapsed"
    assert near(row.utility.kept[0], 0.4)
    assert (row.worst_case.value, row.worst_at) == (None, None)
    assert row.worst_case.note == Note(NoteKind.NO_UTILITY_KEPT, numbers=(0.9,))


def test_worst_utility_metric_counts() -> None:
    """Two utility metrics: the one that kept less decides, for the status and the filter."""

    def second(model: MethodRuns, mean: float, steps: Sequence[float]) -> MethodRuns:
        courses = tuple(
            replace(
                c,
                utility=tuple(
                    (*u, table(m, c.forget[0].seeds, 4))
                    for u, m in zip(c.utility, steps, strict=True)
                ),
            )
            for c in model.courses
        )
        extra = table(mean, model.unlearned_forget.seeds, 4)
        utility = (*model.unlearned_utility, extra)
        return replace(model, unlearned_utility=utility, courses=courses)

    method = second(runs(0.8, 0.65, course()), 0.2, (0.2, 0.2, 0.2, 0.1, 0.1))
    row = aggregate(method, second(ORIGINAL, 0.5, (0.5,) * 5), Chances(0.75, (0.25, 0.0)))
    assert row.status == "collapsed"
    assert row.utility.worst == 1
    assert near(row.utility.kept[1], 0.4)
    assert row.worst_at == ("a", 50)
    assert near(row.attacks[0].steps[3].utility_kept, 0.5)


def test_utility_at_chance_is_unknown() -> None:
    """An original without utility decides nothing, and says so."""
    original = runs(0.2, 0.25, course(), seeds=(99,))
    row = aggregate(runs(0.8, 0.25, course()), original, CHANCES)
    assert (row.status, row.utility.worst) == ("unknown", None)
    assert row.utility.kept[0].note == Note(NoteKind.UTILITY_AT_CHANCE)
    assert row.worst_case.value is None


def test_recovery_undefined_is_said() -> None:
    """Nothing measurably forgotten, or less than nothing: no recovery figure."""
    for start, kind in ((0.2, NoteKind.NOT_FORGOTTEN), (0.05, NoteKind.BELOW_ORIGINAL)):
        row = aggregate(runs(start, 0.65, course()), ORIGINAL, CHANCES)
        attack = row.attacks[0]
        for figure in (row.recovery, attack.recovery, attack.half_life, attack.area):
            assert figure.value is None
            assert figure.note == Note(kind)
        assert near(row.ra, 0.5)


def test_never_knew_by_hand() -> None:
    """The same attack on a model that never knew; an attack that it lacks is said."""
    retrain = runs(0.9, 0.7, course("a", (0.9, 0.9, 0.8, 0.8, 0.6)))
    a, b = aggregate(TWO, ORIGINAL, CHANCES, retrain=retrain).attacks
    assert near(a.never_knew, -0.4)
    assert b.never_knew is not None
    assert b.never_knew.note == Note(NoteKind.NOT_ATTACKED, ("retrained", "b"))


def test_original_as_its_own_method() -> None:
    """Method ``none``: differences of 0, no recovery."""
    original = MethodRuns(table(0.2, (5,)), (table(0.75, (5,), 6),), (course(),))
    row = aggregate(original, original, CHANCES)
    assert near(row.attacks[0].fa_difference, 0)
    assert row.attacks[0].fa_difference.note == ZERO_VARIANCE
    assert near(row.utility.kept[0], 1)
    assert row.recovery.value is None


def test_fa_not_measured() -> None:
    """Without fine-tuning accuracy there is no difference, and the row stands."""
    difference = aggregate(runs(0.8, 0.65, course(fa=None)), ORIGINAL, CHANCES).attacks[0]
    assert difference.fa_difference.note == Note(NoteKind.NO_FA)


def test_incomplete_seeds() -> None:
    """Seeds 0-2 with one attack, 1-3 with the other: RA rests on 1 and 2."""
    method = runs(
        0.8, 0.65, course("a", seeds=(0, 1, 2)), course("b", seeds=(1, 2, 3)), seeds=(0, 1, 2, 3)
    )
    row = aggregate(method, ORIGINAL, CHANCES, core=("a",))
    assert (row.ra.n_seeds, row.recovery.n_seeds, row.worst_case.n_seeds) == (2, 2, 2)
    assert row.attacks[0].ra.n_seeds == 3
    assert row.ra_core is not None
    assert row.ra_core.n_seeds == 3
    apart = replace(method, courses=(course("a", seeds=(0, 1)), course("b", seeds=(2, 3))))
    with pytest.raises(DataError, match="no seed is shared"):
        aggregate(apart, ORIGINAL, CHANCES)


def test_single_seed_is_item_only() -> None:
    """One seed everywhere."""
    method = runs(0.8, 0.65, course(seeds=(3,)), seeds=(3,))
    with pytest.raises(DataError, match=r"no seed is shared.*0, 1 \| 3"):
        aggregate(method, ORIGINAL, CHANCES)
    row = aggregate(method, replace(ORIGINAL, courses=(course(seeds=(3,)),)), CHANCES)
    attack = row.attacks[0]
    for figure in (
        row.ra,
        attack.fa_difference,
        row.recovery,
        row.worst_case,
        attack.area,
        attack.half_life,
    ):
        assert (figure.kind, figure.n_seeds) == ("item-only", 1)
        assert figure.low is not None


def test_core_attack_missing() -> None:
    """RA_core over other attacks than the suite's is no RA_core."""
    row = aggregate(TWO, ORIGINAL, CHANCES, core=("b", "c"))
    assert row.ra_core is not None
    assert row.ra_core == no_figure(Note(NoteKind.CORE_NOT_RUN, ("c",)))


def test_attack_on_half_the_items() -> None:
    """An attack that scores half the items is compared with f_0 and f_u on these."""
    half = course("half", (0.8, 0.7, 0.6, 0.5, 0.5))
    keep = slice(0, 4)
    forget = tuple(Samples(t.values[:, keep], t.seeds, t.items[keep]) for t in half.forget)
    method = replace(TWO, courses=(TWO.courses[0], replace(half, forget=forget)))
    row = aggregate(method, ORIGINAL, CHANCES)
    before = ORIGINAL.unlearned_forget.values[:, keep].mean()
    after = TWO.unlearned_forget.values[:, keep].mean()
    final = (after - forget[-1].values.mean()) / (after - before)
    assert near(row.attacks[1].recovery, final)
    assert row.attacks[1].recovery.n_items == 4
    assert near(row.recovery, (1 + final) / 2)
    ra = np.mean([t.values.mean() for t in (forget[1], forget[2], forget[4])])
    assert near(row.ra, (0.5 + float(ra)) / 2)


# --- properties ------------------------------------------------------------------------------


def shuffled(model: MethodRuns, seed: int) -> MethodRuns:
    """Every table with its rows and columns in another order."""
    rng = np.random.default_rng(seed)

    def mix(t: Samples) -> Samples:
        rows, columns = rng.permutation(len(t.seeds)), rng.permutation(len(t.items))
        seeds = tuple(t.seeds[r] for r in rows)
        return Samples(t.values[np.ix_(rows, columns)], seeds, tuple(t.items[c] for c in columns))

    return each(model, mix)


def each(model: MethodRuns, change: Callable[[Samples], Samples]) -> MethodRuns:
    """The model with every table changed."""
    courses = tuple(
        replace(
            c,
            forget=tuple(map(change, c.forget)),
            utility=tuple(tuple(map(change, step)) for step in c.utility),
            fa=None if c.fa is None else tuple(map(change, c.fa)),
        )
        for c in model.courses
    )
    utility = tuple(map(change, model.unlearned_utility))
    return MethodRuns(change(model.unlearned_forget), utility, courses)


def random_runs(seed: int, n_seeds: int = 3) -> MethodRuns:
    """Runs with random means; the original's f_0 = .2 lies below all of them."""
    rng = np.random.default_rng(seed)
    seeds = tuple(range(n_seeds))
    courses = [
        course(
            name, (0.8, *rng.uniform(0.2, 0.85, 4)), (0.65, *rng.uniform(0.5, 0.7, 4)), seeds=seeds
        )
        for name in ("a", "b")
    ]
    return runs(0.8, 0.65, *courses, seeds=seeds)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_order_does_not_matter(seed: int) -> None:
    """Rows and columns in any order give the identical row."""
    method = random_runs(seed)
    row = aggregate(method, shuffled(ORIGINAL, seed), CHANCES)
    assert row == aggregate(shuffled(method, seed), ORIGINAL, CHANCES)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_worst_is_the_least_eligible(seed: int) -> None:
    """The worst case is the least of the eligible checkpoints."""
    row = aggregate(random_runs(seed), ORIGINAL, CHANCES)
    eligible = [s.forget.value for a in row.attacks for s in a.steps if s.eligible]
    least = min((v for v in eligible if v is not None), default=None)
    assert row.worst_case.value == (None if least is None else pytest.approx(least))


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 0.95), st.floats(0.0, 0.25))
def test_recovery_is_0_or_1(after: float, before: float) -> None:
    """Nothing changes: 0, never half. All comes back at once: 1, half of the way at half time."""
    original = runs(before, 0.75, course(), seeds=(9,))
    still = aggregate(runs(after, 0.65, course(forget=(after,) * 5)), original, CHANCES)
    assert near(still.recovery, 0)
    assert near(still.attacks[0].area, 0)
    assert still.attacks[0].half_life.note == Note(NoteKind.BEYOND, numbers=(100,))
    back = aggregate(runs(after, 0.65, course(forget=(after, *(before,) * 4))), original, CHANCES)
    assert near(back.recovery, 1)
    assert near(back.attacks[0].area, 0.875)
    assert near(back.attacks[0].half_life, 12.5)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.2, 1.0), st.floats(-0.1, 0.1))
def test_recovery_ignores_the_scale(scale: float, shift: float) -> None:
    """Recovery, half-life and area do not change with the metric's unit; RA does."""

    def change(t: Samples) -> Samples:
        return Samples(scale * t.values + shift, t.seeds, t.items)

    chances = Chances(scale * 0.75 + shift, (scale * 0.25 + shift,))
    a = aggregate(TWO, ORIGINAL, CHANCES)
    b = aggregate(each(TWO, change), each(ORIGINAL, change), chances)
    for x, y in [
        (a.recovery, b.recovery),
        (a.attacks[0].area, b.attacks[0].area),
        (a.attacks[0].recovery, b.attacks[0].recovery),
        (a.utility.kept[0], b.utility.kept[0]),
    ]:
        assert (y.value, y.low, y.high) == pytest.approx((x.value, x.low, x.high), abs=1e-6)
    assert near(b.ra, scale * 0.6 + shift)


# --- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "seeds", "items", "words"),
    [
        (np.empty((0, 0)), (), (), "at least one"),
        (np.ones((1, 2)), (0,), ("x",), "shape"),
        (np.ones((1, 2)), (0,), ("x", "x"), "item twice: x"),
        (np.ones((2, 1)), (4, 4), ("x",), "seed twice: 4"),
        (np.array([[0.0, np.nan]]), (3,), ("x", "y"), "seed 3, item 'y'"),
    ],
    ids=["empty", "shape", "items", "seeds", "nan"],
)
def test_bad_tables(
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    seeds: tuple[int, ...],
    items: tuple[str, ...],
    words: str,
) -> None:
    """A table is refused where it is built."""
    with pytest.raises(DataError, match=words):
        Samples(values, seeds, items)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": (25, 50, 75, 100, 125)}, "ascend from 0"),
        ({"steps": (0, 50, 25, 75, 100)}, "ascend from 0"),
        ({"total_steps": 200}, "last scored step"),
        ({"quartile_steps": (30, 50, 100)}, "quartile"),
        ({"quartile_steps": (25, 50, 75)}, "final step"),
        ({"forget": (table(0.5),)}, "5 tables"),
        ({"fa": ()}, "5 tables"),
        ({"utility": ((),) * 5}, "at least one"),
        ({"forget": (*(table(0.5),) * 4, table(0.5, n_items=7))}, "items of a metric change"),
    ],
)
def test_bad_courses(change: dict[str, object], words: str) -> None:
    """A course whose parts do not fit is refused, by name."""
    with pytest.raises(DataError, match=rf"attack 'a': .*{words}"):
        replace(course(), **change)  # type: ignore[arg-type]


def test_bad_runs() -> None:
    """What does not belong together is not compared."""
    good = course()
    with pytest.raises(DataError, match="twice"):
        runs(0.8, 0.65, good, good)
    with pytest.raises(DataError, match="at least one utility"):
        MethodRuns(table(0.8), (), (good,))
    with pytest.raises(DataError, match="was not asked"):
        MethodRuns(table(0.8, n_items=5), (table(0.65, n_items=6),), (good,))
    with pytest.raises(DataError, match="utility items"):
        MethodRuns(table(0.8), (table(0.65, n_items=5),), (good,))
    with pytest.raises(DataError, match="no attack"):
        aggregate(runs(0.8, 0.65), ORIGINAL, CHANCES)
    with pytest.raises(DataError, match="2"):
        aggregate(TWO, ORIGINAL, Chances(0.75, (0.25, 0.25)))
    other = replace(ORIGINAL, unlearned_forget=table(0.2, n_items=9))
    with pytest.raises(DataError, match="same forget items"):
        aggregate(TWO, other, CHANCES)
    other = replace(ORIGINAL, unlearned_utility=(table(0.75, n_items=5),), courses=())
    with pytest.raises(DataError, match="same items"):
        aggregate(TWO, other, CHANCES)


def test_another_fine_tuning_is_not_compared() -> None:
    """FA of the original after other steps, or on other items, is another thing."""
    steps = (0, 50, 100, 150, 200)
    longer = replace(course(), steps=steps, total_steps=200, quartile_steps=(50, 100, 200))
    fewer = replace(course(), fa=tuple(table(0.5, n_items=4) for _ in STEPS))
    for bad, words in ((longer, "steps"), (fewer, "same items")):
        with pytest.raises(DataError, match=words):
            aggregate(TWO, replace(ORIGINAL, courses=(bad,)), CHANCES)


# --- simulation ------------------------------------------------------------------------------


def simulated(rng: np.random.Generator, n_seeds: int) -> tuple[MethodRuns, MethodRuns]:
    """Binary answers from latent seed and item effects with known population means."""
    n_items, k = 80, 6
    p = norm.ppf([0.8, 0.8, 0.7, 0.6, 0.52, 0.48])[:, None, None]
    item = 0.7 * rng.normal(size=n_items)
    z = np.sqrt(1 + 0.49 + 0.25 + 2 * 0.0225) * p + item
    z = z + 0.5 * rng.normal(size=(k, 1, n_items)) + rng.normal(size=(k, n_seeds, n_items))
    z += 0.15 * rng.normal(size=(k, n_seeds, 1)) + 0.15 * rng.normal(size=(1, n_seeds, 1))
    seeds, items = tuple(range(n_seeds)), tuple(map(str, range(n_items)))
    answers = [Samples((layer > 0).astype(float), seeds, items) for layer in z]
    before = np.sqrt(1.49) * norm.ppf(0.3) + item + rng.normal(size=n_items)
    f_0 = Samples((before > 0).astype(float)[None], (0,), items)
    utility = (table(0.65, seeds, 6),)
    c = Course("a", STEPS, tuple(answers[1:]), (utility,) * 5, None, QUARTILES, 100)
    return MethodRuns(answers[0], utility, (c,)), MethodRuns(f_0, utility, ())


@pytest.mark.parametrize("n_seeds", [5, 10])
def test_coverage_of_nonlinear_figures(n_seeds: int) -> None:
    """Recovery .64, area .335, half-life 65.6, worst case .48: all covered reasonably."""
    rng = np.random.default_rng(n_seeds)
    rise = np.array([0.0, 0.1, 0.2, 0.28, 0.32]) / 0.5
    truth = {
        "recovery": 0.64,
        "area": float(np.trapezoid(rise)) / 4,
        "half-life": 50 + 25 * (0.5 - 0.4) / (0.56 - 0.4),
        "worst case": 0.48,
        "RA": (0.7 + 0.6 + 0.48) / 3,
    }
    hits: dict[str, list[bool]] = {name: [] for name in truth}
    for _ in range(150):
        row = aggregate(*simulated(rng, n_seeds), CHANCES)
        attack = row.attacks[0]
        found = (attack.recovery, attack.area, attack.half_life, row.worst_case, row.ra)
        for (name, value), figure in zip(truth.items(), found, strict=True):
            if figure.low is not None:
                high = np.inf if figure.high is None else figure.high
                hits[name].append(figure.low <= value <= high)
    for name, inside in hits.items():
        coverage = float(np.mean(inside))
        print(f"{name}, {n_seeds} seeds: {coverage:.3f} of {len(inside)}")
        assert coverage >= (0.84 if name == "half-life" else 0.90)
        assert len(inside) >= 125


def test_ten_seeds_a_thousand_items() -> None:
    """Six attacks with seven checkpoints, ten seeds, 1,000 items: seconds, not minutes."""
    rng = np.random.default_rng(0)
    seeds, steps = tuple(range(10)), (0, 10, 25, 50, 60, 75, 100)
    items = tuple(map(str, range(1000)))

    def some(p: float, n: int = 1000) -> Samples:
        return Samples(rng.binomial(1, p, (10, n)).astype(float), seeds, items[:n])

    courses = tuple(
        Course(
            name,
            steps,
            tuple(some(0.8 - t / 200) for t in steps),
            tuple((some(0.6),) for _ in steps),
            tuple(some(0.5, 200) for _ in steps),
            QUARTILES,
            100,
        )
        for name in "abcdef"
    )
    method = MethodRuns(some(0.8), (some(0.6),), courses)
    original = MethodRuns(some(0.2), (some(0.65),), courses)
    start = time.perf_counter()
    row = aggregate(method, original, CHANCES)
    print(f"one row: {time.perf_counter() - start:.2f} s")
    assert isinstance(row, RobustnessRow)
    assert time.perf_counter() - start < 10


# --------------------------------------------------------------------------- beside a control


def beyond(row: RobustnessRow) -> dict[str, Figure | None]:
    return {attack.attack: attack.beyond_control for attack in row.attacks}


def test_recovery_beyond_the_controls_by_hand() -> None:
    """f_0 .2, f_u .8; the attack ends at .2 (recovery 1), the control at .65 (.25)."""
    attack, free = course("a"), course("free", (0.8, 0.8, 0.8, 0.8, 0.65))
    row = aggregate(runs(0.8, 0.65, attack, free), runs(0.2, 0.65), CHANCES, control="free")
    found = beyond(row)
    assert near(found["a"], 0.75)
    assert found["free"] is None
    first, second = (one.recovery.value for one in row.attacks)
    assert found["a"] is not None
    assert found["a"].value == pytest.approx((first or 0) - (second or 0))
    assert found["a"].low is not None
    assert found["a"].low <= 0.75
    # the same seed and item effects in all tables: paired, they cancel
    assert found["a"].high is not None
    assert found["a"].high - found["a"].low < 0.05
    assert beyond(aggregate(runs(0.8, 0.65, attack), runs(0.2, 0.65), CHANCES)) == {"a": None}


def test_why_there_is_no_recovery_beyond_the_controls() -> None:
    free = course("free", (0.8,) * 5)
    levels = replace(course("b"), levels=("w", "x", "y", "z"))
    other = course("c", seeds=(7, 8))
    method = runs(0.8, 0.65, course("a"), levels, free)
    found = beyond(aggregate(method, runs(0.8, 0.65), CHANCES, control="free"))
    assert found["a"] is not None
    assert found["a"].note == Note(NoteKind.NOT_FORGOTTEN)
    assert found["b"] is None  # it takes no steps that could be compared
    lacking = aggregate(runs(0.8, 0.65, course("a")), runs(0.2, 0.65), CHANCES, control="free")
    assert lacking.attacks[0].beyond_control == no_figure(Note(NoteKind.ATTACK_MISSING))
    broken = course("free", utility=(0.65, 0.6, 0.5, 0.4, 0.35))  # keeps (.35 - .25) / (.65 - .25)
    row = aggregate(runs(0.8, 0.65, course("a"), broken), runs(0.2, 0.65), CHANCES, control="free")
    note = (row.attacks[0].beyond_control or no_figure(None)).note
    assert note is not None
    assert note.kind == NoteKind.CONTROL_DESTROYS
    assert note.numbers == pytest.approx((0.25,))
    seeds = runs(0.8, 0.65, course("a", seeds=(0, 1)), replace(other, attack="free"))
    none = _beyond(seeds.courses[0], "free", seeds, runs(0.2, 0.65), CHANCES)
    assert none == no_figure(Note(NoteKind.NO_SHARED_SEED))
