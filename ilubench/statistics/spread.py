"""Where the spread of f_u and RA comes from: seeds, data orders, items. Pure.

The components are those of :mod:`ilubench.statistics.variance_components`.

**What a run's samples can separate.** A run's seed sets the unlearning and the attack's data order
together (the streams differ, but both derive from it), and the items are crossed with it:

- of f_u, `seed` is the unlearning alone: no attack has begun;
- of RA, `seed` is unlearning + order + their interaction; no run can split it;
- of RA by attack, an unlearned model is shared by all attacks of its seed, while each attack has an
  order of its own. `seed` is then what the attacks of a seed share, which is the unlearning;
  `attack x seed` is the order *and* how differently attacks act on one unlearned model: an upper
  bound for the order. The attacks are a fixed choice, not a sample: no component of their own.

Components of different figures (f_u and RA) are not differences of each other. To separate target,
unlearning and order, cross them: train each of T targets, unlearn each with U seeds, attack each
model with O orders, and give :func:`~ilubench.statistics.variance_components.components` the table
``Factorial(scores, ("target", "unlearn", "order", "item"), levels)``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from ilubench.errors import DataError
from ilubench.statistics.intervals import (
    ROUNDING,
    Samples,
    all_items,
    score_table,
    shared_seeds,
    stack,
)
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import FA, quartile_steps
from ilubench.statistics.variance_components import (
    MIN_LEVELS,
    Component,
    Factorial,
    Level,
    components,
)

__all__ = ["VarianceTable", "variance_report"]


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


def variance_report(samples: pa.Table, *, scorers: Sequence[str] = ()) -> tuple[VarianceTable, ...]:
    """Return the components of f_u, RA and RA by attack, for each metric of a run.

    The unlearned model's samples, or the original's in a run of the original alone. Metrics are on
    their own scale; turning one round changes no component. Metrics whose items carry a class (an
    area under a curve is no mean of them) and fine-tuning accuracy are left out. Components are
    taken over the seeds and items that all attacks share.

    Args:
        samples: a run's `samples.parquet`.
        scorers: names of the scorers to report; all where empty.

    Raises:
        DataError: no samples, or a checkpoint of an attack that some seed lacks.
    """
    tables = _read(samples)
    stepless = _stepless(samples)
    known = sorted({scorer for scorer, _ in tables})
    missing = [name for name in scorers if name not in known]
    if missing or not tables:
        raise DataError(f"no samples of {', '.join(missing) or 'any metric'}; there are {known}")
    report: list[VarianceTable] = []
    for (scorer, metric), attacks in sorted(tables.items()):
        if scorers and scorer not in scorers:
            continue
        label = f"{scorer}.{metric}"
        unlearned = attacks.pop("", None)
        if unlearned is not None:
            report.append(_decomposed(label, "f_u", [score_table(unlearned[0], label)]))
        if attacks:
            courses = [
                _quartile_mean(course, label, stepless=attack in stepless)
                for attack, course in attacks.items()
            ]
            report.append(_decomposed(label, "RA", courses))
        if len(attacks) > 1:
            report.append(_decomposed(label, "RA by attack", courses, tuple(attacks)))
    return tuple(report)


# --- a run's samples ---

_BySeed: TypeAlias = dict[int, dict[str, float]]
"""Seed -> item -> value."""


def _read(samples: pa.Table) -> dict[tuple[str, str], dict[str, dict[int, _BySeed]]]:
    """(scorer, metric) -> attack -> step -> seed -> item -> value."""
    names = ["who", "attack", "seed", "step", "scorer", "metric", "item", "value"]
    columns = [samples[name].to_pylist() for name in names]
    labels = (
        samples["label"].to_pylist() if "label" in samples.column_names else [""] * len(samples)
    )
    who = "method" if "method" in columns[0] else "reference"
    found: dict[tuple[str, str], dict[str, dict[int, _BySeed]]] = {}
    classes = set()
    for label, (own, attack, seed, step, scorer, metric, item, value) in zip(
        labels, zip(*columns, strict=True), strict=True
    ):
        if own != who or scorer == FA:
            continue
        if label:
            classes.add((scorer, metric))
        course = found.setdefault((scorer, metric), {}).setdefault(attack, {})
        course.setdefault(step, {}).setdefault(seed, {})[item] = value
    return {key: value for key, value in found.items() if key not in classes}


def _stepless(samples: pa.Table) -> set[str]:
    """Attacks that take no steps: their checkpoints have levels."""
    if "level" not in samples.column_names:
        return set()
    pairs = zip(samples["attack"].to_pylist(), samples["level"].to_pylist(), strict=True)
    return {attack for attack, level in pairs if level}


def _quartile_mean(course: Mapping[int, _BySeed], what: str, *, stepless: bool) -> Samples:
    """Each seed's and item's mean over the quartile steps of one attack, or over all its levels."""
    steps = sorted(course)
    chosen = steps if stepless else quartile_steps(steps)
    tables = [score_table(course[step], what) for step in chosen]
    seeds, items = shared_seeds(tables), all_items(tables)
    return Samples(stack(tables, seeds, items).mean(axis=0), seeds, items)


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
    cells = stack([_only(table, items) for table in tables], seeds, items)
    axes: tuple[tuple[Level, ...], ...] = (tuple(seeds), tuple(items))
    if np.ptp(cells) <= ROUNDING * np.abs(cells).max():
        return VarianceTable(metric, figure, levels, (), Note(NoteKind.ALL_EQUAL))
    if attacks:
        table = Factorial(cells, ("attack", "seed", "item"), (attacks, *axes))
        return VarianceTable(metric, figure, levels, components(table, fixed=("attack",)))
    table = Factorial(cells.mean(axis=0), ("seed", "item"), axes)
    return VarianceTable(metric, figure, levels, components(table))


def _only(table: Samples, items: Sequence[str]) -> Samples:
    column = {item: k for k, item in enumerate(table.items)}
    values = table.values[:, [column[item] for item in items]]
    return Samples(values, table.seeds, tuple(items))
