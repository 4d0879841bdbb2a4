"""The components of a run's spread, as Markdown."""

from collections.abc import Sequence

import numpy as np

from ilubench.records.wording import note_text
from ilubench.statistics.spread import VarianceTable

__all__ = ["variance_text"]


def variance_text(tables: Sequence[VarianceTable]) -> str:
    """Return the tables as Markdown, one line a component."""
    lines = [
        "| metric | figure | component | sd | 95 % interval of the sd | share of a single score "
        "| share of the mean's variance |",
        "|" + "---|" * 7,
    ]
    for table in tables:
        head = f"| {table.metric} | {table.figure} ({table.levels})"
        if table.note:
            lines.append(f"{head} | {note_text(table.note)} | | | | |")
        for part in table.components:
            low, high = np.sqrt([part.low, part.high])
            note = "" if part.negative is None else f" (estimate {part.negative:.2g} set to 0)"
            lines.append(
                f"{head} | {part.name} | {np.sqrt(part.variance):.4f}{note} | {low:.4f}-{high:.4f} "
                f"| {part.cell_share:.0%} | {part.mean_share:.0%} |"
            )
    return "\n".join(lines)
