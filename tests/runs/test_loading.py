"""Libraries of a run: what must not stay with them for good, and which of them it names."""

import gc
import importlib.metadata
import weakref

import pytest

from ilubench.runs.loading import collection_paused
from ilubench.runs.record_head import used_libraries


class Model:
    def __init__(self) -> None:
        self.itself = self


def test_what_an_earlier_run_left_is_collected_after_a_later_one_began() -> None:
    with collection_paused():
        pass
    left = Model()
    gone = weakref.ref(left)
    del left
    with collection_paused():
        pass
    gc.collect()
    assert gone() is None


def test_what_is_installed_during_a_run_it_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = dict(used_libraries())
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "99")
    assert used_libraries() == before
    assert before["torch"] != "99"
