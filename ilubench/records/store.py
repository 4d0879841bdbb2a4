"""Atomic, keyed artifacts.

A job works in `<key>.partial/`, where a killed job's state and finished scores stay; when all is
there, a manifest with checksums is written and the folder is renamed to `<key>/`. A folder of
that name therefore is complete.
"""

import contextlib
import json
import os
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

if TYPE_CHECKING:
    import torch
    from filelock import FileLock

__all__ = ["Artifact", "FolderState", "Store", "write_atomic", "write_json"]

_MANIFEST = "DONE"


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        known = PathError.of(error, str(path))
        raise known or StoreError(f"cannot write {path}: {error.strerror or error}") from error


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
            StoreError: the manifest is unreadable.
        """
        return cast("dict[str, JsonValue]", self._manifest()["meta"])

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            StoreError: a file is missing or differs.
        """
        for name, expected in self._manifest()["files"].items():
            path = self.folder / name
            if not path.is_file() or file_sha256(path) != expected:
                raise StoreError(f"{path} is damaged; delete {self.folder} and run again")

    def _manifest(self) -> dict[str, Any]:
        try:
            manifest = json.loads((self.folder / _MANIFEST).read_text())
        except (OSError, ValueError) as error:
            problem = f"{self.folder} is damaged ({error}); delete it and run again"
            raise StoreError(problem) from error
        return cast("dict[str, Any]", manifest)


class FolderState:
    """A job's saved state, one safetensors file a phase; a save replaces the one before."""

    def __init__(self, folder: Path) -> None:
        """Keep the state in ``folder``."""
        self._folder = folder
        self._loaded: set[str] = set()

    def _path(self, phase: str) -> Path:
        if not re.fullmatch(r"[a-z0-9_-]+", phase):
            raise UsageError(f"phase {phase!r}: use lower case letters, digits, - and _")
        return self._folder / f"state.{phase}.safetensors"

    def save(
        self, phase: str, tensors: Mapping[str, "torch.Tensor"], meta: Mapping[str, JsonValue]
    ) -> None:
        """Replace a phase's saved state; tensors and meta travel in one file."""
        from safetensors.torch import save_file

        path = self._path(phase)
        aside = path.with_suffix(".tmp")
        contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, aside, metadata={"meta": json.dumps(dict(meta))})
        aside.replace(path)

    def load(self, phase: str) -> "tuple[dict[str, torch.Tensor], dict[str, JsonValue]] | None":
        """Return a phase's saved state, or None.

        Raises:
            UsageError: a second training of the job uses the same phase name.
        """
        path = self._path(phase)
        if phase in self._loaded:
            problem = f"two trainings of one job are both called {phase!r}"
            raise UsageError(f"{problem}; give each its own: replace(context, phase=...)")
        self._loaded.add(phase)
        if not path.is_file():
            return None
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
        """Return a finished artifact, or None."""
        folder = self.root / stage / key
        return Artifact(key, folder) if (folder / _MANIFEST).is_file() else None

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
            if scratch.name.startswith("state.") or scratch.name.endswith(".tmp"):
                scratch.unlink()
        files: dict[str, JsonValue] = {
            str(path.relative_to(partial)): file_sha256(path)
            for path in sorted(partial.rglob("*"))
            if path.is_file() and path.name != _MANIFEST
        }
        seconds = time.monotonic() - self._started.get(key, time.monotonic())
        manifest: dict[str, JsonValue] = {"key": key, "meta": {**meta, "seconds": seconds}}
        write_json(partial / _MANIFEST, {**manifest, "files": files})
        if final.exists():
            shutil.rmtree(final)
        partial.replace(final)
        return Artifact(key, final)
