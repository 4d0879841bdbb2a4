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
    from ilubench.results import RunRecord
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

    made = make_plan(_experiment(words, config))
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
        }
        typer.echo(json.dumps(shown))
    else:
        _console(stderr=False).print(plan_table(made))
    return COMPLETE


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


def _record(folder: Path) -> "RunRecord":
    import json

    from ilubench.errors import DataError
    from ilubench.results import RunRecord

    path = folder / "results.json" if folder.is_dir() else folder
    try:
        return RunRecord.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; give a run's folder") from error
    except ValueError as error:
        raise DataError(f"{path} is no run's record: {error}") from error


@app.command()
def table(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="folders of finished runs")],
) -> int:
    """Print finished runs side by side, as Markdown."""
    from ilubench.report import comparison

    typer.echo(comparison([_record(folder) for folder in runs]))
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


@app.command("make-target")
def make_target(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where to write the model")],
    words: Words = None,
    config: Config = None,
) -> int:
    """Train a suite's target model by its recipe (the shipped ones were made so)."""
    from ilubench.errors import UsageError
    from ilubench.planning import make_plan
    from ilubench.progress import job_bars
    from ilubench.stages.target import build_target

    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder")
    bench = make_plan(_experiment(words, config)).bench
    folder.mkdir(parents=True, exist_ok=True)
    with job_bars(_console()) as progress:
        build_target(bench, folder, progress)
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
