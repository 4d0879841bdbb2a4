"""The hub's format of a model's results on benchmarks: `.eval_results/*.yaml` of its repository."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ilubench.errors import DataError
from ilubench.records.finished import FinishedRun
from ilubench.records.store import write_atomic
from ilubench.reports.exports.checkpoints import Checkpoint, Score, checkpoints_of
from ilubench.specs.yaml_text import write_yaml

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
        (one, entry)
        for one in checkpoints_of(run)
        for score in one.scores
        if (entry := _entry(run, one, score)) is not None
    ]
    if not found:
        listed = ", ".join(BENCHMARKS)
        problem = f"{run.path}: no score of the hub's benchmarks ({listed}), test split, all rows"
        raise DataError(f"{problem}: there is nothing to export")
    for one, entry in found:
        task = entry["dataset"]["task_id"]
        file = folder / one.model / ".eval_results" / f"{task}.yaml"
        write_atomic(file, write_yaml([entry]).encode())
        yield file


# --- inside ---


def _entry(run: FinishedRun, one: Checkpoint, score: Score) -> dict[str, Any] | None:
    """A benchmark's own score: of its split, of every row, in its metric; None for others."""
    source, figure = score.source, score.figure
    if source is None or source.hub is None or figure.value is None:
        return None
    if source.hub not in BENCHMARKS:
        return None
    task, split, metric = BENCHMARKS[source.hub]
    part = source.limit is not None or source.offset or source.where
    if source.split != split or part or score.spec.metric != metric:
        return None
    dataset = {"id": source.hub, "task_id": task}
    if source.revision:
        dataset["revision"] = source.revision
    seeds = ", ".join(map(str, score.samples.seeds))
    notes = f"{score.spec.label}; {one.said} (ilubench run {run.record.run}); mean of seeds {seeds}"
    if figure.low is not None and figure.high is not None:
        notes += f"; 95% interval {100 * figure.low:.2f} to {100 * figure.high:.2f}"
    return {"dataset": dataset, "value": round(100 * figure.value, 2), "notes": notes}
