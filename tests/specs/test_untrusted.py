"""Files of anybody: what is read, and what is refused at once."""

import os
from pathlib import Path

import pytest

from ilubench.errors import DataError
from ilubench.specs.untrusted import printable, read_json, read_text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "nested deeper than 64"),
        ("[" * 66 + "]" * 66, "nested deeper than 64"),
        ("NaN", "NaN is no figure"),
        ("1e400", "is too large for a figure"),
        ("9" * 5000, "is too large for a whole number"),
        (str(2**63), "is too large for a whole number"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("{", "no JSON"),
    ],
)
def test_what_json_leaves_open(text: str, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        read_json(path)
    assert str(path) in str(caught.value)


def test_others_write_more_as_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f"[Infinity, {10**30}]")
    assert read_json(path, lax=True) == [float("inf"), 10**30]
    path.write_text("9" * 5000)
    with pytest.raises(DataError, match="holds a number that is too large"):
        read_json(path, lax=True)


def test_nothing_that_a_terminal_obeys_is_printable() -> None:
    assert printable("\x1b[31mé\u202e🎉\x9b\ud800\tb\n") == "\ufffd[31mé\ufffd🎉\ufffd\ufffd\tb\n"


def test_only_regular_files_of_bounded_size_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abc")
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "pipe")
    assert read_text(tmp_path / "link", 3) == "abc"
    for given, told in (
        (tmp_path / "pipe", "is no regular file"),
        (Path("/dev/zero"), "is no regular file"),
        (tmp_path, "regular file|a folder"),
        (tmp_path / "none", "there is no such file"),
        (tmp_path / ("a" * 300), "the name is too long"),
        (Path("a\0b"), "is no file's name"),
    ):
        with pytest.raises(DataError, match=told):
            read_text(given)
    with pytest.raises(DataError, match="3 bytes; 2 are allowed"):
        read_text(path, 2)
    with pytest.raises(DataError, match="link"):
        read_text(tmp_path / "link", 3, links=False)
    path.write_bytes(b"a\xff")
    with pytest.raises(DataError, match="no UTF-8 text, at byte 1"):
        read_text(path)
