"""Commands that write what is not a run: make-target, new."""

from pathlib import Path
from typing import Annotated

import typer

from ilubench.cli.guard import COMPLETE
from ilubench.cli.words import Config, Words, console, experiment_of

__all__ = ["make_target", "new_attack", "new_method"]


def make_target(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where to write the model")],
    words: Words = None,
    config: Config = None,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="make the model that never saw the forget set")
    ] = False,
) -> int:
    """Train a suite's target model by its recipe (the shipped ones were made so)."""
    from ilubench.errors import UsageError
    from ilubench.records.store import LOG
    from ilubench.records.verified import LEDGER
    from ilubench.runs.progress import make_reporter
    from ilubench.runs.stages.target import build_target, recipe_of
    from ilubench.runs.stages.workbench import make_bench

    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder")
    bench = make_bench(experiment_of(words, config, by_recipe=True))
    recipe_of(bench.suite, retrain=retrain)  # none is an error before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with make_reporter(console()) as shown:
            build_target(bench, folder, shown.show(""), retrain=retrain)
    finally:  # interrupted, it leaves an empty folder: the same command works again
        for scratch in (*folder.glob("state.*"), folder / LOG, folder / LEDGER):
            scratch.unlink(missing_ok=True)
    typer.echo(f"wrote {folder}", err=True)
    return COMPLETE


def new_method(
    name: Annotated[str, typer.Argument(metavar="NAME", help="e.g. my-method")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="where; default: ilubench-NAME, here")
    ] = None,
) -> int:
    """Write the package of a new unlearning method: it works as it is, and its tests pass."""
    from ilubench.cli.scaffold import names_of
    from ilubench.cli.scaffold import new_method as write

    written = write(name, folder)
    typer.echo("\n".join(map(str, written)))
    steps = f"cd {written[0].parent}; pip install -e .; pytest"
    typer.echo(f"next: {steps}; ilubench run method={names_of(name).plugin}", err=True)
    return COMPLETE


def new_attack(
    name: Annotated[str, typer.Argument(metavar="NAME", help="e.g. my-attack")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="where; default: ilubench-NAME, here")
    ] = None,
    prompt: Annotated[
        bool, typer.Option("--prompt", help="it asks differently; without, it changes weights")
    ] = False,
) -> int:
    """Write a new attack, its YAML and its test: it works as it is, and its test passes."""
    from ilubench.cli.scaffold import names_of
    from ilubench.cli.scaffold import new_attack as write

    written = write(name, folder, prompt=prompt)
    typer.echo("\n".join(map(str, written)))
    plugin = names_of(name, "attack").plugin
    run = f"ilubench run method=npo attacks=./{plugin}.yaml"
    typer.echo(f"next: cd {written[0].parent}; pytest; {run}", err=True)
    return COMPLETE
