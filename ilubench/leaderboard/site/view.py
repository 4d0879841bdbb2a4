"""What the page shows, as plain values: records and ranks in, compact arrays out. Pure.

Figures are packed (:mod:`ilubench.leaderboard.site.packing`); what the rows have in common
(attacks, their steps, metrics) stands once. All texts are as the records have them: the page shows
them as text, never as markup.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from ilubench.errors import DataError, SpecError
from ilubench.leaderboard.records.files import Board
from ilubench.leaderboard.records.models import Entry, Reported, Verification
from ilubench.leaderboard.site.best_attack import BestAttack, best_attack
from ilubench.leaderboard.site.packing import Texts, pack_course, pack_figures, thousandths
from ilubench.leaderboard.site.ranked import EntryGroup, MetricRanks, Place
from ilubench.leaderboard.site.reported import provenance, reported_tables
from ilubench.records.columns import COLUMNS, NAMES, Column
from ilubench.records.finished import REFERENCES
from ilubench.records.labels import F_U, RA_CORE
from ilubench.records.results import RunRecord
from ilubench.records.wording import note_text, table_note_texts
from ilubench.reports.item_changes import Changes
from ilubench.reports.leaders import leaders_across, leaders_text
from ilubench.specs.suite_files import load_suite
from ilubench.statistics.intervals import Figure
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.ranks import table_text
from ilubench.statistics.row import AttackFigures, RobustnessRow

__all__ = ["page_data"]

OF_THE_MACHINE = ("device", "cores", "threads", "platform", "ilubench", "libraries")
"""What the page shows of an entry's environment; the data's fingerprints are in its record."""

AS_RECORDED = {"after unlearning": F_U}
"""What records call a figure, where it is not its name."""

MOST_ITEMS = 4
"""That are named of those that an attack brought back."""

OF_THE_SUITE = ("title", "utility", "attacks", "core_unseen")


def page_data(boards: Sequence[tuple[Board, Sequence[EntryGroup]]]) -> dict[str, JsonValue]:
    """Return the data of the page.

    Args:
        boards: each suite's records and its compared groups of entries.

    Raises:
        DataError: an entry's configuration does not tell its suite.
    """
    texts = Texts()
    shown: list[JsonValue] = []
    for board, groups in boards:
        for number, group in enumerate(groups):
            reported = board.reported if number == 0 else ()
            shown.append(_group(board, group, texts, reported))
            if number:
                cast("dict[str, JsonValue]", shown[-1])["id"] = f"{board.suite}-{number + 1}"
        if not groups and board.reported:
            shown.append(_only_reported(board))
    return {
        "boards": shown,
        "labels": dict(NAMES),
        "columns": [_column(one) for one in COLUMNS],
        "texts": texts.all(),
        "beyond": texts.of(NoteKind.BEYOND),
        "day": _last_day(board for board, _ in boards),
    }


def _last_day(boards: Iterable[Board]) -> str:
    """The day of the newest record; empty where none has one."""
    entries = [entry for board in boards for entry in board.entries]
    days = [entry.submission.day for entry in entries]
    days += [one.day for entry in entries for one in entry.verifications]
    return max(days).isoformat() if days else ""


def _column(one: Column) -> dict[str, JsonValue]:
    """A column, as the page's script and the table without a script have it."""
    return {
        "key": one.key,
        "label": one.label,
        "meaning": one.meaning,
        "better": one.better,
        "kind": "figure" if one.figure else "number" if one.number else "own",
        "digits": one.digits,
        "across": one.across,
        "page": "page" in one.shown,
    }


# --------------------------------------------------------------------------- one table


def _group(
    board: Board, group: EntryGroup, texts: Texts, reported: Sequence[Reported]
) -> dict[str, JsonValue]:
    suite = _suite(group.entries[0])
    labels = [one.metric for one in group.ranks]
    attacks = _attacks(group, suite)
    names = [cast("str", attack["name"]) for attack in attacks]
    stands = group.stands({entry.entry: entry.title for entry in group.entries})
    metrics = [
        _metric(one, group) | {"verdict": leaders_text(stands[one.metric])} for one in group.ranks
    ]
    rows = [_row(entry, group, names, texts) for entry in group.entries]
    for row, entry in zip(rows, group.entries, strict=True):
        cells = [_cell(board, group, entry, label) for label in labels]
        row["m"] = [None if cell is None else _figures(cell, names, texts) for cell in cells]
    return {
        "id": board.suite,
        "suite": group.suite,
        "name": group.name,
        "title": str(suite["title"]),
        "version": group.suite_version,
        "engine": group.engine,
        "dtype": group.dtype,
        "conditions": dict(group.conditions),
        "how": group.how,
        "verdict": leaders_across(stands) if len(stands) > 1 else "",
        "metrics": cast("JsonValue", metrics),
        "utility": cast("JsonValue", [_label(metric) for metric in _maps(suite["utility"])]),
        "attacks": cast("JsonValue", attacks),
        "rows": cast("JsonValue", rows),
        **_published(reported),
    }


def _only_reported(board: Board) -> dict[str, JsonValue]:
    """A suite that nobody has measured yet."""
    try:
        values, _ = load_suite(board.suite)
    except SpecError:
        values = {}
    return {
        "id": board.suite,
        "suite": board.suite,
        "name": board.suite,
        "title": str(values.get("title", board.suite)),
        "version": None,
        "engine": "",
        "dtype": "",
        "how": "",
        "verdict": "",
        "metrics": [],
        "utility": [],
        "attacks": [],
        "rows": [],
        **_published(board.reported),
    }


def _suite(entry: Entry) -> dict[str, JsonValue]:
    suite = entry.config.get("suite")
    if not isinstance(suite, dict) or any(name not in suite for name in OF_THE_SUITE):
        needed = ", ".join(OF_THE_SUITE)
        raise DataError(f"{entry.entry}: config.suite: must be the suite as it was run ({needed})")
    return suite


def _maps(value: JsonValue) -> list[dict[str, JsonValue]]:
    found = value if isinstance(value, list) else []
    return [one for one in found if isinstance(one, dict)]


def _label(metric: Mapping[str, JsonValue]) -> str:
    label = str(metric.get("label", ""))
    return label if metric.get("direction", "higher") == "higher" else f"{label} (negated)"


def _metric(one: MetricRanks, group: EntryGroup) -> dict[str, JsonValue]:
    chances = [rows[one.metric].forget_chance for rows in group.rows.values() if one.metric in rows]
    return {
        "label": one.metric,
        "turned": one.turned,
        "chance": thousandths(chances[0]),
        "shows": table_text(one.pairs, one.detectable, RA_CORE),
        "seeds": one.least_seeds,
        # who ties with whom, and who is a reference, the rows themselves say
        "notes": list(table_note_texts(n for n in one.notes if n.kind != NoteKind.NOT_TOLD_APART)),
    }


def _attacks(group: EntryGroup, suite: Mapping[str, JsonValue]) -> list[dict[str, JsonValue]]:
    """The attacks in the suite's order: those that any row has."""
    specs = suite["attacks"] if isinstance(suite["attacks"], dict) else {}
    core = suite["core_unseen"] if isinstance(suite["core_unseen"], list) else []
    found: dict[str, AttackFigures] = {}
    for row in (row for rows in group.rows.values() for row in rows.values()):
        for part in row.attacks:
            found.setdefault(part.attack, part)
    order = sorted(found, key=lambda name: (name not in core, name))
    shown: list[dict[str, JsonValue]] = []
    for name in sorted(order, key=list(specs).index if set(order) <= set(specs) else order.index):
        spec, part = specs.get(name), found[name]
        fa = spec.get("fa") if isinstance(spec, dict) else None
        shown.append(
            {
                "name": name,
                "core": name in core,
                "steps": [point.step for point in part.steps],
                "levels": [point.level for point in part.steps if point.level],
                "fa": _label(fa) if isinstance(fa, dict) else "",
            }
        )
    return shown


# --------------------------------------------------------------------------- one row


def _row(
    entry: Entry, group: EntryGroup, attacks: Sequence[str], texts: Texts
) -> dict[str, JsonValue]:
    """What does not depend on the metric."""
    run = entry.run
    rows = list(group.rows[entry.entry].values())
    found: dict[str, JsonValue] = {
        "id": entry.entry,
        "title": entry.title,
        "tier": entry.tier,
        "disputed": entry.disputed,
        "reference": run.method_name in REFERENCES,
        "method": run.method_name,
        "version": run.method_version,
        "run": run.run,
        "seeds": list(run.seeds),
        "seen": list(run.seen),
        "trains": list(entry.trains_on),
        "cost": dict(run.cost),
        "settings": run.method.get("settings"),
        # most rows of a suite are from few machines
        "machine": texts.number(json.dumps(_machine(entry))),
        "weights": [[one.seed, one.sha256, one.bytes, one.url] for one in entry.weights],
        "package": None if entry.package is None else entry.package.model_dump(mode="json"),
        "samples": [entry.samples.path, entry.samples.sha256, entry.samples.bytes],
        "by": entry.submission.model_dump(mode="json"),
        "verified": [_verification(one) for one in entry.verifications],
        "notes": [texts.number(note) for note in run.notes],
    }
    if rows:
        found |= _downstream(rows[0], attacks, texts)
    return found


def _machine(entry: Entry) -> dict[str, JsonValue]:
    return {name: entry.environment[name] for name in OF_THE_MACHINE if name in entry.environment}


def _downstream(row: RobustnessRow, attacks: Sequence[str], texts: Texts) -> dict[str, JsonValue]:
    """Utility, and what the attacks' users get: alike in every primary metric."""
    by_name = {part.attack: part for part in row.attacks}
    parts = [by_name.get(name) for name in attacks]
    return {
        "worst_utility": row.utility.worst,
        "kept": [pack_figures(figure, texts) for figure in row.utility.kept],
        "utility": [pack_figures(figure, texts) for figure in row.utility.unlearned],
        "fa": [None if part is None else pack_figures(part.fa_difference, texts) for part in parts],
        "fa_steps": [None if part is None else _fa_steps(part) for part in parts],
        "kept_steps": [None if part is None else _kept_steps(part) for part in parts],
    }


def _fa_steps(part: AttackFigures) -> JsonValue:
    values = [None if point.fa is None else point.fa.value for point in part.steps]
    return [None if value is None else thousandths(value) for value in values]


def _kept_steps(part: AttackFigures) -> JsonValue:
    values = [point.utility_kept.value for point in part.steps]
    return [None if value is None else thousandths(value) for value in values]


def _verification(one: Verification) -> JsonValue:
    return {
        "kind": one.kind,
        "by": one.by,
        "day": one.day.isoformat(),
        "seeds": list(one.seeds),
        "disputed": one.disputed,
        "figures": [
            [
                c.metric,
                AS_RECORDED.get(c.figure, c.figure),
                *map(thousandths, (c.submitted, c.verified, c.low, c.high)),
            ]
            for c in one.comparisons
        ],
    }


# --------------------------------------------------------------------------- row and metric


@dataclass(frozen=True)
class _Cell:
    """One entry in one metric."""

    record: RunRecord
    row: RobustnessRow
    place: Place
    curves: Mapping[str, tuple[Figure, ...]]
    changes: Sequence[Changes]
    best: BestAttack | None
    utility: Sequence[str]


def _cell(board: Board, group: EntryGroup, entry: Entry, label: str) -> _Cell | None:
    row = group.rows[entry.entry].get(label)
    if row is None:
        return None
    ranks = next(one for one in group.ranks if one.metric == label)
    place = next(place for place in ranks.places if place.entry == entry.entry)
    curves = group.curves[entry.entry].get(label, {})
    best = best_attack(board, entry.entry, label, row.worst_case)
    utility = [_label(metric) for metric in _maps(_suite(entry)["utility"])]
    changes = group.changes[entry.entry].get(label, ())
    return _Cell(entry.run, row, place, curves, changes, best, utility)


def _figures(cell: _Cell, attacks: Sequence[str], texts: Texts) -> JsonValue:
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


def _wheres(cell: _Cell) -> dict[str, str]:
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


def _attack(part: AttackFigures, cell: _Cell, texts: Texts) -> JsonValue:
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


# --------------------------------------------------------------------------- reported rows


def _published(rows: Sequence[Reported]) -> dict[str, JsonValue]:
    """Rows of papers, and their figures side by side."""
    left_out = {"schema_version", "kind", "suite", "figures"}
    return {
        "reported": [
            one.model_dump(mode="json", exclude=left_out) | {"provenance": provenance(one)}
            for one in rows
        ],
        "published": [
            {
                "metric": one.metric,
                "higher": one.higher_is,
                "states": list(one.states),
                "rows": [[row.title, *cells] for row, cells in one.rows],
            }
            for one in reported_tables(rows)
        ],
    }
