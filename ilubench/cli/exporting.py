"""The command that writes a finished run in the format of others."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ilubench.cli.guard import COMPLETE

__all__ = ["export"]


class Form(StrEnum):
    """Formats of others."""

    EVERY_EVAL_EVER = "every-eval-ever"
    HF_EVAL_RESULTS = "hf-eval-results"


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="folder of a finished run")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="where to write")],
    to: Annotated[Form, typer.Option("--to", help="the format")],
    samples: Annotated[
        bool,
        typer.Option("--samples", help="every-eval-ever: also each item that is right or wrong"),
    ] = False,
    organization: Annotated[
        str, typer.Option("--organization", help="every-eval-ever: who ran it")
    ] = "unknown",
) -> int:
    """Write a run's models and their scores in the format of others, a file for each model.

    Items of gated data are never written. Only metrics are of which the suite says which way is
    better, and of attacks that tune nothing is.
    """
    from ilubench.errors import UsageError
    from ilubench.records.finished import read_run
    from ilubench.reports.exports.every_eval_ever import write_every_eval_ever
    from ilubench.reports.exports.hub_results import write_hub_results

    found = read_run(run)
    if to is Form.EVERY_EVAL_EVER:
        written = [*write_every_eval_ever(found, folder, organization, samples=samples)]
    elif samples or organization != "unknown":
        raise UsageError("--samples and --organization are of --to every-eval-ever")
    else:
        written = [*write_hub_results(found, folder)]
    typer.echo(f"wrote {len(written)} files below {folder}")
    return COMPLETE
