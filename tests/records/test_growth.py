"""Records grow: older ones are read, newer ones are refused by name, notes have kinds."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest
from finished_runs import Told, edit_record, write_run
from measured import RESULT_SETS
from places import LEADERBOARDS
from pydantic import Field

from ilubench.errors import DataError
from ilubench.leaderboard.check.check import check_boards
from ilubench.leaderboard.records import files
from ilubench.leaderboard.records.models import Entry
from ilubench.records import finished, results, run_files, wording
from ilubench.records.finished import read_run
from ilubench.records.old_notes import with_kinds
from ilubench.records.results import RunRecord, newest_version
from ilubench.records.rows import robustness_row
from ilubench.statistics.intervals import Figure
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.row import RobustnessRow

NEXT = newest_version(RunRecord) + 1
ENTRIES = sorted(path for path in LEADERBOARDS.glob("*/*.json"))


@dataclass(frozen=True, slots=True)
class LaterRow(RobustnessRow):
    """A row with one more figure."""

    again: Figure | None = field(default=None, metadata={"since": NEXT})


class LaterRecord(RunRecord):
    """A run's record with one more field."""

    schema_version: int = Field(default=NEXT, ge=1, le=NEXT)
    more: str = ""


class LaterEntry(Entry):
    """An entry with such a record."""

    run: LaterRecord


def later_row(*given: Any) -> LaterRow:
    row = robustness_row(*given)
    return LaterRow(**{one.name: getattr(row, one.name) for one in fields(row)}, again=row.ra)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ilubench of the next version."""
    monkeypatch.setattr(results, "RobustnessRow", LaterRow)
    monkeypatch.setattr(run_files, "RunRecord", LaterRecord)
    monkeypatch.setattr(files, "Entry", LaterEntry)
    monkeypatch.setattr(finished, "robustness_row", later_row)


@pytest.mark.usefixtures("later")
def test_every_shipped_record_is_read_by_the_next_version() -> None:
    assert RESULT_SETS
    for folder in RESULT_SETS:
        record, rows = run_files.read_record(folder / "results.json")
        assert isinstance(record, LaterRecord)
        assert record.more == ""
        assert record.schema_version < NEXT
        for row in rows.values():
            assert isinstance(row, LaterRow)
            assert row.again is None
    assert ENTRIES
    for path in ENTRIES:
        assert isinstance(files.read_entry(path).run, LaterRecord)


@pytest.mark.usefixtures("later")
def test_the_next_version_checks_shipped_records_and_computes_the_new_figure() -> None:
    for suite in sorted({path.parent for path in ENTRIES}):
        entry = min(suite.glob("*.json"), key=lambda path: path.stat().st_size)
        assert check_boards([entry]) == []
        run = files.read_entry_run(files.read_entry(entry), suite)
        for row in run.rows.values():
            assert isinstance(row, LaterRow)
            assert row.again is not None
            assert row.again.value == row.ra.value


@pytest.mark.usefixtures("later")
def test_a_record_has_all_figures_of_its_own_version(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", Told())
    assert read_run(folder).rows
    edit_record(folder, schema_version=NEXT)
    with pytest.raises(DataError, match=r"again\.value of FQ is None by its record"):
        assert read_run(folder).rows


@pytest.mark.parametrize("version", ["2", None, 1.5, True])
def test_a_version_is_a_whole_number(tmp_path: Path, version: object) -> None:
    folder = write_run(tmp_path / "run", Told())
    edit_record(folder, schema_version=version)
    with pytest.raises(DataError, match=r"schema_version: .* is no whole number"):
        read_run(folder)


def test_a_newer_record_is_refused_by_name(tmp_path: Path) -> None:
    """Not for the field that this version does not know."""
    folder = write_run(tmp_path / "run", Told())
    edit_record(folder, schema_version=NEXT, more="?")
    problem = f"RunRecord has schema version {NEXT}; this ilubench reads up to {NEXT - 1}"
    with pytest.raises(DataError, match=problem):
        read_run(folder)
    entry = json.loads(ENTRIES[0].read_text())
    entry["run"] |= {"schema_version": NEXT, "more": "?"}
    path = tmp_path / ENTRIES[0].name
    path.write_text(json.dumps(entry))
    with pytest.raises(DataError, match=problem):
        files.read_entry(path)


@pytest.mark.parametrize(
    ("words", "value", "expected"),
    [
        ("", 0.5, None),
        ("zero variance: whatever", 0.5, (NoteKind.ZERO_VARIANCE, [], [])),
        (">128", None, (NoteKind.BEYOND, [], [128.0])),
        ("upper end >64", 3.0, (NoteKind.OPEN_END, [], [64.0])),
        ("n/a: no checkpoint keeps 90% of it", None, (NoteKind.NO_UTILITY_KEPT, [], [0.9])),
        (
            "n/a: the retrained model was not attacked with a",
            None,
            (NoteKind.NOT_ATTACKED, ["retrained", "a"], []),
        ),
        ("words of nobody's", 0.5, None),
        ("words of nobody's", None, (NoteKind.UNDEFINED, [], [])),
    ],
)
def test_words_of_the_first_version_are_read_as_kinds(
    words: str, value: float | None, expected: Any
) -> None:
    found: Any = with_kinds({"a": [{"value": value, "note": words}]})
    note = found["a"][0]["note"]
    shown = note and (note["kind"], note.get("names", []), note.get("numbers", []))
    assert shown == expected


def test_every_kind_has_words() -> None:
    below = {NoteKind.NOT_TOLD_APART, NoteKind.OFF_QUARTILES}
    assert set(NoteKind) == wording.WORDS.keys() | wording.BELOW.keys() | below
