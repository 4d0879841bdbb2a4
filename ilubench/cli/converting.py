"""The command that makes a model's folder of weights in another form."""

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ilubench.cli.guard import COMPLETE
from ilubench.cli.running import model_source
from ilubench.cli.words import Json

__all__ = ["convert"]


class Dtype(StrEnum):
    """What weights can be written in."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="a .gguf or pickle, a folder (weights, an adapter, a Trainer's checkpoint-N), "
            "or a hub id[@revision]",
        ),
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where to write the model")],
    base: Annotated[
        str | None,
        typer.Option("--base", help="of an adapter: its base's folder or hub id; else its own"),
    ] = None,
    dtype: Annotated[
        Dtype | None,
        typer.Option(
            "--dtype", help="of the weights; else the source's, and float32 for GGUF and adapters"
        ),
    ] = None,
    as_json: Json = False,
) -> int:
    """Write a model in another form as safetensors with its tokenizer; prints its SHA-256.

    Reads GGUF, pickles (without running their code), LoRA adapters with their base, checkpoints of
    a Trainer, and weights saved from torch.compile, DistributedDataParallel or DeepSpeed.
    """
    from ilubench.models.convert import convert as convert_model

    place = Path(source).expanduser()
    done = convert_model(
        place if place.exists() else model_source(source),
        folder,
        base=model_source(base) if base else None,
        dtype=dtype,
    )
    for step in done.steps:
        typer.echo(step, err=True)
    typer.echo(f"wrote {folder}: {done.weights:,} weights in {done.dtype}", err=True)
    if not done.tokenizer:
        remedy = "name one where it is used: suite.target.tokenizer.path=FOLDER (or .hub=NAME)"
        typer.echo(f"note: the source has no tokenizer; {remedy}", err=True)
    if as_json:
        typer.echo(done.model_dump_json(indent=1))
    else:
        words = ("path", folder), ("sha256", done.sha256)
        typer.echo(shlex.join(f"suite.target.model.{name}={value}" for name, value in words))
    return COMPLETE
