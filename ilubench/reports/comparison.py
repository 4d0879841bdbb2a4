"""Two finished runs: how their figures differ, paired by seed and item, and their settings."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from ilubench.errors import DataError, UsageError
from ilubench.records.comparing import common_labels
from ilubench.records.figure_text import figure_cell
from ilubench.records.finished import FinishedRun
from ilubench.records.labels import F_U, RA
from ilubench.records.likeness import setting_differences
from ilubench.records.markdown import cell, table
from ilubench.records.run_names import run_names
from ilubench.statistics.aggregate import ra_samples
from ilubench.statistics.bounds import Range, cut_difference, keep_within
from ilubench.statistics.intervals import (
    Figure,
    Samples,
    no_figure,
    paired_difference,
    pick_items,
    table_mean,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import Course, MethodRuns

__all__ = ["Comparison", "Difference", "compare_runs", "comparison_json", "comparison_text"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A figure of both runs.

    Attributes:
        metric: a primary forget metric, a utility metric, or FA.
        what: after unlearning, the mean under the attacks that both have, or an attack's end.
        first: of the first run.
        second: of the second.
        difference: second - first, paired by the seeds and items that both have.
    """

    metric: str
    what: str
    first: Figure
    second: Figure
    difference: Figure


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs.

    Attributes:
        names: of the runs.
        settings: field of the method -> its values.
        figures: that both have.
    """

    names: tuple[str, str]
    settings: tuple[tuple[str, str, str], ...]
    figures: tuple[Difference, ...]


def compare_runs(first: FinishedRun, second: FinishedRun) -> Comparison:
    """Return how the second run differs from the first.

    Raises:
        UsageError: the runs are not alike in anything but their methods and seeds, or one lies
            beside no samples.
        DataError: a run's record says otherwise than its samples.
    """
    runs = (first, second)
    for run in runs:
        if run.samples is None:
            problem = f"{run.path}: {run.unread}: figures are paired item by item"
            raise UsageError(f"{problem}; give the run's folder")
    labels = common_labels(runs)
    one, other = run_names(runs)
    found = [line for label in labels for line in _forgetting(label, first, second)]
    found += _utility(labels[0], first, second)
    found += _fine_tuning(labels[0], first, second)
    settings = setting_differences(first.record.method, second.record.method)
    told = tuple((name, _word(a), _word(b)) for name, a, b in settings)
    return Comparison((one, other), told, tuple(found))


def comparison_text(found: Comparison) -> str:
    """Return the comparison as Markdown."""
    one, other = map(cell, found.names)
    parts = [f"{other} against {one}. Figures of forgetting: higher = better forgotten."]
    if found.settings:
        lines = [[cell(text) for text in line] for line in found.settings]
        parts.append(table(["setting", one, other], lines))
    figures = [
        [cell(line.metric), cell(line.what)]
        + [figure_cell(figure) for figure in (line.first, line.second, line.difference)]
        for line in found.figures
    ]
    parts.append(table(["metric", "", one, other, f"{other} - {one}"], figures))
    told = "Differences are paired by the seeds and items that both runs have; 95 % intervals, "
    parts.append(f"{told}one at a time (many of them are not one test).")
    paired = [line for line in found.figures if line.difference.value is not None]
    sides = zip(*((x.first, x.second, x.difference) for x in paired), strict=True)
    counts = [max(figure.n_seeds for figure in side) for side in sides]
    if len(set(counts)) > 1:
        told = f"{one} has {counts[0]} seeds, {other} {counts[1]}, and both have {counts[2]}"
        parts.append(f"{told}: a difference is not that of the two columns.")
    return "\n\n".join(parts)


def comparison_json(found: Comparison) -> JsonValue:
    """Return the comparison as JSON has it."""
    return cast("JsonValue", dataclasses.asdict(found))


# --- inside ---


def _word(value: object) -> str:
    return "-" if value is None else str(value)


def _forgetting(label: str, first: FinishedRun, second: FinishedRun) -> Iterator[Difference]:
    a, b = first.scores(label), second.scores(label)
    bounds = first.ranges(label).forget
    after = f"after unlearning ({F_U})"
    unlearned = (a.unlearned_forget, b.unlearned_forget)
    yield _paired(label, after, *unlearned, bounds, seeds=_seeds(a, b))
    benign = [c.attack for c in a.courses if not c.further and b.course(c.attack) is not None]
    if benign:
        mine, other = (
            ra_samples([course for course in runs.courses if course.attack in benign])
            for runs in (a, b)
        )
        yield _paired(label, f"{RA} over {', '.join(benign)}", mine, other, bounds)
    for one, two in _shared(a, b):
        yield _paired(label, f"after {one.attack}", one.forget[-1], two.forget[-1], bounds)


def _utility(label: str, first: FinishedRun, second: FinishedRun) -> Iterator[Difference]:
    a, b = first.scores(label), second.scores(label)
    for spec, x, y, bounds in zip(
        first.measured_suite.utility,
        a.unlearned_utility,
        b.unlearned_utility,
        first.ranges(label).utility,
        strict=True,
    ):
        yield _paired(spec.label, "after unlearning", x, y, bounds, seeds=_seeds(a, b))


def _fine_tuning(label: str, first: FinishedRun, second: FinishedRun) -> Iterator[Difference]:
    bounds = first.ranges(label).fa
    for mine, other in _shared(first.scores(label), second.scores(label)):
        if mine.fa and other.fa:
            after = f"after {mine.attack}"
            yield _paired("FA", after, mine.fa[-1], other.fa[-1], bounds[mine.attack])


def _shared(a: MethodRuns, b: MethodRuns) -> Iterator[tuple[Course, Course]]:
    """The courses of the attacks that both have."""
    for mine in a.courses:
        other = b.course(mine.attack)
        if other is not None:
            yield mine, other


def _seeds(*both: MethodRuns) -> list[set[int]]:
    """The seeds that each run attacked."""
    return [{seed for course in runs.courses for seed in course.forget[-1].seeds} for runs in both]


def _paired(
    metric: str,
    what: str,
    a: Samples,
    b: Samples,
    bounds: Range,
    seeds: Sequence[set[int]] = (set(), set()),
) -> Difference:
    """Return a figure of both; ``seeds``: those that a single score of a run may stand for."""
    x, y = (_spread(table, more) for table, more in zip((a, b), seeds, strict=True))
    try:
        difference = cut_difference(paired_difference(y, x, what), bounds)
    except DataError:  # other seeds, or other items
        difference = no_figure(Note(NoteKind.NO_SHARED_SEED))
    mine, other = (keep_within(table_mean(samples), bounds) for samples in (a, b))
    return Difference(metric, what, mine, other, difference)


def _spread(table: Samples, seeds: set[int]) -> Samples:
    """A model without randomness was scored once, for all the seeds that it was attacked with."""
    if len(table.seeds) > 1 or not seeds - {*table.seeds}:
        return table
    every = tuple(sorted({*table.seeds, *seeds}))
    return Samples(pick_items(table, every, table.items), every, table.items)
