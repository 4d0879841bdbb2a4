"""Markdown tables, read back."""

from __future__ import annotations

import re


def split(line: str) -> list[str]:
    """The cells of a Markdown row, escapes undone."""
    parts = re.findall(r"(?:\\.|[^|\\])*", line.strip().removeprefix("|").removesuffix("|"))
    return [re.sub(r"\\(.)", r"\1", part).strip() for part in parts if part]


def rows_of(text: str, place: int = 0) -> dict[str, dict[str, str]]:
    """Method -> heading -> cell, of the table at that place."""
    blocks = [block for block in text.split("\n\n") if block.startswith("|")]
    head, _, *body = map(split, blocks[place].splitlines())
    assert all(len(cells) == len(head) for cells in body), body
    return {
        dict(zip(head, c, strict=True))["method"]: dict(zip(head, c, strict=True)) for c in body
    }
