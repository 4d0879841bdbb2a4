"""Finished runs side by side: one ranked table a primary metric, as Markdown or JSON.

Figures, ranks, ties and what could have been found (:mod:`ilubench.statistics.ranks`) follow from
the samples; only where a run has none are its figures the record's. Ranks are over the suite's
`core_unseen` attacks.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pydantic import JsonValue

from ilubench.records.columns import Column, columns_at, headings, rank_range
from ilubench.records.comparing import common_labels
from ilubench.records.figure_text import figure_cell
from ilubench.records.finished import REFERENCES, FinishedRun
from ilubench.records.labels import RA_CORE, turned_from
from ilubench.records.likeness import conditions_text
from ilubench.records.markdown import cell, table
from ilubench.records.run_names import run_names
from ilubench.records.wording import note_text, table_note_texts
from ilubench.reports.composites import compared_composites
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.ranks import (
    Entrant,
    Ranks,
    compare_methods,
    few_seeds,
    pair_text,
    table_text,
)
from ilubench.statistics.row import RA_SHARES, RobustnessRow, quartile_steps

__all__ = [
    "RankedTable",
    "Ranking",
    "TableRow",
    "metric_title",
    "rank_cell",
    "rank_runs",
    "ranking_json",
    "ranking_text",
]

NEAR = 0.05
"""How far a checkpoint may lie from its quartile, as a share of the attack's steps."""

LIBRARIES = ("torch", "transformers", "lm-eval", "vllm")
"""Another major or minor version of one of them is said below a table."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A run in one table; `rank` is None where `note` says why, `ties` it was not told from."""

    name: str
    run: FinishedRun
    figures: RobustnessRow
    rank: int | None
    note: Note | None
    ties: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RankedTable:
    """One primary metric.

    Attributes:
        metric: its label.
        turned: what it is of a scorer's own metric; empty where no suite tells.
        rows: by rank, then by RA_core; references last.
        ranks: what they rest on; None where no run can be compared.
        notes: what a reader must know beside the table.
    """

    metric: str
    turned: str
    rows: tuple[TableRow, ...]
    ranks: Ranks | None
    notes: tuple[Note, ...]

    @property
    def title(self) -> str:
        """Its label, and what it is."""
        return metric_title(self.metric, self.turned)


@dataclass(frozen=True, slots=True)
class Ranking:
    """The tables of several runs, which agree in suite, engine, dtype and conditions."""

    suite: str
    suite_version: int
    engine: str
    dtype: str
    conditions: Mapping[str, str | int]
    tables: tuple[RankedTable, ...]


def rank_runs(runs: Sequence[FinishedRun], names: Sequence[str] | None = None) -> Ranking:
    """Return the runs' rows side by side, ranked where that can be done.

    Args:
        runs: to compare.
        names: one a run, no two alike, by which rows and notes call it; None: of its method, and
            the settings that tell it from the others.

    Raises:
        UsageError: the runs are not alike, hence not comparable; names two of them.
        DataError: no run has a row, or samples that are not those of the record.
    """
    labels = common_labels(runs)
    called = run_names(runs) if names is None else names
    named = dict(zip(called, runs, strict=True))
    record = runs[0].record
    tables = tuple(_table(label, named) for label in labels)
    how = {name: value for run in runs for name, value in run.conditions.items()}
    return Ranking(record.suite, record.suite_version, record.engine, record.dtype, how, tables)


# --------------------------------------------------------------------------- one metric


def _table(label: str, named: Mapping[str, FinishedRun]) -> RankedTable:
    mine = {name: run for name, run in named.items() if label in run.rows}
    entrants = [_entrant(name, run, label) for name, run in mine.items() if _complete(run, label)]
    ranks = compare_methods(entrants) if entrants else None
    ranked = {row.name: row for row in ranks.rows} if ranks else {}
    rows = []
    for name, run in mine.items():
        figures, found = run.rows[label], ranked.get(name)
        rank, ties = (found.rank, found.ties) if found else (None, ())
        note = found.note if found else run.bar(label)
        rows.append(TableRow(name, run, figures, rank, note, ties))
    rows.sort(key=_place)
    lacking = [Note(NoteKind.NO_ROW, (label,), about=(name,)) for name in named if name not in mine]
    suites = [run.suite for run in mine.values() if run.suite is not None]
    specs = [spec for suite in suites for spec in suite.primary_forget if spec.label == label]
    turned = turned_from(specs[0]) if specs else ""
    return RankedTable(label, turned, tuple(rows), ranks, (*_notes(rows, ranks), *lacking))


def _complete(run: FinishedRun, label: str) -> bool:
    """Whether RA_core can be computed again."""
    row = run.rows[label]
    whole = row.status not in ("incomplete", "diverged")
    return whole and bool(row.ra_core_attacks) and run.samples is not None


def _entrant(name: str, run: FinishedRun, label: str) -> Entrant:
    core = run.rows[label].ra_core_attacks
    courses = tuple(course for course in run.scores(label).courses if course.attack in core)
    return Entrant(name, courses, run.bar(label), run.ranges(label).forget)


def _place(row: TableRow) -> tuple[bool, bool, int, float]:
    """Ranked rows first, references last; the higher RA first where that says nothing."""
    core = row.figures.ra_core
    best = core if core is not None and core.value is not None else row.figures.ra
    value = best.value if best.value is not None else -1.0
    return _is_reference(row), row.rank is None, row.rank or 0, -value


def _is_reference(row: TableRow) -> bool:
    return row.run.record.method_name in REFERENCES


def _notes(rows: Sequence[TableRow], ranks: Ranks | None) -> Iterator[Note]:
    order = [row.name for row in rows]
    for k, row in enumerate(rows):
        tied = tuple(name for name in order[k:] if name in row.ties)
        if tied:
            yield Note(NoteKind.NOT_TOLD_APART, tied, about=(row.name,))
    seeds = min((p.difference.n_seeds for p in ranks.pairs), default=0) if ranks else 0
    yield from few_seeds(seeds)
    references = tuple(row.name for row in rows if _is_reference(row))
    if references:
        yield Note(NoteKind.REFERENCE, about=references)
    reasons: dict[Note, list[str]] = {}
    for row in rows:
        why = _why_unranked(row)
        if why is not None:
            reasons.setdefault(why, []).append(row.name)
    for why, names in reasons.items():
        yield replace(why, about=tuple(names))
    for row in rows:
        fewer = set(row.run.record.benign) - set(row.figures.ra_attacks)
        if fewer:
            yield Note(NoteKind.LACKS_ATTACKS, tuple(sorted(fewer)), about=(row.name,))
    yield from dict.fromkeys(note for row in rows for note in _off_quartiles(row.figures))
    yield from _unlike_conditions(rows)


def _unlike_conditions(rows: Sequence[TableRow]) -> Iterator[Note]:
    """Say which rows were computed with other libraries or threads, and what is unknown."""
    versions = {row.name: _versions(row.run) for row in rows}
    told = [row.run.conditions for row in rows]
    for what in sorted({name for one in told for name in one}):
        lack = tuple(row.name for row in rows if what not in row.run.conditions)
        if lack:
            yield Note(NoteKind.CONDITION_UNKNOWN, (what.replace("_", " "),), about=lack)
    for library in (*LIBRARIES, "threads", "kernels"):
        by_version: dict[str, list[str]] = {}
        for name, own in versions.items():
            if library in own:
                by_version.setdefault(own[library], []).append(name)
        if len(by_version) > 1:
            for version, names in sorted(by_version.items()):
                yield Note(NoteKind.OTHER_LIBRARY, (library, version), about=tuple(names))
    lack = tuple(name for name, own in versions.items() if not own)
    if lack and len(lack) < len(rows):
        yield Note(NoteKind.CONDITION_UNKNOWN, ("library versions",), about=lack)


def _versions(run: FinishedRun) -> dict[str, str]:
    """Major and minor version of the libraries that scores may depend on, threads and kernels."""
    found = {name: run.libraries[name] for name in LIBRARIES if name in run.libraries}
    short = {name: ".".join(version.split(".")[:2]) for name, version in found.items()}
    return short | dict(run.record.arithmetic)


def _why_unranked(row: TableRow) -> Note | None:
    """What a row's own note leaves open: why there are no samples, or no RA_core."""
    kind, run = row.note and row.note.kind, row.run
    if run.samples is None:
        return Note(NoteKind.UNREAD, (run.unread,))
    if kind != NoteKind.NO_CORE:
        return None
    if run.suite is None:
        return Note(NoteKind.CORE_UNKNOWN)
    missing = tuple(name for name in run.suite.core_unseen if name not in run.record.attacks)
    return Note(NoteKind.CORE_NOT_RUN, missing) if missing else Note(NoteKind.NO_CORE_NAMED)


def _off_quartiles(row: RobustnessRow) -> Iterator[Note]:
    """Say where RA's checkpoints are not at the quartiles."""
    for attack in row.attacks:
        steps = [point.step for point in attack.steps]
        if attack.steps[-1].level:
            continue  # no steps, no quartiles: RA is over all levels
        shares = [step / steps[-1] for step in quartile_steps(steps)]
        if any(abs(a - b) > NEAR for a, b in zip(shares, RA_SHARES, strict=True)):
            numbers = (*shares, *RA_SHARES)
            yield Note(NoteKind.OFF_QUARTILES, numbers=numbers, about=(attack.attack,))


# --------------------------------------------------------------------------- Markdown


def ranking_text(
    ranking: Ranking, *, pairs: bool = False, columns: Sequence[Column] = columns_at("table")
) -> str:
    """Return the tables as Markdown.

    Args:
        ranking: what to show.
        columns: those of the tables.
        pairs: list all pairs of ranked rows below each table.
    """
    how = [conditions_text(ranking.conditions)] if ranking.conditions else []
    parts = [
        f"Suite {cell(ranking.suite)} version {ranking.suite_version}, "
        f"engine {cell(ranking.engine)}, {cell(ranking.dtype)}"
        f"{''.join(f', {cell(part)}' for part in how)}. 95 % intervals."
    ]
    for one in ranking.tables:
        parts.append(f"{one.title}: higher = better forgotten")
        parts.append(table(_head(columns, one), [_cells(columns, row) for row in one.rows]))
        parts.append("\n".join(_below(one, pairs=pairs)))
    rows = ranking.tables[0].rows
    whole = compared_composites({row.name: row.run for row in rows})
    return "\n\n".join([*parts, *whole, *_fa_table(rows)]) + "\n"


def metric_title(metric: str, turned: str) -> str:
    """Return a primary metric's name above its table, as Markdown."""
    return f"**{cell(metric)}**" + (f" ({cell(turned)})" if turned else "")


def _head(columns: Sequence[Column], one: RankedTable) -> list[str]:
    core = next((row.figures.ra_core_attacks for row in one.rows if row.figures.ra_core), ())
    return list(headings(columns, core, one.rows[0].run.record.benign))


def _cells(columns: Sequence[Column], row: TableRow) -> list[str]:
    own = {"rank": rank_cell(row.rank, row.ties, row.note), "method": cell(row.name)}
    return [
        own[column.key] if column.key in own else column.text(row.run.record, row.figures, cell)
        for column in columns
    ]


def rank_cell(rank: int | None, ties: Sequence[str], note: Note | None) -> str:
    """Return where a row stands, or why it has no rank, as a cell of a Markdown table."""
    return cell(f"- ({note_text(note)})") if rank is None else rank_range(rank, len(ties))


def _below(one: RankedTable, *, pairs: bool) -> Iterator[str]:
    ranks = one.ranks
    shows = (len(ranks.pairs), ranks.detectable) if ranks else (0, None)
    yield table_text(*shows, RA_CORE)
    for text in table_note_texts(one.notes):
        yield f"- {cell(text)}"
    if pairs and one.ranks is not None:
        for pair in one.ranks.pairs:
            yield f"- {pair_text(replace(pair, a=cell(pair.a), b=cell(pair.b)))}"


def _fa_table(rows: Sequence[TableRow]) -> Iterator[str]:
    """What the downstream user gets; the same in every metric's table."""
    attacks = list(rows[0].run.record.attacks)
    by_row = {
        row.name: {attack.attack: attack.steps for attack in row.figures.attacks} for row in rows
    }
    if all(
        step.fa is None for found in by_row.values() for steps in found.values() for step in steps
    ):
        return
    body = []
    for name, found in by_row.items():
        ends = [(found[a][0].fa, found[a][-1].fa) if a in found else (None, None) for a in attacks]
        body.append(
            [cell(name), *(f"{figure_cell(first)} -> {figure_cell(last)}" for first, last in ends)]
        )
    yield "**FA**: the attacks' own tasks, before and after; each on its scale, higher = better"
    yield table(["method", *map(cell, attacks)], body)


# --------------------------------------------------------------------------- JSON


def ranking_json(ranking: Ranking) -> dict[str, JsonValue]:
    """Return the comparison as plain values: all figures, pairs and notes."""
    return {
        "suite": ranking.suite,
        "suite_version": ranking.suite_version,
        "engine": ranking.engine,
        "dtype": ranking.dtype,
        "conditions": dict(ranking.conditions),
        "tables": [_plain_table(one) for one in ranking.tables],
    }


def _plain_table(one: RankedTable) -> dict[str, JsonValue]:
    ranks = dataclasses.asdict(one.ranks) if one.ranks else {}
    return {
        "metric": one.metric,
        "turned": one.turned,
        "rows": [_plain_row(row) for row in one.rows],
        "pairs": ranks.get("pairs", []),
        "detectable": ranks.get("detectable"),
        "notes": [dataclasses.asdict(note) for note in one.notes],
    }


def _plain_row(row: TableRow) -> dict[str, JsonValue]:
    record = row.run.record
    return {
        "rank": row.rank,
        "note": None if row.note is None else dataclasses.asdict(row.note),
        "ties": list(row.ties),
        "name": row.name,
        "run": record.run,
        "method": dict(record.method),
        "method_version": record.method_version,
        "seeds": list(record.seeds),
        "seen": list(record.seen),
        "composites": [one.model_dump(mode="json") for one in row.run.composites],
        "figures": cast("JsonValue", dataclasses.asdict(row.figures)),
    }
