"""Commands that carry out jobs: run, plan, tune, score, attack."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ilubench.cli.guard import COMPLETE, FAILED_JOBS
from ilubench.cli.words import Config, Json, Model, Words, console, experiment_of

if TYPE_CHECKING:
    from ilubench.experiment import Experiment
    from ilubench.specs import ModelSource

__all__ = ["attack", "plan", "run", "score", "tune"]


def run(words: Words = None, config: Config = None, as_json: Json = False) -> int:
    """Unlearn, attack, score: one method's robustness row."""
    return _run(experiment_of(words, config), as_json=as_json)


def plan(words: Words = None, config: Config = None, as_json: Json = False) -> int:
    """Show what `run` with the same words would do, and what is done already."""
    import json

    from ilubench.planning import make_plan
    from ilubench.progress import plan_table
    from ilubench.training_text import overlap_warnings

    experiment = experiment_of(words, config)
    made = make_plan(experiment)
    warnings = overlap_warnings(experiment, made.overlap)
    if as_json:
        jobs = [
            {"stage": j.stage, "key": j.key, "label": j.label, "cached": made.is_done(j)}
            for j in made.jobs
        ]
        engine = made.bench.engine_choice
        shown = {
            "run": made.run_id,
            "folder": str(made.folder),
            "engine": engine.name,
            "engine_reason": engine.reason,
            "jobs": jobs,
            "warnings": list(warnings),
        }
        typer.echo(json.dumps(shown))
    else:
        console(stderr=False).print(plan_table(made))
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
    return COMPLETE


def tune(words: Words = None, config: Config = None, as_json: Json = False) -> int:
    """Choose methods' settings by the suite's protocol: one budget, tuning seeds, no attack.

    method=LABEL names one of the suite's tuning.searches; without it every one is tuned.
    Leaves with 4 where no setting keeps the utility, or one could not be tried.
    """
    import json

    from ilubench.overrides import from_file, parse
    from ilubench.progress import reporter
    from ilubench.tuning.asked import ask
    from ilubench.tuning.run import tune as carry_out
    from ilubench.tuning.table import tuning_report

    overrides = parse(words or ())
    if config is not None:
        overrides = from_file(config, overrides)
    records = []
    for asked in ask(overrides):
        with reporter(console()) as shown:
            result = carry_out(asked, shown)
        records.append(result.record)
        if not as_json:
            console(stderr=False).print(tuning_report(result.record, result.path))
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    return COMPLETE if all(record.complete for record in records) else FAILED_JOBS


def score(
    model: Model,
    words: Words = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Score a checkpoint with a suite's scorers, without unlearning or attacking it."""
    from ilubench.specs import PluginRef

    experiment = experiment_of(
        [*(words or ()), "attacks="], config, target=_model(model), method=PluginRef(use="none")
    )
    return _run(experiment, as_json=as_json)


def attack(
    model: Model,
    words: Words = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Attack a checkpoint that was unlearned elsewhere from the suite's target model."""
    from ilubench.specs import PluginRef

    settings = {"model": _model(model).model_dump(mode="json", exclude_none=True)}
    method = PluginRef(use="checkpoint", settings=settings)
    return _run(experiment_of(words, config, method=method), as_json=as_json)


def _model(text: str) -> "ModelSource":
    """Read MODEL: a folder if there is one, else a hub id with an optional @revision."""
    from ilubench.errors import ModelError
    from ilubench.specs import ModelSource

    if Path(text).is_dir():
        return ModelSource(path=text)
    hub, _, revision = text.partition("@")
    if text.startswith((".", "/", "~")) or hub.count("/") != 1:
        raise ModelError(f"no model folder {text!r}; give a folder or a hub id like org/name")
    return ModelSource(hub=hub, revision=revision or None)


def _run(experiment: "Experiment", *, as_json: bool) -> int:
    from ilubench.pipeline import run
    from ilubench.progress import reporter
    from ilubench.report import run_report

    with reporter(console()) as shown:
        result = run(experiment, shown)
    if as_json:
        typer.echo(result.record.model_dump_json(indent=1))
    else:
        console(stderr=False).print(run_report(result))
    return FAILED_JOBS if result.record.failures else COMPLETE
