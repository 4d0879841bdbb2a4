"""Models in other forms -> a folder of plain safetensors, a configuration and a tokenizer."""

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict

import ilubench
from ilubench.data.hub.models import INDEX, SINGLE, TEXTS, has_tokenizer, indexed, is_tokenizer_file
from ilubench.data.hub.repository import Repository, fetch, listing
from ilubench.errors import ModelError, PathError, UsageError
from ilubench.models.adapters import ADAPTER, find_base, merge_adapter
from ilubench.models.checkpoints import model_sha256, refuse_odd_numbers
from ilubench.models.configuration import load_config, read_json, refuse_pointer
from ilubench.models.folder import (
    FLOATS,
    WRAPPERS,
    check_folder,
    check_tensors,
    fill_model,
    headers,
    pickles,
    weight_files,
    without_weights,
)
from ilubench.models.gguf_file import read_gguf
from ilubench.models.pickles import unpickle
from ilubench.models.quiet import quiet
from ilubench.models.tokenizers import check_vocabulary, load_tokenizer
from ilubench.records.keys import file_sha256, library_versions
from ilubench.specs import ModelSource
from ilubench.specs.yaml_text import write_yaml

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["PROVENANCE", "Conversion", "convert"]

PROVENANCE = "conversion.yaml"
"""The file that says what a folder was made from; no part of the hash of the model."""

_PICKLE, _PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
_ADAPTERS = ("adapter_model.safetensors", "adapter_model.bin")
_VOCABULARIES = {"vocab.json", "vocab.txt"}
"""What older tokenizers consist of, beside merges."""

_LIBRARIES = ("torch", "transformers", "safetensors", "gguf", "peft")


class Conversion(BaseModel):
    """What was made of what.

    Attributes:
        source: file name -> SHA-256 of the weights that were read, an adapter's base included.
        steps: what was done, in order.
        dtype: of the weights that were written.
        weights: how many numbers they are.
        sha256: of the model, as `suite.target.model.sha256` takes it.
        tokenizer: whether there is one.
        versions: of ilubench and the libraries.
    """

    model_config = ConfigDict(frozen=True)

    source: Mapping[str, str]
    steps: tuple[str, ...]
    dtype: str
    weights: int
    sha256: str
    tokenizer: bool
    versions: Mapping[str, str]


@dataclass(frozen=True)
class _Source:
    """Files of a model: its folder, and the weights in it."""

    folder: Path
    weights: tuple[Path, ...]

    @property
    def is_gguf(self) -> bool:
        return self.weights[0].suffix == ".gguf"

    @property
    def is_adapter(self) -> bool:
        return (self.folder / ADAPTER).is_file() and not self.is_gguf


@dataclass(frozen=True)
class _Read:
    """A model that was read; its tokenizer only where it lies in no files of its own."""

    model: "PreTrainedModel"
    dtype: torch.dtype
    steps: tuple[str, ...]
    base: Path | None = None
    tokenizer: "PreTrainedTokenizerBase | None" = None


def convert(
    source: Path | ModelSource,
    folder: Path,
    *,
    base: ModelSource | None = None,
    dtype: str | None = None,
) -> Conversion:
    """Write a model as a folder that can be scored, unlearned and attacked.

    The folder appears when it is complete.

    Args:
        source: a file or folder of weights, or a model of the hub.
        folder: to be written; there is none, or an empty one.
        base: of an adapter, in the place of the one that it names.
        dtype: `float32`, `bfloat16` or `float16`; by default the source's own, the widest where it
            has several, and float32 for GGUF and adapters.

    Raises:
        UsageError: the folder is not empty, or another process writes it.
        AccessError: a model of the hub cannot be had.
        ModelError: the source is damaged, has code in it, or would be another model than its files
            describe.
    """
    with _written(folder.absolute()) as (part, scratch):
        found = _find(source)
        if base is not None and not found.is_adapter:
            raise UsageError(f"{found.folder} is no adapter, and needs no base; leave --base out")
        for path in found.weights:
            refuse_pointer(path)
        if found.is_gguf:
            read = _read_gguf(found)
        elif found.is_adapter:
            read = _read_adapter(found, base, scratch)
        else:
            read = _read_weights(found, dtype, scratch)
        wanted = getattr(torch, dtype) if dtype else read.dtype
        torch.nn.Module.to(read.model, wanted)
        refuse_odd_numbers(read.model, found.weights[0])
        _save(read.model, part, folder)
        whose = _write_tokenizer(found, read, part)
        config = check_folder(part)
        if whose:
            check_vocabulary(load_tokenizer(part), config, whose)
        of_base = weight_files(read.base) if read.base else ()
        done = Conversion(
            source={path.name: file_sha256(path) for path in (*of_base, *found.weights)},
            steps=read.steps,
            dtype=str(wanted).removeprefix("torch."),
            weights=sum(one.numel() for one in read.model.parameters()),
            sha256=model_sha256(part),
            tokenizer=whose is not None,
            versions={"ilubench": ilubench.__version__, **library_versions(_LIBRARIES)},
        )
        text = write_yaml(done.model_dump(mode="json"))
        (part / PROVENANCE).write_text(text, encoding="utf-8")
    return done


# --------------------------------------------------------------------------- where it goes


@contextlib.contextmanager
def _written(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the future folder and one for scratch; renamed into place, removed after an error.

    What a killed process left there is removed by the next one.
    """
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another folder")
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty; choose another folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside, lock = (folder.parent / f".{folder.name}.{end}" for end in ("partial", "lock"))
    try:
        with FileLock(lock, timeout=0):
            shutil.rmtree(aside, ignore_errors=True)
            part, scratch = aside / "model", aside / "scratch"
            try:
                part.mkdir(parents=True)
                scratch.mkdir()
                yield part, scratch
                part.replace(folder)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
                lock.unlink(missing_ok=True)
    except Timeout:
        raise UsageError(f"another process writes {folder}; choose another folder") from None


# --------------------------------------------------------------------------- what it comes from


def _find(source: Path | ModelSource) -> _Source:
    """Return the files of a source, fetched from its hub if need be."""
    if isinstance(source, ModelSource):
        name, revision = str(source.hub), source.revision or "main"
        wanted = Repository("model", name, revision, "SOURCE", "its folder as SOURCE")
        held = listing(wanted)
        top = [name for name in held.files if "/" not in name]
        texts = [name for name in top if name.endswith(TEXTS)]
        folder = fetch(wanted, held, texts)
        names = _weights_among(folder, top)
        return _Source(folder, tuple(fetch(wanted, held, names) / name for name in names))
    if source.is_file():
        if not source.name.endswith((".gguf", ".safetensors")) and not pickles([source.name]):
            known = ".gguf, .safetensors, .bin, .pt, .pth or .ckpt"
            raise ModelError(f"{source} is no file of weights ({known}); give one, or a folder")
        return _Source(source.parent, (source,))
    if not source.is_dir():
        raise ModelError(f"no file or folder {str(source)!r}; check the path")
    names = _weights_among(source, [path.name for path in source.iterdir()])
    return _Source(source, tuple(source / name for name in names))


def _weights_among(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the files of weights among those of a folder, of which the texts at least are there.

    Raises:
        ModelError: there are none, more than one model's, or not all.
    """
    if ADAPTER in names:
        own = [name for name in _ADAPTERS if name in names]
        if not own:
            raise ModelError(f"{folder} lacks {_ADAPTERS[0]!r}, the adapter's weights")
        return own[:1]
    for single, index in ((SINGLE, INDEX), (_PICKLE, _PICKLE_INDEX)):
        if single in names:
            return [single]
        if index in names:
            refuse_pointer(folder / index)
            parts = sorted(indexed(folder / index))
            absent = [name for name in parts if name not in names]
            if absent:
                raise ModelError(f"{folder} lacks {absent[0]!r}, which its index names")
            return parts
    for found in (sorted(name for name in names if name.endswith(".gguf")), pickles(names)):
        if len(found) > 1:
            shown = ", ".join(map(repr, found[:4]))
            raise ModelError(f"{folder} has several models' weights ({shown}); give one file")
        if found:
            return found
    raise ModelError(f"{folder} {without_weights(folder)}")


def _read_gguf(found: _Source) -> _Read:
    config, tensors, tokenizer = read_gguf(found.weights[0])
    model, _ = fill_model(config, tensors, torch.float32)
    steps = (f"GGUF {found.weights[0].name} read by transformers",)
    return _Read(model, torch.float32, steps, tokenizer=tokenizer)


def _read_adapter(found: _Source, given: ModelSource | None, scratch: Path) -> _Read:
    files, steps = _as_safetensors(found.weights, scratch)
    base = find_base(found.folder, given)
    model = merge_adapter(found.folder, files[0], base)
    name = given.hub or given.path if given else base.name
    # what an adapter adds is small beside its base, and rounded away in half of the bits
    return _Read(model, torch.float32, (*steps, f"LoRA adapter merged into {name}"), base)


def _read_weights(found: _Source, dtype: str | None, scratch: Path) -> _Read:
    from safetensors.torch import load_file

    config = load_config(found.folder)
    files, steps = _as_safetensors(found.weights, scratch)
    held: dict[str, Any] = {}
    for path in files:
        for name, header in headers([path]):
            if name in held:
                raise ModelError(f"{found.folder}: tensor {name!r} is in two of its files")
            held[name] = header
    names, stripped = _unwrapped(list(held))
    check_tensors(found.folder, config, {names[old]: header for old, header in held.items()})
    own = getattr(torch, dtype) if dtype else _own_dtype(held.items())
    tensors = {names[old]: one for path in files for old, one in load_file(path).items()}
    model, _ = fill_model(config, tensors, own)
    steps += tuple(f"prefix {prefix!r} taken off every name" for prefix in stripped)
    return _Read(model, own, steps)


def _as_safetensors(files: Sequence[Path], scratch: Path) -> tuple[list[Path], tuple[str, ...]]:
    """Return the files, pickles among them as safetensors, and what was done for it."""
    if all(path.suffix == ".safetensors" for path in files):
        return list(files), ()
    found = unpickle(files, scratch)
    steps = []
    for path, within in zip(files, found.values(), strict=True):
        where = f"; of it {within!r}, which has the tensors" if within else ""
        steps.append(f"pickle {path.name} read by torch's weights_only loader{where}")
    return list(found), tuple(steps)


def _unwrapped(names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return names without what wrappers put before all of them, and what that was."""
    plain = {name: name for name in names}
    stripped: list[str] = []
    while plain and (found := _common(plain.values())):
        plain = {name: short.removeprefix(found) for name, short in plain.items()}
        stripped.append(found)
    return plain, stripped


def _common(names: Any) -> str:  # noqa: ANN401
    return next((one for one in WRAPPERS if all(name.startswith(one) for name in names)), "")


def _own_dtype(held: Any) -> torch.dtype:  # noqa: ANN401
    """Return the type that holds all weights as they are; of float64, float32."""
    kinds = {FLOATS[header.kind] for _, header in held if header.kind in FLOATS}
    own = next(iter(kinds), torch.float32)
    for kind in kinds:
        own = torch.promote_types(own, kind)
    return torch.float32 if own is torch.float64 else own


# --------------------------------------------------------------------------- what is written


def _save(model: "PreTrainedModel", part: Path, folder: Path) -> None:
    from safetensors import SafetensorError

    try:
        with quiet():
            model.save_pretrained(part)
    except SafetensorError as error:
        raise PathError(f"{folder}: the weights cannot be written; is its disk full?") from error


def _write_tokenizer(found: _Source, read: _Read, part: Path) -> Path | None:
    """Write tokenizer and generation settings; return whose tokenizer it is, if there is one."""
    from transformers import AutoTokenizer

    if read.tokenizer is not None:
        with quiet():
            read.tokenizer.save_pretrained(part)
        _drop_added(part / "tokenizer.json", read.model.config.get_text_config().vocab_size)
        return found.weights[0]
    if found.is_gguf:
        return None
    places = [found.folder, read.base] if read.base else [found.folder]
    if found.folder.name.startswith("checkpoint-"):
        places.append(found.folder.absolute().parent)  # where a Trainer saves it
    settings = next((one for one in places if (one / "generation_config.json").is_file()), None)
    if settings:
        shutil.copyfile(settings / "generation_config.json", part / "generation_config.json")
    for place in places:
        names = {path.name for path in place.iterdir() if path.is_file()}
        if not has_tokenizer(names) and not _VOCABULARIES & names:
            continue
        load_tokenizer(place)
        for name in filter(is_tokenizer_file, names - {"config.json"}):
            shutil.copyfile(place / name, part / name)
        if "tokenizer.json" not in names:
            with quiet():
                AutoTokenizer.from_pretrained(place, local_files_only=True).save_pretrained(part)
        return place
    return None


def _drop_added(path: Path, rows: int) -> None:
    """Leave out tokens without an embedding: transformers adds its own where GGUF names no UNK."""
    state = read_json(path)
    state["added_tokens"] = [one for one in state["added_tokens"] if one["id"] < rows]
    path.write_text(json.dumps(state, ensure_ascii=False, indent=2), encoding="utf-8")
