"""Commands that look into a run's weights."""

from pathlib import Path
from typing import Annotated

import typer

from ilubench.cli.commands import Program
from ilubench.cli.formats import FormatOption, show
from ilubench.cli.guard import COMPLETE
from ilubench.cli.words import Json

__all__ = ["analyse"]

analyse = typer.Typer(
    cls=Program, no_args_is_help=True, rich_markup_mode=None, help="Look into a run's weights."
)


@analyse.command("task-vectors")
def task_vectors(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="made with keep=attacked")],
    out: Annotated[
        Path | None, typer.Option("--out", help="also a figure by layer: .svg, .pdf or .png")
    ] = None,
    form: FormatOption = None,
    as_json: Json = False,
) -> int:
    """Show whether an attack undoes unlearning: cosines of what each did to the weights.

    Whole model, by layer, by kind of module; the ILU paper's three cosines beside.
    """
    import dataclasses

    from ilubench.reports.figures.style import save_figure
    from ilubench.reports.task_vectors import draw_cosines, vectors_text
    from ilubench.runs.task_vectors import PAIRS
    from ilubench.runs.task_vectors import task_vectors as cosines_of

    found = cosines_of(run)
    plain = [dataclasses.asdict(one) for one in found]
    show(vectors_text(found, PAIRS), plain, form, as_json=as_json)
    if out is not None:
        save_figure(draw_cosines(found, PAIRS), out)
        typer.echo(f"wrote {out}", err=True)
    return COMPLETE
