"""JSON from strangers: regular files of bounded size, and nothing that JSON leaves open."""

import os
import re
import stat
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from pydantic import JsonValue

from ilubench.errors import DataError
from ilubench.specs import untrusted
from ilubench.specs.untrusted import shorten

__all__ = [
    "MAX_RECORD",
    "check_plain_file",
    "named",
    "parse_json",
    "read_json",
    "read_text",
]

MAX_RECORD = 4_000_000
"""Bytes that a record may have: ten times what a run of ten seeds and six attacks has."""

MAX_STRING = 20_000

SEVERAL_LINES = (
    ("config",),
    ("environment",),
    ("citation",),
    ("remarks",),
    ("submission", "citation"),
    ("submission", "remarks"),
)
"""Where text may have line ends; below `run` there are prompts in `protocol`, and messages."""

IN_RUNS = ("protocol", "method", "failures")
FORBIDDEN = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
    # turn the direction of text, which then shows other than what it says
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def read_json(path: Path, limit: int = MAX_RECORD) -> JsonValue:
    """Return what a JSON file holds, and refuse what JSON leaves open.

    Raises:
        DataError: a link or no regular file, too large, no UTF-8 or with a byte order mark, no
            JSON, a key given twice, NaN or infinity or a whole number of more than 64 bits, nested
            deeper than 64, a text with control characters.
    """
    return parse_json(path, read_text(path, limit))


def read_text(path: Path, limit: int) -> str:
    """Return a regular file's text; never waits for a pipe, never reads more than the limit.

    Raises:
        DataError: a link or no regular file, too large, no UTF-8, or with a byte order mark.
    """
    check_plain_file(path, limit)
    text = untrusted.read_text(path, limit, links=False)  # it may have become another one
    if text.startswith("\ufeff"):
        raise DataError(f"{path}: begins with a byte order mark; save it as plain UTF-8")
    return text


def parse_json(path: Path, text: str) -> JsonValue:
    """Return what a JSON text holds; ``path`` is for messages.

    Raises:
        DataError: as `read_json`.
    """
    value = untrusted.parse_json(path, text)
    problem = next(_problems(value), None)
    if problem is not None:
        raise DataError(f"{path}: {problem}")
    return value


def named(field: str) -> str:
    """Return a stranger's field name for a message: escaped, not long, without quotes."""
    return shorten(field)[1:-1]


def check_plain_file(path: Path, limit: int) -> os.stat_result:
    """Return a file's facts; refuse what is no regular file of at most ``limit`` bytes.

    Raises:
        DataError: no such file, a link, in a folder that is a link, a device, or too large.
    """
    try:
        found = path.lstat()
        above = path.parent.lstat() if path.parent.name else None
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be read: {problem}") from error
    if above is not None and stat.S_ISLNK(above.st_mode):
        raise DataError(f"{path.parent} is a link; records and samples lie in plain folders")
    if stat.S_ISLNK(found.st_mode):
        raise DataError(f"{path} is a link; put the file itself there")
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is no regular file")
    if found.st_size > limit:
        raise DataError(f"{path} has {found.st_size} bytes; {limit} are allowed")
    return found


# --- inside ---


def _problems(value: JsonValue) -> Iterator[str]:
    """What no record may hold anywhere: texts that are not what they seem."""
    rest: list[tuple[tuple[str, ...], JsonValue]] = [((), value)]
    while rest:
        place, one = rest.pop()
        if isinstance(one, str):
            yield from _text_problems(place, one)
        elif isinstance(one, dict):
            for key in one:
                yield from _text_problems(place, key)
            rest += [((*place, key), below) for key, below in one.items()]
        elif isinstance(one, list):
            rest += [((*place, str(index)), below) for index, below in enumerate(one)]


def _text_problems(place: tuple[str, ...], text: str) -> Iterator[str]:
    where = ".".join(place)
    if len(text) > MAX_STRING:
        problem = f"a text of {len(text)} characters; {MAX_STRING} are allowed"
        yield f"{named(where) or 'a key'}: {problem}"
    for found in FORBIDDEN.finditer(text):
        character = found[0]
        if character not in "\n\t" or not _several_lines(place):
            code = f"U+{ord(character):04X}"
            yield f"{named(where) or 'a key'}: has the control character {code}; leave it out"


def _several_lines(place: tuple[str, ...]) -> bool:
    if any(place[: len(head)] == head for head in SEVERAL_LINES):
        return True
    return any(one == "run" and two in IN_RUNS for one, two in pairwise(place))
