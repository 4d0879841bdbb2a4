"""Keys: a hash of everything that determines a result, so that no stale one is ever reused."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from pydantic import JsonValue

__all__ = [
    "canonical",
    "digest",
    "file_sha256",
    "library_versions",
]


def canonical(value: JsonValue | Mapping[str, JsonValue]) -> bytes:
    """Return JSON with sorted keys and no spaces; NaN and infinities are refused.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False
    )
    return text.encode()


def digest(value: JsonValue | Mapping[str, JsonValue]) -> str:
    """Return the key of a value: 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(canonical(value)).hexdigest()[:32]


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256, 64 hexadecimal digits.

    A process reads a file once, as long as it stays the same inode, of the same size and times.
    """
    found = path.stat()
    # ctime too: a program that edits a file may put its mtime back
    times = (found.st_mtime_ns, found.st_ctime_ns)
    same, known = (found.st_dev, found.st_ino, found.st_size, *times), _hashed()
    if same not in known:
        with path.open("rb") as handle:
            known[same] = hashlib.file_digest(handle, "sha256").hexdigest()
    return known[same]


@cache
def _hashed() -> dict[tuple[int, ...], str]:
    """The files that this process has read for their hashes."""
    return {}


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Return installed versions, read from metadata without importing; absent ones are named so."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions
