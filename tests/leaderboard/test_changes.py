"""What a change does to the records: what is new, and what only a maintainer may write."""

import shutil
from pathlib import Path

import pytest
from finished_runs import Told
from runs import command

from ilubench.errors import DataError
from ilubench.leaderboard.check.changes import list_changes
from leaderboards import TINY, attacked_board, edit_json, tiny_board, tiny_entry, verified_entry


def told(before: Path, after: Path) -> set[tuple[str, str, bool]]:
    return {
        (one.record, one.what.split(" (")[0], one.reserved) for one in list_changes(before, after)
    }


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """A `leaderboards` folder, and a copy of it beside, `after`."""
    tiny_board(tmp_path / "leaderboards")
    shutil.copytree(tmp_path / "leaderboards", tmp_path / "after")
    return tmp_path / "leaderboards"


def test_equal_folders_have_no_changes(board: Path) -> None:
    assert list_changes(board, board.with_name("after")) == []


def test_a_new_entry_is_anybody_s(board: Path) -> None:
    after = board.with_name("after")
    tiny_entry(after, "mine", TINY["rmu"])
    assert told(board, after) == {("known/mine-1", "is new", False)}


def test_what_was_there_is_not(board: Path) -> None:
    after = board.with_name("after")
    edit_json(after / "known" / "npo-1.json", lambda entry: entry.update(title="Better"))
    (after / "known" / "rmu-1.json").unlink()
    assert told(board, after) == {
        ("known/npo-1", "is changed", True),
        ("known/rmu-1", "is gone", True),
    }
    empty = board.with_name("nothing")
    empty.mkdir()
    assert {what for _, what, _ in told(board, empty)} == {"is gone"}


def test_a_verification_is_a_maintainer_s(board: Path) -> None:
    after = board.with_name("after")
    tiny_entry(after, "mine", TINY["rmu"])
    verified_entry(after, "mine", Told("rmu", after=0.75, end=0.35, seeds=(7, 8, 9), noise=2))
    claims = {what for _, what, reserved in told(board, after) if reserved}
    assert len(claims) == 1
    assert claims.pop().startswith("claims a verification of its method by ")
    done = command("leaderboard", "changes", str(board), str(after))
    assert done.code == 0
    lines = done.out.splitlines()
    assert [line[:2] for line in lines] == ["  ", "! "]


def test_so_is_a_verified_attack(tmp_path: Path) -> None:
    tiny_board(tmp_path / "leaderboards")
    record = attacked_board(tmp_path / "leaderboards")
    after = tmp_path / "after"
    shutil.copytree(tmp_path / "leaderboards", after)
    there = after / record.relative_to(tmp_path / "leaderboards")
    edit_json(there, lambda attack: attack["results"][0].update(verified=True))
    found = told(tmp_path / "leaderboards", after)
    assert {(what, reserved) for _, what, reserved in found} == {
        ("is changed", True),
        ("claims a verified result against npo-1", True),
    }


def test_a_record_that_cannot_be_read_is_named(board: Path) -> None:
    after = board.with_name("after")
    (after / "known" / "npo-1.json").write_text("{")
    with pytest.raises(DataError, match=r"npo-1\.json"):
        list_changes(board, after)
    assert command("leaderboard", "changes", str(board), str(after)).code == 3
