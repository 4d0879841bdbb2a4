"""Markdown tables from text that others wrote: names and settings cannot break a row. Pure."""

from collections.abc import Sequence

__all__ = ["cell", "table"]

SPECIAL = "\\`*[]<|"


def cell(text: str) -> str:
    """Return free text as one table cell shows it: one line, nothing of it read as Markdown.

    Characters that have no picture (a terminal's escape codes) become the replacement character.
    """
    line = " ".join(text.split())
    shown = (char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return "".join("\\" + char if char in SPECIAL else char for char in shown)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the caller passes free text through :func:`cell`.

    Raises:
        ValueError: a row has not as many cells as the head.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"{len(row)} cells below {len(head)} headings")
    lines = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
