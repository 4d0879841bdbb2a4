"""The command line: the only place that prints or exits."""

import sys

import typer

from ilubench.cli.board import leaderboard
from ilubench.cli.data import data
from ilubench.cli.guard import guarded
from ilubench.cli.listing import doctor, ls
from ilubench.cli.making import make_target, new_method
from ilubench.cli.reports import gates, matched, plot, stability, subsets, table, variance
from ilubench.cli.running import attack, job, plan, run, tune
from ilubench.cli.scoring import score

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Does what a language model was made to forget stay forgotten after fine-tuning?",
)

for command in (run, plan, job, tune, score, attack, ls):
    app.command()(command)
for report in (table, plot, matched, variance, stability, subsets, gates):
    app.command()(report)
app.command("make-target")(make_target)
app.command()(doctor)

app.add_typer(leaderboard, name="leaderboard")
app.add_typer(data, name="data")

new = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Begin a plugin of your own.")
app.add_typer(new, name="new")
new.command("method")(new_method)


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(guarded(lambda: app(standalone_mode=False)))
