"""The columns of tables of rows, each declared once: of commands, READMEs and the page. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ilubench.errors import UsageError, did_you_mean
from ilubench.records.figure_text import figure_text
from ilubench.records.labels import (
    AREA,
    BEYOND_CONTROL,
    F_0,
    F_U,
    FA_DIFFERENCE,
    HALF_LIFE,
    NEVER_KNEW,
    RA,
    RA_ALL,
    RA_CORE,
    RECOVERY,
    UTILITY_KEPT,
    WORST_CASE,
    name_ra,
)
from ilubench.records.markdown import cell
from ilubench.records.results import RunRecord
from ilubench.statistics.intervals import Figure
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.row import AttackFigures, RobustnessRow

__all__ = [
    "COLUMNS",
    "NAMES",
    "Column",
    "Where",
    "columns_at",
    "columns_named",
    "headings",
    "rank_range",
]

Where = Literal["table", "readme", "page"]
"""`ilubench table`, a board's README, and the page."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table of rows; one with neither `figure` nor `number` is the table's own.

    Attributes:
        key: how `--columns`, the page's address and its style sheet call it.
        label: its heading, and its field in exports.
        meaning: one sentence.
        better: the direction, and that in which a first click sorts.
        shown: where it stands without being asked for.
        figure: a row's figure, and which attack or metric it is of.
        number: a number of a run, without an interval.
        digits: behind the point.
        across: whether it says the same in every forget metric, or on one scale, so that the least
            favourable can stand for all.
    """

    key: str
    label: str
    meaning: str
    better: Literal["higher", "lower"] = "higher"
    shown: frozenset[Where] = frozenset()
    figure: Callable[[RobustnessRow], tuple[Figure | None, str]] | None = None
    number: Callable[[RunRecord, RobustnessRow], float | None] | None = None
    digits: int = 3
    across: bool = False

    def text(
        self, record: RunRecord, row: RobustnessRow, written: Callable[[str], str] = str
    ) -> str:
        """Return what it says of a row; `written` escapes the names that others chose."""
        if self.number is not None:
            value = self.number(record, row)
            return "-" if value is None else f"{value:.6g}"
        figure, where = self.figure(row) if self.figure is not None else (None, "")
        text = figure_text(figure, self.digits)
        text = written(text) if figure is None or figure.value is None else text
        return text + (f" ({written(where)})" if where else "")


def rank_range(rank: int, ties: int) -> str:
    """Return where a row may stand: from behind those that are better to before those worse."""
    return f"{rank}-{rank + ties}" if ties else str(rank)


def columns_at(where: Where) -> tuple[Column, ...]:
    """Return the columns that a table has without being asked."""
    return tuple(column for column in COLUMNS if where in column.shown)


def columns_named(names: Sequence[str]) -> tuple[Column, ...]:
    """Return columns by their keys or labels.

    Raises:
        UsageError: one is unknown, or is not of this table.
    """
    known = {word: one for one in COLUMNS if one.key != "tier" for word in (one.label, one.key)}
    for name in names:
        if name not in known:
            raise UsageError(
                f"--columns {name}: {did_you_mean(name, [one.label for one in known.values()])}"
            )
    return tuple(known[name] for name in names)


def headings(
    columns: Sequence[Column], core: Sequence[str], attacks: Sequence[str]
) -> Iterator[str]:
    """Yield the columns' headings for Markdown; those of RA name their attacks."""
    for column in columns:
        if column.key == "core" and core:
            yield f"{RA_CORE} over {cell('{' + ', '.join(core) + '}')}"
        else:
            yield cell(name_ra(attacks)) if column.key == "all" else column.label


# --- what stands in them


def _worst(row: RobustnessRow) -> tuple[Figure | None, str]:
    return row.worst_case, row.worst_at[0] if row.worst_at else ""


def _shortest_half_life(row: RobustnessRow) -> tuple[Figure | None, str]:
    """Of the core attacks that take steps, else of all; one that is never reached, else why not."""
    timed = [part for part in row.attacks if not part.steps[-1].level]
    chosen = [part for part in timed if part.attack in row.ra_core_attacks] or timed
    reached = _extreme(chosen, lambda part: part.half_life, lowest=True)
    if reached is not None:
        return reached.half_life, reached.attack
    found = [part.half_life for part in chosen]
    beyond = (one for one in found if one.note is not None and one.note.kind == NoteKind.BEYOND)
    return next(beyond, found[0] if found else None), ""


def _kept(row: RobustnessRow) -> tuple[Figure | None, str]:
    return row.utility.kept[row.utility.worst or 0], ""


def _lowest_fa(row: RobustnessRow) -> tuple[Figure | None, str]:
    return _of_attack(row, lambda part: part.fa_difference, lowest=True)


def _beyond_control(row: RobustnessRow) -> tuple[Figure | None, str]:
    return _of_attack(row, lambda part: part.beyond_control, lowest=False)


_Take = Callable[[AttackFigures], Figure | None]


def _of_attack(row: RobustnessRow, take: _Take, *, lowest: bool) -> tuple[Figure | None, str]:
    part = _extreme(row.attacks, take, lowest=lowest)
    if part is not None:
        return take(part), part.attack if len(row.attacks) > 1 else ""
    return (take(row.attacks[0]) if row.attacks else None), ""


def _extreme(parts: Sequence[AttackFigures], take: _Take, *, lowest: bool) -> AttackFigures | None:
    values = [
        (figure.value if lowest else -figure.value, k)
        for k, part in enumerate(parts)
        if (figure := take(part)) is not None and figure.value is not None
    ]
    return parts[min(values)[1]] if values else None


def _seeds(_: RunRecord, row: RobustnessRow) -> float:
    return row.ra.n_seeds or row.worst_case.n_seeds or row.forget_unlearned.n_seeds


def _passes(record: RunRecord, _: RobustnessRow) -> float | None:
    found = [record.cost.get(name) for name in ("forward_passes", "backward_passes")]
    return None if found == [None, None] else sum(one or 0 for one in found)


_TEXT: frozenset[Where] = frozenset({"table", "readme"})
_ALL: frozenset[Where] = frozenset({"table", "readme", "page"})

COLUMNS = (
    Column(
        "rank",
        "rank",
        "from 1 + the rows that are significantly better, to the rows that are not significantly "
        "worse",
        better="lower",
        shown=_ALL,
    ),
    Column("method", "method", "what unlearned; its row's record", better="lower", shown=_ALL),
    Column(
        "tier",
        "tier",
        "how far the row can be trusted",
        better="lower",
        shown=frozenset({"readme"}),
    ),
    Column("seeds", "seeds", "how often all of it was repeated", shown=_TEXT, number=_seeds),
    Column(
        "fu",
        F_U,
        "the forget metric after unlearning, before any attack",
        shown=_TEXT,
        figure=lambda row: (row.forget_unlearned, ""),
    ),
    Column(
        "core",
        RA_CORE,
        "the mean forget metric at the first quartile, the median and the end of each of the "
        "suite's core attacks, which no ranked method trained on; ranks rest on it",
        shown=_ALL,
        figure=lambda row: (row.ra_core, ""),
    ),
    Column("all", RA_ALL, "the same over all attacks", shown=_TEXT, figure=lambda r: (r.ra, "")),
    Column(
        "recovery",
        RECOVERY,
        f"({F_U} - f_t) / ({F_U} - {F_0}) at the attacks' ends, their mean: 0 stayed forgotten, "
        "1 known as before",
        better="lower",
        shown=_ALL,
        figure=lambda row: (row.recovery, ""),
        across=True,
    ),
    Column(
        "worst",
        WORST_CASE,
        "the lowest forget metric over attacks and checkpoints that keep 90 % of the utility; a "
        "verified attack that somebody submitted can lower it, with credit",
        shown=_ALL,
        figure=_worst,
    ),
    Column(
        "kept",
        UTILITY_KEPT,
        "what is left of the original's utility, above chance; of the metric that kept least",
        shown=_ALL,
        figure=_kept,
        across=True,
    ),
    Column(
        "fa",
        FA_DIFFERENCE,
        "what the downstream user gets from the fine-tuning, against fine-tuning the original "
        "model; of the attack where that is least",
        shown=_ALL,
        figure=_lowest_fa,
        across=True,
    ),
    Column(
        "half",
        HALF_LIFE,
        "optimizer steps until recovery reaches one half, the shortest of the core attacks; >T if "
        "it never does in T steps",
        figure=_shortest_half_life,
        digits=0,
        across=True,
    ),
    Column(
        "control",
        BEYOND_CONTROL,
        "what came back beyond what the control attack brings back, which knows nothing of the "
        "forgotten; the highest of the attacks",
        better="lower",
        figure=_beyond_control,
        across=True,
    ),
    Column(
        "steps",
        "steps",
        "optimizer steps of unlearning",
        better="lower",
        number=lambda record, _: record.cost.get("steps"),
    ),
    Column(
        "passes",
        "passes",
        "forward and backward passes through the layers, in unlearning",
        better="lower",
        number=_passes,
    ),
    Column(
        "seconds",
        "seconds",
        "of unlearning, on the submitter's machine",
        better="lower",
        number=lambda record, _: record.cost.get("train_seconds"),
    ),
)

NAMES: Mapping[str, str] = {column.key: column.label for column in COLUMNS} | {
    "f0": F_0,
    "ra": RA,
    "area": AREA,
    "never": NEVER_KNEW,
}
"""What the page calls a figure -> its name."""
