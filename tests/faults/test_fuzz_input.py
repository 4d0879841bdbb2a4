"""A few of the wrong inputs of each kind; `fuzz_input.py` makes any number."""

import fuzz_input
import pytest


@pytest.mark.parametrize("kind", ["words", "config_files", "rows", "task_yaml"])
def test_wrong_input_ends_in_a_sentence(kind: str) -> None:
    assert fuzz_input.carry_out_all(10, 0, kind=kind) == {name: [] for name in fuzz_input.KINDS}


def test_a_case_follows_from_its_number() -> None:
    one, two = (fuzz_input.carry_out("words", 7, 3) for _ in range(2))
    assert one == two
    assert fuzz_input.carry_out("words", 8, 3) != one


def test_crashes_hangs_and_what_takes_memory_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash() -> None:
        raise RuntimeError

    def hang() -> None:
        while True:
            pass

    monkeypatch.setattr(fuzz_input, "SECONDS", 0.2)
    for call, wrong in ((crash, "crashes"), (hang, "hangs")):
        monkeypatch.setitem(fuzz_input.KINDS, "words", (lambda *_, call=call: call, 1))
        assert fuzz_input.carry_out("words", 0, 0)[0] == wrong
