"""A few trials of the harness, and that it tells what is lost."""

import json
from pathlib import Path

import pytest
import run
from run import KINDS, Kind, carry_out
from tiny_run import make_base


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    make_base(folder / "base")
    return folder


def test_nothing_is_lost(out: Path) -> None:
    assert [one.lost for one in carry_out("corruption", range(5), 1, out)] == [""] * 5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kills", "interruptions", "concurrency", "disk"])
def test_nothing_is_lost_by_more(out: Path, name: str) -> None:
    assert [one.lost for one in carry_out(name, range(2), 1, out)] == ["", ""]


def test_what_was_tried_is_not_tried_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def trial(random: object, base: object, folder: Path) -> int:
        made.append(folder.name)
        if folder.name.endswith("1"):
            raise AssertionError("it was the second")
        return 3

    monkeypatch.setitem(run.KINDS, "odd", Kind(trial, 3, "the second of three"))
    first = list(carry_out("odd", range(2), 0, out))
    again = list(carry_out("odd", range(3), 0, out))
    assert made == ["odd-0-0", "odd-0-1", "odd-0-2"]
    assert again[:2] == first
    assert [one.lost for one in again] == ["", "it was the second", ""]
    assert again[0].faults == 3
    assert (out / "odd-0-1").is_dir()  # to be looked at
    assert len((out / "odd-0.jsonl").read_text().splitlines()) == 3
    assert "odd" in KINDS
    assert json.loads((out / "odd-0.jsonl").read_text().splitlines()[1])["lost"]
