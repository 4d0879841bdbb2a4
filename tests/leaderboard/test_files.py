"""Records read and written: round trips, bounds, what JSON leaves open."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ilubench.errors import DataError
from ilubench.leaderboard.records.files import (
    list_suites,
    read_board,
    read_entry,
    record_bytes,
    write_record,
)
from ilubench.leaderboard.records.models import Entry, Pointer
from ilubench.leaderboard.records.safe_json import read_json
from ilubench.leaderboard.records.samples import point_to_samples, samples_file
from leaderboards import edit_json, shipped_entry, tiny_board, tiny_entry


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("files") / "leaderboards"
    tiny_board(root)
    return root


def test_a_board_is_its_records_by_id(root: Path) -> None:
    (folder,) = list_suites(root)
    board = read_board(folder)
    assert board.suite == "known"
    assert [entry.entry for entry in board.entries] == ["none-1", "npo-1", "rmu-1"]
    assert board.entry("rmu-1").title == "rmu"
    with pytest.raises(DataError, match="no entry 'rmu'; did you mean 'rmu-1'"):
        board.entry("rmu")
    assert (board.reported, board.attacks) == ((), ())


def test_what_is_written_is_read(root: Path, tmp_path: Path) -> None:
    path = root / "known" / "npo-1.json"
    entry = read_entry(path)
    assert record_bytes(entry) == path.read_bytes()
    (tmp_path / "known").mkdir()
    again = tmp_path / "known" / "npo-1.json"
    write_record(again, entry)
    assert read_entry(again) == entry
    assert [one.name for one in again.parent.iterdir()] == ["npo-1.json"]


def test_records_keep_the_models_order_and_end_with_a_line(root: Path) -> None:
    text = (root / "known" / "npo-1.json").read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == list(Entry.model_fields)


def test_a_record_is_not_written_over_a_link(root: Path, tmp_path: Path) -> None:
    entry = read_entry(root / "known" / "npo-1.json")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "known").symlink_to(elsewhere, target_is_directory=True)
    with pytest.raises(DataError, match="is a link"):
        write_record(tmp_path / "known" / "npo-1.json", entry)
    assert list(elsewhere.iterdir()) == []


def test_records_of_the_first_runs_load(tmp_path: Path) -> None:
    """Records from before hashes of rows, protocols and overlaps were kept have none."""
    path = tiny_entry(tmp_path / "leaderboards", "npo")
    later = ("protocol", "data", "target", "overlap", "notes")
    edit_json(path, lambda entry: [entry["run"].pop(name) for name in later])
    run = read_entry(path).run
    assert (run.data, run.overlap) == ({}, ())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b'{"a": {"b": 1, "b": 2}}', "the key 'b' is given twice"),
        (b'{"a": NaN}', "NaN is no figure"),
        (b'{"a": -Infinity}', "-Infinity is no figure"),
        (b'{"a": 1e999}', "'1e999' is too large for a figure"),
        (b'{"a": -9223372036854775809}', "is too large for a whole number"),
        (b'{"a": "\\u0000"}', "a: has the control character U+0000"),
        (b'{"a\\nb": 1}', "a key: has the control character U+000A"),
        (b'{"a": "\\u2028"}', "a: has the control character U+2028"),
        (b'{"a": ["b", "\\ud800"]}', "a.1: has the control character U+D800"),
        (b'{"a": 1', "no JSON: Expecting ',' delimiter (line 1, column 8)"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
        (b"\xff", "no UTF-8 text, at byte 0"),
        (b"[" * 65 + b"1" + b"]" * 65, "nested deeper than 64"),
        (b"[" * 90_000 + b"]" * 90_000, "nested deeper than 64"),
        (b'{"a": "' + b"x" * 30_000 + b'"}', "a: a text of 30000 characters; 20000 are allowed"),
        (b" " * 200_001, "has 200001 bytes; 200000 are allowed"),
    ],
)
def test_json_that_is_refused(text: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(DataError) as caught:
        read_json(path, limit=200_000)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"{path}")
    assert len(str(caught.value)) < 400


def test_json_that_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    value: dict[str, Any] = {
        "b": [1, -2.5, None, True, "ü 语"],
        "config": {"prompt": "a\nb\tc"},
        "run": {"protocol": {"a": "x\ny"}},
        "deep": [[[[[]]]]],
        "largest": 2**63 - 1,
    }
    path.write_text(json.dumps(value))
    assert read_json(path) == value


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(DataError, match="is no regular file"):
        read_json(tmp_path)


def test_samples_are_found_by_hash(root: Path) -> None:
    folder = root / "known"
    pointer = point_to_samples(folder, "npo-1.parquet")
    assert samples_file(folder, pointer) == folder / "npo-1.parquet"
    other = pointer.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(DataError, match=f"SHA-256 {pointer.sha256}, the record says 0000"):
        samples_file(folder, other)


def test_a_pointer_made_without_its_model_does_not_lead_out(root: Path) -> None:
    pointer = Pointer.model_construct(path="../known/npo-1.parquet", sha256="0" * 64, bytes=1)
    with pytest.raises(DataError, match="leads out of"):
        samples_file(root / "known", pointer)


def test_a_shipped_run_becomes_an_entry(tmp_path: Path) -> None:
    """A run of the mini suite, as it was measured: the largest record there is so far."""
    path = shipped_entry(tmp_path / "leaderboards", "npo-15-steps")
    entry = read_entry(path)
    assert entry.run.attacks
    assert path.stat().st_size < 1_000_000


def test_the_commands_are_there_and_import_nothing_heavy() -> None:
    code = (
        "import sys; from ilubench.cli import app; app(['leaderboard', '--help'], "
        "standalone_mode=False); assert not {'torch', 'jinja2', 'pyarrow'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"check", "submit"} <= set(done.stdout.split())
