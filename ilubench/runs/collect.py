"""Artifacts of a run -> its samples and its rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ilubench.errors import DataError
from ilubench.experiments.experiment import Experiment
from ilubench.records.chance import sampled_chances
from ilubench.records.ranges import Ranges
from ilubench.records.results import REFERENCE
from ilubench.records.rows import Compared, is_asked, robustness_row
from ilubench.records.scores import (
    SCHEMA,
    WHERE,
    method_samples,
    read_samples,
    read_score,
    scored_checkpoints,
)
from ilubench.runs.plan import Plan
from ilubench.runs.record_head import declared_ranges
from ilubench.statistics.row import RobustnessRow

__all__ = ["gather_samples", "gather_texts", "robustness_rows"]


_ONCE = "once"
"""Level of an attack's only checkpoint, where it has no other name."""


def gather_samples(plan: Plan) -> pa.Table:
    """Return every sample of a run as one table; the row's figures follow from it alone."""
    tables = [SCHEMA.empty_table()]
    for path, where, level in _checkpoints(plan):
        samples = read_samples(path)
        levels = pa.array([level] * len(samples), pa.string())
        columns = [*_repeated(where, len(samples)), *samples.columns, levels]
        tables.append(pa.table(columns, schema=SCHEMA))
    tables += [one.samples for one in plan.references.taken]
    return pa.concat_tables(tables).combine_chunks()


def gather_texts(plan: Plan) -> pa.Table:
    """Return what the run's models wrote, where it is kept: an item and checkpoint a line."""
    kept = ["scorer", "item", "metric", "value", "text"]
    names = [*(column.name for column in WHERE), *kept]
    tables = []
    for path, where, _ in _checkpoints(plan):
        found = pq.read_table(path, columns=kept)
        found = found.filter(pc.not_equal(found["text"], ""))
        tables.append(pa.table([*_repeated(where, len(found)), *found.columns], names=names))
    return pa.concat_tables(tables).combine_chunks()


Where: TypeAlias = tuple[str, str, int, int]
"""Values of the columns :data:`~ilubench.records.scores.WHERE`."""


def _checkpoints(plan: Plan) -> Iterator[tuple[Path, Where, str]]:
    """Yield the file of each checkpoint's scores, where it stands in the run, and its level."""
    for job in plan.jobs:
        artifact = plan.artifact(job)
        for path in scored_checkpoints(artifact.folder / "scores") if artifact else ():
            step, level = _point(path)
            yield path.with_suffix(".parquet"), (job.who, job.attack, job.seed, step), level


def _repeated(where: Where, times: int) -> list[pa.Array]:
    return [
        pa.array([value] * times, column.type) for column, value in zip(WHERE, where, strict=True)
    ]


def _point(path: Path) -> tuple[int, str]:
    """A scored checkpoint's step and level; the place stands for a step where there is none."""
    record = read_score(path)
    if record.step is not None:
        return record.step, ""
    if record.place is None:
        raise DataError(f"{path}: neither a step nor a place; delete its folder and run again")
    return record.place, record.level or _ONCE


def robustness_rows(experiment: Experiment, samples: pa.Table) -> dict[str, RobustnessRow]:
    """Return primary metric -> the method's row; empty when nothing was attacked or scored.

    A metric has none where its scorer could apply no attack. There is a never-knew difference where
    the samples have a retrained model's.

    Raises:
        DataError: seeds were scored on other items, or too much is missing.
    """
    original = method_samples(samples, "reference", seeded=False)
    mine = original
    if experiment.method_name != REFERENCE:
        mine = method_samples(samples, "method", seeded=experiment.method.seeded)
    if not experiment.attacks or not mine.scores or not original.scores:
        return {}
    suite = sampled_chances(experiment.suite, samples)
    attacks = [attack.name for attack in experiment.attacks]
    found = Compared(mine, original, method_samples(samples, "retrain", seeded=False))
    ranges = Ranges.of_suite(suite, declared_ranges(experiment))
    return {
        metric.label: robustness_row(suite, metric, attacks, experiment.seeds, found, ranges)
        for metric in suite.primary_forget
        if is_asked(metric, attacks, found.mine)
    }
