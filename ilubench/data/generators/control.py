"""Content-free text: another table's rows with every word replaced."""

import random
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from pydantic import Field, JsonValue

from ilubench.errors import DataError, did_you_mean
from ilubench.interfaces import Generator, Row

__all__ = ["ContentFree"]

_WORD = re.compile(r"[^\W_]+")

_FILLER = """
a ab ad et in ut ac id at est non sed cum per sit vel qui quo nec sub ante cras diam dolor duis eget
elit enim erat eros felis fusce justo lacus magna massa metus morbi nibh nulla nunc odio orci porta
purus risus sapien velit vitae aenean aliquam aliquet commodo congue dapibus egestas feugiat finibus
gravida iaculis integer lacinia laoreet luctus mattis mauris molestie mollis natoque ornare placerat
posuere pretium pulvinar rhoncus rutrum sagittis semper suscipit tempor tincidunt tortor tristique
turpis ultrices vehicula vestibulum vivamus volutpat vulputate bibendum condimentum consectetur
consequat convallis curabitur dignissim efficitur elementum fermentum fringilla hendrerit imperdiet
lobortis maecenas malesuada pellentesque scelerisque sollicitudin ullamcorper
"""

WORDS = tuple(_FILLER.split())
"""Such as stand in filler text: no sentence of them says anything."""


class ContentFree(Generator):
    """Text of the same shape as other text, and without what it says.

    Each input gives a table of its own name. In every text, and in those within lists, each run of
    letters or digits is replaced by a random word of about its length; spaces, lines and marks
    stay, as do ids and numbers in a column of their own.

    Attributes:
        seed: of the words.
        words: that stand for the others.
        columns: whose text is replaced; none: all but `id`.
    """

    version: ClassVar[int] = 1

    seed: int = 0
    words: tuple[str, ...] = Field(default=WORDS, min_length=2)
    columns: tuple[str, ...] = ()

    def tables(self, inputs: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        """Return a table an input.

        Raises:
            DataError: a row lacks a column, or has no text to replace.
        """
        by_length: dict[int, list[str]] = {}
        for word in self.words:
            by_length.setdefault(len(word), []).append(word)
        lengths = sorted(by_length)

        def free(name: str, number: int, row: Row) -> Row:
            rng = random.Random(f"{self.seed}:{name}:{number}")

            def other(found: re.Match[str]) -> str:
                place = bisect_left(lengths, len(found[0]))
                near = lengths[max(0, place - 1) : place + 2]
                return rng.choice([word for length in near for word in by_length[length]])

            where = f"{name} row {number}"
            for column in self.columns:
                if column not in row:
                    remedy = did_you_mean(column, row)
                    raise DataError(f"{where}: column {column!r} is missing; {remedy}")
            chosen = self.columns or [column for column in row if column != "id"]
            changed = {column: _replaced(row[column], other) for column in chosen}
            if all(changed[column] == row[column] for column in chosen):
                raise DataError(f"{where}: no column has text to replace")
            return {**row, **changed}

        return {
            name: [free(name, number, row) for number, row in enumerate(rows, 1)]
            for name, rows in inputs.items()
        }


def _replaced(value: JsonValue, other: Callable[[re.Match[str]], str]) -> JsonValue:
    if isinstance(value, str):
        return _WORD.sub(other, value)
    if isinstance(value, list):
        return [_replaced(one, other) for one in value]
    return value
