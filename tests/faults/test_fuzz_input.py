"""A few of the wrong inputs of each kind; `run.py input` makes any number."""

from pathlib import Path
from random import Random

import fuzz_input
import pytest


@pytest.mark.parametrize("kind", ["words", "config_files", "rows", "task_yaml"])
def test_wrong_input_ends_in_a_sentence(kind: str, tmp_path: Path) -> None:
    for case in range(10):
        folder = tmp_path / str(case)
        folder.mkdir()
        assert fuzz_input.carry_out(kind, Random(f"{kind} {case}"), folder)[0] == ""


def test_a_case_follows_from_its_seed(tmp_path: Path) -> None:
    one, two, other = (fuzz_input.carry_out("words", Random(n), tmp_path) for n in (7, 7, 8))
    assert one == two
    assert other != one


def test_crashes_hangs_and_what_takes_memory_are_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash() -> None:
        raise RuntimeError

    def hang() -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz_input, "SECONDS", 0.2)
    for call, wrong in ((crash, "crashes"), (hang, "hangs")):
        monkeypatch.setitem(fuzz_input.KINDS, "words", (lambda *_, call=call: call, 1))
        assert fuzz_input.carry_out("words", Random(0), tmp_path)[0] == wrong
