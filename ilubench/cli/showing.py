"""The command that shows what a run is: asked for what, ended how, with which figures, where."""

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ilubench.cli.guard import COMPLETE
from ilubench.cli.words import Json, as_words, console

if TYPE_CHECKING:
    from ilubench.records.finished import FinishedRun
    from ilubench.reports.last_screen import Ended

__all__ = ["Details", "print_ended", "show", "watch"]

PIPE_WIDTH = 80

Details = Annotated[
    bool, typer.Option("--details", help="first the tables of every checkpoint and attack")
]

FILES = {
    "report.html": "verdict, figures and tables on a page",
    "results.json": "every figure",
    "samples.parquet": "every item's score",
    "texts.parquet": "what models wrote",
    "metrics.parquet": "the mean of every metric at every checkpoint",
    "config.yaml": "what was asked, resolved",
    "plan.json": "the jobs",
    "DONE": "the SHA-256 of these files",
    "failures": "tracebacks of jobs that failed",
}


def print_ended(ended: "Ended", *, details: bool) -> None:
    """Print the last screen of a run; with details, all its tables before it."""
    from ilubench.records.finished import read_run
    from ilubench.records.results import REFERENCE
    from ilubench.reports.last_screen import last_screen
    from ilubench.reports.run_report import run_report
    from ilubench.reports.screen_tables import BARS

    out = console(stderr=False)
    if details:
        found = read_run(ended.folder) if ended.rows else None
        beside = {label: found.attacked(label, REFERENCE) for label in ended.rows} if found else {}
        out.print(run_report(ended.record, ended.rows, ended.suite, beside))
    width = out.width if out.is_terminal else PIPE_WIDTH
    try:
        BARS.encode(sys.stdout.encoding or "ascii")
        bars = True
    except (UnicodeEncodeError, LookupError):
        bars = False
    out.print(last_screen(ended, width, bars=bars), soft_wrap=True)


def show(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run")],
    details: Details = False,
    as_json: Json = False,
) -> int:
    """Show a run without carrying it out: what happened, as `run` ended with.

    With --details also what was asked, every table, and what its files are.
    """
    from ilubench.cli.run_folders import find_runs, is_run
    from ilubench.errors import DataError
    from ilubench.records.finished import read_run
    from ilubench.reports.last_screen import Ended

    if run.is_dir() and not is_run(run):
        below = next(find_runs(run), None)
        remedy = f"it has runs below it, such as {below}" if below else "give a run's folder"
        raise DataError(f"{run} is no folder of a run; {remedy}")
    if run.is_dir() and not (run / "results.json").is_file():
        typer.echo("\n".join(_unfinished(run)))
        return COMPLETE
    found = read_run(run)
    rows = found.rows  # refused where they do not follow from the samples
    found.check_scores()
    if found.samples is None:
        console(stderr=True).print(
            f"Note: figures are as recorded, not recomputed: {found.unread}",
            soft_wrap=True,
            highlight=False,
        )
    if as_json:
        typer.echo(found.record.model_dump_json(indent=1))
        return COMPLETE
    out = console(stderr=False)
    if details:
        files = (f"{run / name}: {what}" for name, what in FILES.items() if (run / name).exists())
        for line in (*_asked(found), *files):
            out.print(line, soft_wrap=True, highlight=False)
    record = found.record.model_copy(update={"composites": found.composites})
    print_ended(Ended(record, rows, found.suite, run), details=details)
    return COMPLETE


def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a run that goes on")],
    every: Annotated[float, typer.Option("--every", min=0.1, help="seconds between looks")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="look once, and leave")] = False,
) -> int:
    """Show where a run stands by its files, whoever carries it out, until it has ended.

    A line is printed where something has changed: it reads over ssh, in tmux and in a log.
    """
    import time

    from ilubench.records.running import read_state, state_lines
    from ilubench.specs.untrusted import printable

    before: tuple[tuple[str, str], ...] = ()
    # Ctrl-C ends the watch, and nothing else: no job of the run is this process's
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            state = read_state(run)
            now = tuple((job.label, job.state) for job in state.jobs)
            if now != before or sys.stdout.isatty():
                if sys.stdout.isatty() and not once:
                    console(stderr=False).clear()
                typer.echo(printable("\n".join(state_lines(state))))
            before = now
            if state.finished:
                typer.echo(f"finished: ilubench show {run}")
            if once or state.finished:
                return COMPLETE
            time.sleep(every)
    typer.echo("no longer watched; the run is left as it is")
    return COMPLETE


def _asked(run: "FinishedRun") -> Iterator[str]:
    record = run.record
    settings = record.method.get("settings")
    words = as_words(settings) if isinstance(settings, Mapping) else ""
    yield f"run      {record.run}"
    yield f"suite    {record.suite} version {record.suite_version}"
    if record.method:
        yield f"method   {record.method_name} version {record.method_version} ({words})"
        given = run.suite.unused_recipes if run.configured and run.suite is not None else {}
        yield from (f"{name:<8} {where} (its recipe is not used)" for name, where in given.items())
        yield f"attacks  {', '.join(record.attacks) or 'none'}"
        seeds = ", ".join(map(str, record.seeds))
        yield f"seeds    {seeds}; engine {record.engine}, {record.dtype}"
    else:
        scorers = dict.fromkeys(score.scorer for score in record.scores)
        yield f"scored   by {', '.join(scorers)}; engine {record.engine}, {record.dtype}"
    failed = len(record.failures)
    yield f"status   finished, {f'{failed} jobs failed' if failed else 'all jobs done'}"


def _unfinished(run: Path) -> Iterator[str]:
    """Yield what the files of a run say that was planned, or that was stopped."""
    from ilubench.errors import DataError
    from ilubench.specs.untrusted import read_json

    file, ended = run / "status.json", "planned, no job ended"
    if file.exists():
        status = read_json(file)
        counts = [
            status.get(name) if isinstance(status, dict) else None for name in ("ended", "jobs")
        ]
        if not all(type(count) is int for count in counts):
            raise DataError(f"{file}: not what a run leaves")
        ended = f"{counts[0]} of {counts[1]} jobs ended"
    yield f"run      {run.name}"
    yield f"status   not finished: {ended}; the same `ilubench run` goes on with it"
    if (run / "config.yaml").is_file():
        yield f"config   {run / 'config.yaml'}"
