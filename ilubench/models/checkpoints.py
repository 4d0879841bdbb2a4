"""Checkpoints on disk: find, hash, load, save; weights as safetensors only, no code from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from pydantic import JsonValue

from ilubench.data.hub.models import (
    NO_TOKENIZER,
    OTHER_TOKENIZER,
    TEXTS,
    TOKENIZER,
    has_tokenizer,
    hub_repository,
    is_tokenizer_file,
    model_folder,
    needed_files,
    tokenizer_files,
)
from ilubench.errors import ModelError
from ilubench.models.folder import check_folder, weight_files
from ilubench.models.quiet import quiet
from ilubench.records.keys import digest, file_sha256
from ilubench.specs import ModelSource

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "CHANGES",
    "apply_changes",
    "find_folder",
    "find_tokenizer",
    "folder_sha256",
    "hub_repository",
    "load_model",
    "model_origin",
    "model_sha256",
    "needed_files",
    "refuse_odd_numbers",
    "save_changes",
    "save_model",
    "tokenizer_sha256",
]

CHANGES = "changes.safetensors"


def find_folder(source: ModelSource, field: str = "suite.target.model") -> Path:
    """Return the local folder of a model, fetched from its hub if need be.

    Args:
        source: of the model.
        field: that names it, for errors.

    Raises:
        AccessError: gated, offline and not cached, unreachable, no such model or revision; each is
            a class of its own.
        ModelError: no such folder, one that cannot be loaded, or another hash than the spec's.
    """
    folder = model_folder(source, field, needed_files)
    check_folder(folder)
    if source.sha256:
        found = model_sha256(folder)
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
        raise ModelError(f"{folder}: {NO_TOKENIZER}; {OTHER_TOKENIZER}")
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


def model_sha256(folder: Path) -> str:
    """Return the hash that a spec may state of a model: of its weights' file, else of all files."""
    files = weight_files(folder)
    return file_sha256(files[0]) if len(files) == 1 else folder_sha256(folder)


def folder_sha256(folder: Path) -> str:
    """Return one SHA-256 over a checkpoint's configuration, tokenizer and weights.

    A tokenizer may consist of many files (vocabulary, merges, templates): all text files count.
    """
    texts = [path for path in sorted(folder.iterdir()) if path.name.endswith(TEXTS)]
    hashes: dict[str, JsonValue] = {
        path.name: file_sha256(path) for path in [*texts, *weight_files(folder)] if path.is_file()
    }
    return digest(hashes) + digest(["folder", hashes])


def load_model(folder: Path, device: str, dtype: torch.dtype = torch.float32) -> "PreTrainedModel":
    """Load a checkpoint for training and scoring; always in the dtype asked for.

    Raises:
        ModelError: it cannot be loaded, or has numbers that are none.
    """
    import transformers

    check_folder(folder)
    try:
        with quiet(), torch.random.fork_rng([]):
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
            )
    except (torch.OutOfMemoryError, MemoryError):
        raise  # no fault of the checkpoint
    except Exception as error:
        # whatever a model's own class raises of files that it does not expect
        by = f"transformers {transformers.__version__} ({type(error).__name__})"
        raise ModelError(f"{folder} cannot be loaded by {by}") from error
    model = cast("PreTrainedModel", loaded.to(device).eval())
    refuse_odd_numbers(model, folder)
    return model


def refuse_odd_numbers(model: "PreTrainedModel", source: Path) -> None:
    """Raise if a weight is infinite or no number.

    Raises:
        ModelError: names the tensor.
    """
    for name, parameter in model.named_parameters():
        # what is infinite or NaN shows in the extremes, which are found far faster than all of it
        if parameter.numel() and not all(end.isfinite() for end in parameter.aminmax()):
            odd = int((~parameter.isfinite()).sum())
            found = f"{odd} of {parameter.numel()} values are infinite or NaN"
            kind = str(parameter.dtype).removeprefix("torch.")
            raise ModelError(f"{source}: tensor {name!r}: {found} in {kind}; the file is damaged")


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


def save_changes(model: "PreTrainedModel", base: Path, folder: Path) -> tuple[str, ...]:
    """Write the tensors that differ from the checkpoint in ``base``; return their names.

    A method that trains three matrices of a 7B model stores three matrices. `none` stores nothing.
    Names are those of the loaded model, and tensors that are tied in it are stored once: the files
    may call, divide and tie them otherwise. So the base is loaded again, beside the model: on the
    CPU, in the model's dtype.

    Raises:
        ModelError: the model has other tensors than the base.
    """
    from safetensors.torch import save_file

    before = dict(load_model(base, "cpu", model.dtype).state_dict())
    current = dict(model.state_dict())
    changed: dict[str, torch.Tensor] = {}
    first: dict[object, str] = {}  # the tensors of the base by where they lie -> their first name
    for name, old in before.items():
        if name not in current or current[name].shape != old.shape:
            raise ModelError(f"tensor {name!r} of {base} is not in the model that came out")
        tied = first.setdefault((old.data_ptr(), old.shape) if old.numel() else name, name)
        now = current[name].detach().cpu()
        if tied != name:
            if not _alike(now, current[tied].detach().cpu()):
                raise ModelError(
                    f"tensors {tied!r} and {name!r} are one in {base}, and differ in the model "
                    "that came out; tie them"
                )
        elif not _alike(now, old.to(now.dtype)):
            changed[name] = now.contiguous().clone()
    extra = sorted(current.keys() - before.keys())
    if extra:
        raise ModelError(f"the model that came out has a new tensor {extra[0]!r}; {base} has not")
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{CHANGES}.tmp"
    save_file(changed, aside)
    aside.replace(folder / CHANGES)
    return tuple(sorted(changed))


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same bits: 0 and -0 have not."""
    bits = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    return torch.equal(*bits)


def apply_changes(model: "PreTrainedModel", folder: Path) -> None:
    """Put the tensors written by `save_changes` into a model loaded from the same base."""
    from safetensors.torch import load_file

    changed = load_file(folder / CHANGES)
    current = model.state_dict()
    with torch.no_grad():
        for name, tensor in changed.items():
            current[name].copy_(tensor)
