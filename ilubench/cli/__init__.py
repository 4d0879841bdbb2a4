"""The command line: the only place that prints or exits."""

import atexit
import os
import signal
import sys
from typing import Annotated

import typer

from ilubench import __version__
from ilubench.cli.analysing import analyse
from ilubench.cli.board import leaderboard
from ilubench.cli.commands import Program, ScoreCommand, WordsCommand
from ilubench.cli.completion import complete_value_in_bash
from ilubench.cli.converting import convert
from ilubench.cli.data import data
from ilubench.cli.exporting import export
from ilubench.cli.guard import guarded
from ilubench.cli.listing import describe, doctor, ls
from ilubench.cli.making import make_target, new_attack, new_method
from ilubench.cli.reports import (
    compare,
    gates,
    matched,
    plot,
    report,
    stability,
    subsets,
    table,
    variance,
)
from ilubench.cli.running import attack, job, plan, run, tune
from ilubench.cli.scoring import score
from ilubench.cli.showing import show, watch

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ilubench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="the installed version", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Does what a language model was made to forget stay forgotten after fine-tuning?"""


for command in (run, plan, tune, attack):
    app.command(cls=WordsCommand)(command)
app.command(cls=ScoreCommand)(score)
for plain in (
    job,
    ls,
    describe,
    show,
    watch,
    table,
    compare,
    report,
    export,
    plot,
    matched,
    variance,
    stability,
    subsets,
    gates,
):
    app.command()(plain)
app.command("make-target", cls=WordsCommand)(make_target)
app.command()(convert)
app.command()(doctor)

app.add_typer(leaderboard, name="leaderboard")
app.add_typer(data, name="data")
app.add_typer(analyse, name="analyse")

new = typer.Typer(
    cls=Program, no_args_is_help=True, rich_markup_mode=None, help="Begin a plugin of your own."
)
app.add_typer(new, name="new")
new.command("method")(new_method)
new.command("attack")(new_attack)


def main() -> None:
    """Run the command line and exit with its code."""
    values = complete_value_in_bash(os.environ)
    if values is not None:
        typer.echo("\n".join(values))
        return
    found = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
    # a scheduler's end, or a closed terminal, is a Ctrl-C, but where nohup has it ignored
    asked = [one for one in found if one and signal.getsignal(one) != signal.SIG_IGN]
    for one in asked:
        signal.signal(one, signal.default_int_handler)
    # While Python clears its modules, a signal would do what it does by default
    atexit.register(lambda: [signal.signal(one, signal.SIG_IGN) for one in asked])
    code = guarded(lambda: app(prog_name="ilubench", standalone_mode=False))
    for one in asked:  # nothing is left to be interrupted
        signal.signal(one, lambda *_: os._exit(code))
    # A Ctrl-C within some library's exec of a text is remembered until another one ends well, and
    # `python -m` would end by the signal, whatever was made of it.
    exec("")
    sys.exit(code)
