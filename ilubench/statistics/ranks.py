"""Which methods are more robust than which: paired differences of RA, Holm, ranks. Pure.

Seeds never derive from the method, so two methods meet the same items and the same orders under the
same seed: their RA is compared by the crossed interval of the differences ``d[s, i]``. Pairs are
adjusted by Holm (1979, *Scand. J. Statist.* 6:65); methods that share no seed are compared by their
per-seed means (Welch 1947, *Biometrika* 34:28). `docs/derivations.md` has the rest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import special

from ilubench.errors import DataError
from ilubench.statistics.aggregate import ra_samples
from ilubench.statistics.bounds import UNBOUNDED, Range, cut_difference, keep_within
from ilubench.statistics.intervals import (
    ROUNDING,
    ZERO_VARIANCE,
    Array,
    Figure,
    Samples,
    mean_figure,
    mean_squares,
    mean_variance,
    pick_items,
    table_mean,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import Course

__all__ = [
    "Entrant",
    "Pair",
    "RankedRow",
    "Ranks",
    "adjust_holm",
    "compare_methods",
    "compare_unpaired",
    "detectable_difference",
    "few_seeds",
    "pair_text",
    "table_text",
]

ALPHA = 0.05
POWER = 0.8
SHARED_SEEDS = 2
RANKED_ITEMS = 3
"""Items from which on rows are compared: the spread of two is one number, and may be anything."""
ENOUGH_SEEDS = 5


@dataclass(frozen=True, eq=False)
class Entrant:
    """A row that wants a rank.

    Attributes:
        name: unique in the table.
        courses: the attacks over which RA is taken.
        barred: why it is listed but not ranked; None where it may be.
        bounds: what the scores lie between.
    """

    name: str
    courses: tuple[Course, ...]
    barred: Note | None = None
    bounds: Range = UNBOUNDED


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows compared: ``difference`` is RA of ``a`` - RA of ``b``.

    Attributes:
        a: first row.
        b: second row.
        difference: with its interval, not adjusted for the other pairs.
        p: two-sided p-value of that difference; None where it has no variance.
        p_holm: adjusted for all pairs of the table.
        significant: ``p_holm`` <= alpha.
        detectable: smallest true difference that would have been found (see the module); None
            where no variance was observed.
    """

    a: str
    b: str
    difference: Figure
    p: float | None
    p_holm: float | None
    significant: bool
    detectable: float | None


@dataclass(frozen=True, slots=True)
class RankedRow:
    """A row of the table; ``rank`` is None where ``note`` says why.

    ``ties`` are the ranked rows that it could not be told apart from.
    """

    name: str
    ra: Figure
    rank: int | None
    ties: tuple[str, ...]
    note: Note | None


@dataclass(frozen=True, slots=True)
class Ranks:
    """Rows ranked by paired differences.

    Attributes:
        rows: in the order given.
        pairs: all pairs of ranked rows.
        attacks: what RA was averaged over.
        detectable: (in the sharpest pair, in every pair); None without pairs.
    """

    rows: tuple[RankedRow, ...]
    pairs: tuple[Pair, ...]
    attacks: tuple[str, ...]
    detectable: tuple[float, float] | None


def compare_methods(
    entrants: Sequence[Entrant], *, alpha: float = ALPHA, power: float = POWER
) -> Ranks:
    """Compare all rows with each other and rank those that can be ranked.

    Args:
        entrants: the rows, of the same suite, metric and attacks.
        alpha: probability of any false difference in the table.
        power: probability with which a ``detectable`` difference would be found.

    Raises:
        DataError: no rows, a name twice, or rows with other attacks, steps or items.
    """
    _alike(entrants)
    tables = {entrant.name: ra_samples(entrant.courses) for entrant in entrants}
    notes = {entrant.name: entrant.barred for entrant in entrants}
    free = {name: table for name, table in tables.items() if notes[name] is None}
    notes.update(_unpairable(free))
    ranked = [name for name in tables if notes[name] is None]
    tests = {(a, b): _paired(tables[a], tables[b]) for a, b in combinations(ranked, 2)}
    notes.update(_untestable(ranked, tests))
    ranked = [name for name in ranked if notes[name] is None]
    if len(ranked) == 1:
        notes[ranked.pop()] = Note(NoteKind.ALONE)
    found = [tests[pair] for pair in combinations(ranked, 2)]
    adjusted = adjust_holm([test.p for test in found if test.p is not None])
    pairs = tuple(
        Pair(
            a,
            b,
            cut_difference(test.difference, entrants[0].bounds),
            test.p,
            p_holm,
            p_holm <= alpha,
            test.detectable(alpha / len(found), power),
        )
        for (a, b), test, p_holm in zip(combinations(ranked, 2), found, adjusted, strict=True)
    )
    rows = tuple(_row(one, tables[one.name], pairs, notes[one.name]) for one in entrants)
    sizes = [pair.detectable for pair in pairs if pair.detectable is not None]
    attacks = tuple(course.attack for course in entrants[0].courses)
    return Ranks(rows, pairs, attacks, (min(sizes), max(sizes)) if sizes else None)


def compare_unpaired(a: Entrant, b: Entrant, *, alpha: float = ALPHA, power: float = POWER) -> Pair:
    """Compare two methods that share no seeds, by their per-seed means (items held fixed).

    Raises:
        DataError: other attacks, steps or items, or fewer than two seeds in one of them.
    """
    _alike((a, b))
    tables = [ra_samples(entrant.courses) for entrant in (a, b)]
    for entrant, table in zip((a, b), tables, strict=True):
        if len(table.seeds) < SHARED_SEEDS:
            raise DataError(
                f"{entrant.name}: a comparison over seeds needs two, not one; add seeds"
            )
    test = _welch(*tables)
    found, limit = test.p is not None and test.p <= alpha, test.detectable(alpha, power)
    difference = cut_difference(test.difference, a.bounds)
    return Pair(a.name, b.name, difference, test.p, test.p, found, limit)


def adjust_holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order given; reject where they are <= alpha."""
    adjusted, largest = [1.0] * len(p), 0.0
    for place, k in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - place) * p[k]))
        adjusted[k] = largest
    return adjusted


def detectable_difference(
    var: float, df: float, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """The true difference that a two-sided t test finds with probability ``power``.

    Args:
        var: variance of the estimated difference.
        df: its degrees of freedom.
        alpha: of this one test: the table's, divided by its number of pairs.
        power: wanted probability.
    """
    critical = special.stdtrit(df, 1 - alpha / 2)
    return float(np.sqrt(var) * special.nctdtrinc(df, 1 - power, critical))


# --- for printing ---


def few_seeds(seeds: int) -> list[Note]:
    """What must stand beside ranks that rest on so many seeds."""
    return [Note(NoteKind.FEW_SEEDS, numbers=(seeds,))] if 0 < seeds < ENOUGH_SEEDS else []


def pair_text(pair: Pair, digits: int = 3, *, adjusted: bool = True) -> str:
    """A pair as a line: the difference, its p-values and what would have been found.

    Args:
        pair: two rows.
        digits: after the point.
        adjusted: show Holm's p-value; a pair outside a family has none.
    """
    d = pair.difference
    ends = "" if d.low is None or d.high is None else f" [{d.low:.{digits}f}, {d.high:.{digits}f}]"
    if d.note == ZERO_VARIANCE:
        why = "the same difference for every seed: no p, since nothing varies that it could rest on"
        return f"{pair.a} - {pair.b}: {d.value:.{digits}f}, {why}"
    verdict = "differs" if pair.significant else "not told apart"
    limit = "n/a" if pair.detectable is None else f"{pair.detectable:.{digits}f}"

    def shown(p: float | None, sign: str) -> str:
        assert p is not None  # else there is no variance
        least = 10.0**-digits
        return f"< {least:.{digits}f}" if p < least else f"{sign}{p:.{digits}f}"

    holm_p = f", Holm {shown(pair.p_holm, '')}" if adjusted else ""
    return (
        f"{pair.a} - {pair.b}: {d.value:.{digits}f}{ends}, p {shown(pair.p, '= ')}{holm_p}: "
        f"{verdict}; detectable {limit}"
    )


def table_text(
    pairs: int, detectable: tuple[float, float] | None, figure: str = "RA", digits: int = 3
) -> str:
    """What a table could have shown, as a sentence to print below it.

    Args:
        pairs: of ranked rows.
        detectable: in the sharpest pair, in every pair; None without pairs.
        figure: what was compared.
        digits: after the point.
    """
    if detectable is None:
        return "Nothing could be ranked: no two rows can be compared."
    low, high = detectable
    return (
        f"Smallest difference of {figure} that this table could have shown (alpha {ALPHA:g} over "
        f"{pairs} pairs, power {POWER:g}): {high:.{digits}f} in every pair, "
        f"{low:.{digits}f} in the sharpest."
    )


# --- inside ---


@dataclass(frozen=True, slots=True)
class _Test:
    """A difference, the variance behind its interval, and its p-value."""

    difference: Figure
    variance: float
    df: float
    p: float | None

    def detectable(self, alpha: float, power: float) -> float | None:
        if self.difference.note == ZERO_VARIANCE:
            return None
        return detectable_difference(self.variance, self.df, alpha=alpha, power=power)


def _test(difference: Figure, var: float, df: float) -> _Test:
    """A difference without variance has no test, also where it is 0."""
    value = difference.value
    assert value is not None
    if difference.note == ZERO_VARIANCE:
        return _Test(difference, var, df, None)
    p = 2 * float(special.stdtr(df, -abs(value) / np.sqrt(var)))
    return _Test(difference, var, df, p)


def _paired(a: Samples, b: Samples) -> _Test:
    seeds, items = _shared(a, b), sorted(a.items)
    x = pick_items(a, seeds, items) - pick_items(b, seeds, items)
    return _test(mean_figure(x), *mean_variance(mean_squares(x)))


def _welch(a: Samples, b: Samples) -> _Test:
    means: list[Array] = [table.values.mean(axis=1) for table in (a, b)]
    parts = [float(mean.var(ddof=1)) / len(mean) for mean in means]
    value, var = float(means[0].mean() - means[1].mean()), sum(parts)
    n_seeds, n_items = sum(map(len, means)), len(a.items)
    if np.sqrt(var) <= ROUNDING * max(float(np.abs(mean).max()) for mean in means):
        figure = Figure(value, value, value, n_seeds, n_items, "seeds-only", ZERO_VARIANCE)
        return _test(figure, 0.0, 1.0)
    weights = (part**2 / (len(mean) - 1) for part, mean in zip(parts, means, strict=True))
    df = var**2 / sum(weights)
    half = float(special.stdtrit(df, 1 - ALPHA / 2) * np.sqrt(var))
    figure = Figure(value, value - half, value + half, n_seeds, n_items, "seeds-only")
    return _test(figure, var, df)


def _shared(a: Samples, b: Samples) -> list[int]:
    return sorted(set(a.seeds) & set(b.seeds))


def _unpairable(tables: Mapping[str, Samples]) -> dict[str, Note]:
    """Row -> why it has no rank, for the rows that cannot be compared with all the others."""
    notes = {
        name: Note(NoteKind.ONE_SEED)
        for name, table in tables.items()
        if len(table.seeds) < SHARED_SEEDS
    }
    notes |= {
        name: Note(NoteKind.FEW_ITEMS, numbers=(len(table.items),))
        for name, table in tables.items()
        if len(table.items) < RANKED_ITEMS
    }
    left = [name for name in tables if name not in notes]

    def cannot(a: str, b: str) -> bool:
        return len(_shared(tables[a], tables[b])) < SHARED_SEEDS

    return notes | _set_aside(left, cannot, NoteKind.FEW_SHARED_SEEDS)


def _untestable(names: Sequence[str], tests: Mapping[tuple[str, str], _Test]) -> dict[str, Note]:
    """Row -> why it has no rank, for the rows whose differences from others have no variance."""

    def cannot(a: str, b: str) -> bool:
        return (tests.get((a, b)) or tests[b, a]).p is None

    return _set_aside(names, cannot, NoteKind.NO_VARIANCE)


def _set_aside(
    names: Sequence[str], cannot: Callable[[str, str], bool], kind: NoteKind
) -> dict[str, Note]:
    """Rows set aside until every two can be compared: those with the most that cannot, first."""
    notes: dict[str, Note] = {}
    while True:
        left = [name for name in names if name not in notes]
        apart = {a: tuple(b for b in left if b != a and cannot(a, b)) for a in left}
        most = max(map(len, apart.values()), default=0)
        if not most:
            return notes
        notes |= {a: Note(kind, others) for a, others in apart.items() if len(others) == most}


def _row(one: Entrant, table: Samples, pairs: Sequence[Pair], note: Note | None) -> RankedRow:
    name = one.name
    own = [pair for pair in pairs if name in (pair.a, pair.b)]
    better = sum(
        pair.significant and ((pair.difference.value or 0) > 0) == (pair.b == name) for pair in own
    )
    ties = tuple(pair.b if pair.a == name else pair.a for pair in own if not pair.significant)
    ra = keep_within(table_mean(table), one.bounds)
    return RankedRow(name, ra, 1 + better if note is None else None, ties, note)


def _alike(entrants: Sequence[Entrant]) -> None:
    """Refuse rows that were not attacked and asked alike."""
    if not entrants:
        raise DataError("no rows: a comparison needs at least one")
    names = [entrant.name for entrant in entrants]
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise DataError(f"a row appears twice: {', '.join(twice)}; give each its own name")
    first = entrants[0]
    if not first.courses:
        raise DataError(f"{first.name}: no attack was run: RA needs at least one")
    for entrant in entrants[1:]:
        if _shape(entrant) != _shape(first):
            raise DataError(
                f"{entrant.name} and {first.name} differ in attacks, their steps or their items; "
                "only like rows stand in one table"
            )


def _shape(entrant: Entrant) -> dict[str, object]:
    return {
        course.attack: (
            course.quartile_steps,
            course.total_steps,
            frozenset(course.forget[0].items),
        )
        for course in entrant.courses
    }
