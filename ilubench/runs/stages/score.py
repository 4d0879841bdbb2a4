"""Score a live model: per-sample Parquet and a summary, written together, summary last."""

import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from ilubench.errors import DataError, DivergedError, did_you_mean
from ilubench.interfaces import BoundPromptAttack, Checkpoint, Progress, SampleScore
from ilubench.records.estimators import estimate
from ilubench.records.ranges import is_beyond, range_of, range_text
from ilubench.records.results import ScoreRecord, ScoreSummary
from ilubench.records.scores import SAMPLES, read_score
from ilubench.records.store import Artifact, write_atomic
from ilubench.records.verified import Ledger
from ilubench.runs.jobs import Job
from ilubench.runs.stages.compared import compared_model
from ilubench.runs.stages.devices import arithmetic
from ilubench.runs.stages.measure import Measure
from ilubench.runs.stages.untouched import load_untouched
from ilubench.runs.stages.workbench import Workbench

if TYPE_CHECKING:
    from ilubench.interfaces import Engine

__all__ = [
    "run_score",
    "score_checkpoint",
]


_SCHEMA = pa.schema([*SAMPLES, ("choices", pa.list_(pa.float32())), ("text", pa.string())])


def _summary(
    scorer: str, metric: str, measure: Measure, samples: Sequence[SampleScore]
) -> ScoreSummary:
    mine = [sample for sample in samples if sample.metric == metric]
    estimator, bounds = measure.metrics[metric], range_of(measure.ranges, metric)
    values = [sample.value for sample in mine]
    if not values:
        raise DataError(f"scorer {scorer!r}: no sample was scored for {metric!r}")
    if not all(math.isfinite(value) for value in values):
        raise DivergedError(f"scorer {scorer!r}: a score of {metric!r} is not finite")
    for sample in mine:
        if is_beyond(sample.value, bounds):
            problem = f"item {sample.item!r} of {metric!r} scored {sample.value:g}"
            raise DataError(f"scorer {scorer!r}: {problem}; {range_text(bounds)}")
    groups, labels = [sample.group for sample in mine], [sample.label for sample in mine]
    value, se = estimate(estimator, values, groups, labels)
    return ScoreSummary(
        scorer=scorer,
        metric=metric,
        estimator=estimator,
        value=value,
        se=se,
        n=len(values),
        most_chosen=_most_chosen(mine),
    )


def _most_chosen(samples: Sequence[SampleScore]) -> float | None:
    """Share of the items that got the most chosen option; None where nothing was chosen."""
    chosen = [s.choices.index(max(s.choices)) for s in samples if s.choices]
    if len(chosen) < len(samples):
        return None
    return Counter(chosen).most_common(1)[0][1] / len(chosen)


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
    scorers: Mapping[str, Measure],
    folder: Path,
    progress: Progress,
    attack: BoundPromptAttack | None = None,
) -> None:
    """Score a model with every scorer, unless that is done; the model is left as it was.

    Args:
        checkpoint: the model, and which items of which scorers count.
        engine: takes its weights.
        scorers: by name.
        folder: of the course's scores.
        progress: display.
        attack: how the items are asked; None for as they are.

    Raises:
        DataError: a scorer gave no sample, or one that is not finite or beyond its range, or the
            checkpoint names items of a scorer that there is not.
    """
    ledger, files = Ledger(folder.parent), _files(folder, checkpoint)
    if all(map(ledger.holds, files)):
        return
    for name in checkpoint.items:
        if name not in scorers:
            problem = f"checkpoint {checkpoint.name}: it names items of scorer {name!r}, not one of"
            raise DataError(f"{problem} the suite's; {did_you_mean(name, scorers)}")
    engine.load(checkpoint.model)
    progress.start(f"score {checkpoint.name}", len(scorers))
    samples: dict[str, list[SampleScore]] = {}
    for done, (name, scorer) in enumerate(scorers.items(), start=1):
        scored = scorer.score(engine, attack)
        if name in checkpoint.items:
            scored = [sample for sample in scored if sample.item in checkpoint.items[name]]
        samples[name] = scored
        progress.advance(done, name)
    summaries = [
        _summary(name, metric, scorer, samples[name])
        for name, scorer in scorers.items()
        for metric in scorer.metrics
    ]
    record = ScoreRecord(
        checkpoint=checkpoint.name,
        step=checkpoint.step,
        level=checkpoint.level,
        place=_place(files[1]) if checkpoint.step is None else None,
        settings=dict(checkpoint.settings),
        summaries=tuple(summaries),
    )
    for path, content in zip(files, (_parquet(samples), _json(record)), strict=True):
        write_atomic(path, content)
        ledger.add(path)


def _files(folder: Path, checkpoint: Checkpoint) -> tuple[Path, Path]:
    """Where a checkpoint's samples and its record lie; there is none without the other."""
    return folder / f"{checkpoint.name}.parquet", folder / f"{checkpoint.name}.json"


def _json(record: ScoreRecord) -> bytes:
    return record.model_dump_json(indent=1).encode()


def _place(record: Path) -> int:
    """The place of the next checkpoint without a step: levels have an order that no name tells."""
    others = (path for path in record.parent.glob("*.json") if path != record)
    return 1 + sum(read_score(path).step is None for path in others)


def run_score(bench: Workbench, job: Job, progress: Progress) -> Artifact:
    """Return the artifact of the unlearned model's scores, made if need be."""
    with bench.store.work("score", job.key) as folder:
        done = bench.store.get("score", job.key)
        if done is not None:
            return done
        if job.who == "untouched":
            model = load_untouched(bench)
        elif job.weights == bench.target:  # nothing is unlearned where a model is only scored
            model = bench.target_model()
        elif bench.experiment.scores_only:
            model = compared_model(bench)
        else:
            model = bench.unlearned_model(job.weights)
        scores, scorers = folder / "scores", bench.suite_scorers()
        with bench.scored(model):
            score_checkpoint(Checkpoint(model, 0), bench.engine, scorers, scores, progress)
        weights = bench.store.get("unlearn", job.weights)
        meta = weights.meta() if weights is not None else {}
        made: JsonValue = {k: v for k, v in meta.items() if k in ("cost", "seconds")}
        told: dict[str, JsonValue] = {"stage": "score", "unlearned": made}
        return bench.store.finish("score", job.key, told | arithmetic(bench.device))
