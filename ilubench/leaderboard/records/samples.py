"""The samples that a record points to: found in its folder, bounded before they are unpacked."""

import os
import stat
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ilubench.errors import DataError
from ilubench.leaderboard.records.models import MAX_SAMPLES, Pointer
from ilubench.leaderboard.records.safe_json import check_plain_file
from ilubench.records.keys import file_sha256
from ilubench.records.scores import SCHEMA

__all__ = ["check_bounds", "point_to_samples", "samples_file"]

MAX_ROWS = 10_000_000
"""Lines of samples: 15,000 items, six attacks of five checkpoints, five seeds, three models."""

MAX_EXPANDED = 500_000_000
"""Bytes of samples when they are unpacked, by the file's own account."""

MAX_TEXTS = 4_000_000_000
"""Characters of one column when each line has its own; a file names a repeated one once."""

MAX_NAME = 500
BATCH = 1 << 17


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
    check_bounds(file)
    return file


def check_bounds(file: Path) -> None:
    """Refuse samples that would unpack to more than they may, before they are unpacked.

    The file's footer tells lines and bytes. It counts a text that many lines share once, so texts
    are then looked at as the file has them.

    Raises:
        DataError: no Parquet file, another column than samples have, or too large.
    """
    try:
        with pq.ParquetFile(file) as opened:
            _check_footer(file, opened)
            texts = [one.name for one in opened.schema_arrow if one.type == pa.string()]
        with pq.ParquetFile(file, read_dictionary=texts) as opened:
            for name in texts:
                _check_texts(file, opened, name)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} is no table of samples: {error}") from error


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


def _check_footer(file: Path, opened: pq.ParquetFile) -> None:
    facts, schema = opened.metadata, opened.schema_arrow
    if facts.num_rows > MAX_ROWS:
        raise DataError(f"{file} has {facts.num_rows} lines; {MAX_ROWS} are allowed")
    groups = [facts.row_group(k) for k in range(facts.num_row_groups)]
    expanded = sum(group.total_byte_size for group in groups)
    if expanded > MAX_EXPANDED or any(group.total_byte_size < 0 for group in groups):
        problem = f"would unpack to {expanded} bytes; {MAX_EXPANDED} are allowed"
        raise DataError(f"{file} {problem}")
    more = sorted(set(schema.names) - set(SCHEMA.names))
    if more:
        raise DataError(f"{file}: {ascii(more[0])[:60]}: samples have no such column")
    for field in schema:
        if field.type != SCHEMA.field(field.name).type:
            known = SCHEMA.field(field.name).type
            raise DataError(f"{file}: {field.name}: its values are {field.type}, not {known}")


def _check_texts(file: Path, opened: pq.ParquetFile, name: str) -> None:
    """Each text of a column has a bounded length, and so has the column."""
    total = 0
    for batch in opened.iter_batches(batch_size=BATCH, columns=[name]):
        column = batch.column(0)
        lengths = pc.binary_length(column.dictionary)
        longest = pc.max(lengths).as_py() or 0
        if longest > MAX_NAME:
            raise DataError(f"{file}: {name}: a text of {longest} bytes; {MAX_NAME} are allowed")
        total += pc.sum(lengths.take(column.indices)).as_py() or 0
        if total > MAX_TEXTS:
            raise DataError(f"{file}: {name}: would unpack to more than {MAX_TEXTS} characters")
