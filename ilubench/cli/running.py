"""Commands that carry out jobs: run, plan, tune, attack."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ilubench.cli.formats import show
from ilubench.cli.guard import COMPLETE, FAILED_JOBS
from ilubench.cli.showing import Details, print_ended
from ilubench.cli.words import (
    Config,
    Json,
    Model,
    Words,
    console,
    experiment_of,
    grid_of,
    overrides_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ilubench.experiments.experiment import Experiment
    from ilubench.specs import ModelSource

__all__ = ["attack", "job", "model_source", "plan", "run", "tune"]

Probe = Annotated[
    bool, typer.Option("--probe", help="time real steps and a scored batch of each kind here")
]
Card = Annotated[
    str, typer.Option("--card", metavar="NAME", help="plan for a GPU by its data sheet, e.g. h100")
]


def run(
    words: Words = None, config: Config = None, details: Details = False, as_json: Json = False
) -> int:
    """Unlearn, attack, score: one method's robustness row, or several methods' side by side.

    method=A,B,... shares what the rows have in common, and ends with their table.
    """
    asked = _command("run", words, config)
    return _run(grid_of(words, config), asked, details=details, as_json=as_json)


def plan(
    words: Words = None,
    config: Config = None,
    as_json: Json = False,
    probe: Probe = False,
    card: Card = "",
    write: Annotated[
        bool, typer.Option("--write", help="write the run's folder, for `ilubench job`")
    ] = False,
) -> int:
    """Show what `run` with the same words would do and cost, and what is done already.

    Nothing is fetched. Times are medians of finished jobs of the suite on this device, else a
    probe's, else arithmetic over a card's data sheet.
    """
    import json

    from ilubench.forecast.outlook import as_json as outlook_json
    from ilubench.forecast.outlook import look_ahead
    from ilubench.forecast.plan_view import cost_table, jobs_table, sources_table

    found = look_ahead(*grid_of(words, config), card=card, timed=probe)
    if write:
        from ilubench.runs.folder import is_finished, write_inputs
        from ilubench.runs.plan import make_plan

        planned = found.plan or make_plan(*found.experiments)  # the latter says what is missing
        for one in (*planned.grid, planned):
            done = is_finished(one)
            if not done:
                write_inputs(one)
            said = "finished, left as it is:" if done else "wrote"
            typer.echo(f"{said} {one.folder}", err=True)
    if as_json:
        typer.echo(json.dumps(outlook_json(found)))
        return COMPLETE
    shown = console(stderr=False)
    shown.print(jobs_table(found))
    shown.print(cost_table(found))
    if found.sources:
        shown.print(sources_table(found.sources))
    for line in found.expected:
        typer.echo(f"overlap: {line}", err=True)
    for warning in found.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return COMPLETE


def job(
    folder: Annotated[Path, typer.Argument(metavar="RUN_FOLDER", help="of a planned run")],
    key: Annotated[
        str, typer.Argument(metavar="KEY", help="of a job, or its beginning, as `plan` shows it")
    ],
) -> int:
    """Carry out one job of a planned run; any launcher can start it, in any process.

    `ilubench plan --write` writes the folder and shows the keys. Jobs that another needs come
    first; `ilubench run` with the same words finds all of them done. Leaves with 4 where it failed.
    """
    from ilubench.runs.carry_out import carry_out_planned
    from ilubench.runs.progress import make_reporter

    with make_reporter(console()) as shown:
        outcome = carry_out_planned(folder, key, shown.show(""))
    typer.echo(f"{outcome.job.label}: {outcome.state}, {outcome.seconds:.1f} s", err=True)
    if outcome.failure is not None:
        typer.echo(f"failed: {outcome.failure.message}", err=True)
        return FAILED_JOBS
    return COMPLETE


def tune(
    words: Words = None,
    config: Config = None,
    as_json: Json = False,
    propose: Annotated[
        bool, typer.Option("--propose", help="print what methods propose for the model, no more")
    ] = False,
) -> int:
    """Choose methods' settings by the suite's protocol: one budget, tuning seeds, no attack.

    method=A,B names some of the suite's tuning.searches; without it every one is tuned. Of a method
    without a search there, ranges are tried that it proposes for the suite's model.
    Leaves with 4 where no setting keeps the utility, or one could not be tried.
    """
    import json

    from ilubench.forecast.estimate import expected_seconds
    from ilubench.runs.progress import make_reporter
    from ilubench.runs.tuning.asked import propose_searches, resolve_tuning
    from ilubench.runs.tuning.proposed import search_text
    from ilubench.runs.tuning.run import tune as carry_out
    from ilubench.runs.tuning.table import tuning_report

    overrides = overrides_of(words, config)
    if propose:
        typer.echo(search_text(propose_searches(overrides)))
        return COMPLETE
    records = []
    for asked in resolve_tuning(overrides):
        with make_reporter(console(), expected_seconds) as shown:
            result = carry_out(asked, shown)
        records.append(result.record)
        if not as_json:
            console(stderr=False).print(tuning_report(result.record, result.path))
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    return COMPLETE if all(record.complete for record in records) else FAILED_JOBS


def attack(
    model: Model,
    words: Words = None,
    config: Config = None,
    details: Details = False,
    as_json: Json = False,
) -> int:
    """Attack a checkpoint that was unlearned elsewhere from the suite's target model."""
    from ilubench.specs import PluginRef

    settings = {"model": model_source(model).model_dump(mode="json", exclude_none=True)}
    method = PluginRef(use="checkpoint", settings=settings)
    asked = _command("attack", [model, *(words or ())], config)
    experiment = experiment_of(words, config, method=method)
    return _run((experiment,), asked, details=details, as_json=as_json)


HUB_PAGE = "https://huggingface.co/"


def model_source(text: str) -> "ModelSource":
    """Read MODEL: a folder if there is one, else a hub id with an optional @revision."""
    from ilubench.data.hub.models import instead_of_file
    from ilubench.errors import ModelError, UsageError
    from ilubench.specs import ModelSource

    path = Path(text).expanduser()
    if path.is_dir():
        problem = _no_model(path)
        if problem:
            raise ModelError(f"{text}: {problem}")
        return ModelSource(path=str(path))
    if "=" in text:
        key, _, value = text.partition("=")
        remedy = f"write {value} alone" if key.casefold() == "model" else f"write MODEL {text}"
        raise UsageError(f"MODEL comes first, a folder or hub id, and {text!r} is none; {remedy}")
    if text.startswith(HUB_PAGE):
        hub_id = "/".join(text.removeprefix(HUB_PAGE).split("/")[:2])
        raise UsageError(f"{text} is a page; write the hub id, {hub_id}")
    if path.is_file():
        raise ModelError(f"{text} is a file; {instead_of_file(path)}")
    hub, _, revision = text.partition("@")
    if text.startswith((".", "/", "~")) or hub.count("/") != 1:
        raise ModelError(f"no model folder {text!r}; give a folder or a hub id like org/name")
    return ModelSource(hub=hub, revision=revision or None)


def _no_model(folder: Path) -> str:
    """Return what a folder is that looks like a model's and is none; empty where it may be one."""
    from ilubench.cli.run_folders import find_runs, is_run

    if is_run(folder):
        return (
            f"this is the folder of a run, no model; `ilubench show {folder}` shows it, and "
            f"`ilubench leaderboard submit {folder} --by YOU --weights-to FOLDER` writes its "
            "unlearned models, each into a folder that can be given here"
        )
    if not (folder / "config.json").is_file() and any(find_runs(folder)):
        return f"this is a folder of runs, no model; `ilubench ls runs {folder}` lists them"
    return ""


def _command(name: str, words: list[str] | None, config: Path | None) -> list[str]:
    """Return the words of a command that asks for the same."""
    return ["ilubench", name, *(words or ()), *(["--config", str(config)] if config else [])]


def _run(
    experiments: "Sequence[Experiment]", command: list[str], *, details: bool, as_json: bool
) -> int:
    import json

    from ilubench.errors import IlubenchError
    from ilubench.forecast.estimate import expected_seconds
    from ilubench.records.finished import read_run
    from ilubench.reports.last_screen import Ended
    from ilubench.reports.page import PAGE
    from ilubench.reports.page.report import write_report
    from ilubench.runs.pipeline import run_grid
    from ilubench.runs.progress import make_reporter

    with make_reporter(console(), expected_seconds) as shown:
        results = run_grid(experiments, shown)
    records = [result.record for result in results]
    for result in results:
        if result.record.scores:
            try:
                write_report([read_run(result.plan.folder)], result.plan.folder / PAGE)
            except IlubenchError as error:  # the run is done; its page can be made again
                typer.echo(f"warning: no report: {error}", err=True)
    if as_json and len(records) == 1:
        typer.echo(records[0].model_dump_json(indent=1))
    elif as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    else:
        table = len(results) > 1 and any(result.rows for result in results)
        for result in results if details or not table else ():
            suite, folder = result.plan.bench.suite, result.plan.folder
            ended = Ended(result.record, result.rows, suite, folder, command)
            print_ended(ended, details=details)
        if table:
            _show_table([result.plan.folder for result in results])
    return FAILED_JOBS if any(record.failures for record in records) else COMPLETE


def _show_table(folders: "Sequence[Path]") -> None:
    """Print finished runs side by side, as `ilubench table` does, and where they are."""
    from ilubench.records.finished import read_run
    from ilubench.reports.ranking import rank_runs, ranking_json, ranking_text

    runs = [read_run(folder) for folder in folders]
    found = rank_runs(runs)
    show(ranking_text(found), ranking_json(found), None)
    for run in runs:
        typer.echo(f"Results: {run.path}")
        for failure in run.record.failures:
            typer.echo(f"  failed: {failure.label}: {failure.message}")
