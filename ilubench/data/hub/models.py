"""Models of a hub: which of a repository's files are the weights, and which the tokenizer."""

import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, cast

from ilubench.data.hub.refusals import Repository
from ilubench.data.hub.repository import Listing, fetch, listing
from ilubench.errors import DataError, ModelError, UnknownPartError
from ilubench.specs import ModelSource
from ilubench.specs.untrusted import read_json

__all__ = [
    "INDEX",
    "NO_TOKENIZER",
    "OTHER_TOKENIZER",
    "SINGLE",
    "TEXTS",
    "TOKENIZER",
    "convert_command",
    "has_tokenizer",
    "hub_repository",
    "indexed",
    "instead_of_file",
    "is_tokenizer_file",
    "model_folder",
    "needed_files",
    "tokenizer_files",
]

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

TEXTS = (".json", ".jsonl", ".txt", ".model", ".jinja")
"""Endings of the files besides the weights that say what a model computes."""

TOKENIZER = "suite.target.tokenizer"
"""The field of a model of which the tokenizer alone is wanted."""

OTHER_TOKENIZER = f"name another's: {TOKENIZER}.path=FOLDER (or .hub=NAME)"

NO_TOKENIZER = "it has no tokenizer (tokenizer.json or tokenizer.model)"

_WORDS = re.compile(
    r".*tokenizer.*|.*\.model|(added_tokens|special_tokens_map|chat_template|vocab|config)\.json"
    r"|vocab\.txt|merges\.txt|chat_template\.jinja"
)
"""Names of a tokenizer's files; a model's config.json may be all that names its class."""


def model_folder(
    source: ModelSource, field: str, needed: Callable[[Repository, Listing], tuple[str, ...]]
) -> Path:
    """Return the folder that a source stands for; of a hub's, the needed files are fetched.

    Args:
        source: of a model, or of a tokenizer.
        field: that names it, for errors.
        needed: (repository, its files) -> names of those to fetch.

    Raises:
        AccessError: gated, offline and not cached, unreachable, ...; each is a class of its own.
        ModelError: no such folder.
    """
    if source.hub:
        repository = hub_repository(source, field)
        held = listing(repository)
        return fetch(repository, held, needed(repository, held))
    if source.packaged:
        package = Path(__file__).parents[1]
        folder = (package / source.packaged).resolve()
        if not folder.is_relative_to(package.resolve()):
            problem = f"{field}.packaged: {source.packaged!r} leads out of the package"
            raise ModelError(f"{problem}; write path for a folder of your own")
    else:
        folder = Path(cast("str", source.path))
    if not folder.is_dir():
        kind = "tokenizer" if field == TOKENIZER else "model"
        if folder.is_file():
            raise ModelError(f"{field}.path: {folder} is a file; {instead_of_file(folder)}")
        raise ModelError(f"no {kind} folder {str(folder)!r}; check the path ({field}.path)")
    return folder


def convert_command(source: object) -> str:
    """Return the command that makes a model's folder of a source, as a shell takes it."""
    return f"`ilubench convert {shlex.quote(str(source))} FOLDER`"


def instead_of_file(path: Path) -> str:
    """Return what to do where a file is given in the place of a model's folder."""
    if path.suffix in (".gguf", ".bin", ".pt", ".pth", ".ckpt"):
        return f"convert the weights: {convert_command(path)}"
    return f"give the folder of a model: {path.parent}"


def hub_repository(source: ModelSource, field: str) -> Repository:
    """Return the hub's model that a source names.

    Args:
        source: of the model, on a hub.
        field: that names it, `suite.target.model`.
    """
    name, revision = cast("str", source.hub), source.revision or "main"
    return Repository("model", name, revision, field, f"{field}.path=<folder>")


def needed_files(repository: Repository, found: Listing) -> tuple[str, ...]:
    """Return the files of a hub's model that are loaded: configuration, tokenizer, safetensors.

    Of the weights those that transformers loads: one file, or else the parts that the index names.

    Raises:
        ModelError: it has no safetensors, or its index is damaged.
        AccessError: the index cannot be had.
    """
    top = [name for name in found.files if "/" not in name]
    texts = [name for name in top if name.endswith((".json", ".model")) or is_tokenizer_file(name)]
    weights = sorted(name for name in top if name.endswith(".safetensors"))
    if SINGLE in top:
        weights = [SINGLE]
    elif INDEX in top:
        parts = indexed(fetch(repository, found, (INDEX,)) / INDEX)
        absent = sorted(parts - set(top))
        if absent:
            raise ModelError(f"{repository.shown}: lacks {absent[0]!r}, which its index names")
        weights = sorted(parts)
    if not weights:
        made = convert_command(f"{repository.name}@{repository.revision}")
        remedy = f"convert the weights ({made}), and give the folder: {repository.local}"
        raise ModelError(f"{repository.shown}: it has no .safetensors file; {remedy}")
    return tuple(sorted({*texts, *weights}))


def tokenizer_files(repository: Repository, found: Listing) -> tuple[str, ...]:
    """Return the files of a hub's model that its tokenizer is made of.

    Raises:
        UnknownPartError: it has no tokenizer.
    """
    names = tuple(sorted(name for name in found.files if is_tokenizer_file(name)))
    if not has_tokenizer(names):
        raise repository.error(UnknownPartError, NO_TOKENIZER, "name another model's")
    return names


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether files of these names hold a tokenizer."""
    return not {"tokenizer.json", "tokenizer.model"}.isdisjoint(names)


def is_tokenizer_file(name: str) -> bool:
    """Whether a file of this name may be a part of a tokenizer."""
    return name.endswith(TEXTS) and "/" not in name and _WORDS.fullmatch(name) is not None


def indexed(index: Path) -> set[str]:
    """Return the names of the files that a checkpoint's index lists; names, never paths.

    Raises:
        ModelError: the index is damaged.
    """
    try:
        told: Any = read_json(index, lax=True)
        names = set(told["weight_map"].values())
    except (DataError, LookupError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: no readable weight_map; copy it again") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"{index}: weight_map: {name!r} is not a file's name beside it")
    return names
