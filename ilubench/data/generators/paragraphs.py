"""Text of which only the longer rows are worth training on."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from ilubench.errors import DataError
from ilubench.interfaces import Generator, Row

__all__ = ["Paragraphs"]


class Paragraphs(Generator):
    """Rows whose text has enough characters: WikiText is full of empty lines and headings.

    Each input gives a table of its own name.

    Attributes:
        column: of the text.
        longer_than: characters that a text must exceed; 50, as in the code published with WMDP.
    """

    version: ClassVar[int] = 1

    column: str = "text"
    longer_than: int = Field(default=50, ge=0)

    def tables(self, inputs: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        """Return a table an input.

        Raises:
            DataError: a row has no text, or no row is long enough.
        """
        return {name: self._kept(name, rows) for name, rows in inputs.items()}

    def _kept(self, name: str, rows: Sequence[Row]) -> Sequence[Row]:
        kept = []
        for number, row in enumerate(rows, 1):
            text = row.get(self.column)
            if not isinstance(text, str):
                raise DataError(f"{name} row {number} has no text in column {self.column!r}")
            if len(text) > self.longer_than:
                kept.append(row)
        if not kept:
            raise DataError(
                f"{name}: no text of {len(rows)} has over {self.longer_than} characters"
            )
        return kept
