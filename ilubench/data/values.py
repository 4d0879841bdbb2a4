"""What a row holds: text, numbers and lists; and what can be neither read nor printed."""

import io
import math
import re
import tokenize
from ast import literal_eval
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

__all__ = ["Cell", "Unusable", "describe_value", "list_in", "number_in", "row_name", "text_in"]


class Cell(str):
    """Text of a CSV file, in which it may stand for a number or a list."""

    __slots__ = ()


class Unusable(dict[str, JsonValue]):
    """In the place of a value that is no text and no number: NaN, a date, half a character.

    It harms nobody who does not read it, and is told from all else by its content.
    """

    def __init__(self, what: str) -> None:
        """Say in a few words what was there."""
        super().__init__(unusable=what)


def describe_value(value: object) -> str:
    """Return how a message names a row's value: numbers, but no words, which may be gated."""
    if isinstance(value, Unusable):
        return str(value["unusable"])
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return repr(value)
    kinds = {str: "text", dict: "a mapping", list: "a list", tuple: "a list"}
    named = (name for kind, name in kinds.items() if isinstance(value, kind))
    return next(named, f"a {type(value).__name__}") if value else "empty"


def row_name(role: str, row: Mapping[str, object], place: int | None = None) -> str:
    """Return how a message names a row: by its id, else by its number where that is known.

    Args:
        role: of the rows.
        row: one of them.
        place: of it among them, from 0.
    """
    if "id" in row:
        return f"data.{role}: item {row['id']!r}"
    return f"data.{role}" if place is None else f"data.{role}: row {place + 1}"


def text_in(value: object) -> str | None:
    """Return a value as a template shows it; None where it is neither text nor a number."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return None if isinstance(value, float) and not math.isfinite(value) else str(value)


def number_in(value: object) -> int | None:
    """Return a whole number, or the one that a text is; None for all else, `007` and `1.0` too."""
    if isinstance(value, str) and re.fullmatch("0|-?[1-9][0-9]{0,17}", value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def list_in(value: JsonValue) -> Sequence[JsonValue] | None:
    """Return a list, or the list of texts that a text spells; None for all else.

    JSON, Python and numpy (`['a' 'b']`) write such lists; Python would join numpy's words.
    """
    if not isinstance(value, str):
        return value if isinstance(value, list) else None
    quiet = (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER)
    try:
        found = [
            token
            for token in tokenize.generate_tokens(io.StringIO(value.strip()).readline)
            if token.type not in quiet
        ]
        words = [literal_eval(t.string) for t in found if t.type == tokenize.STRING]
    except (tokenize.TokenError, SyntaxError, ValueError):
        return None
    marks, end = "", (0, 0)
    for t in found:
        # 'it''s' is one word to some, two to others
        marks += " " if t.type == tokenize.STRING and t.start > end else ""
        marks += "w" if t.type == tokenize.STRING else t.string
        end = t.end
    if not re.fullmatch(r"\[ ?w(( w)*|(, ?w)*,?)\]", marks) or not all(
        isinstance(w, str) for w in words
    ):
        return None
    return words
