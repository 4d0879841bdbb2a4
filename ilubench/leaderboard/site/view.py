"""What the page shows, as plain values: records and ranks in, compact arrays out. Pure.

Figures are packed (:mod:`ilubench.leaderboard.site.packing`); what the rows have in common
(attacks, their steps, metrics) stands once. All texts are as the records have them: the page shows
them as text, never as markup.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import cast

from pydantic import JsonValue

from ilubench.errors import DataError, SpecError
from ilubench.leaderboard.records.files import Board
from ilubench.leaderboard.records.models import Entry, Reported, Verification
from ilubench.leaderboard.site.packing import Texts, pack_figures, thousandths
from ilubench.leaderboard.site.ranked import EntryGroup, MetricRanks
from ilubench.leaderboard.site.reported import provenance, reported_tables
from ilubench.leaderboard.site.view_cells import cell_figures, find_cell
from ilubench.records.columns import COLUMNS, NAMES, Column
from ilubench.records.finished import REFERENCES
from ilubench.records.labels import F_U, RA_CORE
from ilubench.records.wording import table_note_texts
from ilubench.reports.leaders import leaders_across, leaders_text
from ilubench.specs.suite_files import load_suite
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.ranks import table_text
from ilubench.statistics.row import AttackFigures, RobustnessRow, attacks_of

__all__ = ["page_data"]

OF_THE_MACHINE = ("device", "cores", "threads", "platform", "ilubench", "libraries")
"""What the page shows of an entry's environment; the data's fingerprints are in its record."""

AS_RECORDED = {"after unlearning": F_U}
"""What records call a figure, where it is not its name."""

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
        utility = [_label(metric) for metric in _maps(_suite(entry)["utility"])]
        cells = [find_cell(board, group, entry, label, utility) for label in labels]
        row["m"] = [None if cell is None else cell_figures(cell, names, texts) for cell in cells]
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
    rows = group.rows[entry.entry]
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
        found |= _downstream(rows, attacks, texts)
    return found


def _machine(entry: Entry) -> dict[str, JsonValue]:
    return {name: entry.environment[name] for name in OF_THE_MACHINE if name in entry.environment}


def _downstream(
    rows: Mapping[str, RobustnessRow], attacks: Sequence[str], texts: Texts
) -> dict[str, JsonValue]:
    """Utility, and what the attacks' users get: alike in every primary metric."""
    row, by_name = next(iter(rows.values())), attacks_of(rows)
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
