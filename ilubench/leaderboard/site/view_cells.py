"""What the page shows of one entry in one metric, as plain values. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from ilubench.leaderboard.records.files import Board
from ilubench.leaderboard.records.models import Entry
from ilubench.leaderboard.site.best_attack import BestAttack, best_attack
from ilubench.leaderboard.site.packing import Texts, pack_course, pack_figures, thousandths
from ilubench.leaderboard.site.ranked import EntryGroup, Place
from ilubench.records.columns import COLUMNS
from ilubench.records.results import RunRecord
from ilubench.records.wording import note_text
from ilubench.reports.item_changes import Changes
from ilubench.statistics.intervals import Figure
from ilubench.statistics.row import AttackFigures, RobustnessRow

__all__ = ["Cell", "cell_figures", "find_cell"]

MOST_ITEMS = 4
"""That are named of those that an attack brought back."""


@dataclass(frozen=True)
class Cell:
    """One entry in one metric."""

    record: RunRecord
    row: RobustnessRow
    place: Place
    curves: Mapping[str, tuple[Figure, ...]]
    changes: Sequence[Changes]
    best: BestAttack | None
    utility: Sequence[str]


def find_cell(
    board: Board, group: EntryGroup, entry: Entry, label: str, utility: Sequence[str]
) -> Cell | None:
    """Return an entry's place and figures in a metric, None if it has none there.

    ``utility`` has the labels of the suite's utility metrics.
    """
    row = group.rows[entry.entry].get(label)
    if row is None:
        return None
    ranks = next(one for one in group.ranks if one.metric == label)
    place = next(place for place in ranks.places if place.entry == entry.entry)
    curves = group.curves[entry.entry].get(label, {})
    best = best_attack(board, entry.entry, label, row.worst_case)
    changes = group.changes[entry.entry].get(label, ())
    return Cell(entry.run, row, place, curves, changes, best, utility)


def cell_figures(cell: Cell, attacks: Sequence[str], texts: Texts) -> JsonValue:
    """Return them, each of the attacks in the order of their names."""
    row, place = cell.row, cell.place
    usual = (row.forget_unlearned.n_seeds, row.forget_unlearned.n_items)
    by_name = {part.attack: part for part in row.attacks}
    found: dict[str, JsonValue] = {
        "rank": place.rank,
        "note": note_text(place.note),
        "ties": list(place.ties),
        "status": row.status,
        "n": list(usual),
        "f0": pack_figures(row.forget_original, texts, usual),
        "best": None if cell.best is None else _best(cell.best, texts, usual),
        "attacks": [
            _attack(by_name[name], cell, texts) if name in by_name else None for name in attacks
        ],
    }
    where = _wheres(cell)
    for column in COLUMNS:
        if column.figure is not None:
            figure, of = column.figure(row)
            if column.key == "worst" and cell.best is not None:
                figure = cell.best.figure
            found[column.key] = pack_figures(figure, texts, usual)
            where.setdefault(column.key, of)
        elif column.number is not None:
            found[column.key] = column.number(cell.record, row)
    return found | {"of": {key: of for key, of in where.items() if of}}


def _wheres(cell: Cell) -> dict[str, str]:
    """What a figure is of, where the row alone does not tell."""
    worst = cell.row.utility.worst
    found = {} if worst is None else {"kept": cell.utility[worst]}
    if cell.best is not None:
        found["worst"] = f"{cell.best.title}, by {cell.best.by}"
    return found


def _best(best: BestAttack, texts: Texts, usual: tuple[int, int]) -> JsonValue:
    return {
        "attack": best.attack,
        "title": best.title,
        "by": best.by,
        "figure": pack_figures(best.figure, texts, usual),
    }


def _attack(part: AttackFigures, cell: Cell, texts: Texts) -> JsonValue:
    """RA, half-life, area, never-knew difference; forget metric and recovery at each checkpoint.

    Last, what came back item by item: how many were taken away, how many are back, and the first
    of these with the forget metric of the original, the unlearned and the attacked model.

    The forget metric starts at the second checkpoint where the first is the row's f_u (it is not
    where an attack scores a part of the items). The recovery always does, and its last is the
    attack's; without samples there is only that one.
    """
    whole = cell.row.forget_unlearned
    usual = (whole.n_seeds, whole.n_items)
    forget = [point.forget for point in part.steps]
    return [
        pack_figures(part.ra, texts, usual),
        pack_figures(part.half_life, texts, usual),
        pack_figures(part.area, texts, usual),
        pack_figures(part.never_knew, texts, usual),
        pack_course(forget[1:] if forget[0] == whole else forget, texts),
        pack_course(cell.curves.get(part.attack) or [part.recovery], texts),
        next((_came_back(one, texts) for one in cell.changes if one.attack == part.attack), None),
    ]


def _came_back(changes: Changes, texts: Texts) -> JsonValue:
    shown = [
        [
            texts.number(one.item),
            *map(thousandths, (one.original, one.unlearned, one.attacked)),
        ]
        for one in changes.back[:MOST_ITEMS]
    ]
    return [changes.taken, len(changes.back), cast("JsonValue", shown)]
