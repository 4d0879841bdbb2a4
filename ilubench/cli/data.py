"""Commands that look for a run's data and models, and fetch them: data check, data fetch."""

from typing import TYPE_CHECKING

import typer

from ilubench.cli.commands import Program, WordsCommand
from ilubench.cli.guard import COMPLETE, NO_DATA
from ilubench.cli.words import Config, Json, Words, console, grid_of

if TYPE_CHECKING:
    from ilubench.forecast.inventory import Inventory

__all__ = ["data"]

data = typer.Typer(
    cls=Program,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="See whether a run's data and models can be had, and fetch them.",
)


@data.command("check", cls=WordsCommand)
def check(words: Words = None, config: Config = None, as_json: Json = False) -> int:
    """Look for every role and model that `run` with the same words needs; download none.

    Leaves with 3 when something is missing; names all that is.
    """
    from ilubench.forecast.inventory import examine_needs

    return _show(examine_needs(*grid_of(words, config)), as_json=as_json)


@data.command("fetch", cls=WordsCommand)
def fetch(words: Words = None, config: Config = None, as_json: Json = False) -> int:
    """Download what `run` with the same words needs; afterwards it works offline.

    Sizes and licences are told before the first download. Leaves with 3 when something is missing.
    """
    from ilubench.forecast.inventory import fetch_needs

    err = console()
    found = fetch_needs(*grid_of(words, config), tell=lambda line: err.print(line, soft_wrap=True))
    return _show(found, as_json=as_json)


def _show(found: "Inventory", *, as_json: bool) -> int:
    from rich.table import Table

    if as_json:
        typer.echo(found.model_dump_json(indent=1))
        return COMPLETE if found.fine else NO_DATA
    table = Table(box=None)
    for name in ("field", "source", "commit", "state", "gated", "licence", "rows"):
        table.add_column(name, justify="right" if name == "rows" else "left")
    for one in found.supplies:
        rows = "" if one.rows is None else str(one.rows)
        state = f"{one.state} ({one.size})" if one.bytes else one.state
        gated = "gated" if one.gated else ""
        terms = one.license or ("" if one.state == "made" else "not stated")
        table.add_row(one.field, one.source, one.commit[:12], state, gated, terms, rows)
    out = console(stderr=False)
    out.print(table)
    for problem in found.problems:
        typer.echo(f"problem: {' '.join(problem.split())}", err=True)
    if found.fine:
        left = "`ilubench data fetch` with the same words downloads the rest"
        out.print(left if found.bytes else "everything is at hand")
        return COMPLETE
    count = len(found.problems)
    typer.echo(f"error: {count} problem{'s' * (count > 1)}; see above", err=True)
    return NO_DATA
