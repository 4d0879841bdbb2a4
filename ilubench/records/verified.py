"""Files that are compared with what was written before they are used.

A finished artifact's manifest has the SHA-256 of each file and its own; what an unfinished job has
written so far stands in a ledger beside it. A file is read for its hash once in a process.
"""

import errno
import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from ilubench.errors import DataError, StoreError
from ilubench.records.keys import canonical, file_sha256
from ilubench.specs.untrusted import read_json

__all__ = ["LEDGER", "MANIFEST", "Ledger", "check_files", "read_sealed", "seal", "sync"]

LEDGER, MANIFEST = "LEDGER", "DONE"

_SEAL = "sha256"
_DIGITS = 64


def sync(path: Path) -> None:
    """Have a file, or a folder's list of names, on the disk: a power cut takes it no more."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot be asked
            raise
    finally:
        os.close(descriptor)


def seal(values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return values with their own SHA-256 beside them."""
    return {**values, _SEAL: hashlib.sha256(canonical(values)).hexdigest()}


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the values of a sealed file of JSON.

    Raises:
        StoreError: it is not what was written.
    """
    try:
        found = read_json(path)
    except DataError as error:
        raise StoreError(f"{path} is damaged") from error
    told = found.pop(_SEAL, None) if isinstance(found, dict) else None
    if told is None or told != seal(cast("dict[str, JsonValue]", found))[_SEAL]:
        raise StoreError(f"{path} is damaged")
    return cast("dict[str, Any]", found)


def check_files(folder: Path, hashes: Mapping[str, str]) -> None:
    """Compare files with their SHA-256.

    Raises:
        StoreError: one is missing or differs; it is named.
    """
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise StoreError(f"{path} is missing")
        if file_sha256(path) != expected:
            raise StoreError(f"{path} is damaged")


class Ledger:
    """What a job has written so far: a line a file, added when it is whole.

    A file that is replaced is entered before it takes the place of the one before, so that there is
    a line for whichever of the two a kill leaves; of a file that grows, the lines hold for its
    beginning.

    Args:
        folder: of the job, in which the files lie, too.
    """

    def __init__(self, folder: Path) -> None:
        """Nothing is read or written yet."""
        self._folder = folder

    def add(self, path: Path, content: Path | None = None) -> None:
        """Enter a file.

        Args:
            path: of the file.
            content: where it still lies aside; None: in its place.
        """
        aside = content or path
        size, sha256 = aside.stat().st_size, file_sha256(aside)
        with (self._folder / LEDGER).open("a", encoding="utf-8") as handle:
            # a line of its own, also behind one that a kill cut
            handle.write(f"\n{path.relative_to(self._folder).as_posix()} {size} {sha256}\n")
            handle.flush()
            os.fsync(handle.fileno())

    def holds(self, path: Path) -> bool:
        """Whether a file is there as it was entered."""
        found = self._entries().get(path.relative_to(self._folder).as_posix(), [])
        if not found or not path.is_file():
            return False
        return (path.stat().st_size, file_sha256(path)) in found

    def beginning(self, path: Path) -> bytes:
        """Return the longest beginning of a file that grows which was entered; it may be empty.

        Raises:
            StoreError: it is not what was written.
        """
        found = self._entries().get(path.relative_to(self._folder).as_posix(), [(0, "")])
        size, sha256 = max(found)
        content = path.read_bytes()[:size] if size else b""
        if size and hashlib.sha256(content).hexdigest() != sha256:
            raise StoreError(f"{path} is damaged")
        return content

    def check(self, needed: Iterable[Path]) -> None:
        """Compare all files that were entered.

        Args:
            needed: files that are there and must have been entered.

        Raises:
            StoreError: one is missing, or not what was written.
        """
        for path in {*needed, *(self._folder / name for name in self._entries())}:
            if not path.is_file():
                raise StoreError(f"{path} is missing")
            if path.suffix == ".jsonl":
                self.beginning(path)
            elif not self.holds(path):
                raise StoreError(f"{path} is damaged")

    def _entries(self) -> dict[str, list[tuple[int, str]]]:
        """File -> (size, SHA-256) of all that it has been; a line that was cut counts for none."""
        found: dict[str, list[tuple[int, str]]] = {}
        path = self._folder / LEDGER
        for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else ():
            name, size, sha256 = ("", "", *line.rsplit(" ", 2))[-3:]
            if name and size.isdecimal() and len(sha256) == _DIGITS:
                found.setdefault(name, []).append((int(size), sha256))
        return found
