"""Finished runs: how stable their order by RA_core is over halves of the seeds, as Markdown."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from ilubench.errors import DataError
from ilubench.records.comparing import common_labels
from ilubench.records.finished import FinishedRun
from ilubench.records.labels import RA_CORE
from ilubench.records.markdown import cell, table
from ilubench.records.run_names import run_names
from ilubench.records.wording import note_text
from ilubench.statistics.aggregate import ra_samples
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.rank_stability import Stability, rank_stability

__all__ = ["MetricStability", "stability_json", "stability_of", "stability_text"]


@dataclass(frozen=True, slots=True)
class MetricStability:
    """One primary metric.

    Attributes:
        metric: its label.
        attacks: over which RA_core is taken.
        found: of the methods that can have a rank.
        left_out: the other runs, and why.
    """

    metric: str
    attacks: tuple[str, ...]
    found: Stability
    left_out: tuple[tuple[str, Note], ...]


def stability_of(runs: Sequence[FinishedRun]) -> tuple[MetricStability, ...]:
    """Return each primary metric's stability of the order by RA_core.

    Args:
        runs: of the methods; those that can have no rank are left out.

    Raises:
        UsageError: the runs are not alike; names two of them.
        DataError: fewer than three methods that can have a rank, or fewer than two shared seeds.
    """
    labels = common_labels(runs)
    named = dict(zip(run_names(runs), runs, strict=True))
    return tuple(_metric(label, named) for label in labels)


def _metric(label: str, named: dict[str, FinishedRun]) -> MetricStability:
    no_row = Note(NoteKind.NO_ROW)
    barred = {name: r.bar(label) if label in r.rows else no_row for name, r in named.items()}
    left_out = tuple((name, why) for name, why in barred.items() if why is not None)
    free = {name: run for name, run in named.items() if barred[name] is None}
    core = next((run.rows[label].ra_core_attacks for run in free.values()), ())
    tables = {
        name: ra_samples([c for c in run.scores(label).courses if c.attack in core])
        for name, run in free.items()
    }
    try:
        return MetricStability(label, core, rank_stability(tables), left_out)
    except DataError as error:
        why = "; ".join(f"{name}: {note_text(reason)}" for name, reason in left_out)
        raise DataError(f"{label}: {error}" + (f" (left out: {why})" if why else "")) from error


def stability_text(tables: Sequence[MetricStability]) -> str:
    """Return the figures as a Markdown table, a line a metric, and which runs were left out."""
    head = ["metric", "methods", "seeds", "halves", "splits", "tau-b, mean", "tau-b, least"]
    body = [_line(one) for one in tables]
    names = dict.fromkeys(name for one in tables for name in one.found.methods)
    core = ", ".join(tables[0].attacks)
    lines = [
        f"Order by {RA_CORE} over {{{cell(core)}}} in one half of the seeds against the other: "
        "1 the same, 0 unrelated, -1 reversed. The splits overlap: their spread is no interval.",
        table(head, body),
        f"methods: {cell(', '.join(names))}",
    ]
    lines += dict.fromkeys(
        f"- left out: {cell(name)} ({cell(note_text(why))})"
        for one in tables
        for name, why in one.left_out
    )
    return "\n\n".join(lines[:3]) + "".join(f"\n{line}" for line in lines[3:])


def _line(one: MetricStability) -> list[str]:
    found = one.found
    note = f" ({found.undefined} without: all methods tie)" if found.undefined else ""
    shown = ["undefined" if x is None else f"{x:.3f}" for x in (found.mean, found.least)]
    halves = " and ".join(map(str, found.halves))
    counts = [str(len(found.methods)), str(len(found.seeds)), halves, f"{found.splits}{note}"]
    return [cell(one.metric), *counts, *shown]


def stability_json(tables: Sequence[MetricStability]) -> list[JsonValue]:
    """Return the figures as plain values."""
    return [
        {
            "metric": one.metric,
            "attacks": list(one.attacks),
            **dataclasses.asdict(one.found),
            "left_out": {name: dataclasses.asdict(why) for name, why in one.left_out},
        }
        for one in tables
    ]
