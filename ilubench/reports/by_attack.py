"""Methods against attacks: RA of each attack alone, and what carries over to unseen ones.

The question is that of ILU's generalisation figure: a method that was trained to be invariant on
one benign set, or on several, resists fine-tuning on that set; does it resist the others?
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from pydantic import JsonValue

from ilubench.records.comparing import common_labels
from ilubench.records.figure_text import figure_cell
from ilubench.records.finished import REFERENCES, FinishedRun
from ilubench.records.markdown import cell, table
from ilubench.records.run_names import run_names
from ilubench.records.wording import note_text
from ilubench.statistics.aggregate import ra_samples
from ilubench.statistics.bounds import cut_difference
from ilubench.statistics.intervals import (
    Figure,
    Samples,
    all_items,
    mean_figure,
    no_figure,
    pick_items,
    shared_seeds,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import Status

__all__ = [
    "AttackRow",
    "AttackTable",
    "Carried",
    "attack_tables",
    "attack_tables_json",
    "attack_tables_text",
]

SEVERAL = 2
NONE = no_figure(Note(NoteKind.NOT_COMPARED))


@dataclass(frozen=True, slots=True)
class AttackRow:
    """One run.

    Attributes:
        name: told apart from the others.
        run: its id.
        status: of its row: `ok`, `collapsed`, ...
        seen: attacks whose data it trained on.
        cells: attack -> RA of that attack alone; None where it has no figures.
        unseen: RA over the attacks that no row of the table trained on.
    """

    name: str
    run: str
    status: Status
    seen: tuple[str, ...]
    cells: Mapping[str, Figure | None]
    unseen: Figure


@dataclass(frozen=True, slots=True)
class Carried:
    """A method that trains on several attacks' data against itself with one at a time.

    Attributes:
        several: the run with several.
        singles: the runs with one, and for each the attacks that neither of the two trained on.
        difference: mean over the singles of (several - single) in RA over those attacks, paired by
            seed and item: above 0, training on several carries further.
        left_out: singles that were not compared, and why.
    """

    several: str
    singles: Mapping[str, tuple[str, ...]]
    difference: Figure
    left_out: Mapping[str, Note]


@dataclass(frozen=True, slots=True)
class AttackTable:
    """One primary metric; `unseen` are the attacks that no row trained on."""

    metric: str
    attacks: tuple[str, ...]
    unseen: tuple[str, ...]
    rows: tuple[AttackRow, ...]
    carried: tuple[Carried, ...]


def attack_tables(runs: Sequence[FinishedRun]) -> tuple[AttackTable, ...]:
    """Return one table a primary metric.

    Raises:
        UsageError: the runs are not alike; names two of them.
        DataError: no run was attacked.
    """
    labels = common_labels(runs)
    named = dict(zip(run_names(runs), runs, strict=True))
    return tuple(_table(label, named) for label in labels)


def _table(label: str, named: Mapping[str, FinishedRun]) -> AttackTable:
    mine = {name: run for name, run in named.items() if label in run.rows}
    attacks = next(iter(mine.values())).record.attacks
    trained_on = {attack for run in mine.values() for attack in run.record.seen}
    benign = next(iter(mine.values())).record.benign
    unseen = tuple(attack for attack in benign if attack not in trained_on)
    rows = tuple(_row(name, run, label, unseen) for name, run in mine.items())
    return AttackTable(label, attacks, unseen, rows, tuple(_carried(label, mine)))


def _row(name: str, run: FinishedRun, label: str, unseen: Sequence[str]) -> AttackRow:
    row, record = run.rows[label], run.record
    found = {figures.attack: figures.ra for figures in row.attacks}
    cells = {attack: found.get(attack) for attack in record.attacks}
    if not record.benign:
        mean = no_figure(Note(NoteKind.ONLY_FURTHER))
    elif not unseen:
        mean = no_figure(Note(NoteKind.ALL_TRAINED_ON))
    elif run.samples is None:
        mean = no_figure(Note(NoteKind.UNREAD, (run.unread,)))
    elif any(cells[attack] is None for attack in unseen):
        mean = no_figure(Note(NoteKind.ATTACK_MISSING))
    else:
        mean = run.over(label, unseen).ra
    return AttackRow(name, record.run, row.status, record.seen, cells, mean)


# --------------------------------------------------------------------------- one against several


def _carried(label: str, named: Mapping[str, FinishedRun]) -> Iterator[Carried]:
    for several, run in named.items():
        if len(run.record.seen) < SEVERAL or run.record.method_name in REFERENCES:
            continue
        singles = {
            name: other
            for name, other in named.items()
            if len(other.record.seen) == 1 and _variant(other) == _variant(run)
        }
        if singles:
            yield _difference(label, (several, run), singles)


def _variant(run: FinishedRun) -> frozenset[tuple[str, str]]:
    """What two runs have alike but for environments and numbers, which may be tuned for each."""
    return frozenset(_words("", cast("JsonValue", run.record.method)))


def _words(name: str, value: JsonValue) -> Iterator[tuple[str, str]]:
    """Dotted name and word of each setting that is a word; not of the training's."""
    if isinstance(value, str):
        yield name, value
    elif isinstance(value, Mapping):
        for key, below in value.items():
            if key not in ("environments", "train"):
                yield from _words(f"{name}.{key}", below)


def _difference(
    label: str, several: tuple[str, FinishedRun], singles: Mapping[str, FinishedRun]
) -> Carried:
    name, run = several
    compared: dict[str, tuple[str, ...]] = {}
    left_out: dict[str, Note] = {}
    tables: list[tuple[Samples, Samples]] = []
    for single, other in singles.items():
        trained_on = {*run.record.seen, *other.record.seen}
        both = tuple(a for a in run.record.benign if a not in trained_on)
        why = _unusable(label, (run, other), both)
        if why is not None:
            left_out[single] = why
            continue
        compared[single] = both
        tables.append((_ra(run, label, both), _ra(other, label, both)))
    difference = cut_difference(_paired(tables), run.ranges(label).forget) if tables else NONE
    return Carried(name, compared, difference, left_out)


def _unusable(label: str, runs: Sequence[FinishedRun], attacks: Sequence[str]) -> Note | None:
    if not attacks:
        return Note(NoteKind.PAIR_TRAINED_ON_ALL)
    for run in runs:
        if run.samples is None:
            return Note(NoteKind.UNREAD, (run.unread,))
        found = {figures.attack for figures in run.rows[label].attacks}
        if not found >= set(attacks):
            return Note(NoteKind.ATTACK_MISSING)
    return None


def _ra(run: FinishedRun, label: str, attacks: Sequence[str]) -> Samples:
    return ra_samples([c for c in run.scores(label).courses if c.attack in attacks])


def _paired(tables: Sequence[tuple[Samples, Samples]]) -> Figure:
    """The mean over the pairs of first - second, over the seeds and items that all share."""
    flat = [one for pair in tables for one in pair]
    items = all_items(flat)
    if any(set(one.items) != set(items) for one in flat):
        return no_figure(Note(NoteKind.OTHER_ITEMS))
    if not set.intersection(*(set(one.seeds) for one in flat)):
        return no_figure(Note(NoteKind.NO_SHARED_SEED))
    seeds = shared_seeds(flat)
    parts = [
        pick_items(several, seeds, items) - pick_items(single, seeds, items)
        for several, single in tables
    ]
    return mean_figure(np.mean(parts, axis=0))


# --------------------------------------------------------------------------- Markdown, JSON


def attack_tables_text(tables: Sequence[AttackTable]) -> str:
    """Return the tables as Markdown."""
    parts = [
        "RA of each attack alone: the mean forget metric at its quartile checkpoints. (seen): the "
        "method trained on that attack's data. 95 % intervals, for one figure at a time."
    ]
    for one in tables:
        parts.append(f"**{cell(one.metric)}**: higher = better forgotten")
        mean = f"mean of {{{', '.join(one.unseen)}}}" if one.unseen else "mean of unseen"
        head = ["method", *map(cell, one.attacks), cell(mean)]
        parts.append(table(head, [_cells(one, row) for row in one.rows]))
        lines = [f"- {line}" for carried in one.carried for line in _lines(carried)]
        if lines:
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cells(one: AttackTable, row: AttackRow) -> list[str]:
    name = row.name if row.status == "ok" else f"{row.name} ({row.status})"
    shown = [
        figure_cell(row.cells.get(attack)) + (" (seen)" if attack in row.seen else "")
        for attack in one.attacks
    ]
    return [cell(name), *shown, figure_cell(row.unseen)]


def _lines(carried: Carried) -> Iterator[str]:
    singles = ", ".join(carried.singles)
    if singles:
        over = "; ".join(
            f"{', '.join(attacks)}" for attacks in dict.fromkeys(carried.singles.values())
        )
        yield (
            f"{cell(carried.several)} - mean of ({cell(singles)}), over attacks that neither "
            f"trained on ({cell(over)}): {figure_cell(carried.difference)}"
        )
    for name, why in carried.left_out.items():
        yield f"{cell(carried.several)} was not compared with {cell(name)}: {cell(note_text(why))}"


def attack_tables_json(tables: Sequence[AttackTable]) -> list[JsonValue]:
    """Return the tables as plain values."""
    return [cast("JsonValue", dataclasses.asdict(one)) for one in tables]
