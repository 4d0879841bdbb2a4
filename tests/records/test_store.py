"""Artifacts: there whole or not at all; damage is found; state comes back."""

import errno
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from ilubench.errors import PathError, StoreError, UsageError
from ilubench.records import store as store_module
from ilubench.records.store import Artifact, FolderState, Store, write_atomic, write_json
from ilubench.records.verified import Ledger


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


@pytest.mark.parametrize("old", ['"k"', '"seed": 3', '"a.txt"', '"sha256"'])
def test_a_damaged_manifest_is_a_store_error(store: Store, old: str) -> None:
    """One character: the file still is JSON, with another key, seed, file or checksum."""
    made = make(store)
    told = (made.folder / "DONE").read_text()
    (made.folder / "DONE").write_text(
        told.replace(old, old.translate(str.maketrans("k3xs", "q4yt")))
    )
    with pytest.raises(StoreError, match="DONE is damaged"):
        made.meta()
    assert store.get("unlearn", "k") is None
    (made.folder / "DONE").write_text(told[:20])
    with pytest.raises(StoreError, match="DONE is damaged"):
        made.verify()


def test_another_artifacts_folder_is_none(store: Store) -> None:
    make(store).folder.rename(store.root / "unlearn" / "other")
    assert store.get("unlearn", "other") is None


@pytest.mark.parametrize("damage", ["flipped", "missing"])
def test_a_damaged_artifact_is_none_and_is_dropped(store: Store, damage: str) -> None:
    made = make(store)
    path = made.folder / "sub" / "b.txt"
    path.unlink(missing_ok=True)
    if damage != "missing":
        path.write_text("c")
    assert store.get("unlearn", "k") is None
    assert store.drop_damaged("unlearn", "k", loads=False).startswith(f"{path} is ")
    assert not made.folder.exists()
    assert make(store) == store.get("unlearn", "k")


def test_what_was_put_into_an_artifact_is_not_read_and_not_deleted(store: Store) -> None:
    made = make(store)
    hidden = made.folder / "sub" / ".checkpoints" / "b.txt"
    hidden.parent.mkdir()
    hidden.write_text("an editor's")
    assert store.get("unlearn", "k") == made
    strange = made.folder / "sub" / "notes.txt"
    strange.write_text("mine")
    assert store.get("unlearn", "k") is None
    with pytest.raises(StoreError, match=r"notes\.txt is none of the files .* move it away"):
        store.drop_damaged("unlearn", "k", loads=True)
    assert strange.read_text() == "mine"
    strange.unlink()
    assert store.drop_damaged("unlearn", "k", loads=True) == ""
    assert store.get("unlearn", "k") == made


def test_damage_that_cannot_be_deleted_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    (make(store).folder / "a.txt").write_text("other")

    def refuse(*_: object) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(Store, "_lock", refuse)
    assert store.drop_damaged("unlearn", "k", loads=False).endswith("a.txt is damaged")


def test_a_file_system_that_cannot_sync_a_folder_is_none_to_fail_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuse)
    assert make(store) == store.get("unlearn", "k")


def test_weights_are_compared_where_they_are_loaded(store: Store) -> None:
    with store.work("unlearn", "k") as folder:
        (folder / "changes.safetensors").write_text("w")
        made = store.finish("unlearn", "k", {})
    (made.folder / "changes.safetensors").write_text("v")
    assert store.get("unlearn", "k") == made
    assert store.drop_damaged("unlearn", "k", loads=False) == ""
    assert store.drop_damaged("unlearn", "k", loads=True).endswith("changes.safetensors is damaged")
    assert store.get("unlearn", "k") is None


def test_a_file_is_read_for_its_hash_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(store)

    def read(*_args: object) -> None:
        pytest.fail("hashed again")

    monkeypatch.setattr(hashlib, "file_digest", read)
    made.verify()
    made.verify()


@pytest.mark.parametrize("damage", ["flipped", "empty", "no ledger", "another log", "no scores"])
def test_a_damaged_state_is_named_and_dropped(store: Store, damage: str) -> None:
    with store.work("unlearn", "k") as folder:
        (folder / "log.jsonl").write_text("{}\n")
        FolderState(folder).save("train", {"w": torch.ones(2)}, {"step": 1})
        (folder / "step-000002.json").write_text("{}")
        Ledger(folder).add(folder / "step-000002.json")
        (folder / "log.jsonl").write_text("{}\n{}\n")  # what came after the save is made again
    assert store.drop_damaged("unlearn", "k", loads=False) == ""
    state = named = folder / "state.train.safetensors"
    content = state.read_bytes()
    if damage == "flipped":
        state.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "empty":
        state.write_bytes(b"")
    elif damage == "no ledger":
        (folder / "LEDGER").unlink()
    elif damage == "no scores":
        named = folder / "step-000002.json"
        named.unlink()
    else:
        named = folder / "log.jsonl"
        named.write_text("[]\n{}\n")
    if named == state:
        with pytest.raises(StoreError, match=r"state\.train\.safetensors is damaged; delete"):
            FolderState(folder).load("train")
    told = "missing" if damage == "no scores" else "damaged"
    assert store.drop_damaged("unlearn", "k", loads=False) == f"{named} is {told}"
    assert not folder.exists()


def test_what_another_process_works_on_is_left_to_it(store: Store) -> None:
    with store.work("unlearn", "k") as folder:
        FolderState(folder).save("train", {"w": torch.ones(2)}, {"step": 1})
        (folder / "state.train.safetensors").write_bytes(b"")
        assert Store(store.root).drop_damaged("unlearn", "k", loads=False) == ""
    assert folder.is_dir()


def test_a_ledger_goes_on_behind_a_line_that_was_cut(tmp_path: Path) -> None:
    state = FolderState(tmp_path)
    state.save("train", {"w": torch.ones(2)}, {"step": 1})
    with (tmp_path / "LEDGER").open("a") as handle:
        handle.write("\nscores/step-000002.json 45 0123abc")
    state.save("train", {"w": torch.zeros(2)}, {"step": 2})
    state.check()
    found = state.load("train")
    assert found is not None
    assert found[1] == {"step": 2}


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


@pytest.mark.parametrize(
    ("problem", "raised", "told"),
    [
        (OSError(28, "full"), PathError, r"a\.json: no space is left on its disk"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    problem: BaseException,
    raised: type[BaseException],
    told: str | None,
) -> None:
    def full(_descriptor: int) -> None:
        raise problem

    path = tmp_path / "deep" / "a.json"
    write_json(path, {"b": 1, "a": [1.5]})
    assert json.loads(path.read_text()) == {"a": [1.5], "b": 1}
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(raised, match=told):
            write_atomic(path, b"new")
    assert json.loads(path.read_text()) == {"a": [1.5], "b": 1}
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_what_a_killed_writer_left_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a[1].json"
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: None)  # neither writer got to the end
        for writer in (os.getppid(), killed.pid):
            patch.setattr(os, "getpid", lambda writer=writer: writer)
            write_atomic(path, b"old")
    assert len([*tmp_path.iterdir()]) == 2
    write_atomic(path, b"new")
    names = sorted(one.name for one in tmp_path.iterdir())
    assert names[0].endswith(f".{os.getppid()}.tmp")  # that one lives
    assert (names[1:], path.read_bytes()) == (["a[1].json"], b"new")


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
