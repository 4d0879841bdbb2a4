"""Score a live model: per-sample Parquet and a summary, written together, summary last."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ilubench.errors import DataError, DivergedError, StoreError
from ilubench.interfaces import BoundScorer, Checkpoint, Progress, SampleScore
from ilubench.results import ScoreRecord, ScoreSummary
from ilubench.stages.workbench import Workbench
from ilubench.store import Artifact, write_atomic

if TYPE_CHECKING:
    from ilubench.interfaces import Engine

__all__ = ["read_samples", "read_score", "run_score", "score_checkpoint", "scored_checkpoints"]

_SCHEMA = pa.schema(
    [
        ("scorer", pa.string()),
        ("item", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
        ("group", pa.string()),
        ("label", pa.string()),
        ("choices", pa.list_(pa.float32())),
        ("text", pa.string()),
    ]
)


def _summary(scorer: str, metric: str, samples: Sequence[SampleScore]) -> ScoreSummary:
    values = [sample.value for sample in samples if sample.metric == metric]
    n = len(values)
    if n == 0:
        raise DataError(f"scorer {scorer!r}: no sample was scored for {metric!r}")
    if not all(math.isfinite(value) for value in values):
        raise DivergedError(f"scorer {scorer!r}: a score of {metric!r} is not finite")
    mean = math.fsum(values) / n
    spread = math.fsum((value - mean) ** 2 for value in values)
    se = math.sqrt(spread / (n - 1) / n) if n > 1 else None
    return ScoreSummary(scorer=scorer, metric=metric, estimator="mean", value=mean, se=se, n=n)


def _parquet(samples: Mapping[str, Sequence[SampleScore]]) -> bytes:
    columns: dict[str, list[object]] = {name: [] for name in _SCHEMA.names}
    for scorer, scored in samples.items():
        for sample in scored:
            columns["scorer"].append(scorer)
            for name in _SCHEMA.names[1:]:
                value = getattr(sample, name)
                columns[name].append(list(value) if name == "choices" else value)
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def score_checkpoint(
    checkpoint: Checkpoint,
    engine: "Engine",
    scorers: Mapping[str, BoundScorer],
    folder: Path,
    progress: Progress,
) -> None:
    """Score a model with every scorer, unless that is done; the model is left as it was.

    Raises:
        DataError: a scorer gave no sample, or one that is not finite.
    """
    if (folder / f"{checkpoint.name}.json").is_file():
        return
    engine.load(checkpoint.model)
    progress.start(f"score {checkpoint.name}", len(scorers))
    samples: dict[str, list[SampleScore]] = {}
    for done, (name, scorer) in enumerate(scorers.items(), start=1):
        scored = scorer.score(engine)
        if checkpoint.items is not None:
            scored = [sample for sample in scored if sample.item in checkpoint.items]
        samples[name] = scored
        progress.advance(done, name)
    summaries = [
        _summary(name, metric, scored)
        for name, scored in samples.items()
        for metric in dict.fromkeys(sample.metric for sample in scored)
    ]
    for name, scored in samples.items():
        if not scored:
            raise DataError(f"scorer {name!r}: no sample was scored at {checkpoint.name}")
    record = ScoreRecord(
        checkpoint=checkpoint.name,
        step=checkpoint.step,
        level=checkpoint.level,
        summaries=tuple(summaries),
    )
    write_atomic(folder / f"{checkpoint.name}.parquet", _parquet(samples))
    write_atomic(folder / f"{checkpoint.name}.json", record.model_dump_json(indent=1).encode())


def scored_checkpoints(folder: Path) -> list[Path]:
    """Return the records of the scored checkpoints, in the order of their steps."""
    return sorted(folder.glob("*.json"))


def read_score(path: Path) -> ScoreRecord:
    """Read one checkpoint's record.

    Raises:
        StoreError: damaged, or written by a newer ilubench.
    """
    try:
        return ScoreRecord.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete its folder and run again") from error


def read_samples(path: Path) -> dict[tuple[str, str], dict[str, float]]:
    """Return (scorer, metric) -> item -> value of one checkpoint's Parquet file.

    Raises:
        StoreError: damaged, or an item is there twice.
    """
    try:
        table = pq.read_table(path, columns=["scorer", "metric", "item", "value"])
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} is damaged ({error}); delete its folder and run again") from error
    found: dict[tuple[str, str], dict[str, float]] = {}
    columns = (table[name].to_pylist() for name in ("scorer", "metric", "item", "value"))
    for scorer, metric, item, value in zip(*columns, strict=True):
        items = found.setdefault((scorer, metric), {})
        if item in items:
            raise StoreError(f"{path}: item {item!r} of {scorer}/{metric} is there twice")
        items[item] = value
    return found


def run_score(bench: Workbench, keys: tuple[str, str, str], progress: Progress) -> Artifact:
    """Return the artifact of the unlearned model's scores, made if need be.

    Args:
        bench: shared state.
        keys: of the target, of the unlearned weights, of this job.
        progress: display.
    """
    target, unlearn, key = keys
    with bench.store.work("score", key) as folder:
        done = bench.store.get("score", key)
        if done is not None:
            return done
        model = bench.unlearned_model(target, unlearn)
        scorers = bench.suite_scorers(target)
        checkpoint = Checkpoint(model, 0)
        score_checkpoint(checkpoint, bench.engine(target), scorers, folder / "scores", progress)
        return bench.store.finish("score", key, {"stage": "score"})
