"""Files that anybody may have made, read whole or refused: the only place where such are opened.

A file is a regular one of bounded size, its JSON of bounded depth; whatever else it is, reading it
ends, and takes little memory.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ilubench.errors import DataError, PathError

__all__ = [
    "MAX_DEPTH",
    "MAX_FILE",
    "MAX_WHOLE",
    "check_regular",
    "parse_json",
    "printable",
    "read_json",
    "read_text",
    "shorten",
]

MAX_FILE = 64_000_000
"""Bytes that a file may have unless its reader says otherwise; large tokenizers have half of it."""

MAX_DEPTH = 64
MAX_WHOLE = 2**63


def read_json(path: Path, limit: int = MAX_FILE, *, lax: bool = False) -> JsonValue:
    """Return what a JSON file holds.

    Args:
        path: of the file.
        limit: bytes that it may have.
        lax: as others write JSON, with NaN, infinity and whole numbers of any size.

    Raises:
        DataError: as `read_text` and `parse_json`.
    """
    return parse_json(path, read_text(path, limit), lax=lax)


def read_text(path: Path, limit: int = MAX_FILE, *, links: bool = True) -> str:
    """Return a regular file's text; never waits for a pipe, never reads more than the limit.

    Args:
        path: of the file.
        limit: bytes that it may have.
        links: whether the path may be a link to it.

    Raises:
        DataError: no such file, no regular one, too large, or no UTF-8.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    if not links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
    try:
        with os.fdopen(os.open(path, flags), "rb") as handle:
            found = os.fstat(handle.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise DataError(f"{path} is no regular file")
            content = handle.read(limit + 1)
    except OSError as error:
        problem = PathError.of(error, str(path))
        raise problem or DataError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:  # a zero byte
        raise DataError(f"{shorten(str(path))} is no file's name") from error
    if len(content) > limit:
        raise DataError(f"{path} has {found.st_size} bytes; {limit} are allowed")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text, at byte {error.start}") from error


def check_regular(path: Path) -> None:
    """Refuse what is no regular file: reading a device or a pipe need not end.

    Raises:
        DataError: it is none, or not there.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        problem = PathError.of(error, str(path))
        raise problem or DataError(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{path} is no regular file")


def parse_json(path: Path | str, text: str, *, lax: bool = False) -> JsonValue:
    """Return what a JSON text holds; ``path`` is for messages, ``lax`` as of `read_json`.

    Raises:
        DataError: no JSON, a key given twice, nested deeper than 64; unless lax, NaN or infinity
            or a whole number of more than 64 bits.
    """
    own: Any = {"parse_constant": _constant, "parse_float": _real, "parse_int": _whole}
    figures: Any = {} if lax else own
    try:
        value: JsonValue = json.loads(text, object_pairs_hook=_pairs, **figures)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(f"{path}: no JSON: {error.msg} ({where})") from error
    except RecursionError as error:
        raise DataError(f"{path}: its values are nested deeper than {MAX_DEPTH}") from error
    except _OpenError as error:
        raise DataError(f"{path}: {error}") from error
    except ValueError as error:  # of Python's own: a number of more than 4,300 digits
        raise DataError(f"{path}: holds a number that is too large") from error
    if _too_deep(value):
        raise DataError(f"{path}: its values are nested deeper than {MAX_DEPTH}")
    return value


def shorten(text: str) -> str:
    """Return a stranger's text for a message: escaped, and not long."""
    return ascii(text if len(text) <= 60 else f"{text[:60]}...")


def printable(text: str) -> str:
    """Return a stranger's text for a screen: nothing that a terminal obeys, or that turns a line.

    Line ends and tabs stay; what has no picture becomes the replacement character.
    """
    kept = (
        one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text
    )
    return "".join(kept)


# --- inside ---


class _OpenError(ValueError):
    """What JSON leaves open, and no file here may hold."""


def _pairs(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found: dict[str, JsonValue] = {}
    for key, value in pairs:
        if key in found:
            raise _OpenError(f"the key {shorten(key)} is given twice")
        found[key] = value
    return found


def _constant(text: str) -> JsonValue:
    raise _OpenError(f"{text} is no figure")


def _real(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _OpenError(f"{shorten(text)} is too large for a figure")
    return value


def _whole(text: str) -> int:
    if len(text) > 20 or abs(value := int(text)) >= MAX_WHOLE:
        raise _OpenError(f"{shorten(text)} is too large for a whole number")
    return value


def _too_deep(value: JsonValue) -> bool:
    level: list[JsonValue] = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True
