"""A scored model as a table for a terminal, or as JSON."""

import shlex
from typing import TYPE_CHECKING

from pydantic import JsonValue
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ilubench.experiments.experiment import Experiment
from ilubench.records.chance import chance_text
from ilubench.records.figure_text import figure_text
from ilubench.records.results import ModelScore, RunRecord
from ilubench.reports.composites import composite_text, kind_text
from ilubench.statistics.bounds import UNBOUNDED, Range, keep_within
from ilubench.statistics.intervals import Figure, mean_half_width

if TYPE_CHECKING:
    from ilubench.runs.pipeline import RunResult

__all__ = ["score_json", "score_report"]

REFERENCE_MODEL = "reference"
"""Whose scores those of a model are that is only scored."""


def metric_meaning(experiment: Experiment, score: ModelScore) -> str:
    """Return what a high or low value of a metric means; empty where nobody says."""
    suite = experiment.suite
    spec = suite.metric_of(score.scorer, score.metric)
    if spec is None:
        known = experiment.scorers[score.scorer].directions().get(score.metric)
        return f"{known} = knows more" if known else ""
    of = "what is to be forgotten" if spec in suite.primary_forget else "what is to be kept"
    return f"{spec.direction} = knows more of {of}"


def score_figure(record: RunRecord, score: ModelScore) -> Figure:
    """Return a score with its interval over items, within the bounds of a mean of such items."""
    if score.se is None:
        return Figure(score.value, None, None, 1, score.n, "none")
    half = mean_half_width(score.se, score.n)
    found = Figure(score.value, score.value - half, score.value + half, 1, score.n, "item-only")
    bounds: Range = record.ranges.get(f"{score.scorer}.{score.metric}", UNBOUNDED)
    if score.estimator.kind == "auc":  # the items' range is not that of the area
        bounds = (0.0, 1.0)
    if score.estimator.relative_to is not None:
        bounds = UNBOUNDED
    return keep_within(found, bounds)


def score_report(result: "RunResult", model: str) -> RenderableType:
    """Return the scores of a model, where they lie, and what to do next."""
    record, bench = result.record, result.plan.bench
    suite = bench.suite
    table = Table(title=f"{model}, scored (95 % intervals over items)", title_justify="left")
    for name in ("scorer", "metric", "value", "items", "chance", "meaning"):
        table.add_column(name, justify="right" if name in ("items", "chance") else "left")
    for score in record.scores:
        if score.who != REFERENCE_MODEL:
            continue
        table.add_row(
            score.scorer,
            score.metric,
            figure_text(score_figure(record, score), 4),
            str(score.n),
            chance_text(score, suite.metric_of(score.scorer, score.metric)),
            metric_meaning(result.plan.experiment, score),
        )
    shown: list[RenderableType] = [table] if record.scores else []
    for one in record.composites:
        if one.who == REFERENCE_MODEL:
            shown.append(Text(f"{one.label}: {composite_text(one)} ({kind_text(one.kind)})"))
    lines = [
        f"Scored in {suite.scored_in} by engine {record.engine} on {bench.device}, batches of "
        f"{suite.score_batch}",
        *(f"Note: {note}" for note in record.notes),
        *(f"failed: {failure.label}: {failure.message}" for failure in record.failures),
        f"Record: {result.plan.folder} (results.json; samples.parquet has every item)",
        _next(result, model),
    ]
    return Group(*shown, Text("\n".join(lines)))


def score_json(result: "RunResult") -> dict[str, JsonValue]:
    """Return the record, with what its table says besides."""
    suite, record = result.plan.bench.suite, result.record.model_dump(mode="json")
    for score, own in zip(record["scores"], result.record.scores, strict=True):
        spec = suite.metric_of(own.scorer, own.metric)
        figure = score_figure(result.record, own)
        score |= {"low": figure.low, "high": figure.high}
        score["means"] = metric_meaning(result.plan.experiment, own)
        score |= {name: spec and getattr(spec, name) for name in ("label", "direction")}
        score["chance"] = None if spec is None or spec.chance_measured_by else spec.chance_level
    record["device"], record["batch"] = result.plan.bench.device, suite.score_batch
    record["folder"] = str(result.plan.folder)
    return record


def _next(result: "RunResult", model: str) -> str:
    if result.record.failures:
        return "Next: the same command tries again what failed"
    suite = result.plan.bench.suite
    if suite.primary_forget:
        asked = shlex.join(
            ["ilubench", "attack", model, f"suite={result.plan.experiment.run.suite}"]
        )
        return f"Next: `{asked}` shows whether what was forgotten comes back"
    return "Next: the same words with the original model in its place show what was lost"
