"""The tables of the ILU paper, from finished runs, with published rows beside them. Pure.

*muse*: before fine-tuning and after each attack, VerbMem_f, KnowMem_f, KnowMem_r and FA. *wmdp*:
one row a method, with FQ and MMLU after unlearning, RA and FA as means over the attacks. Figures
are on the scales of the paper, those of a raw metric counted as the paper counts them.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from pydantic import JsonValue

from ilubench.errors import DataError, UsageError, did_you_mean
from ilubench.records.comparing import common_labels
from ilubench.records.figure_text import figure_text
from ilubench.records.finished import FinishedRun
from ilubench.records.labels import RA
from ilubench.records.markdown import cell, table
from ilubench.records.results import REFERENCE
from ilubench.records.run_names import run_names
from ilubench.statistics.intervals import Figure
from ilubench.statistics.row import AttackFigures, RobustnessRow, attacks_of

__all__ = ["LAYOUTS", "Layout", "LayoutTable", "Published", "lay_out", "layout_json", "layout_text"]

ORIGINAL, UNLEARNED, MEAN = "original", "unlearned", "mean"
BEFORE = "before fine-tuning"
DIGITS = 2


Row: TypeAlias = tuple[str, str, str, tuple[Figure | None, ...]]
"""State, method, source and the columns' figures."""


@dataclass(frozen=True, slots=True)
class Published:
    """A row of a paper: (metric as published, state) -> value; of which model, and who says so."""

    name: str
    provenance: str
    values: Mapping[tuple[str, str], float]


@dataclass(frozen=True, slots=True)
class PaperColumn:
    """A column as the paper has it.

    Attributes:
        name: how `--columns` calls it.
        scale: as published, in brackets; the factor from 0-1 follows from it.
        means: one sentence.
        take: a run's figure after that attack; None: before any.
    """

    name: str
    scale: str
    means: str
    take: Callable[["PaperColumn", FinishedRun, AttackFigures | None], Figure | None]

    @property
    def published(self) -> str:
        """How records of published rows call it."""
        return f"{self.name} ({self.scale})"

    def written(self, figure: Figure | None) -> Figure | None:
        """Return a figure on the column's scale."""
        return figure if figure is None or self.scale == "0-1" else _line(figure, 0, 100)


@dataclass(frozen=True, slots=True)
class Layout:
    """A table's columns, and whether it has rows for each attack."""

    columns: tuple[PaperColumn, ...]
    by_attack: bool


@dataclass(frozen=True, slots=True)
class LayoutTable:
    """A table laid out: (state, row's name, its source, its figures by column)."""

    columns: tuple[PaperColumn, ...]
    by_attack: bool
    rows: tuple[Row, ...]


def lay_out(
    layout: Layout,
    runs: Sequence[FinishedRun],
    published: Sequence[Published] = (),
    columns: Sequence[str] = (),
) -> LayoutTable:
    """Return a table of the paper.

    Args:
        layout: which.
        runs: measured, alike.
        published: rows of papers, as they were published.
        columns: names of those wanted; without: all.

    Raises:
        UsageError: the runs are not alike, a column is not known, or no run has it.
        DataError: a run has no figures.
    """
    common_labels(runs)
    for run in runs:
        if not run.rows:
            raise DataError(f"{run.path} has no figures, for what failed in it: leave it out")
    known = {column.name: column for column in layout.columns}
    for name in columns:
        if name not in known:
            raise UsageError(f"--columns {name}: {did_you_mean(name, known)}")
    chosen = tuple(known[name] for name in columns) or layout.columns
    names = run_names(runs)
    measured = dict(zip(names, runs, strict=True))
    attacked = {name for run in runs for name in attacks_of(run.rows)}  # one may have failed
    attacks = [name for name in runs[0].record.attacks if name in attacked]
    states = [BEFORE, *attacks] if layout.by_attack else [""]
    own = {state: [*_measured(state, chosen, measured)] for state in states}
    rows = [row for state in states for row in (*own[state], *_published(state, chosen, published))]
    for place, column in enumerate(chosen):
        if all(row[-1][place] is None for mine in own.values() for row in mine):
            raise UsageError(
                f"{runs[0].record.suite} measures no {column.name}: leave it out by --columns "
                f"{','.join(one.name for one in chosen if one is not column)}"
            )
    return LayoutTable(chosen, layout.by_attack, tuple(rows))


def layout_text(found: LayoutTable) -> str:
    """Return the table as Markdown; published rows say so."""
    head = [*(["state"] if found.by_attack else []), "method", "source"]
    body = []
    for state, name, source, figures in found.rows:
        cells = [figure_text(figure, DIGITS) for figure in figures]
        body.append([*([cell(state)] if found.by_attack else []), cell(name), cell(source), *cells])
    parts = [
        "95 % intervals over seeds and items, none of a mean over the attacks' own tasks; "
        "reported rows are as published, with their own protocols.",
        table([*head, *(column.published for column in found.columns)], body),
        "\n".join(f"- {column.name}: {column.means}" for column in found.columns),
    ]
    return "\n\n".join(parts) + "\n"


def layout_json(found: LayoutTable) -> list[JsonValue]:
    """Return the table as plain values."""
    return [
        {"state": state, "method": name, "source": source}
        | {
            column.published: None if figure is None else dataclasses.asdict(figure)
            for column, figure in zip(found.columns, figures, strict=True)
        }
        for state, name, source, figures in found.rows
    ]


# --- rows


def _measured(
    state: str, columns: Sequence[PaperColumn], runs: Mapping[str, FinishedRun]
) -> Iterator[Row]:
    for name, run in runs.items():
        part = attacks_of(run.rows).get(state)
        if part is not None or state in (BEFORE, ""):
            figures = tuple(one.written(one.take(one, run, part)) for one in columns)
            how = "measured" if run.samples is not None else "as recorded"
            yield state, name, f"{how} ({run.record.suite})", figures


def _published(
    state: str, columns: Sequence[PaperColumn], published: Sequence[Published]
) -> Iterator[Row]:
    wanted = {BEFORE: (UNLEARNED, ORIGINAL), "": (MEAN, UNLEARNED, ORIGINAL)}.get(state, (state,))
    for one in published:
        values = [
            next(
                (one.values[c.published, s] for s in wanted if (c.published, s) in one.values), None
            )
            for c in columns
        ]
        if any(value is not None for value in values):
            shown = (None if v is None else Figure(v, None, None, 0, 0, "none") for v in values)
            yield state, one.name, f"reported ({one.provenance})", tuple(shown)


def _row(run: FinishedRun) -> RobustnessRow:
    """Any row of a run: utility and FA are alike in all."""
    return next(iter(run.rows.values()))


# --- what stands in a column


def _forget(column: PaperColumn, run: FinishedRun, part: AttackFigures | None) -> Figure | None:
    """A forget metric as forgotten (`FQ`), or as known where the suite has `1 - VerbMem_f`."""
    for label, turned in ((column.name, False), (f"1 - {column.name}", True)):
        row = run.rows.get(label)
        if row is not None:
            figure = _forgotten(row, run, part)
            return _line(figure, 1, -1) if turned and figure is not None else figure
    return None


def _forgotten(row: RobustnessRow, run: FinishedRun, part: AttackFigures | None) -> Figure | None:
    if part is None:
        original = run.record.method_name == REFERENCE
        return row.forget_original if original else row.forget_unlearned
    return next((one.steps[-1].forget for one in row.attacks if one.attack == part.attack), None)


def _utility(column: PaperColumn, run: FinishedRun, part: AttackFigures | None) -> Figure | None:
    specs = () if run.suite is None else run.suite.utility
    places = [k for k, one in enumerate(specs) if one.label == column.name]
    if not places:
        return None
    row = _row(run)
    return (row.utility.unlearned if part is None else part.steps[-1].utility)[places[0]]


def _fa(_: PaperColumn, run: FinishedRun, part: AttackFigures | None) -> Figure | None:
    """None of an attack whose FA is no share, but a loss that was turned round."""
    if part is None:
        return None
    spec = None if run.suite is None else run.suite.attacks[part.attack].fa
    return None if spec is not None and spec.direction == "lower" else part.steps[-1].fa


def _mean_fa(_: PaperColumn, run: FinishedRun, __: AttackFigures | None) -> Figure | None:
    """Over the attacks that RA is over; without an interval, since each has items of its own."""
    row = _row(run)
    ends = [_fa(_, run, part) for part in row.attacks if part.attack in row.ra_attacks]
    values = [one.value for one in ends if one is not None and one.value is not None]
    if not values or len(values) < len(ends):
        return None
    return Figure(sum(values) / len(values), None, None, row.ra.n_seeds, 0, "none")


def _mean_ra(_: PaperColumn, run: FinishedRun, __: AttackFigures | None) -> Figure | None:
    row = run.rows.get("FQ")
    return None if row is None else row.ra


def _line(figure: Figure, start: float, slope: float) -> Figure:
    """A figure put on another scale."""
    ends = [
        None if v is None else start + slope * v for v in (figure.value, figure.low, figure.high)
    ]
    value, low, high = ends if slope > 0 else (ends[0], ends[2], ends[1])
    return dataclasses.replace(figure, value=value, low=low, high=high)


LAYOUTS: Mapping[str, Layout] = {
    "muse": Layout(
        (
            PaperColumn("VerbMem_f", "0-100", "what is recited of the forgotten texts", _forget),
            PaperColumn("KnowMem_f", "0-100", "what is answered of the forgotten", _forget),
            PaperColumn("KnowMem_r", "0-100", "what is answered of the retained", _utility),
            PaperColumn("FA", "%", "the attack's own task, at its end", _fa),
        ),
        by_attack=True,
    ),
    "wmdp": Layout(
        (
            PaperColumn("FQ", "0-1", "forget quality, before any attack", _forget),
            PaperColumn("MMLU", "%", "utility, before any attack", _utility),
            PaperColumn(RA, "0-1", "robust accuracy, its mean over the attacks", _mean_ra),
            PaperColumn("FA", "%", "the attacks' own tasks, the mean at their ends", _mean_fa),
        ),
        by_attack=False,
    ),
}
