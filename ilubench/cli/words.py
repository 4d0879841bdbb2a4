"""What the commands have in common: their words, and where they print."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from ilubench.experiments.experiment import Experiment
    from ilubench.specs.overrides import Override

__all__ = ["Config", "Json", "Model", "Words", "console", "experiment_of", "overrides_of"]

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="e.g. method=ilu suite=mini seeds=0..4"),
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="a folder or a hub id[@revision]")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output on stdout")]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file of key: value; the words win over it")
]


def console(*, stderr: bool = True) -> "Console":
    """Return where a command prints; 160 columns in a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 160
    # what is shown are names, paths and messages: a [word] in them is no markup
    return Console(stderr=stderr, width=width, soft_wrap=False, markup=False, emoji=False)


def overrides_of(words: list[str] | None, config: Path | None) -> "tuple[Override, ...]":
    """Return a command's words, laid over those of its file."""
    from ilubench.specs.overrides import from_file, parse_words

    overrides = parse_words(words or ())
    return overrides if config is None else from_file(config, overrides)


def experiment_of(words: list[str] | None, config: Path | None, **given: object) -> "Experiment":
    """Return what a command's words and its file ask for; `given` goes to `resolve`."""
    from ilubench.experiments.experiment import resolve_experiment

    return resolve_experiment(overrides_of(words, config), **given)  # type: ignore[arg-type]
