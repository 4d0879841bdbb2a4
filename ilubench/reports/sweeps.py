"""Strength sweeps side by side: compared at matched forgetting, beside the plain comparison.

A sweep is several finished runs of one method at different strengths. The figures are those of
:mod:`ilubench.statistics.matched_forgetting`; the plain ones those of
:mod:`ilubench.statistics.ranks`, where a method that forgets more begins ahead.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import get_args

from pydantic import JsonValue

from ilubench.errors import DataError, UsageError
from ilubench.records.comparing import check_alike
from ilubench.records.figure_text import figure_cell
from ilubench.records.finished import FinishedRun, read_run
from ilubench.records.labels import F_U, RA, RECOVERY
from ilubench.records.markdown import cell, table
from ilubench.records.run_names import run_names
from ilubench.records.wording import note_text
from ilubench.statistics.aggregate import ra_samples
from ilubench.statistics.bounds import cut_difference
from ilubench.statistics.intervals import Figure, no_figure, paired_difference
from ilubench.statistics.matched_forgetting import (
    MATCHED,
    MatchedPair,
    Quantity,
    Strength,
    Sweep,
    at_forgetting,
    compare_matched,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.ranks import (
    Entrant,
    Pair,
    Ranks,
    compare_methods,
    compare_unpaired,
    pair_text,
    table_text,
)
from ilubench.statistics.row import MethodRuns

__all__ = [
    "AtLevel",
    "MatchedRow",
    "Point",
    "SweepTable",
    "compare_sweeps",
    "read_sweeps",
    "sweeps_json",
    "sweeps_text",
]

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
SWEEPS = 2


@dataclass(frozen=True, slots=True)
class Point:
    """A run of a sweep; `note` says why it is shown but not compared.

    `forgotten` is f_u; `recovery` and `ra` are over the table's attacks, None without them.
    """

    sweep: str
    name: str
    run: str
    forgotten: Figure
    recovery: Figure | None
    ra: Figure | None
    note: Note | None


@dataclass(frozen=True, slots=True)
class MatchedRow:
    """Two sweeps, or two of their runs, at the same forgetting.

    Attributes:
        sweeps: the two methods.
        quantity: what is compared: the final recovery, or the final forget metric.
        pair: the comparison.
        plain: RA of the same two runs, a - b, as it was measured; None where interpolated.
    """

    sweeps: tuple[str, str]
    quantity: Quantity
    pair: MatchedPair
    plain: Figure | None


@dataclass(frozen=True, slots=True)
class AtLevel:
    """A sweep's figure at the level of forgetting that was asked for.

    ``left_out`` are its runs whose recovery is undefined.
    """

    sweep: str
    quantity: Quantity
    forgotten: float
    figure: Figure
    left_out: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SweepTable:
    """One primary metric.

    Attributes:
        metric: its label.
        attacks: what recovery, the final metric and RA are averaged over.
        points: every run, by sweep and f_u.
        matched: all pairs of sweeps.
        at: each sweep at the level that was asked for.
        plain: all runs compared as they are.
        between: those of its pairs whose runs are of different sweeps.
        welch: the same pairs by per-seed means, items held fixed; only where asked for.
    """

    metric: str
    attacks: tuple[str, ...]
    points: tuple[Point, ...]
    matched: tuple[MatchedRow, ...]
    at: tuple[AtLevel, ...]
    plain: Ranks
    between: tuple[Pair, ...]
    welch: tuple[Pair, ...]


@dataclass(frozen=True, eq=False)
class _Run:
    """A run that is compared: one point of a sweep, and one row of the plain comparison."""

    strength: Strength
    entrant: Entrant


def read_sweeps(words: Sequence[str]) -> dict[str, tuple[FinishedRun, ...]]:
    """Return name -> runs from words like `npo=runs/a,runs/b`.

    Raises:
        UsageError: no such word, a name twice, or fewer than two sweeps.
        DataError: a run cannot be read.
    """
    sweeps: dict[str, list[str]] = {}
    for word in words:
        name, _, paths = word.partition("=")
        given = [path for path in paths.split(",") if path]
        if not name or not given:
            raise UsageError(f"{word!r} is no sweep; write NAME=RUN,RUN,...")
        if name in sweeps:
            raise UsageError(f"sweep {name!r} is given twice; list its runs in one word")
        sweeps[name] = given
    if len(sweeps) < SWEEPS:
        raise UsageError("give two sweeps or more: NAME=RUN,RUN,... NAME=RUN,RUN,...")
    return {name: tuple(read_run(Path(path)) for path in own) for name, own in sweeps.items()}


def compare_sweeps(
    sweeps: Mapping[str, Sequence[FinishedRun]], *, at: float | None = None, welch: bool = False
) -> tuple[SweepTable, ...]:
    """Compare all pairs of sweeps, one table a primary metric.

    Args:
        sweeps: name -> its runs, at least two sweeps.
        at: also give each sweep's figures at this f_u.
        welch: also compare the runs by per-seed means, for runs that share no seed.

    Raises:
        UsageError: the runs are not alike, a sweep has runs of two methods, or ``at`` is no level
            of forgetting.
        DataError: no samples, or a sweep without a run that can be compared.
    """
    runs = [run for own in sweeps.values() for run in own]
    if at is not None and not 0 <= at <= 1:
        raise UsageError(f"--at {at:g}: f_u is a mean of scores, between 0 and 1")
    for name, own in sweeps.items():
        _check_one_method(name, own)
    check_alike(runs)
    for run in runs:
        if run.samples is None:
            raise DataError(f"{run.path}: {run.unread}; give the folders of finished runs")
    names = run_names(runs)
    named = {run.record.run: name for run, name in zip(runs, names, strict=True)}
    labels = [label for label in runs[0].rows if all(label in run.rows for run in runs)]
    if not labels:
        raise DataError("the runs have no robustness row in a common metric; attack them first")
    return tuple(_table(label, sweeps, named, at, welch=welch) for label in labels)


def _check_one_method(name: str, runs: Sequence[FinishedRun]) -> None:
    """Refuse a sweep of several methods: its strengths would not be one quantity."""
    first = runs[0]
    for run in runs[1:]:
        one, other = (
            f"{r.record.method['use']} version {r.record.method_version}" for r in (first, run)
        )
        if one != other:
            raise UsageError(
                f"sweep {name!r} mixes methods: {first.path} is of {one}, {run.path} of {other}; "
                "give each method a sweep of its own"
            )


# --------------------------------------------------------------------------- one metric


def _table(
    label: str,
    sweeps: Mapping[str, Sequence[FinishedRun]],
    named: Mapping[str, str],
    at: float | None,
    *,
    welch: bool,
) -> SweepTable:
    first = next(iter(sweeps.values()))[0]
    attacks = _attacks([run for own in sweeps.values() for run in own], label)
    points: list[Point] = []
    usable: dict[str, list[_Run]] = {}
    for sweep, own in sweeps.items():
        found = [_point(sweep, named[run.record.run], run, label, attacks) for run in own]
        points += sorted(found, key=lambda point: point.forgotten.value or 0.0)
        usable[sweep] = [
            _run(point.name, run, label, attacks)
            for point, run in zip(found, own, strict=True)
            if point.note is None
        ]
        if not usable[sweep]:
            why = "; ".join(f"{point.name}: {note_text(point.note)}" for point in found)
            raise DataError(f"sweep {sweep!r} has no run that can be compared ({why})")
    original = first.original(label)
    joined = {name: Sweep(name, tuple(r.strength for r in own)) for name, own in usable.items()}
    plain = compare_methods([run.entrant for own in usable.values() for run in own])
    home = {run.entrant.name: name for name, own in usable.items() for run in own}
    return SweepTable(
        label,
        attacks,
        tuple(points),
        tuple(_matched(usable, joined, original)),
        () if at is None else tuple(_at(joined, original, at)),
        plain,
        tuple(pair for pair in plain.pairs if home[pair.a] != home[pair.b]),
        tuple(_welch(usable)) if welch else (),
    )


def _attacks(runs: Sequence[FinishedRun], label: str) -> tuple[str, ...]:
    """The suite's core attacks where they were run, else all benign ones that were."""
    core = next((core for run in runs if (core := run.rows[label].ra_core_attacks)), ())
    return core or runs[0].record.benign


def _point(sweep: str, name: str, run: FinishedRun, label: str, attacks: tuple[str, ...]) -> Point:
    row, note = run.rows[label], run.bar(label)
    if note == Note(NoteKind.NO_CORE):  # no rank in a table; a sweep is over all attacks then
        note = None
    whole = row.status not in ("incomplete", "diverged")
    part = run.over(label, attacks) if whole else None
    recovery, ra = (part.recovery, part.ra) if part else (None, None)
    return Point(sweep, name, run.record.run, row.forget_unlearned, recovery, ra, note)


def _run(name: str, run: FinishedRun, label: str, attacks: tuple[str, ...]) -> _Run:
    scores = run.scores(label)
    courses = tuple(course for course in scores.courses if course.attack in attacks)
    return _Run(
        Strength(name, replace(scores, courses=courses)),
        Entrant(name, courses, bounds=run.ranges(label).forget),
    )


def _matched(
    usable: Mapping[str, Sequence[_Run]], joined: Mapping[str, Sweep], original: MethodRuns
) -> Iterator[MatchedRow]:
    for a, b in combinations(usable, 2):
        courses = {run.entrant.name: run.entrant.courses for run in (*usable[a], *usable[b])}
        seeds = [set(part.forget[-1].seeds) for own in courses.values() for part in own]
        for quantity in QUANTITIES:
            if not set.intersection(*seeds):
                none = no_figure(Note(NoteKind.NO_SHARED_SEED))
                yield MatchedRow((a, b), quantity, MatchedPair(a, b, None, none, "runs"), None)
                continue
            for pair in compare_matched(joined[a], joined[b], original, quantity):
                plain = None
                if pair.how == "runs" and pair.f_u is not None:
                    one, other = (ra_samples(courses[name]) for name in (pair.a, pair.b))
                    plain = paired_difference(one, other, RA)
                    plain = cut_difference(plain, usable[a][0].entrant.bounds)
                yield MatchedRow((a, b), quantity, pair, plain)


def _at(joined: Mapping[str, Sweep], original: MethodRuns, at: float) -> Iterator[AtLevel]:
    for name, sweep in joined.items():
        for quantity in QUANTITIES:
            yield AtLevel(name, quantity, at, *at_forgetting(sweep, original, at, quantity))


def _welch(usable: Mapping[str, Sequence[_Run]]) -> Iterator[Pair]:
    for a, b in combinations(usable.values(), 2):
        for one, other in product(a, b):
            yield compare_unpaired(one.entrant, other.entrant)


# --------------------------------------------------------------------------- Markdown


def sweeps_text(tables: Sequence[SweepTable]) -> str:
    """Return the tables as Markdown."""
    return "\n\n".join(part for one in tables for part in _parts(one)) + "\n"


def _parts(one: SweepTable) -> Iterator[str]:
    over = cell(f"{{{', '.join(one.attacks)}}}")
    yield f"**{cell(one.metric)}**: higher = better forgotten; over {over}. 95 % intervals."
    yield table(("sweep", "run", F_U, RECOVERY, RA), [_point_cells(p) for p in one.points])
    yield (
        f"At matched f_u: runs at most {MATCHED:g} apart, else both sweeps interpolated in the "
        "middle of the f_u that they share. Recovery: 0 = stayed forgotten; final: the forget "
        "metric at the end. These intervals are not adjusted for the number of pairs, and which "
        "runs make a pair was chosen by their measured f_u."
    )
    head = ("figure", "a", "b", F_U, f"a - b at matched {F_U}", f"{RA}, a - b (plain)")
    yield table(head, [_matched_cells(row) for row in one.matched])
    if one.at:
        yield f"At f_u = {one.at[0].forgotten:g}:"
        rows = [(cell(part.sweep), part.quantity, _at_text(part)) for part in one.at]
        yield table(("sweep", "figure", "value"), rows)
    shows = table_text(len(one.plain.pairs), one.plain.detectable, RA)
    plain = f"Plain comparison, whatever the {F_U}. {shows}"
    yield "\n".join([plain, *map(_pair_line, one.between)])
    if one.welch:
        head_line = "Per-seed means, items fixed (Welch); p-values not adjusted."
        yield "\n".join([head_line, *(_pair_line(pair, adjusted=False) for pair in one.welch)])


def _point_cells(point: Point) -> list[str]:
    note = "" if point.note is None else f" (not compared: {note_text(point.note)})"
    figures = (point.forgotten, point.recovery, point.ra)
    return [cell(point.sweep), cell(point.name + note), *map(figure_cell, figures)]


def _matched_cells(row: MatchedRow) -> list[str]:
    pair = row.pair
    level = "-"
    if pair.f_u is not None:
        level = ", ".join(f"{value:.3f}" for value in dict.fromkeys(pair.f_u))
        level += " (interpolated)" if pair.how == "interpolated" else ""
    return [
        row.quantity,
        cell(pair.a),
        cell(pair.b),
        level,
        figure_cell(pair.difference),
        figure_cell(row.plain),
    ]


def _pair_line(pair: Pair, *, adjusted: bool = True) -> str:
    escaped = replace(pair, a=cell(pair.a), b=cell(pair.b))
    return f"- {pair_text(escaped, adjusted=adjusted)}"


def _at_text(part: AtLevel) -> str:
    without = f" (without {cell(', '.join(part.left_out))} (recovery undefined))"
    return figure_cell(part.figure) + (without if part.left_out else "")


# --------------------------------------------------------------------------- JSON


def sweeps_json(tables: Sequence[SweepTable]) -> list[dict[str, JsonValue]]:
    """Return the comparison as plain values."""
    return [dataclasses.asdict(one) for one in tables]
