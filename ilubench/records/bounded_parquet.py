"""Parquet files that anybody may have made: looked at before they are unpacked."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ilubench.errors import DataError
from ilubench.specs.untrusted import check_regular

__all__ = ["MAX_NAME", "MAX_NAMES", "MAX_TEXTS", "check_bounds", "first_groups"]

MAX_NAME = 500
"""Bytes of a name, as samples have them."""

MAX_NAMES = 2_000_000
"""Different names in a column of samples, those of each group of lines (about a million) counted
for themselves; all of them are in memory at once."""

MAX_ROWS = 10_000_000
"""Lines of samples: 15,000 items, six attacks of five checkpoints, five seeds, three models."""

MAX_EXPANDED = 500_000_000
"""Bytes of a table when it is unpacked, by the file's own account."""

MAX_TEXTS = 4_000_000_000
"""Characters of one column when each line has its own; a file names a repeated one once."""

_BATCH = 1 << 17


def check_bounds(  # noqa: PLR0913 - bounds, and what they are of
    file: Path,
    longest: int,
    *,
    rows: int = MAX_ROWS,
    texts: int = MAX_TEXTS,
    names: int | None = None,
    expanded: int | None = None,
    first: int | None = None,
    remedy: str = "",
) -> pa.Schema:
    """Return a table's columns; refuse what would unpack to more than it may, before it does.

    The file's footer tells lines and bytes. It counts a text that many lines share once, so texts
    are then looked at as the file has them.

    Args:
        file: of the table.
        longest: bytes of one text.
        rows: lines of the table.
        texts: bytes of the texts of a column, those that lines share counted for each.
        names: different texts of a column, as `MAX_NAMES` counts; None: any number.
        expanded: bytes of the table; None: `MAX_EXPANDED`.
        first: how many lines will be read, of the groups in which the first ones lie; None: all.
        remedy: what to do where it is too large.

    Raises:
        DataError: no regular file, no Parquet, or too large.
    """
    check_regular(file)
    try:
        with pq.ParquetFile(file) as opened:
            groups = first_groups(opened.metadata, first)
            most = MAX_EXPANDED if expanded is None else expanded
            problem = _problem(opened.metadata, groups, rows, first, most)
            if problem:
                raise DataError(f"{file} {problem} are allowed{remedy}")
            schema = opened.schema_arrow
        columns = [one.name for one in schema if one.type == pa.string()]
        with pq.ParquetFile(file, read_dictionary=columns) as opened:
            for name in columns:
                _check_texts(file, opened, groups, name, (longest, texts, names))
    except (OSError, pa.ArrowException, MemoryError, ValueError):  # a damaged one asks for any size
        raise DataError(f"{file}: it is no Parquet file, or cut short; copy it again") from None
    return schema


def first_groups(facts: pq.FileMetaData, first: int | None) -> list[int]:
    """Return the groups in which the first lines lie; None: all of them."""
    found, lines = list[int](), 0
    for number in range(facts.num_row_groups):
        if first is not None and lines >= first:
            break
        found.append(number)
        lines += facts.row_group(number).num_rows
    return found


# --- inside ---


def _problem(
    facts: pq.FileMetaData, numbers: Sequence[int], rows: int, first: int | None, most: int
) -> str:
    """What is too large of some groups, up to the word `allowed`; empty: nothing is."""
    groups = [facts.row_group(k) for k in numbers]
    lines = sum(group.num_rows for group in groups)
    if min(lines, first or lines) > rows:
        return f"has {lines} lines; {rows}"
    for number in range(facts.num_columns):  # a short list of long lists
        values = sum(group.column(number).num_values for group in groups)
        if values > 10 * rows:
            return f"has a column of {values} values; {10 * rows}"
    expanded = sum(group.total_byte_size for group in groups)
    if expanded > most or any(group.total_byte_size < 0 for group in groups):
        return f"would unpack to {expanded} bytes; {most}"
    return ""


def _check_texts(
    file: Path,
    opened: pq.ParquetFile,
    groups: Sequence[int],
    name: str,
    bounds: tuple[int, int, int | None],
) -> None:
    """Each text of a column has a bounded length, and so has the column."""
    longest, most, names = bounds
    total = before = 0
    for group in groups:
        different = 0
        for batch in opened.iter_batches(_BATCH, row_groups=[group], columns=[name]):
            column = batch.column(0)
            lengths = pc.binary_length(column.dictionary)
            found = pc.max(lengths).as_py() or 0
            if found > longest:
                raise DataError(f"{file}: {name}: a text of {found} bytes; {longest} are allowed")
            total += pc.sum(lengths.take(column.indices)).as_py() or 0
            if total > most:
                raise DataError(f"{file}: {name}: would unpack to more than {most} characters")
            different = len(lengths)  # of the group so far
            if names is not None and before + different > names:
                raise DataError(f"{file}: {name}: more than {names} different texts")
        before += different
