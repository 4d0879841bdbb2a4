"""A suite's tables as Markdown, between markers in its README. Pure."""

from collections.abc import Iterator, Sequence
from urllib.parse import quote

from ilubench.errors import DataError
from ilubench.leaderboard.records.files import Board
from ilubench.leaderboard.records.models import Entry, Reported
from ilubench.leaderboard.site.best_attack import best_attack
from ilubench.leaderboard.site.ranked import EntryGroup, MetricRanks, Place
from ilubench.leaderboard.site.reported import provenance, reported_tables
from ilubench.records.columns import columns_at, headings
from ilubench.records.figure_text import figure_cell
from ilubench.records.finished import REFERENCES
from ilubench.records.labels import RA_CORE
from ilubench.records.markdown import cell, table
from ilubench.records.wording import table_note_texts
from ilubench.reports.leaders import leaders_across, leaders_text
from ilubench.reports.ranking import metric_title, rank_cell
from ilubench.statistics.ranks import table_text
from ilubench.statistics.row import RobustnessRow

__all__ = ["BEGIN", "END", "readme_text"]

BEGIN = "<!-- tables: made by `ilubench leaderboard build`; edit outside of these two lines -->"
END = "<!-- end of tables -->"

HOW = (
    f"95 % intervals over seeds and items. Ranks are by {RA_CORE} (paired by seed and item, "
    "two-sided, alpha .05, Holm over all pairs of the table), and ranges: from 1 + the number of "
    "rows that are significantly better to the number of rows that are not significantly worse. "
    "Collapsed and diverged rows come last and have none, like the references. Every figure "
    "follows from the samples that a row's record points to: `ilubench leaderboard check`."
)

COLUMNS = columns_at("readme")


def readme_text(existing: str | None, board: Board, groups: Sequence[EntryGroup]) -> str:
    """Return a suite's README with its tables anew.

    Args:
        existing: the text that is there; None where there is none.
        board: the suite's records.
        groups: its entries, compared.

    Raises:
        DataError: the text has not one begin and, behind it, one end of the tables.
    """
    tables = f"{BEGIN}\n\n{suite_tables(board, groups)}\n\n{END}"
    if existing is None:
        return f"# {board.suite}\n\n{tables}\n"
    head, begin, rest = existing.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in head or END in tail:
        problem = f"{board.folder / 'README.md'}: no place for the tables, or more than one"
        raise DataError(f"{problem}; it is between the two lines `{BEGIN}` and `{END}`")
    return f"{head}{tables}{tail}"


def suite_tables(board: Board, groups: Sequence[EntryGroup]) -> str:
    """Return all tables of a suite as Markdown."""
    parts: list[str] = []
    for group in groups:
        parts += _group(board, group)
    if not groups:
        parts.append("Nobody has submitted a measured row yet.")
    if board.reported:
        parts += _reported(board.reported)
    return "\n\n".join(parts)


# --- measured rows


def _group(board: Board, group: EntryGroup) -> Iterator[str]:
    version = f"Suite {cell(group.suite)} version {group.suite_version}"
    yield f"{version}, {cell(group.how)}. {HOW}"
    stands = group.stands({entry.entry: cell(entry.title) for entry in group.entries})
    if len(stands) > 1:
        yield f"**{leaders_across(stands)}**"
    for ranks in group.ranks:
        yield f"{metric_title(ranks.metric, ranks.turned)}: 1 = forgotten, 0 = known"
        yield f"**{leaders_text(stands[ranks.metric])}**"
        shown = [
            _cells(board, group, ranks, place)
            for place in sorted(ranks.places, key=lambda one: _order(group, ranks, one))
        ]
        yield table(_head(group, ranks), shown)
        yield "\n".join(_below(ranks))


def _rows(group: EntryGroup, ranks: MetricRanks) -> list[RobustnessRow]:
    return [group.rows[place.entry][ranks.metric] for place in ranks.places]


def _order(group: EntryGroup, ranks: MetricRanks, place: Place) -> tuple[bool, bool, int, int]:
    """References last, before them what fell; else as ranked."""
    row = group.rows[place.entry][ranks.metric]
    is_reference = _entry(group, place).run.method_name in REFERENCES
    return (
        is_reference,
        row.status != "ok",
        place.rank or len(ranks.places),
        ranks.places.index(place),
    )


def _entry(group: EntryGroup, place: Place) -> Entry:
    return next(entry for entry in group.entries if entry.entry == place.entry)


def _head(group: EntryGroup, ranks: MetricRanks) -> list[str]:
    rows = _rows(group, ranks)
    core = next((row.ra_core_attacks for row in rows if row.ra_core_attacks), ())
    return [*headings(COLUMNS, core, group.entries[0].run.benign), "links"]


def _cells(board: Board, group: EntryGroup, ranks: MetricRanks, place: Place) -> list[str]:
    entry, row = _entry(group, place), group.rows[place.entry][ranks.metric]
    disputed = ", **disputed**" if entry.disputed else ""
    own = {
        "rank": rank_cell(place.rank, place.ties, place.note),
        "method": f"[{cell(entry.title)}]({entry.entry}.json)",
        "tier": f"{entry.tier}{disputed}",
    }
    best = best_attack(board, entry.entry, ranks.metric, row.worst_case)
    if best is not None:
        own["worst"] = f"{figure_cell(best.figure)} ({cell(best.title)}, by {cell(best.by)})"
    cells = [own[one.key] if one.key in own else one.text(entry.run, row, cell) for one in COLUMNS]
    return [*cells, _links(code=entry.submission.code, paper=entry.submission.paper)]


def _links(**links: str) -> str:
    """Links to validated addresses; what could end a link or a cell is encoded."""
    found = (f"[{name}]({quote(url, safe=':/?#@!$&+,;=%~')})" for name, url in links.items() if url)
    return ", ".join(found) or "-"


def _below(ranks: MetricRanks) -> Iterator[str]:
    yield table_text(ranks.pairs, ranks.detectable, RA_CORE)
    for text in table_note_texts(ranks.notes):
        yield f"- {cell(text)}"


# --- reported rows


def _reported(rows: Sequence[Reported]) -> Iterator[str]:
    yield (
        "**Reported in papers**, on their own scales and with their own protocols: never ranked, "
        "not comparable with the rows above."
    )
    for one in reported_tables(rows):
        yield f"{cell(one.metric)}, higher = {one.higher_is}"
        body = [[cell(row.title), *map(cell, cells)] for row, cells in one.rows]
        yield table(["method", *map(cell, one.states)], body)
    yield table(["method", "model", "from", "provenance"], [_source(one) for one in rows])


def _source(one: Reported) -> list[str]:
    where = cell(one.where)
    return [
        f"[{cell(one.title)}](reported/{one.entry}.json)",
        cell(one.model),
        f"{where} ({_links(paper=one.paper)})" if one.paper else where,
        provenance(one),
    ]
