"""Checkpoints on disk: find, hash, load, save; weights as safetensors only, no code from them."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import JsonValue

from ilubench.errors import AccessError, ModelError
from ilubench.identity import digest, file_sha256
from ilubench.specs import ModelSource

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "apply_changes",
    "find_folder",
    "folder_sha256",
    "load_config",
    "load_model",
    "load_tokenizer",
    "quiet",
    "save_changes",
    "save_model",
    "tensor_shapes",
    "weight_files",
]

_CHANGES = "changes.safetensors"

_COMPUTED = "rotary_emb.inv_freq"
"""A computed buffer that old checkpoints carry."""


def find_folder(source: ModelSource) -> Path:
    """Return the local folder of a model, fetched from its hub if need be.

    Raises:
        AccessError: gated, offline and not cached, or unreachable.
        ModelError: no such folder, no safetensors in it, or another hash than the spec's.
    """
    if source.hub:
        folder = _fetch(source)
    elif source.packaged:
        folder = Path(__file__).parent / source.packaged
    else:
        folder = Path(cast("str", source.path))
    if not folder.is_dir():
        raise ModelError(f"no model folder {str(folder)!r}; check the path")
    files = weight_files(folder)
    if source.sha256:
        found = file_sha256(files[0]) if len(files) == 1 else folder_sha256(folder)
        if found != source.sha256:
            raise ModelError(
                f"{folder} has SHA-256 {found}, the spec says {source.sha256}; "
                "the weights were changed or are damaged"
            )
    return folder


def _fetch(source: ModelSource) -> Path:
    from huggingface_hub import errors, snapshot_download

    hub = cast("str", source.hub)
    local = "or give a local folder: suite.target.model.path=<folder>"
    try:
        folder = snapshot_download(
            hub,
            revision=source.revision,
            allow_patterns=["*.safetensors", "*.json", "*.model", "tokenizer*"],
        )
    except errors.GatedRepoError as error:
        remedy = "ask for access on its page and set HF_TOKEN"
        raise AccessError(f"{hub} is gated; {remedy}, {local}") from error
    except errors.RevisionNotFoundError as error:
        raise AccessError(f"{hub} has no revision {source.revision!r}; {local}") from error
    except errors.RepositoryNotFoundError as error:
        raise AccessError(f"{hub} does not exist or is private; set HF_TOKEN, {local}") from error
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError) as error:
        remedy = "go online once (and unset HF_HUB_OFFLINE)"
        problem = f"{hub} is not cached and cannot be fetched"
        raise AccessError(f"{problem}; {remedy}, {local}") from error
    return Path(folder)


def weight_files(folder: Path) -> list[Path]:
    """Return a checkpoint's safetensors files, by name.

    Raises:
        ModelError: there is none, or one that the index names is absent.
    """
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():  # beside it there may be the same weights in another layout
        files = sorted(folder / name for name in _indexed(index))
        absent = [path.name for path in files if not path.is_file()]
        if absent:
            raise ModelError(f"{folder} lacks {absent[0]!r}, which its index names")
    else:
        files = [single] if single.is_file() else sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelError(
            f"{folder} has no .safetensors file; convert the weights (pickles are not loaded)"
        )
    return files


def _indexed(index: Path) -> set[str]:
    """Return the names of the files that a checkpoint's index lists; names, never paths."""
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index}: no readable weight_map ({error!r}); copy it again") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ModelError(f"{index}: weight_map: {name!r} is not a file's name beside it")
    return names


def folder_sha256(folder: Path) -> str:
    """Return one SHA-256 over a checkpoint's configuration, tokenizer and weights.

    A tokenizer may consist of many files (vocabulary, merges, templates): all text files count.
    """
    endings = (".json", ".jsonl", ".txt", ".model", ".jinja")
    texts = [path for path in sorted(folder.iterdir()) if path.name.endswith(endings)]
    hashes: dict[str, JsonValue] = {
        path.name: file_sha256(path) for path in [*texts, *weight_files(folder)] if path.is_file()
    }
    return digest(hashes) + digest(["folder", hashes])


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return a checkpoint's tokenizer.

    Raises:
        ModelError: there is none, or it is not a fast tokenizer (offsets are needed).
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        problem = str(error).split("\n", 1)[0]
        if not (folder / "tokenizer.json").is_file():
            problem = "there is no tokenizer.json; copy the tokenizer's files into the folder"
        raise ModelError(f"{folder}: its tokenizer cannot be loaded: {problem}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: a fast tokenizer (tokenizer.json) is needed")
    return cast("PreTrainedTokenizerBase", tokenizer)


def _problem(error: Exception) -> str:
    """Return what is wrong with a checkpoint, in one line."""
    if "trust_remote_code" in str(error):
        return "it brings its own code, which is never run; only models of transformers are loaded"
    return str(error).split("\n", 1)[0]


def load_config(folder: Path) -> "PretrainedConfig":
    """Return a checkpoint's configuration.

    Raises:
        ModelError: there is none, or transformers does not know it.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return cast("PretrainedConfig", found)
    except (OSError, ValueError, KeyError, StrictDataclassError) as error:
        problem = _problem(error)
        raise ModelError(f"{folder}: its configuration cannot be read: {problem}") from error


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return tensor name -> shape of a checkpoint's safetensors; no tensor is read.

    Raises:
        ModelError: there are none, or a file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118
                    if not name.endswith(_COMPUTED):
                        shapes[name] = tuple(handle.get_slice(name).get_shape())
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{path} is damaged: {error}") from error
    return shapes


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings away."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    verbosity = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def load_model(folder: Path, device: str, dtype: torch.dtype = torch.float32) -> "PreTrainedModel":
    """Load a checkpoint for training and scoring; always in the dtype asked for.

    Raises:
        ModelError: it cannot be loaded, or tensors are missing in it.
    """
    from huggingface_hub.errors import StrictDataclassError
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    weight_files(folder)
    refusals = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError)
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
                trust_remote_code=False,
            )
    except torch.OutOfMemoryError:
        raise  # no fault of the checkpoint
    except refusals as error:
        problem = _problem(error)
        raise ModelError(f"{folder} cannot be loaded: {problem}") from error
    model, info = loaded
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} tensors, first {missing[0]!r}")
    return cast("PreTrainedModel", model.to(device).eval())


def save_model(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", folder: Path, dtype: str
) -> None:
    """Write a whole checkpoint in ``dtype`` (`float32`, `bfloat16`)."""
    with quiet():
        kept = model.dtype
        module: torch.nn.Module = model
        module.to(getattr(torch, dtype))
        model.save_pretrained(folder)
        module.to(kept)
        tokenizer.save_pretrained(folder)


# --------------------------------------------------------------------------- changed tensors


def _stored(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    from safetensors import safe_open

    for path in weight_files(folder):
        with safe_open(path, framework="pt") as handle:
            for name in handle.keys():  # noqa: SIM118
                yield name, handle.get_tensor(name)


def save_changes(model: "PreTrainedModel", base: Path, folder: Path) -> tuple[str, ...]:
    """Write the tensors that differ from the checkpoint in ``base``; return their names.

    A method that trains three matrices of a 7B model stores three matrices. `none` stores nothing.

    Raises:
        ModelError: the model has other tensors than the base.
    """
    from safetensors.torch import save_file

    current = dict(model.state_dict())
    changed: dict[str, torch.Tensor] = {}
    seen: set[str] = set()
    for name, before in _stored(base):
        if name.endswith(_COMPUTED):
            continue
        if name not in current or current[name].shape != before.shape:
            raise ModelError(f"tensor {name!r} of {base} is not in the model that came out")
        seen.add(name)
        now = current[name].detach().cpu()
        if not torch.equal(now, before.to(now.dtype)):
            changed[name] = now.contiguous().clone()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    extra = sorted(set(current) - seen - tied)
    if extra:
        raise ModelError(f"the model that came out has a new tensor {extra[0]!r}; {base} has not")
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{_CHANGES}.tmp"
    save_file(changed, aside)
    aside.replace(folder / _CHANGES)
    return tuple(sorted(changed))


def apply_changes(model: "PreTrainedModel", folder: Path) -> None:
    """Put the tensors written by `save_changes` into a model loaded from the same base."""
    from safetensors.torch import load_file

    changed = load_file(folder / _CHANGES)
    current = model.state_dict()
    with torch.no_grad():
        for name, tensor in changed.items():
            current[name].copy_(tensor)
