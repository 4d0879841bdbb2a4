"""Files of rows: JSON, JSON Lines, CSV, TSV and Parquet, compressed or not, columns as they are.

These are the formats of `datasets`, and what it is built on reads them here: Arrow reads Parquet
and what is compressed, the standard library text. Its own readers of text change values: text that
looks like a date becomes one, `NA` and `None` null, 2 beside 2.5 becomes 2.0, a number of 20 digits
a float; a short line is filled up, deep nesting ends the process, and its import takes longer than
a small score. They name no line, and keep all rows a second time on disk.
"""

import codecs
import contextlib
import csv
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import JsonValue

from ilubench.data.values import Cell, Unusable, describe_value
from ilubench.errors import DataError
from ilubench.interfaces import Row
from ilubench.records.bounded_parquet import check_bounds, first_groups

__all__ = ["ENDINGS", "is_readable", "read_file"]

MAX_TEXT = 1_000_000_000
"""Bytes of a file's text, unpacked."""

MAX_ROWS = 2_000_000
"""Rows of a Parquet file, which may have no bytes of their own."""

PART = 64_000_000
"""Bytes of a file's text that are read first where only its first rows are wanted."""

_LINES = (".jsonl", ".json", ".ndjson")
_TABLES = {".csv": ",", ".tsv": "\t"}
_PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
ENDINGS = f"{', '.join((*_LINES, *_TABLES))} (each also with {', '.join(_PACKED)}) or .parquet"

_NAME = re.compile(rf"(.*?)({'|'.join((*_LINES, *_TABLES))})({'|'.join(_PACKED)})?|.*(\.parquet)")
_DECODER = json.JSONDecoder(parse_constant=Unusable, parse_float=lambda text: _finite(float(text)))
_SPACE = re.compile(r"[ \t\r\n]*")
_ESCAPED = re.compile(r"\\ud[89a-f]", re.IGNORECASE)
_PART_OF_IT = "give a part of it, or a limit (no where, no shuffle) with JSON Lines or Parquet"
_HOLDERS = ("data", "rows", "examples", "train")
_NO_JSON = re.compile("binary|timestamp|date|time|duration|decimal|interval|extension|union")


def is_readable(name: str) -> bool:
    """Whether a file of this name can be read."""
    return _NAME.fullmatch(name.lower()) is not None


def read_file(path: Path, role: str, first: int | None = None) -> list[Row]:
    """Return the rows of a file; what its text is decides whether it is JSON or JSON Lines.

    Every value of a CSV or TSV file is a :class:`~ilubench.data.values.Cell`. What is neither text
    nor a number nor made of these is an :class:`~ilubench.data.values.Unusable`.

    Args:
        path: of the file.
        role: for errors.
        first: how many rows are wanted, of its beginning; a file may be larger then than one that
            is read whole, and may yield more of them. None: all.

    Raises:
        DataError: no such file, an unknown ending, or not readable as its ending says.
    """
    if not path.is_file():
        problem = f"no such file {str(path)!r}; check the path"
        if path.exists() and not path.is_dir():
            problem = f"{path} is no regular file, and it is read more than once; save it as one"
        raise DataError(f"data.{role}: {problem}")
    found = _NAME.fullmatch(path.name.lower())
    if found is None:
        raise DataError(f"data.{role}: {path}: unknown ending {path.suffix!r}; use {ENDINGS}")
    try:
        if found[4]:
            return _parquet(path, first)
        packed = _PACKED.get(found[3])
        if found[2] in _TABLES:
            return _table(_text(path, packed, MAX_TEXT), _TABLES[found[2]])
        if first is not None:
            return _first(path, packed, first)
        return _json(_text(path, packed, MAX_TEXT), path.name)
    except OSError as error:
        problem = error.strerror or f"it is no {path.suffix} file, or cut short; copy it again"
        raise DataError(f"data.{role}: {path} cannot be read: {problem}") from error
    except ValueError as error:
        raise DataError(f"data.{role}: {path} cannot be read: {error}") from error


def _first(path: Path, packed: str | None, count: int) -> list[Row]:
    """The rows of a file, or of its beginning where that has enough of them, a line each."""
    for size in (PART, MAX_TEXT):
        with contextlib.suppress(ValueError):  # one list of all rows; whatever it is, it is below
            rows = _json(_text(path, packed, size, cut=True), path.name)
            if len(rows) >= count:
                return rows
    return _json(_text(path, packed, MAX_TEXT), path.name)


def _text(path: Path, packed: str | None, size: int, *, cut: bool = False) -> str:
    """A file's text; `cut`: the whole lines of its beginning, if it has more than `size` bytes."""
    if packed is not None:
        import pyarrow

        with pyarrow.input_stream(str(path), compression=packed) as stream:
            data: bytes = stream.read(size + 1)
    else:
        with path.open("rb") as file:
            data = file.read(size + 1)
    if len(data) > size and cut:
        data = data[: data.rfind(b"\n") + 1]
    elif len(data) > size:
        raise ValueError(f"it holds more than {size:,} bytes; {_PART_OF_IT}")
    _refuse_pointer(data)
    encoding = "utf-8-sig"
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "utf-32"
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"line {line}, byte {error.start + 1} of the file"
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(f"{where}, is not {name}; save the file as UTF-8") from error
    if "\0" in text:
        raise ValueError("it holds zero bytes, as UTF-16 does; save the file as UTF-8")
    return text


def _refuse_pointer(data: bytes) -> None:
    if data.startswith(b"version https://git-lfs"):
        raise ValueError("it is a Git LFS pointer, not the file itself; run `git lfs pull` there")


def _json(text: str, name: str) -> list[Row]:
    """Rows one after the other, whatever stands between them, or a list of them."""
    found: list[JsonValue] = []
    place = _end(text, 0)
    while place < len(text):
        try:
            value, end = _DECODER.raw_decode(text, place)
        except (RecursionError, ValueError) as error:
            # of a row, where it begins; of a list of all rows, where it goes wrong
            at = place if text[place] == "{" else getattr(error, "pos", place)
            problem = "is nested too deeply" if isinstance(error, RecursionError) else "is no JSON"
            raise ValueError(f"line {text.count(chr(10), 0, at) + 1} {problem}") from error
        found.append(value)
        place = _end(text, end)
    if len(found) == 1 and isinstance(found[0], list):
        found = found[0]
    if len(found) == 1 and isinstance(found[0], dict):
        held = [name for name in _HOLDERS if isinstance(found[0].get(name), list)]
        if held:
            raise ValueError(f"it is one object; write the list of rows in its {held[0]!r} alone")
    rows: list[Row] = [row for row in found if isinstance(row, dict)]
    if len(rows) < len(found):
        number, row = next((n, row) for n, row in enumerate(found, 1) if not isinstance(row, dict))
        problem = f"row {number} is {describe_value(row)}"
        raise ValueError(f"{problem}; each must hold one object {{column: value}}")
    if _ESCAPED.search(text):
        return [_whole(row, f"row {number} of {name}") for number, row in enumerate(rows, 1)]
    return rows


def _end(text: str, place: int) -> int:
    """Where the white space ends that begins at a place."""
    found = _SPACE.match(text, place)
    return found.end() if found else place


def _whole(row: Row, where: str) -> Row:
    """A row, with each value replaced that has half a surrogate pair, which no encoding has."""
    found: dict[str, JsonValue] = {}
    for column, value in row.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
            found[column] = value
        except UnicodeEncodeError as error:
            half = f"\\u{ord(error.object[error.start]):04x}"
            found[column] = Unusable(f"broken text (half a surrogate pair, {half}, in {where})")
    return found


def _table(text: str, delimiter: str) -> list[Row]:
    def read(quoting: Literal[0, 3]) -> list[Row]:
        lines = io.StringIO(text, "")
        return list(_cells(csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)))

    before = csv.field_size_limit(2**31 - 1)  # a chapter of a book is longer than the default
    try:
        return read(csv.QUOTE_MINIMAL)
    except ValueError:
        if delimiter == "\t":  # GLUE's files quote nothing: a quote is a sign like any other
            with contextlib.suppress(ValueError):
                return read(csv.QUOTE_NONE)
        raise
    finally:
        csv.field_size_limit(before)


def _cells(reader: "csv._reader") -> Iterator[Row]:  # type: ignore[name-defined, unused-ignore]
    try:
        header: list[str] = next(reader, [])
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice:
            raise ValueError(f"line 1: the column {twice[0]!r} occurs twice")
        if len(header) == 1 and set(header[0]) & {*",;|\t"} - {reader.dialect.delimiter}:
            problem = f"line 1: it has one column, {header[0][:40]!r}"
            raise ValueError(f"{problem}; divide columns by commas, in a .tsv file by tabs")
        for values in reader:
            if values and len(values) != len(header):
                problem = f"{len(values)} columns, and the header has {len(header)}"
                raise ValueError(f"line {reader.line_num}: {problem}")
            if values:
                yield dict(zip(header, map(Cell, values), strict=True))
    except csv.Error as error:
        problem = f"line {reader.line_num}: a quoted value does not end as it should"
        raise ValueError(f'{problem}; write "" for a quote inside it') from error


def _parquet(path: Path, first: int | None) -> list[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        bounds = {"rows": MAX_ROWS, "texts": MAX_TEXT, "expanded": MAX_TEXT}
        check_bounds(path, MAX_TEXT, **bounds, first=first, remedy=f"; {_PART_OF_IT}")
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, groups = file.schema_arrow, first_groups(file.metadata, first)
            kinds = {field.name: str(field.type) for field in schema}
            if len(kinds) < len(schema):
                raise ValueError("two columns have the same name")
            known = [name for name, kind in kinds.items() if not _NO_JSON.search(kind)]
            table = file.read_row_groups(groups, columns=known).slice(0, first)
            count = sum(file.metadata.row_group(k).num_rows for k in groups)
            count = count if first is None else min(count, first)
    except DataError as error:
        with path.open("rb") as opened:
            _refuse_pointer(opened.read(100))
        raise ValueError(str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")) from error
    except (pyarrow.ArrowException, MemoryError):  # a damaged one asks for any size
        raise ValueError("it is no Parquet file, or cut short; copy it again") from None
    columns: dict[str, list[JsonValue]] = {}
    for name, kind in kinds.items():
        if name in known:
            columns[name] = table[name].to_pylist()
            if "float" in kind or "double" in kind:
                columns[name] = [_finite(value) for value in columns[name]]
        else:
            columns[name] = [Unusable(f"a {kind}")] * count
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values())]  # noqa: B905


def _finite(value: JsonValue) -> JsonValue:
    if isinstance(value, float) and not math.isfinite(value):
        return Unusable(str(value))
    if isinstance(value, list):
        return [_finite(below) for below in value]
    if isinstance(value, dict):
        return {key: _finite(below) for key, below in value.items()}
    return value
