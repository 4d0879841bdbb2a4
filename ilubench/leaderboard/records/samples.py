"""The samples that a record points to: found in its folder, bounded before they are unpacked."""

import os
import stat
from pathlib import Path, PurePosixPath

from ilubench.errors import DataError
from ilubench.leaderboard.records.models import MAX_SAMPLES, Pointer
from ilubench.leaderboard.records.safe_json import check_plain_file
from ilubench.records.bounded_parquet import MAX_NAME, MAX_NAMES, check_bounds
from ilubench.records.keys import file_sha256
from ilubench.records.scores import SCHEMA
from ilubench.specs.untrusted import shorten

__all__ = ["check_samples", "point_to_samples", "samples_file"]


def point_to_samples(folder: Path, path: str) -> Pointer:
    """Return the pointer to a file in a suite's folder.

    Raises:
        DataError: no regular file, or larger than samples may be.
    """
    file = folder / path
    found = check_plain_file(file, MAX_SAMPLES)
    return Pointer(path=path, sha256=file_sha256(file), bytes=found.st_size)


def samples_file(folder: Path, pointer: Pointer) -> Path:
    """Return the samples that a record points to, after a look at everything but the values.

    Raises:
        DataError: the path leads out of the folder or over a link, there is no regular file of
            that size and SHA-256, or it would unpack to more than samples may have.
    """
    parts = PurePosixPath(pointer.path).parts
    if not parts or ".." in parts or parts[0].startswith("/") or "\\" in pointer.path:
        raise DataError(f"samples.path: {pointer.path!a} leads out of {folder}")
    place = folder
    for part in parts[:-1]:
        place = place / part
        _check_folder(place)
    file = place / parts[-1]
    found = check_plain_file(file, MAX_SAMPLES)
    if found.st_size != pointer.bytes:
        raise DataError(f"{file} has {found.st_size} bytes, the record says {pointer.bytes}")
    sha256 = file_sha256(file)
    if sha256 != pointer.sha256:
        raise DataError(f"{file} has SHA-256 {sha256}, the record says {pointer.sha256}")
    check_samples(file)
    return file


def check_samples(file: Path) -> None:
    """Refuse samples that would unpack to more than they may, before they are unpacked.

    Raises:
        DataError: as `check_bounds`, or another column than samples have.
    """
    schema = check_bounds(file, MAX_NAME, names=MAX_NAMES)
    more = sorted(set(schema.names) - set(SCHEMA.names))
    if more:
        raise DataError(f"{file}: {shorten(more[0])}: samples have no such column")
    for field in schema:
        known = SCHEMA.field(field.name).type
        if field.type != known:
            raise DataError(f"{file}: {field.name}: its values are {field.type}, not {known}")


# --- inside ---


def _check_folder(place: Path) -> None:
    try:
        mode = os.lstat(place).st_mode
    except OSError as error:
        raise DataError(f"{place}: cannot be read: {error.strerror}") from error
    if stat.S_ISLNK(mode):
        raise DataError(f"{place} is a link; records and samples lie in plain folders")
    if not stat.S_ISDIR(mode):
        raise DataError(f"{place} is no folder")
