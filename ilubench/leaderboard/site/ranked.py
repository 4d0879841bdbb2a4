"""A suite's entries, compared: who can stand in one table, ranks, recovery at every checkpoint."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ilubench.leaderboard.records.files import Board, read_entry_run
from ilubench.leaderboard.records.models import Entry
from ilubench.records.finished import FinishedRun
from ilubench.records.likeness import conditions_text
from ilubench.reports.item_changes import Changes, changes_of
from ilubench.reports.leaders import Stand
from ilubench.reports.ranking import RankedTable, rank_runs
from ilubench.statistics.intervals import Figure
from ilubench.statistics.notes import Note
from ilubench.statistics.recovery_curve import recovery_curve
from ilubench.statistics.row import RobustnessRow

__all__ = ["EntryGroup", "MetricRanks", "Place", "ranked_groups"]

Curves = dict[str, dict[str, tuple[Figure, ...]]]
"""Primary metric -> attack -> recovery at each checkpoint after the start."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry stands in one metric; ``rank`` is None where ``note`` says why.

    ``ties`` are the entries that it was not told apart from.
    """

    entry: str
    rank: int | None
    note: Note | None
    ties: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MetricRanks:
    """One primary metric.

    Attributes:
        metric: its label.
        turned: what it is of a scorer's own metric.
        places: by rank, then by RA_core; references last.
        pairs: how many pairs of rows the ranks rest on.
        least_seeds: that a pair shares; 0 without pairs.
        detectable: smallest difference of RA_core that (the sharpest pair, every pair) could have
            shown; None where nothing was compared.
        notes: what a reader must know beside the table.
    """

    metric: str
    turned: str
    places: tuple[Place, ...]
    pairs: int
    least_seeds: int
    detectable: tuple[float, float] | None
    notes: tuple[Note, ...]


@dataclass(frozen=True)
class EntryGroup:
    """Entries of a suite that stand in one table: of one suite version, measured alike.

    Attributes:
        suite: its name.
        suite_version: of the suite.
        engine: that scored.
        dtype: of the weights.
        conditions: what the scores depend on besides.
        entries: in the order of their ids.
        rows: entry -> primary metric -> its row.
        ranks: one for each primary metric.
        curves: entry -> recovery at each checkpoint.
    """

    suite: str
    suite_version: int
    engine: str
    dtype: str
    conditions: Mapping[str, str | int]
    entries: tuple[Entry, ...]
    rows: dict[str, dict[str, RobustnessRow]]
    ranks: tuple[MetricRanks, ...]
    curves: dict[str, Curves]
    changes: dict[str, dict[str, tuple[Changes, ...]]]

    def stands(self, names: Mapping[str, str]) -> dict[str, list[Stand]]:
        """Return the ranked rows of each metric; `names` are the entries' titles as shown."""
        return {
            one.metric: [
                Stand(names[place.entry], place.rank, len(place.ties))
                for place in one.places
                if place.rank is not None
            ]
            for one in self.ranks
        }

    @property
    def name(self) -> str:
        """What tells it from the other groups of its suite."""
        return f"{self.suite} {self.suite_version}, {self.how}"

    @property
    def how(self) -> str:
        """How its entries were measured, in words."""
        return f"engine {self.engine}, {self.dtype}, {conditions_text(self.conditions)}"


def ranked_groups(board: Board, *, checked: bool = False) -> tuple[EntryGroup, ...]:
    """Return a suite's entries, compared; the newest version and the largest group first.

    Args:
        board: a suite's records.
        checked: whether the figures were found to follow from the samples; else they are computed
            again.

    Raises:
        UsageError: entries of one group are not alike, hence not comparable.
        DataError: an entry's figures do not follow from its samples.
    """
    apart: dict[tuple[int, str, str, str], list[tuple[Entry, FinishedRun]]] = {}
    for entry in board.entries:
        run = replace(read_entry_run(entry, board.folder), checked=checked)
        record, how = run.record, conditions_text(run.conditions)
        key = (record.suite_version, record.engine, record.dtype, how)
        apart.setdefault(key, []).append((entry, run))
    order = sorted(apart.items(), key=lambda item: (-item[0][0], -len(item[1]), item[0]))
    return tuple(_group(own) for _, own in order)


# --- inside ---


def _group(own: Sequence[tuple[Entry, FinishedRun]]) -> EntryGroup:
    entries, runs = zip(*own, strict=True)
    first = entries[0].run
    return EntryGroup(
        suite=first.suite,
        suite_version=first.suite_version,
        engine=first.engine,
        dtype=first.dtype,
        conditions=runs[0].conditions,
        entries=entries,
        rows={entry.entry: dict(run.rows) for entry, run in zip(entries, runs, strict=True)},
        ranks=_ranks(entries, runs),
        curves={entry.entry: _curves(run) for entry, run in zip(entries, runs, strict=True)},
        changes={entry.entry: _changes(run) for entry, run in zip(entries, runs, strict=True)},
    )


def _ranks(entries: Sequence[Entry], runs: Sequence[FinishedRun]) -> tuple[MetricRanks, ...]:
    ids = {entry.run.run: entry.entry for entry in entries}
    if not any(run.rows for run in runs):
        return ()
    return tuple(_metric(one, ids) for one in rank_runs(runs, _names(entries)).tables)


def _names(entries: Sequence[Entry]) -> list[str]:
    """What the tables call each entry: its title, and its id where another has the same title."""
    times = Counter(entry.title for entry in entries)
    names = [
        one.title if times[one.title] == 1 else f"{one.title} ({one.entry})" for one in entries
    ]
    # a title may be made to look like another's title and id
    return names if len(set(names)) == len(names) else [entry.entry for entry in entries]


def _metric(one: RankedTable, ids: dict[str, str]) -> MetricRanks:
    entry_of = {row.name: ids[row.run.record.run] for row in one.rows}
    places = tuple(
        Place(entry_of[row.name], row.rank, row.note, tuple(entry_of[tie] for tie in row.ties))
        for row in one.rows
    )
    pairs = () if one.ranks is None else one.ranks.pairs
    least = min((pair.difference.n_seeds for pair in pairs), default=0)
    limits = None if one.ranks is None else one.ranks.detectable
    return MetricRanks(one.metric, one.turned, places, len(pairs), least, limits, one.notes)


def _curves(run: FinishedRun) -> Curves:
    found: Curves = {}
    for label in run.rows if run.samples is not None else ():
        mine, original = run.scores(label), run.original(label)
        found[label] = {
            course.attack: recovery_curve(mine, original, course) for course in mine.courses
        }
    return found


def _changes(run: FinishedRun) -> dict[str, tuple[Changes, ...]]:
    return {} if run.samples is None else {label: changes_of(run, label) for label in run.rows}
