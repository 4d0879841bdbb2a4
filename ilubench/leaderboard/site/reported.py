"""Rows of papers side by side: one table a metric, a column a state, before -> after. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from ilubench.leaderboard.records.models import Reported

__all__ = ["ReportedTable", "provenance", "reported_tables"]

BEFORE = ("original", "unlearned")


@dataclass(frozen=True, slots=True)
class ReportedTable:
    """What publications say in one metric.

    Attributes:
        metric: as published, with its scale.
        higher_is: what a higher value means.
        states: headings after the method's: before any attack, then the attacks.
        rows: (the record, its cells).
    """

    metric: str
    higher_is: str
    states: tuple[str, ...]
    rows: tuple[tuple[Reported, tuple[str, ...]], ...]


def reported_tables(rows: Sequence[Reported]) -> tuple[ReportedTable, ...]:
    """Return the published figures, in the order in which metrics and attacks first stand."""
    found: dict[tuple[str, str], dict[str, None]] = {}
    for figure in (figure for row in rows for figure in row.figures):
        found.setdefault((figure.metric, figure.higher_is), {})[figure.state] = None
    return tuple(_table(*key, list(states), rows) for key, states in found.items())


def provenance(one: Reported) -> str:
    """Return where a published row was copied from, and whether somebody compared it."""
    source = {"paper": "the paper", "poster": "the poster", "notes": "others' notes"}[one.source]
    return f"checked against {source}" if one.checked else f"unverified, from {source}"


def _table(
    metric: str, higher_is: str, states: Sequence[str], rows: Sequence[Reported]
) -> ReportedTable:
    before = any(state in BEFORE for state in states)
    later = [state for state in states if state not in BEFORE]
    shown = []
    for row in rows:
        values = {
            one.state: f"{one.value:g}"
            for one in row.figures
            if (one.metric, one.higher_is) == (metric, higher_is)
        }
        if values:
            start = next((values[state] for state in BEFORE if state in values), "")
            after = [_change(start, values.get(state)) for state in later]
            shown.append((row, (*([start or "-"] if before else []), *after)))
    heads = (*(["before attacks"] if before else []), *later)
    return ReportedTable(metric, higher_is, heads, tuple(shown))


def _change(start: str, end: str | None) -> str:
    if end is None:
        return "-"
    return f"{start} → {end}" if start else end
