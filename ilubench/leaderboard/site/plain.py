"""The boards as plain tables, for a browser that runs no script. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ilubench.leaderboard.records.files import Board
from ilubench.leaderboard.site.ranked import EntryGroup
from ilubench.leaderboard.site.reported import provenance, reported_tables
from ilubench.records.columns import columns_at, rank_range
from ilubench.records.wording import note_text
from ilubench.reports.leaders import leaders_text

__all__ = ["PlainTable", "plain_tables"]


@dataclass(frozen=True, slots=True)
class PlainTable:
    """A table of texts, and the sentence above it."""

    title: str
    says: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def plain_tables(boards: Sequence[tuple[Board, Sequence[EntryGroup]]]) -> Iterator[PlainTable]:
    """Yield each metric's ranked rows, and what papers report."""
    for board, groups in boards:
        for group in groups:
            yield from _measured(group)
        for one in reported_tables(board.reported):
            rows = tuple((row.title, *cells, provenance(row)) for row, cells in one.rows)
            title = f"{board.suite}, reported in papers: {one.metric}"
            yield PlainTable(
                title, f"higher = {one.higher_is}", ("method", *one.states, "provenance"), rows
            )


def _measured(group: EntryGroup) -> Iterator[PlainTable]:
    columns = columns_at("page")
    entries = {entry.entry: entry for entry in group.entries}
    stands = group.stands({name: entry.title for name, entry in entries.items()})
    for ranks in group.ranks:
        rows = []
        for place in ranks.places:
            entry, row = entries[place.entry], group.rows[place.entry][ranks.metric]
            rank = "-" if place.rank is None else rank_range(place.rank, len(place.ties))
            note = "" if place.rank else f" ({note_text(place.note)})"
            own = {"rank": rank, "method": entry.title + note}
            rows.append(tuple(own.get(one.key) or one.text(entry.run, row) for one in columns))
        head = tuple(column.label for column in columns)
        title = f"{group.suite}, {ranks.metric}: 1 = forgotten, 0 = known"
        yield PlainTable(title, leaders_text(stands[ranks.metric]), head, tuple(rows))
