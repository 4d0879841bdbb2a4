"""The hub's format of a model's results on benchmarks: `.eval_results/*.yaml` of its repository."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from pydantic import JsonValue

from ilubench.errors import DataError
from ilubench.records.finished import FinishedRun
from ilubench.records.store import write_atomic
from ilubench.reports.exports.checkpoints import Checkpoint, Score, checkpoints_of

__all__ = ["write_hub_results"]

BENCHMARKS: Mapping[str, tuple[str, str, str]] = {"openai/gsm8k": ("gsm8k", "test", "exact_match")}
"""Data sets that the hub lists as benchmarks -> task, split, and metric of its leaderboard."""


def write_hub_results(run: FinishedRun, folder: Path) -> Iterator[Path]:
    """Write what each model scored on benchmarks of the hub, and yield the files.

    Args:
        run: with samples.
        folder: gets a folder for each model, with what goes into its repository.

    Raises:
        DataError: no samples, or no whole benchmark of the hub was scored.
        StoreError: a file cannot be written.
    """
    found = [
        (one, score, BENCHMARKS[score.source.hub])
        for one in checkpoints_of(run)
        for score in one.scores
        if score.source is not None and score.source.hub in BENCHMARKS and _is_whole(score)
    ]
    if not found:
        listed = ", ".join(BENCHMARKS)
        problem = f"{run.path}: no score of the hub's benchmarks ({listed}), test split, all rows"
        raise DataError(f"{problem}: there is nothing to export")
    for one, score, (task, _, _) in found:
        file = folder / one.model / ".eval_results" / f"{task}.yaml"
        write_atomic(file, yaml.safe_dump([_entry(run, one, score)], sort_keys=False).encode())
        yield file


# --- inside ---


def _is_whole(score: Score) -> bool:
    """Whether it is the benchmark's own score: its split, every row, its metric."""
    source = score.source
    assert source is not None
    assert source.hub is not None
    _, split, metric = BENCHMARKS[source.hub]
    part = source.limit is not None or source.offset or source.where
    return source.split == split and not part and score.spec.metric == metric


def _entry(run: FinishedRun, one: Checkpoint, score: Score) -> dict[str, JsonValue]:
    source, value = score.source, score.figure.value
    assert source is not None
    assert value is not None
    assert source.hub is not None
    dataset: dict[str, JsonValue] = {"id": source.hub, "task_id": BENCHMARKS[source.hub][0]}
    if source.revision:
        dataset["revision"] = source.revision
    seeds = ", ".join(map(str, score.samples.seeds))
    notes = f"{score.spec.label}; {one.said} (ilubench run {run.record.run}); mean of seeds {seeds}"
    half = "" if score.figure.low is None else _interval(score)
    return {"dataset": dataset, "value": round(100 * value, 2), "notes": notes + half}


def _interval(score: Score) -> str:
    low, high = score.figure.low, score.figure.high
    assert low is not None
    return f"; 95% interval {100 * low:.2f} to {100 * (high if high is not None else math.inf):.2f}"
