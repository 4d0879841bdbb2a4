"""Parquet files that anybody may have made: looked at before they are unpacked."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ilubench.errors import DataError
from ilubench.specs.untrusted import check_regular

__all__ = ["MAX_NAME", "MAX_TEXTS", "check_bounds"]

MAX_NAME = 500
"""Bytes of a name, as samples have them."""

MAX_ROWS = 10_000_000
"""Lines of samples: 15,000 items, six attacks of five checkpoints, five seeds, three models."""

MAX_EXPANDED = 500_000_000
"""Bytes of a table when it is unpacked, by the file's own account."""

MAX_TEXTS = 4_000_000_000
"""Characters of one column when each line has its own; a file names a repeated one once."""

_BATCH = 1 << 17


def check_bounds(
    file: Path, longest: int, *, rows: int = MAX_ROWS, texts: int = MAX_TEXTS
) -> pa.Schema:
    """Return a table's columns; refuse what would unpack to more than it may, before it does.

    The file's footer tells lines and bytes. It counts a text that many lines share once, so texts
    are then looked at as the file has them.

    Args:
        file: of the table.
        longest: bytes of one text.
        rows: lines of the table.
        texts: bytes of the texts of a column, those that lines share counted for each.

    Raises:
        DataError: no regular file, no Parquet, or too large.
    """
    check_regular(file)
    try:
        with pq.ParquetFile(file) as opened:
            _check_footer(file, opened.metadata, rows)
            schema = opened.schema_arrow
        names = [one.name for one in schema if one.type == pa.string()]
        with pq.ParquetFile(file, read_dictionary=names) as opened:
            for name in names:
                _check_texts(file, opened, name, longest, texts)
    except (OSError, pa.ArrowException, MemoryError, ValueError) as error:
        raise DataError(f"{file}: it is no Parquet file, or cut short; copy it again") from error
    return schema


# --- inside ---


def _check_footer(file: Path, facts: pq.FileMetaData, rows: int) -> None:
    if facts.num_rows > rows:
        raise DataError(f"{file} has {facts.num_rows} lines; {rows} are allowed")
    groups = [facts.row_group(k) for k in range(facts.num_row_groups)]
    for number in range(facts.num_columns):  # a short list of long lists
        values = sum(group.column(number).num_values for group in groups)
        if values > 10 * rows:
            raise DataError(f"{file}: a column of {values} values; {10 * rows} are allowed")
    expanded = sum(group.total_byte_size for group in groups)
    if expanded > MAX_EXPANDED or any(group.total_byte_size < 0 for group in groups):
        problem = f"would unpack to {expanded} bytes; {MAX_EXPANDED} are allowed"
        raise DataError(f"{file} {problem}")


def _check_texts(file: Path, opened: pq.ParquetFile, name: str, longest: int, most: int) -> None:
    """Each text of a column has a bounded length, and so has the column."""
    total = 0
    for batch in opened.iter_batches(batch_size=_BATCH, columns=[name]):
        column = batch.column(0)
        lengths = pc.binary_length(column.dictionary)
        found = pc.max(lengths).as_py() or 0
        if found > longest:
            raise DataError(f"{file}: {name}: a text of {found} bytes; {longest} are allowed")
        total += pc.sum(lengths.take(column.indices)).as_py() or 0
        if total > most:
            raise DataError(f"{file}: {name}: would unpack to more than {most} characters")
