"""A re-run beside the committed rows: has a figure left its interval?

On one kind of machine a seed repeats its scores bit by bit: a re-run with the record's seeds and
scores has not moved, and needs no interval. Else the yardstick is the prediction interval for fresh
seeds (:mod:`ilubench.leaderboard.records.prediction`). With k of the record's S seeds run again and
a correlation r >= 0 of a seed's two scores, the difference of the means has the variance
``v (1/k + 1/S - 2 r/S)``, largest at r = 0, fresh seeds: the interval is at most too wide.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.errors import DataError, UsageError
from ilubench.records.likeness import setting_differences
from ilubench.records.markdown import cell, table
from ilubench.records.scores import plain_samples

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pydantic import JsonValue

    from ilubench.leaderboard.records.files import Board
    from ilubench.leaderboard.records.models import Comparison, Entry
    from ilubench.records.finished import FinishedRun

__all__ = ["Tracked", "compare_with_records", "missing", "tracking_json", "tracking_text"]

MEASURED = "measured"
"""Folder in a suite's folder with the runs that were made here."""

KEYS = ("who", "attack", "seed", "step", "level", "scorer", "metric", "item")
"""What names a score."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A re-run, compared with its entry.

    Attributes:
        entry: the entry's id; empty where there is none.
        path: of the re-run.
        seeds: of the re-run.
        equal: share of the re-run's scores that are the record's, 0-1.
        figures: compared; none where all scores are equal, or `problem` says why.
        problem: why nothing could be compared; that counts as having left.
    """

    entry: str
    path: Path
    seeds: tuple[int, ...]
    equal: float = 0.0
    figures: tuple[Comparison, ...] = ()
    problem: str = ""

    @property
    def left(self) -> tuple[Comparison, ...]:
        """The figures that left their interval."""
        return tuple(figure for figure in self.figures if figure.disputed)

    @property
    def fine(self) -> bool:
        """Whether the re-run says the same as the record."""
        return not self.problem and not self.left


def compare_with_records(board: Board, rerun: FinishedRun) -> Tracked:
    """Compare a re-run with the entry of the same method, version and settings.

    Args:
        board: the suite's records.
        rerun: a finished run of the suite, with two seeds at least, or one that repeats the
            record's scores.

    Raises:
        DataError: the record or the re-run contradicts its own samples.
    """
    from ilubench.leaderboard.records.files import read_entry_run

    seeds = rerun.record.seeds
    entry = next((one for one in board.entries if not _method_differences(one, rerun)), None)
    if entry is None:
        return Tracked("", rerun.path, seeds, problem=_no_entry(board, rerun))
    record = read_entry_run(entry, board.folder)
    equal = _equal(record, rerun)
    problem = _changed(record, rerun)
    if problem or (equal == 1.0 and set(seeds) <= set(record.record.seeds)):
        return Tracked(entry.entry, rerun.path, seeds, equal, problem=problem)
    try:
        figures = _compared(record, rerun)
    except (UsageError, DataError) as error:
        return Tracked(entry.entry, rerun.path, seeds, equal, problem=str(error))
    return Tracked(entry.entry, rerun.path, seeds, equal, figures)


def missing(board: Board, tracked: Iterable[Tracked]) -> tuple[str, ...]:
    """Return the rows of the runs that lie in the board itself and were not run again.

    Rows that were sent in are not counted: their methods need not be at hand.
    """
    found = {one.entry for one in tracked}
    own = (one for one in board.entries if one.samples.path.startswith(f"{MEASURED}/"))
    return tuple(one.entry for one in own if one.entry not in found)


def tracking_text(tracked: Sequence[Tracked], lacking: Sequence[str] = ()) -> str:
    """Return the comparison as Markdown: a table of all figures, then a line a re-run."""
    head = ["entry", "metric", "figure", "record", "re-run", "difference", ""]
    rows = [
        [
            cell(one.entry),
            cell(figure.metric),
            cell(figure.figure),
            f"{figure.submitted:.3f}",
            f"{figure.verified:.3f}",
            f"{figure.verified - figure.submitted:+.3f} [{figure.low:.3f}, {figure.high:.3f}]",
            "LEFT" if figure.disputed else "",
        ]
        for one in tracked
        for figure in one.figures
    ]
    lines = [f"- {_line(one)}" for one in tracked]
    lines += [f"- {cell(name)}: not run again" for name in lacking]
    return "\n\n".join([*([table(head, rows)] if rows else []), "\n".join(lines)])


def tracking_json(tracked: Sequence[Tracked], lacking: Sequence[str] = ()) -> dict[str, JsonValue]:
    """Return the comparison as plain values."""
    return {
        "runs": [
            {
                "entry": one.entry,
                "path": str(one.path),
                "seeds": list(one.seeds),
                "equal": one.equal,
                "figures": [
                    {**figure.model_dump(mode="json"), "left": figure.disputed}
                    for figure in one.figures
                ],
                "problem": one.problem,
            }
            for one in tracked
        ],
        "missing": list(lacking),
    }


# --- inside ---


def _line(one: Tracked) -> str:
    who = cell(f"{one.entry or one.path} (seeds {', '.join(map(str, one.seeds))})")
    if one.problem:
        return f"{who}: {cell(one.problem)}"
    if not one.figures:
        return f"{who}: all scores are the record's"
    found = f"{len(one.left)} of {len(one.figures)} figures left their interval"
    return f"{who}: {found}; {one.equal:.1%} of the scores are the record's"


def _method_differences(entry: Entry, rerun: FinishedRun) -> list[str]:
    """What an entry's method and a re-run's differ in."""
    one, other = entry.run, rerun.record
    pairs = [
        ("suite version", one.suite_version, other.suite_version),
        ("method", one.method_name, other.method_name),
        ("method version", one.method_version, other.method_version),
        *setting_differences(one.method.get("settings"), other.method.get("settings")),
    ]
    return [f"{what} ({a} and {b})" for what, a, b in pairs if a != b]


def _no_entry(board: Board, rerun: FinishedRun) -> str:
    use = rerun.record.method_name
    named = {one.entry: _method_differences(one, rerun) for one in board.entries}
    same = {
        name: found for name, found in named.items() if board.entry(name).run.method_name == use
    }
    if not same:
        return f"{board.folder} has no entry of {use}; submit one, or leave the run out"
    nearest = min(same, key=lambda name: len(same[name]))
    return (
        f"no entry of {use} is like it: {nearest} differs in {', '.join(same[nearest])}; run it "
        "with the record's settings, or raise the version and submit anew"
    )


def _changed(record: FinishedRun, rerun: FinishedRun) -> str:
    """Say what no interval shows: other attacks, a row that collapsed, diverged, is incomplete."""
    one, other = (sorted(run.record.attacks) for run in (record, rerun))
    if one != other:
        return (
            f"attacked with {', '.join(other) or 'nothing'}, and the record's with {', '.join(one)}"
        )
    for label, row in record.rows.items():
        again = rerun.rows.get(label)
        status = "missing" if again is None else again.status
        if status != row.status:
            return f"{label} is {status} in the re-run, and {row.status} in the record"
    return ""


def _equal(record: FinishedRun, rerun: FinishedRun) -> float:
    """Share of the re-run's scores that the record has, with exactly that value."""
    if record.samples is None or rerun.samples is None or not len(rerun.samples):
        return 0.0
    before = record.samples.filter(pc.equal(record.samples["attack"], ""))
    seeds: dict[str, set[int]] = {}
    for who, seed in zip(before["who"].to_pylist(), before["seed"].to_pylist(), strict=True):
        seeds.setdefault(who, set()).add(seed)
    once = pa.array([who for who, own in seeds.items() if len(own) == 1], pa.string())
    both = _scores(rerun.samples, once).join(
        _scores(record.samples, once), keys=[*KEYS, "value"], join_type="left semi"
    )
    return len(both) / len(rerun.samples)


def _scores(samples: pa.Table, once: pa.Array) -> pa.Table:
    """The scores by name; a model that was scored once for all seeds stands under any of them."""
    shared = pc.and_(pc.equal(samples["attack"], ""), pc.is_in(samples["who"], once))
    seed = pc.if_else(shared, pa.scalar(0, pa.int64()), samples["seed"])
    place = samples.column_names.index("seed")
    return plain_samples(samples.set_column(place, "seed", seed).select([*KEYS, "value"]))


def _compared(record: FinishedRun, rerun: FinishedRun) -> tuple[Comparison, ...]:
    """The prediction intervals for fresh seeds; the re-run's are numbered as such."""
    from ilubench.leaderboard.records.prediction import compare_runs

    return compare_runs(record, _renumbered(rerun, record.record.seeds))


def _renumbered(rerun: FinishedRun, taken: Sequence[int]) -> FinishedRun:
    """The run under other seeds' numbers, in their order, so that none is the record's.

    A comparison for fresh seeds refuses those that are no new evidence; here the interval is the
    one that is wide enough for both (see the module).
    """
    seeds = rerun.record.seeds
    shift = max((*seeds, *taken)) + 1 - min(seeds)
    moved = rerun.record.model_copy(
        update={
            "run": f"{rerun.record.run} (again)",
            "seeds": tuple(seed + shift for seed in seeds),
        }
    )
    samples = rerun.samples
    if samples is not None:
        place = samples.column_names.index("seed")
        column = pc.add(samples["seed"], pa.scalar(shift, pa.int64()))
        samples = samples.set_column(place, "seed", column)
    return dataclasses.replace(rerun, record=moved, samples=samples)
