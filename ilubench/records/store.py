"""Atomic, keyed artifacts.

A job works in `<key>.partial/`, where a killed job's state and finished scores stay, each entered
in a ledger; when all is there, a manifest with checksums is written and the folder is renamed to
`<key>/`. A folder of that name therefore is complete. What is damaged is not used: an artifact
whose files are others than its manifest says is none.
"""

import contextlib
import glob
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import JsonValue

from ilubench.errors import PathError, StoreError, UsageError
from ilubench.records.keys import file_sha256
from ilubench.records.verified import LEDGER, MANIFEST, Ledger, check_files, read_sealed, seal, sync

if TYPE_CHECKING:
    import torch
    from filelock import FileLock

__all__ = ["LOG", "Artifact", "FolderState", "Store", "write_atomic", "write_json"]

LOG = "log.jsonl"
"""A job's log of its steps."""

_WEIGHTS = ".safetensors"
_HERE = hashlib.sha256(platform.node().encode()).hexdigest()[:6]
"""Of this machine's processes, the numbers say which live."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    aside = path.with_name(f".{path.name}.{_HERE}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.{_HERE}.*.tmp"):
            writer = left.name.split(".")[-2]
            if writer.isdecimal() and not _is_alive(int(writer)):
                left.unlink(missing_ok=True)  # its writer was killed
        with aside.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(path)
    except BaseException as error:  # an interrupt leaves nothing behind either
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        known = PathError.of(error, str(path))
        raise known or StoreError(f"cannot write {path}: {error.strerror or error}") from error


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def write_json(path: Path, value: JsonValue | Mapping[str, JsonValue]) -> None:
    """Write JSON atomically, readable by people."""
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


@dataclass(frozen=True)
class Artifact:
    """A finished job's folder."""

    key: str
    folder: Path

    def meta(self) -> dict[str, JsonValue]:
        """Return what the job wrote about itself.

        Raises:
            StoreError: the manifest is damaged.
        """
        return cast("dict[str, JsonValue]", self._manifest()["meta"])

    def verify(self) -> None:
        """Compare every file with its checksum, each once in a process.

        Raises:
            StoreError: a file is missing or differs; it is named.
        """
        try:
            self.check(weights=True)
        except StoreError as error:
            raise StoreError(f"{error}; delete {self.folder} and run again") from error

    def check(self, *, weights: bool) -> None:
        """Compare the files with their checksums, as `verify` does; weights where they are asked.

        Raises:
            StoreError: as `verify`, without a remedy.
        """
        hashes = self._manifest()["files"]
        asked = {n: sha256 for n, sha256 in hashes.items() if weights or not n.endswith(_WEIGHTS)}
        check_files(self.folder, asked)

    def others(self) -> Iterator[Path]:
        """Yield files that the job did not write; one more score would be read like its own.

        Raises:
            StoreError: the manifest is damaged.
        """
        known = {*self._manifest()["files"], MANIFEST}
        for path in self.folder.rglob("*"):
            below = path.relative_to(self.folder)
            hidden = any(part.startswith(".") for part in below.parts)  # of editors, file systems
            if path.is_file() and not hidden and below.as_posix() not in known:
                yield path

    def _manifest(self) -> dict[str, Any]:
        found = read_sealed(self.folder / MANIFEST)
        if found.get("key") != self.key:
            raise StoreError(f"{self.folder / MANIFEST} is another artifact's")
        return found


class FolderState:
    """A job's saved state, one safetensors file a phase; a save replaces the one before.

    The log of its steps is entered with it: a job that goes on from a state goes on with its log.
    """

    def __init__(self, folder: Path) -> None:
        """Keep the state in ``folder``."""
        self._folder, self._ledger = folder, Ledger(folder)
        self._loaded: set[str] = set()

    def _path(self, phase: str) -> Path:
        if not re.fullmatch(r"[a-z0-9_-]+", phase):
            raise UsageError(f"phase {phase!r}: use lower case letters, digits, - and _")
        return self._folder / f"state.{phase}.safetensors"

    def check(self) -> None:
        """Compare the states, the log and the scores with what was written.

        Raises:
            StoreError: a file is not what was written.
        """
        self._ledger.check(self._folder.glob("state.*.safetensors"))

    def save(
        self, phase: str, tensors: Mapping[str, "torch.Tensor"], meta: Mapping[str, JsonValue]
    ) -> None:
        """Replace a phase's saved state; tensors and meta travel in one file."""
        from safetensors.torch import save_file

        path = self._path(phase)
        aside = path.with_suffix(".tmp")
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, aside, metadata={"meta": json.dumps(dict(meta))})
        sync(aside)
        self._ledger.add(path, content=aside)
        if (self._folder / LOG).is_file():
            self._ledger.add(self._folder / LOG)
        aside.replace(path)

    def load(self, phase: str) -> "tuple[dict[str, torch.Tensor], dict[str, JsonValue]] | None":
        """Return a phase's saved state, or None.

        Raises:
            StoreError: it is not what was saved.
            UsageError: a second training of the job uses the same phase name.
        """
        path = self._path(phase)
        if phase in self._loaded:
            problem = f"two trainings of one job are both called {phase!r}"
            raise UsageError(f"{problem}; give each its own: replace(context, phase=...)")
        self._loaded.add(phase)
        if not path.is_file():
            return None
        if not self._ledger.holds(path):
            problem = f"{path} is damaged"
            raise StoreError(f"{problem}; delete {self._folder} and run again")
        from safetensors import safe_open

        with safe_open(path, framework="pt") as handle:
            meta = json.loads(handle.metadata()["meta"])
            return {name: handle.get_tensor(name) for name in handle.keys()}, meta  # noqa: SIM118


class Store:
    """Artifacts below one folder, by stage and key."""

    def __init__(self, root: Path) -> None:
        """Use ``root``; it is made when the first artifact is written."""
        self.root = root
        self._started: dict[str, float] = {}

    def get(self, stage: str, key: str) -> Artifact | None:
        """Return a finished artifact, or None; one with a damaged or a strange file is none.

        Its weights are compared by whoever loads them (`Artifact.verify`).
        """
        found = self._find(stage, key)
        try:
            if found is not None:
                found.check(weights=False)
                found = None if any(found.others()) else found
        except StoreError:
            return None
        return found

    def _find(self, stage: str, key: str) -> Artifact | None:
        folder = self.root / stage / key
        return Artifact(key, folder) if (folder / MANIFEST).is_file() else None

    def drop_damaged(self, stage: str, key: str, *, loads: bool) -> str:
        """Delete an artifact with a damaged file, or what a killed job left if that is damaged.

        What another process works on is left to it.

        Args:
            stage: of the job.
            key: of the job.
            loads: whether its weights will be loaded.

        Returns:
            What is damaged; empty where nothing is.

        Raises:
            StoreError: there is a file that the job did not write, which may be somebody's.
        """
        found, partial = self._find(stage, key), self.root / stage / f"{key}.partial"
        folder = partial if found is None else found.folder
        if not folder.is_dir():
            return ""
        try:
            if found is None:
                with self._lock(stage, key).acquire(blocking=False):
                    FolderState(partial).check()
            else:
                found.check(weights=loads)
        except StoreError as error:
            with contextlib.suppress(OSError), self._lock(stage, key):
                shutil.rmtree(folder, ignore_errors=True)
            return str(error)
        except OSError:  # another process has it (TimeoutError), or nothing can be written here
            return ""
        for path in found.others() if found is not None else ():
            raise StoreError(f"{path} is none of the files that its job wrote; move it away")
        return ""

    def remove(self, stage: str, key: str) -> None:
        """Delete an artifact, if it is there; whoever works on it is waited for."""
        if self.get(stage, key) is not None:
            with self._lock(stage, key):
                shutil.rmtree(self.root / stage / key, ignore_errors=True)

    def _lock(self, stage: str, key: str) -> "FileLock":
        from filelock import FileLock

        return FileLock(self.root / stage / f".{key}.lock")

    @contextlib.contextmanager
    def work(self, stage: str, key: str) -> Iterator[Path]:
        """Lock a key and yield its working folder, with whatever a killed job left there.

        A second process waits for the first; the lock ends with its process.
        """
        folder = self.root / stage / f"{key}.partial"
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            known = PathError.of(error, str(folder.parent))
            raise known or StoreError(f"cannot write to {folder.parent}: {error}") from error
        with self._lock(stage, key):
            if self.get(stage, key) is None:
                folder.mkdir(exist_ok=True)
            self._started[key] = time.monotonic()
            try:
                yield folder
            except Exception:
                if folder.is_dir() and not any(p.stat().st_size for p in folder.rglob("*.*")):
                    shutil.rmtree(folder)  # it failed before there was anything to keep
                raise

    def finish(self, stage: str, key: str, meta: Mapping[str, JsonValue]) -> Artifact:
        """Drop the saved state, write the manifest, and make the artifact visible.

        The seconds since `work` are added to ``meta``; a killed try's are not counted.
        """
        partial = self.root / stage / f"{key}.partial"
        final = self.root / stage / key
        for scratch in partial.rglob("*"):
            if scratch.name.startswith("state.") or scratch.name.endswith((".tmp", LEDGER)):
                scratch.unlink()
        files: dict[str, JsonValue] = {
            path.relative_to(partial).as_posix(): file_sha256(path)
            for path in sorted(partial.rglob("*"))
            if path.is_file() and path.name != MANIFEST
        }
        seconds = time.monotonic() - self._started.get(key, time.monotonic())
        manifest: dict[str, JsonValue] = {"key": key, "meta": {**meta, "seconds": seconds}}
        for path in (*partial.rglob("*"), partial):
            sync(path)
        write_json(partial / MANIFEST, seal({**manifest, "files": files}))
        if final.exists():
            shutil.rmtree(final)
        partial.replace(final)
        sync(final.parent)
        return Artifact(key, final)
