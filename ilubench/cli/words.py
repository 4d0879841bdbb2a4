"""What the commands have in common: their words, and where they print."""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from ilubench.cli.completion import complete_words

if TYPE_CHECKING:
    from pydantic import JsonValue
    from rich.console import Console

    from ilubench.experiments.experiment import Experiment
    from ilubench.specs.overrides import Override

__all__ = [
    "Config",
    "Json",
    "Model",
    "Words",
    "as_words",
    "console",
    "experiment_of",
    "grid_of",
    "overrides_of",
]

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="e.g. method=ilu suite=mini seeds=0..4",
        autocompletion=complete_words,
    ),
]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="a folder or a hub id[@revision]")]
Json = Annotated[bool, typer.Option("--json", help="machine-readable output on stdout")]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file of key: value; the words win over it")
]


FEW_SEEDS = frozenset(map(str, range(2, 100)))
"""Numbers that may be meant as how many seeds there are; larger ones are a seed."""


def as_words(settings: "Mapping[str, JsonValue]", prefix: str = "") -> str:
    """Return settings as words of the command line, without those that are none."""
    words: list[str] = []
    for key, value in settings.items():
        if isinstance(value, Mapping) and set(value) == {"use", "settings"}:
            below = cast("Mapping[str, JsonValue]", value["settings"])
            words += [f"{prefix}{key}={value['use']}", as_words(below, f"{prefix}{key}.")]
        elif isinstance(value, Mapping) and value:
            words.append(as_words(value, f"{prefix}{key}."))
        elif value is not None:
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            words.append(f"{prefix}{key}={text}")
    return " ".join(words)


def console(*, stderr: bool = True) -> "Console":
    """Return where a command prints; 160 columns in a pipe."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    from ilubench.specs.untrusted import printable

    class PlainConsole(Console):
        """Shows names, paths and messages of others: nothing in them moves a terminal's cursor."""

        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for one in super().render(renderable, options):
                yield one if one.control else Segment(printable(one.text), one.style)

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 160
    # what is shown are names, paths and messages: a [word] in them is no markup
    return PlainConsole(stderr=stderr, width=width, soft_wrap=False, markup=False, emoji=False)


def overrides_of(words: list[str] | None, config: Path | None) -> "tuple[Override, ...]":
    """Return a command's words, laid over those of its file."""
    from ilubench.specs.overrides import from_file, parse_words

    overrides = parse_words(words or ())
    overrides = overrides if config is None else from_file(config, overrides)
    for word in overrides:
        if word.key == "seeds" and word.text in FEW_SEEDS:
            several = f"{word.text} seeds are seeds=0..{int(word.text) - 1}"
            typer.echo(f"note: seeds={word.text} is one seed; {several}", err=True)
    return overrides


def experiment_of(words: list[str] | None, config: Path | None, **given: object) -> "Experiment":
    """Return what a command's words and its file ask for; `given` goes to `resolve`."""
    from ilubench.experiments.experiment import resolve_experiment

    return resolve_experiment(overrides_of(words, config), **given)  # type: ignore[arg-type]


def grid_of(words: list[str] | None, config: Path | None) -> "tuple[Experiment, ...]":
    """Return what a command's words and its file ask for: an experiment a method."""
    from ilubench.experiments.experiment import resolve_grid

    return resolve_grid(overrides_of(words, config))
