"""Where the spread of f_u and RA comes from: seeds, data orders, items.

The components are those of :mod:`ilubench.statistics.variance_components`.

**What a run's samples can separate.** A run's seed sets the unlearning and the attack's data order
together (the streams differ, but both derive from it), and the items are crossed with it:

- of f_u, `seed` is the unlearning alone: no attack has begun;
- of RA, `seed` is unlearning + order + their interaction; no run can split it;
- of RA by attack, an unlearned model is shared by all attacks of its seed, while each attack has an
  order of its own. `seed` is then what the attacks of a seed share, which is the unlearning;
  `attack x seed` is the order *and* how differently attacks act on one unlearned model: an upper
  bound for the order. The attacks are a fixed choice, not a sample: no component of their own.

Components of different figures (f_u and RA) are not differences of each other.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ilubench.errors import DataError
from ilubench.records.labels import F_U
from ilubench.records.scores import Measured, own_samples, scored_courses
from ilubench.records.trials import has_trials
from ilubench.records.wording import note_text
from ilubench.statistics.intervals import (
    ROUNDING,
    Samples,
    all_items,
    pick_items,
    shared_seeds,
    stack_tables,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import FA, quartile_steps
from ilubench.statistics.variance_components import (
    MIN_LEVELS,
    Component,
    Factorial,
    Level,
    decompose_variance,
)

__all__ = ["VarianceTable", "variance_report", "variance_text"]


@dataclass(frozen=True, slots=True)
class VarianceTable:
    """The components of one figure of one metric; none where ``note`` says why.

    ``levels`` is the number of levels of each factor, such as ``5 seed x 128 item``.
    """

    metric: str
    figure: str
    levels: str
    components: tuple[Component, ...]
    note: Note | None = None


def variance_report(samples: pa.Table, further: Collection[str] = ()) -> tuple[VarianceTable, ...]:
    """Return the components of f_u, RA and RA by attack, for each metric of a run.

    Args:
        samples: of the run.
        further: attacks that RA leaves out.

    The unlearned model's samples, or the original's in a run of the original alone. Metrics are on
    their own scale; turning one round changes no component. Metrics whose items carry a class (an
    area under a curve is no mean of them) and fine-tuning accuracy are left out. Components are
    taken over the seeds and items that all attacks share.

    Raises:
        DataError: no samples, or a checkpoint of an attack that some seed lacks.
    """
    labels = samples.filter(pc.not_equal(samples["label"], ""))
    classes = labels.group_by(["scorer", "metric"]).aggregate([]).to_pylist()
    left_out = {(FA, metric) for metric in pc.unique(samples["metric"]).to_pylist()}
    left_out |= {(one["scorer"], one["metric"]) for one in classes}
    found = own_samples(samples)
    unlearned = scored_courses(found.scores)
    courses = {
        attack: scored_courses(runs)
        for attack, runs in found.attacks.items()
        if attack not in further and not has_trials(runs)  # trials have no RA
    }
    metrics = {metric for tables in (unlearned, *courses.values()) for metric in tables} - left_out
    if not metrics:
        raise DataError("no samples of any metric whose items have a mean")
    report: list[VarianceTable] = []
    for metric in sorted(metrics):
        label = ".".join(metric)
        if metric in unlearned:
            report.append(_decomposed(label, F_U, [unlearned[metric][0]]))
        means = {
            attack: _quartile_mean(course[metric], found.attacks[attack])
            for attack, course in courses.items()
            if metric in course
        }
        if means:
            report.append(_decomposed(label, "RA", list(means.values())))
        if len(means) > 1:
            report.append(_decomposed(label, "RA by attack", list(means.values()), tuple(means)))
    return tuple(report)


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


# --- a run's samples ---


def _quartile_mean(course: Mapping[int, Samples], runs: Mapping[int, Measured]) -> Samples:
    """Each seed's and item's mean over the quartile steps of one attack, or over all its levels."""
    steps = sorted(course)
    stepless = any(any(run.levels.values()) for run in runs.values())
    tables = [course[step] for step in (steps if stepless else quartile_steps(steps))]
    seeds, items = shared_seeds(tables), all_items(tables)
    return Samples(stack_tables(tables, seeds, items).mean(axis=0), seeds, items)


def _decomposed(
    metric: str, figure: str, tables: Sequence[Samples], attacks: tuple[str, ...] = ()
) -> VarianceTable:
    """Components over (attack,) seed and item; over the attacks' mean where none are named."""
    seeds = shared_seeds(tables)
    items = sorted(set.intersection(*(set(table.items) for table in tables)))
    levels = f"{len(seeds)} seed x {len(items)} item"
    if attacks:
        levels = f"{len(attacks)} attack x {levels}"
    if len(seeds) < MIN_LEVELS or len(items) < MIN_LEVELS:
        return VarianceTable(metric, figure, levels, (), Note(NoteKind.TOO_FEW_LEVELS))
    cells = np.stack([pick_items(table, seeds, items) for table in tables])
    axes: tuple[tuple[Level, ...], ...] = (tuple(seeds), tuple(items))
    if np.ptp(cells) <= ROUNDING * np.abs(cells).max():
        return VarianceTable(metric, figure, levels, (), Note(NoteKind.ALL_EQUAL))
    if attacks:
        table = Factorial(cells, ("attack", "seed", "item"), (attacks, *axes))
        return VarianceTable(metric, figure, levels, decompose_variance(table, fixed=("attack",)))
    table = Factorial(cells.mean(axis=0), ("seed", "item"), axes)
    return VarianceTable(metric, figure, levels, decompose_variance(table))
