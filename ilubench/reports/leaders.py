"""Which rows of a ranked table are best, and how sure that is: one sentence, by rule. Pure.

A row of rank 1 is one than which none is significantly better; two of them cannot be told apart,
since else one would be better. Every other row is worse than at least one above it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Stand", "leaders_across", "leaders_text"]

MOST_NAMES = 10


@dataclass(frozen=True, slots=True)
class Stand:
    """A ranked row: its rank, and how many rows it was not told apart from."""

    name: str
    rank: int
    ties: int


def leaders_text(rows: Sequence[Stand]) -> str:
    """Return the verdict on one metric.

    Args:
        rows: those that are ranked, in the table's order.
    """
    best = [row.name for row in rows if row.rank == 1]
    below = [row.name for row in rows if row.rank > 1]
    if not rows:
        return "No method is ranked."
    if len(rows) == 1:
        return f"{best[0]} is the only ranked method: there is none to compare it with."
    if not below:
        return f"None of the {len(rows)} ranked methods can be told apart from another."
    if len(best) > 1:
        worse = "is" if len(below) == 1 else "and those below are each"
        return (
            f"No single best: {len(best)} of {len(rows)} methods cannot be told apart: "
            f"{_names(best)}. {below[0]} {worse} worse than at least one above."
        )
    ties = next(row.ties for row in rows if row.rank == 1)
    if not ties:
        count = len(below)
        others = (
            f"each of the other {count} ranked methods" if count > 1 else "the other ranked method"
        )
        return f"{best[0]} is better than {others}."
    return (
        f"No method is better than {best[0]}, which is not told apart from {ties} of the other "
        f"{len(below)} ranked methods."
    )


def leaders_across(metrics: Mapping[str, Sequence[Stand]]) -> str:
    """Return the verdict on several metrics: the rows that are of rank 1 in every one."""
    ranks = [{row.name: row.rank for row in rows} for rows in metrics.values()]
    everywhere = [name for name in ranks[0] if all(name in one for one in ranks)]
    if not everywhere:
        return "No method is ranked in every metric."
    best = [name for name in everywhere if all(one[name] == 1 for one in ranks)]
    count = len(metrics)
    if not best:
        firsts = (
            f"{label}: {_names([row.name for row in rows if row.rank == 1])}"
            for label, rows in metrics.items()
        )
        return (
            f"No method is among the best in all {count} metrics. Best in {'; in '.join(firsts)}."
        )
    rest = len(everywhere) - len(best)
    if not rest:
        return (
            f"None of {len(best)} methods can be told apart from another in any of {count} metrics."
        )
    others = "The other one is" if rest == 1 else f"Each of the other {rest} is"
    if len(best) == 1:
        first = f"{best[0]} is the only one of {len(everywhere)} methods that is never worse"
        return f"{first}, in {count} metrics. {others} worse than another in at least one."
    return (
        f"No single best: {len(best)} of {len(everywhere)} methods cannot be told apart from the "
        f"best in any of {count} metrics: {_names(best)}. {others} worse than another in at least "
        "one."
    )


def _names(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMES:
        return f"{', '.join(names[:MOST_NAMES])} and {len(names) - MOST_NAMES} more"
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
