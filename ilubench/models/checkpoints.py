"""Checkpoints on disk: find, hash, load, save; weights as safetensors only, no code from them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import JsonValue

from ilubench.data.hub.models import (
    INDEX,
    NO_TOKENIZER,
    SINGLE,
    TEXTS,
    TOKENIZER,
    has_tokenizer,
    hub_repository,
    indexed,
    is_tokenizer_file,
    model_folder,
    needed_files,
    tokenizer_files,
)
from ilubench.errors import ModelError
from ilubench.records.keys import digest, file_sha256
from ilubench.specs import ModelSource

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "apply_changes",
    "check_vocabulary",
    "find_folder",
    "find_tokenizer",
    "folder_sha256",
    "hub_repository",
    "load_config",
    "load_model",
    "load_tokenizer",
    "model_origin",
    "needed_files",
    "quiet",
    "save_changes",
    "save_model",
    "tensor_shapes",
    "tokenizer_sha256",
    "weight_files",
]

_OTHER_TOKENIZER = f"name another's: {TOKENIZER}.path=FOLDER (or .hub=NAME)"

_CHANGES = "changes.safetensors"

_COMPUTED = "rotary_emb.inv_freq"
"""A computed buffer that old checkpoints carry."""


def find_folder(source: ModelSource, field: str = "suite.target.model") -> Path:
    """Return the local folder of a model, fetched from its hub if need be.

    Args:
        source: of the model.
        field: that names it, for errors.

    Raises:
        AccessError: gated, offline and not cached, unreachable, no such model or revision; each is
            a class of its own.
        ModelError: no such folder, no safetensors in it, or another hash than the spec's.
    """
    folder = model_folder(source, field, needed_files)
    files = weight_files(folder)
    if source.sha256:
        found = file_sha256(files[0]) if len(files) == 1 else folder_sha256(folder)
        if found != source.sha256:
            raise ModelError(
                f"{folder} has SHA-256 {found}, the spec says {source.sha256}; "
                "the weights were changed or are damaged"
            )
    return folder


def find_tokenizer(source: ModelSource, field: str = TOKENIZER) -> Path:
    """Return the local folder of a tokenizer, fetched from its hub if need be; weights never are.

    Args:
        source: of a model, or of a tokenizer alone.
        field: that names it, for errors.

    Raises:
        AccessError: as for `find_folder`; also where the hub's model has no tokenizer.
        ModelError: no such folder, no tokenizer in it, or another hash than the spec's.
    """
    folder = model_folder(source, field, tokenizer_files)
    if not has_tokenizer(path.name for path in folder.iterdir()):
        raise ModelError(f"{folder}: {NO_TOKENIZER}; {_OTHER_TOKENIZER}")
    if source.sha256:
        file = folder / "tokenizer.json"
        found = file_sha256(file) if file.is_file() else "none"
        if found != source.sha256:
            problem = f"{file} has SHA-256 {found}, the spec says {source.sha256}"
            raise ModelError(f"{problem}; it was changed or is damaged")
    return folder


def tokenizer_sha256(folder: Path) -> str:
    """Return one SHA-256 over a tokenizer's files, whatever else lies in the folder."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return digest({path.name: file_sha256(path) for path in files if is_tokenizer_file(path.name)})


def model_origin(source: ModelSource, folder: Path) -> dict[str, JsonValue]:
    """Return hub, revision and commit of a model that `find_folder` found; empty if of no hub."""
    if source.hub is None:
        return {}
    return {"hub": source.hub, "revision": source.revision, "commit": folder.name}


def weight_files(folder: Path) -> list[Path]:
    """Return a checkpoint's safetensors files, by name.

    Raises:
        ModelError: there is none, or one that the index names is absent.
    """
    index, single = folder / INDEX, folder / SINGLE
    if index.is_file():  # beside it there may be the same weights in another layout
        files = sorted(folder / name for name in indexed(index))
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


def folder_sha256(folder: Path) -> str:
    """Return one SHA-256 over a checkpoint's configuration, tokenizer and weights.

    A tokenizer may consist of many files (vocabulary, merges, templates): all text files count.
    """
    texts = [path for path in sorted(folder.iterdir()) if path.name.endswith(TEXTS)]
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
            problem = f"there is no tokenizer.json; copy one's files there, or {_OTHER_TOKENIZER}"
        raise ModelError(f"{folder}: its tokenizer cannot be loaded: {problem}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: a fast tokenizer (tokenizer.json) is needed")
    return cast("PreTrainedTokenizerBase", tokenizer)


def check_vocabulary(
    tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig", folder: Path
) -> None:
    """Raise unless the model has an embedding row for every token that text is made of.

    Tokens that were added to the vocabulary for other inputs (images, tools) do not count: no text
    here has them.

    Args:
        tokenizer: that reads the text.
        config: of the model.
        folder: of the tokenizer, for the error.

    Raises:
        ModelError: it has not: the tokenizer is another model's.
    """
    rows = int(cast("Any", config.get_text_config()).vocab_size)
    special = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    for token, number in tokenizer.get_vocab().items():
        plain = number not in tokenizer.added_tokens_decoder
        if number >= rows and (plain or token in special):
            raise ModelError(
                f"{folder}: its tokenizer gives {token!r} the id {number}, and the target model "
                f"has {rows} embedding rows: it is another model's; {_OTHER_TOKENIZER}"
            )


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
