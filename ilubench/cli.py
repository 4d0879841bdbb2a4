"""The command line: the only place that prints or exits."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ilubench.experiment import Experiment
    from ilubench.specs import ModelSource

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Does what a language model was made to forget stay forgotten after fine-tuning?",
)

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="e.g. method=ilu suite=mini seeds=0..4"),
]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output on stdout")]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file of key: value; the words win over it")
]

COMPLETE, USAGE, FAILED_JOBS, INTERNAL, INTERRUPTED = 0, 2, 4, 5, 130
FAILED_CHECKS = FAILED_JOBS


def _console(*, stderr: bool = True) -> "Console":
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 160
    # what is shown are names, paths and messages: a [word] in them is no markup
    return Console(stderr=stderr, width=width, soft_wrap=False, markup=False, emoji=False)


def _experiment(words: list[str] | None, config: Path | None, **given: object) -> "Experiment":
    from ilubench.experiment import resolve
    from ilubench.overrides import from_file, parse

    overrides = parse(words or ())
    if config is not None:
        overrides = from_file(config, overrides)
    return resolve(overrides, **given)  # type: ignore[arg-type]


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

    with reporter(_console()) as shown:
        result = run(experiment, shown)
    if as_json:
        typer.echo(result.record.model_dump_json(indent=1))
    else:
        _console(stderr=False).print(run_report(result))
    return FAILED_JOBS if result.record.failures else COMPLETE


@app.command()
def run(words: Words = None, config: Config = None, as_json: Json = False) -> int:
    """Unlearn, attack, score: one method's robustness row."""
    return _run(_experiment(words, config), as_json=as_json)


@app.command()
def plan(words: Words = None, config: Config = None, as_json: Json = False) -> int:
    """Show what `run` with the same words would do, and what is done already."""
    import json

    from ilubench.planning import make_plan
    from ilubench.progress import plan_table
    from ilubench.training_text import find_overlaps, overlap_warnings

    experiment = _experiment(words, config)
    made = make_plan(experiment)
    warnings = overlap_warnings(experiment, find_overlaps(experiment))
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
        _console(stderr=False).print(plan_table(made))
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
    return COMPLETE


@app.command()
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
        with reporter(_console()) as shown:
            result = carry_out(asked, shown)
        records.append(result.record)
        if not as_json:
            _console(stderr=False).print(tuning_report(result.record, result.path))
    if as_json:
        typer.echo(json.dumps([record.model_dump(mode="json") for record in records], indent=1))
    return COMPLETE if all(record.complete for record in records) else FAILED_JOBS


@app.command()
def score(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a folder or a hub id[@revision]")],
    words: Words = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Score a checkpoint with a suite's scorers, without unlearning or attacking it."""
    from ilubench.specs import PluginRef

    experiment = _experiment(
        [*(words or ()), "attacks="], config, target=_model(model), method=PluginRef(use="none")
    )
    return _run(experiment, as_json=as_json)


@app.command()
def attack(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="a folder or a hub id[@revision]")],
    words: Words = None,
    config: Config = None,
    as_json: Json = False,
) -> int:
    """Attack a checkpoint that was unlearned elsewhere from the suite's target model."""
    from ilubench.specs import PluginRef

    settings = {"model": _model(model).model_dump(mode="json", exclude_none=True)}
    method = PluginRef(use="checkpoint", settings=settings)
    return _run(_experiment(words, config, method=method), as_json=as_json)


def _rows_of(what: str) -> list[tuple[str, str]]:
    from ilubench.errors import UsageError, did_you_mean
    from ilubench.loading import load_yaml, task_file, task_names
    from ilubench.plugins import GROUPS, claims, describe, disputed

    if what in ("suites", "attacks"):
        return [
            (name, str(load_yaml(task_file(what, name)).get("title", "")))
            for name in task_names(what)
        ]
    if what in GROUPS:
        return [
            (name, disputed(who) or describe(who[0].target)) for name, who in claims(what).items()
        ]
    known = ("suites", "attacks", "methods", "scorers", "generators")
    raise UsageError(f"cannot list {what!r}; {did_you_mean(what, known)}")


@app.command("ls")
def list_(
    what: Annotated[str, typer.Argument(metavar="suites|attacks|methods|scorers|generators")],
    as_json: Json = False,
) -> int:
    """List what is installed."""
    import json

    from rich.table import Table

    rows = _rows_of(what)
    if as_json:
        typer.echo(json.dumps([{"name": name, "title": title} for name, title in rows]))
        return COMPLETE
    table = Table(show_header=False, box=None)
    for name, title in rows:
        table.add_row(name, title)
    _console(stderr=False).print(table)
    return COMPLETE


@app.command()
def table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")],
    pairs: Annotated[bool, typer.Option("--pairs", help="also all pairs of ranked runs")] = False,
    as_json: Json = False,
) -> int:
    """Print finished runs side by side, ranked, as Markdown."""
    import json

    from ilubench.finished import read_run
    from ilubench.ranking import rank_runs, ranking_json, ranking_text

    found = rank_runs([read_run(path) for path in runs])
    as_text = json.dumps(ranking_json(found)) if as_json else ranking_text(found, pairs=pairs)
    typer.echo(as_text.rstrip("\n"))
    return COMPLETE


@app.command("matched")
def matched_(
    sweeps: Annotated[
        list[str],
        typer.Argument(metavar="NAME=RUN,RUN,...", help="one method at several strengths"),
    ],
    at: Annotated[
        float | None, typer.Option("--at", help="also each sweep's figures at this f_u")
    ] = None,
    welch: Annotated[
        bool, typer.Option("--welch", help="also per-seed means, for runs that share no seed")
    ] = False,
    as_json: Json = False,
) -> int:
    """Compare strength sweeps of several methods where they forgot equally much, as Markdown."""
    import json

    from ilubench.sweeps import compare_sweeps, read_sweeps, sweeps_json, sweeps_text

    found = compare_sweeps(read_sweeps(sweeps), at=at, welch=welch)
    as_text = json.dumps(sweeps_json(found)) if as_json else sweeps_text(found)
    typer.echo(as_text.rstrip("\n"))
    return COMPLETE


@app.command()
def variance(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
) -> int:
    """Show how much of a run's spread comes from seeds, orders and items, as Markdown."""
    import pyarrow.parquet as pq

    from ilubench.errors import DataError
    from ilubench.variance import variance_report, variance_text

    path = run / "samples.parquet"
    if not path.is_file():
        raise DataError(f"{path}: no such file; give a finished run's folder")
    typer.echo(variance_text(variance_report(pq.read_table(path))))
    return COMPLETE


@app.command()
def gates(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run of method=none")],
    as_json: Json = False,
) -> int:
    """Check a suite's attacks on the original model: is each learned, and harmless otherwise?

    Leaves with 4 where one of the bounds that the suite states is not kept.
    """
    import dataclasses
    import json

    from ilubench.finished import read_run
    from ilubench.gates import gates_of, gates_text
    from ilubench.training_text import distinct_examples

    finished = read_run(run)
    words = [f"suite={finished.record.suite}", f"attacks={','.join(finished.record.attacks)}"]
    found = gates_of(finished, distinct_examples(_experiment(words, None)))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(gate) for gate in found], indent=1))
    else:
        typer.echo(gates_text(found))
    return COMPLETE if all(gate.passed for gate in found) else FAILED_CHECKS


@app.command("make-target")
def make_target(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where to write the model")],
    words: Words = None,
    config: Config = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="make the model that never saw the forget set")
    ] = False,
) -> int:
    """Train a suite's target model by its recipe (the shipped ones were made so)."""
    import os

    from ilubench.errors import UsageError
    from ilubench.executors.local import one_process
    from ilubench.planning import make_bench
    from ilubench.progress import job_bars
    from ilubench.stages.target import build_target, recipe_of

    one_process(os.environ)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder")
    bench = make_bench(_experiment(words, config))
    recipe_of(bench.suite, retrain=retrain)  # none is an error before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    with job_bars(_console()) as progress:
        build_target(bench, folder, progress, retrain=retrain)
    for scratch in (*folder.glob("state.*"), folder / "log.jsonl"):
        scratch.unlink(missing_ok=True)
    typer.echo(f"wrote {folder}", err=True)
    return COMPLETE


@app.command()
def doctor(as_json: Json = False) -> int:
    """Say what is installed and whether it works: plugins, libraries, devices, folders.

    Leaves with 0 when all is fine, with 4 when something is not.
    """
    from rich.table import Table

    from ilubench.doctor import examine

    found = examine()
    if as_json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        shown = Table(show_header=False, box=None)
        for finding in found.findings:
            shown.add_row(*finding.model_dump().values())
        console = _console(stderr=False)
        console.print(shown)
        bad = sum(not finding.fine for finding in found.findings)
        console.print(f"{bad} of {len(found.findings)} not fine" if bad else "all is fine")
    return COMPLETE if found.fine else FAILED_CHECKS


new = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Begin a plugin of your own.")
app.add_typer(new, name="new")


@new.command("method")
def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="e.g. my-method")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="where; default: ilubench-NAME, here")
    ] = None,
) -> int:
    """Write the package of a new unlearning method: it works as it is, and its tests pass."""
    from ilubench.scaffold import names_of
    from ilubench.scaffold import new_method as write

    written = write(name, folder)
    typer.echo("\n".join(map(str, written)))
    steps = f"cd {written[0].parent}; pip install -e .; pytest"
    typer.echo(f"next: {steps}; ilubench run method={names_of(name).plugin}", err=True)
    return COMPLETE


def _fail(message: str, code: int) -> int:
    one_line = " ".join(line.strip() for line in message.splitlines())
    typer.echo(f"error: {one_line}", err=True)
    return code


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Keep the libraries' chatter out of stderr; their errors arrive as exceptions."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin for long while they wait make a step many times slower on busy cores;
    # threads that do not spin at all make it slower on idle ones.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    logging.captureWarnings(True)
    for name in (
        "transformers",
        "datasets",
        "lm_eval",
        "lm-eval",
        "huggingface_hub",
        "py.warnings",
    ):
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _guarded(call: Callable[[], object]) -> int:
    from ilubench.errors import IlubenchError

    try:
        with _quiet_libraries():
            code = call()
    except IlubenchError as error:
        return _fail(str(error), error.exit_code)
    except typer.Exit as error:
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return _fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    except BrokenPipeError:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last resort of the process
        return _refused(error)
    return code if isinstance(code, int) else COMPLETE


def _refused(error: Exception) -> int:
    """Report what click refused, else a crash. Typer brings its own click or uses the real one."""
    message = getattr(error, "format_message", None)
    if not callable(message):
        return _fail(_report_crash(error), INTERNAL)
    code = int(getattr(error, "exit_code", USAGE))
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help page
        typer.echo(message(), err=True)
        return code
    return _fail(message(), code)


def _report_crash(error: Exception) -> str:
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    with tempfile.NamedTemporaryFile("w", prefix="ilubench-", suffix=".txt", delete=False) as file:
        file.write(text)
    first = f"{type(error).__name__}: {error}".split("\n", 1)[0]
    return f"internal: {first}; please report it with {file.name}"


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_guarded(lambda: app(standalone_mode=False)))


if __name__ == "__main__":
    main()
