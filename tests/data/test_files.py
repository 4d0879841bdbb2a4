"""Files of rows in every format, encoding and compression; each fault named with its place."""

import bz2
import datetime
import decimal
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ilubench.data import files
from ilubench.data.files import is_readable, read_file
from ilubench.data.values import Cell, Unusable, describe_value, list_in, number_in, text_in
from ilubench.errors import DataError

ROWS: list[dict[str, Any]] = [{"q": "one", "n": 1}, {"q": 'drei "ü",\nvier', "n": 2}]

LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
COMMAS = 'q,n\none,1\n"drei ""ü"",\nvier",2\n'


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def zst(data: bytes) -> bytes:
    packed: bytes = pyarrow.compress(data, codec="zstd", asbytes=True)
    return packed


def read(folder: Path, name: str, content: bytes | str) -> list[Any]:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return [dict(row) for row in read_file(path, "role")]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.ndjson", "A.JSONL"])
@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES.replace("\n", "\r\n") + "\r\n",
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(json.dumps(row, indent=2, ensure_ascii=False) for row in ROWS),
    ],
)
def test_json_is_known_by_its_content(tmp_path: Path, name: str, content: str) -> None:
    assert read(tmp_path, name, content) == ROWS


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_cells_are_text(tmp_path: Path, name: str) -> None:
    lines = ["id,answer,more", "007,1984,", '2a,None,"a ""b"', ""]
    found = read(tmp_path, name, "\n".join(lines).replace(",", "," if name == "a.csv" else "\t"))
    assert found == [
        {"id": "007", "answer": "1984", "more": ""},
        {"id": "2a", "answer": "None", "more": 'a "b'},
    ]
    assert {type(value) for row in found for value in row.values()} == {Cell}


def test_a_chapter_fits_into_a_cell(tmp_path: Path) -> None:
    text = "word " * 100_000
    assert read(tmp_path, "a.csv", f"text\n{text}\n") == [{"text": text}]


@pytest.mark.parametrize("pack", [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", zst)])
@pytest.mark.parametrize(("name", "content"), [("a.jsonl", LINES), ("a.csv", COMMAS)])
def test_compressed(
    tmp_path: Path, name: str, content: str, pack: tuple[str, Callable[[bytes], bytes]]
) -> None:
    ending, packed = pack
    found = read(tmp_path, f"{name}.{ending}", packed(content.encode()))
    assert [row["q"] for row in found] == [row["q"] for row in ROWS]
    with pytest.raises(
        DataError, match=rf"data\.role: .*{ending} cannot be read: it is no \.{ending}"
    ):
        read(tmp_path, f"{name}.{ending}", content)


def test_capital_endings_are_endings(tmp_path: Path) -> None:
    assert read(tmp_path, "A.JSONL.GZ", gzip.compress(b'{"q": "a"}')) == [{"q": "a"}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_what_git_lfs_leaves_is_no_data(tmp_path: Path, name: str) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
    with pytest.raises(DataError, match=rf"{name} cannot be read: it is a Git LFS pointer.*pull"):
        read(tmp_path, name, pointer)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(("name", "content"), [("a.json", LINES), ("a.csv", COMMAS)])
def test_a_mark_of_the_encoding_is_no_text(
    tmp_path: Path, encoding: str, name: str, content: str
) -> None:
    found = read(tmp_path, name, content.encode(encoding))
    assert [row["q"] for row in found] == [row["q"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "line 2 is no JSON"),
        ("a.jsonl", b'{"a": 1}\n\n{"a": 2},\n{"a": 3}\n', "line 3 is no JSON"),
        ("a.json", b'[{"a": 1},\n{"a": 2]', "line 2 is no JSON"),
        ("a.json", b"[1", "line 1 is no JSON"),
        ("a.json", b"[1]", r"row 1 is 1; each must hold one object \{column: value\}"),
        ("a.jsonl", b'{"a": 1}\n["b"]\n', "row 2 is a list; each must hold one object"),
        ("a.json", b'{"data": [{"a": 1}]}', "write the list of rows in its 'data' alone"),
        ("a.jsonl", b'{"a":' + b"[" * 10**5 + b"]" * 10**5 + b"}", "line 1 is nested too deeply"),
        (
            "a.jsonl",
            b'{"a": "b"}\n{"a": "\xff"}\n',
            "line 2, byte 19 of the file, is not UTF-8; sav",
        ),
        ("a.csv", "a\nMünchen\n".encode("latin-1"), "line 2, byte 4 of the file, is not UTF-8"),
        (
            "a.csv",
            "a\nb\n".encode("utf-16-le"),
            "zero bytes, as UTF-16 does; save the file as UTF-8",
        ),
        ("a.csv", b"a,b\n1\n", "line 2: 1 columns, and the header has 2"),
        ("a.csv", b'a,b\n"1\n\n",2\n1,2,3\n', "line 5: 3 columns, and the header has 2"),
        ("a.csv", b"a,b,a\n1,2,3\n", "line 1: the column 'a' occurs twice"),
        ("a.csv", b"a;b\n1;2\n", "line 1: it has one column, 'a;b'; divide columns by commas"),
        ("a.tsv", b"a,b\n1,2\n", "line 1: it has one column, 'a,b'; .* in a .tsv file by tabs"),
        ("a.csv", b'a,b\n"1" x,2\n', "line 2: a quoted value does not end as it should"),
        ("a.csv", b'a,b\n"1,2\n', "a quoted value does not end as it should"),
        ("a.parquet", b"no parquet", "it is no Parquet file, or cut short"),
        ("a.parquet", parquet(ROWS)[:-9], "it is no Parquet file, or cut short"),
    ],
)
def test_faults_are_named_with_their_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    with pytest.raises(DataError, match=rf"^data\.role: .*{name} cannot be read: .*{message}"):
        read(tmp_path, name, content)


def test_endings(tmp_path: Path) -> None:
    assert all(map(is_readable, ["a.parquet", "x/b.JSONL", "c.tsv.gz", "d.1.csv.zst"]))
    assert not any(map(is_readable, ["a.txt", "b.parquet.gz", "csv", "c.gz", "d.jsonl.zip"]))
    message = r"unknown ending '\.txt'; use \.jsonl, .*\.csv, \.tsv .*\.gz.*\.zst.* or \.parquet"
    with pytest.raises(DataError, match=message):
        read(tmp_path, "a.txt", b"a")
    with pytest.raises(DataError, match=r"no such file .*; check the path"):
        read_file(tmp_path, "role")


def test_a_value_that_is_neither_text_nor_number_stays_beside_the_others(tmp_path: Path) -> None:
    lines = (
        r'{"q": "\ud83d\ude00", "bad": ["x \uD83D y"], "n": [NaN, -Infinity], "big": 1'
        + 30 * "0"
        + "}"
    )
    (found,) = read(tmp_path, "a.jsonl", lines)
    assert (found["q"], found["big"]) == ("\U0001f600", 10**30)
    assert (
        describe_value(found["bad"])
        == r"broken text (half a surrogate pair, \ud83d, in row 1 of a.jsonl)"
    )
    assert found["n"] == [Unusable("NaN"), Unusable("-Infinity")]


def test_parquet_columns_of_every_kind(tmp_path: Path) -> None:
    odd = {
        "when": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        "day": [datetime.date(2024, 1, 1)],
        "raw": {"bytes": b"\xff"},
        "price": decimal.Decimal("1.5"),
    }
    plain = {"q": "ü", "n": 1, "x": 0.5, "o": ["a", None], "m": {"k": [1]}, "none": None}
    (found,) = read(tmp_path, "a.parquet", parquet([{**plain, **odd, "nan": [float("nan")]}]))
    assert {name: found[name] for name in plain} == plain
    assert {name: describe_value(found[name])[:13] for name in odd} == {
        "when": "a timestamp[u",
        "day": "a list<elemen",
        "raw": "a struct<byte",
        "price": "a decimal128(",
    }
    assert found["nan"] == [Unusable("nan")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('["a", "b"]', ["a", "b"]),
        (" ['a', \"it's\"] ", ["a", "it's"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("['a, b', 'c',]", ["a, b", "c"]),
        ("[]", None),
        ("['it''s', 'b']", None),  # one word or two
        ("['a', 'b' 'c']", None),
        ("['a', None]", None),
        ("[1, 2]", None),
        ("[a, b]", None),
        ("['a', b'c']", None),
        ("['a' 'b' ... 'c']", None),
        ("['a'] + ['b']", None),
        ("('a', 'b')", None),
        ("['a', 'b", None),
        ("Mars, Venus", None),
        ("", None),
    ],
)
def test_lists_in_text(text: str, found: list[str] | None) -> None:
    assert list_in(text) == found


def test_numbers_in_text() -> None:
    given = ["0", "-1", 12, "007", "-0", "1.0", " 1", "", "1" * 30, None, True, 1.0]
    assert [number_in(value) for value in given] == [0, -1, 12] + [None] * 9


def test_what_a_template_shows() -> None:
    shown = ("", "a", -3, 1.5, 10**400)
    assert [text_in(value) for value in shown] == ["", "a", "-3", "1.5", f"1{'0' * 400}"]
    unshown: tuple[object, ...] = (None, True, float("nan"), float("-inf"), [], {})
    assert [text_in(value) for value in unshown] == [None] * 6


def test_a_tsv_file_may_quote_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.tsv"
    file.write_text('s\tn\n"so" he said\t1\nan inch is 1"\t2\n"whole"\t3\n')
    assert [row["s"] for row in read_file(file, "r")] == [
        '"so" he said',
        'an inch is 1"',
        '"whole"',
    ]
    file.write_text('s\tn\n"so" he said\t1\t2\n')
    with pytest.raises(DataError, match="line 2: a quoted value does not end"):
        read_file(file, "r")


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.parquet", "one.parquet"])
def test_of_a_file_that_is_too_large_the_first_rows_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rows = [{"id": str(number), "text": "x" * 40} for number in range(1000)]
    file = tmp_path / name
    if file.suffix == ".parquet":
        size = 100 if name == "a.parquet" else 1000
        table = pyarrow.Table.from_pylist(rows)
        pyarrow.parquet.write_table(table, file, row_group_size=size)
    else:
        text = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    assert read_file(file, "r", 150)[:150] == rows[:150]
    monkeypatch.setattr(files, "PART", 2_000)
    monkeypatch.setattr(files, "MAX_TEXT", 30_000)
    monkeypatch.setattr(files, "MAX_ROWS", 900)
    if name != "one.parquet":  # its rows are in one piece, which is unpacked whole
        assert read_file(file, "r", 150)[:150] == rows[:150]
        assert read_file(file, "r", 20)[:20] == rows[:20]
    for first in (None, 990):
        with pytest.raises(DataError, match="give a part of it, or a limit"):
            read_file(file, "r", first)


def test_a_pipe_is_told_from_a_file_that_is_not_there(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match="no regular file, and it is read more than once; save"):
        read_file(tmp_path / "a.jsonl", "r")


def test_a_list_of_rows_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "PART", 50)
    rows = [{"id": str(number)} for number in range(100)]
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    assert read_file(tmp_path / "a.json", "r", 3) == rows
