"""Artifacts: there whole or not at all; damage is found; state comes back."""

import json
import os
import threading
from pathlib import Path

import pytest
import torch

from ilubench.errors import PathError, StoreError, UsageError
from ilubench.records import store as store_module
from ilubench.records.store import Artifact, FolderState, Store, write_atomic, write_json


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def make(store: Store, key: str = "k", text: str = "weights") -> Artifact:
    with store.work("unlearn", key) as folder:
        (folder / "sub").mkdir(exist_ok=True)
        (folder / "a.txt").write_text(text)
        (folder / "sub" / "b.txt").write_text("b")
        return store.finish("unlearn", key, {"seed": 3})


def test_an_artifact_is_written_and_found(store: Store) -> None:
    assert store.get("unlearn", "k") is None
    made = make(store)
    found = store.get("unlearn", "k")
    assert found == made
    assert found is not None
    assert found.meta()["seed"] == 3
    found.verify()
    assert (found.folder / "a.txt").read_text() == "weights"
    assert not found.folder.with_name("k.partial").exists()


def test_a_folder_without_a_manifest_is_no_artifact(store: Store) -> None:
    (make(store).folder / "DONE").unlink()
    assert store.get("unlearn", "k") is None
    assert make(store, text="again").meta()["seed"] == 3


def test_making_it_again_replaces_it(store: Store) -> None:
    make(store)
    with store.work("unlearn", "k"):
        pass
    partial = store.root / "unlearn" / "k.partial"
    partial.mkdir()
    (partial / "a.txt").write_text("new")
    again = store.finish("unlearn", "k", {})
    assert (again.folder / "a.txt").read_text() == "new"
    assert not (again.folder / "sub").exists()


class KilledError(BaseException):
    """Stands for `kill -9`: nothing catches it."""


@pytest.mark.parametrize("point", ["file_sha256", "write_json", "write_atomic", "rename"])
def test_a_kill_before_the_rename_leaves_no_artifact(
    store: Store, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    def killed(*_args: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        if point == "rename":
            patch.setattr(Path, "replace", killed)
        else:
            patch.setattr(store_module, point, killed)
        with pytest.raises(KilledError):
            make(store)
    assert store.get("unlearn", "k") is None
    assert make(store, text="second").meta()["seed"] == 3
    found = store.get("unlearn", "k")
    assert found is not None
    found.verify()
    assert (found.folder / "a.txt").read_text() == "second"


def test_a_kill_between_manifest_and_rename_leaves_no_artifact(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.work("unlearn", "k") as folder:
        write_json(folder / "DONE", {"key": "k", "files": {}, "meta": {}})
    assert store.get("unlearn", "k") is None
    manifest = json.loads((make(store).folder / "DONE").read_text())
    assert sorted(manifest["files"]) == ["a.txt", "sub/b.txt"]


def test_the_working_folder_keeps_what_a_killed_job_left(store: Store) -> None:
    def killed() -> None:
        with store.work("attack", "k") as folder:
            (folder / "scores.json").write_text("1")
            raise KilledError

    with pytest.raises(KilledError):
        killed()
    with store.work("attack", "k") as folder:
        assert (folder / "scores.json").read_text() == "1"


def test_saved_state_is_not_part_of_the_artifact(store: Store) -> None:
    with store.work("unlearn", "k") as folder:
        FolderState(folder).save("train", {"w": torch.ones(2)}, {"step": 1})
        (folder / "half.tmp").write_text("x")
        (folder / "kept.txt").write_text("x")
        made = store.finish("unlearn", "k", {})
    assert sorted(path.name for path in made.folder.iterdir()) == ["DONE", "kept.txt"]


@pytest.mark.parametrize("name", ["a.txt", "sub/b.txt"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_verify_finds_damage(store: Store, name: str, damage: str) -> None:
    made = make(store)
    if damage == "changed":
        (made.folder / name).write_text("other")
    else:
        (made.folder / name).unlink()
    with pytest.raises(StoreError, match=rf"{name} is (damaged|missing); delete .* and run again"):
        made.verify()


def test_a_damaged_manifest_is_a_store_error(store: Store) -> None:
    made = make(store)
    (made.folder / "DONE").write_text('{"key": "k", "fi')
    with pytest.raises(StoreError, match="is damaged"):
        made.meta()
    with pytest.raises(StoreError, match="is damaged"):
        made.verify()


def test_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    state = FolderState(tmp_path)
    assert state.load("train") is None
    tensors = {
        "a": torch.randn(3, 4).t(),  # not contiguous
        "step": torch.tensor(3.0),
        "half": torch.randn(5).to(torch.bfloat16),
    }
    state.save("train", tensors, {"step": 3, "names": ["x"]})
    found = FolderState(tmp_path).load("train")
    assert found is not None
    assert found[1] == {"step": 3, "names": ["x"]}
    assert found[0].keys() == tensors.keys()
    assert all(torch.equal(found[0][name], tensors[name]) for name in tensors)
    assert found[0]["half"].dtype is torch.bfloat16
    state.save("train", {"a": torch.zeros(1)}, {"step": 4})
    again = FolderState(tmp_path).load("train")
    assert again is not None
    assert again[1] == {"step": 4}


def test_phases_have_their_own_state(tmp_path: Path) -> None:
    state = FolderState(tmp_path)
    state.save("distil", {"a": torch.ones(1)}, {"step": 7})
    assert state.load("train") is None
    found = state.load("distil")
    assert found is not None
    assert found[1] == {"step": 7}
    with pytest.raises(UsageError, match="both called 'distil'"):
        state.load("distil")
    with pytest.raises(UsageError, match="lower case"):
        state.load("../distil")


def test_a_killed_save_keeps_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = FolderState(tmp_path)
    state.save("train", {"a": torch.ones(1)}, {"step": 1})

    def killed(*_args: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KilledError):
            state.save("train", {"a": torch.zeros(1)}, {"step": 2})
    found = FolderState(tmp_path).load("train")
    assert found is not None
    assert found[1] == {"step": 1}


def test_the_lock_makes_a_second_worker_wait(store: Store) -> None:
    order: list[str] = []
    entered, release = threading.Event(), threading.Event()

    def first() -> None:
        with Store(store.root).work("unlearn", "k"):
            entered.set()
            release.wait(5)
            order.append("first")

    def second() -> None:
        with Store(store.root).work("unlearn", "k"):
            order.append("second")

    workers = [threading.Thread(target=first), threading.Thread(target=second)]
    workers[0].start()
    assert entered.wait(5)
    workers[1].start()
    workers[1].join(0.2)
    assert order == []
    release.set()
    for worker in workers:
        worker.join(5)
    assert order == ["first", "second"]


def test_other_keys_are_not_locked(store: Store) -> None:
    with store.work("unlearn", "a"), store.work("unlearn", "b") as folder:
        assert folder.is_dir()


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "full")

    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": [1.5]})
    assert json.loads(path.read_text()) == {"a": [1.5], "b": 1}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(PathError, match=r"a\.json: no space is left on its disk"):
            write_atomic(path, b"new")
    assert json.loads(path.read_text()) == {"a": [1.5], "b": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_a_folder_that_cannot_be_made_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    told = "cache.*: a file is there, and a folder is needed"
    with pytest.raises(PathError, match=told), Store(tmp_path / "cache").work("s", "k"):
        pass
    with pytest.raises(PathError, match=told):
        write_atomic(tmp_path / "cache" / "x", b"")


def test_numbers_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not (tmp_path / "a.json").exists()
