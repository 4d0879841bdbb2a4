"""GGUF files: weights and tokenizer as transformers reads them, and nothing left behind."""

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ilubench.errors import ModelError
from ilubench.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

__all__ = ["read_gguf"]


def read_gguf(
    path: Path,
) -> tuple["PretrainedConfig", Mapping[str, torch.Tensor], "PreTrainedTokenizerBase | None"]:
    """Return configuration, tensors (float32) and tokenizer of a GGUF file; None if it has none.

    Raises:
        ModelError: it is damaged, a part of one, or of a model that transformers does not make of
            all that the file says.
    """
    import transformers

    header = _header(path)
    kind = _text(header, "general.architecture")
    by = f"transformers {transformers.__version__}"
    remedy = "give the weights that it was made from"
    if int(_field(header, "split.count") or 1) > 1:
        raise ModelError(f"{path} is one part of several; join them (llama-gguf-split --merge)")
    place: Any = {"gguf_file": path.name, "local_files_only": True}
    try:
        with quiet():
            config: Any = transformers.AutoConfig.from_pretrained(path.parent, **place)
    except Exception as error:
        # whatever a file's odd values lead to
        problem = f"{by} makes no model of its architecture {kind!r} and its settings"
        raise ModelError(f"{path}: {problem}; {remedy}") from error
    if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"{path}: {kind!r} is no causal language model; give one that writes text")
    scaling = _text(header, f"{kind}.rope.scaling.type")
    rope = getattr(config, "rope_parameters", None) or {}
    if scaling not in ("", "none") and rope.get("rope_type", "default") == "default":
        problem = f"its positions are scaled ({scaling}), which {by} does not read"
        raise ModelError(f"{path}: {problem}; {remedy}")
    try:
        # its bar is no part of transformers' logging
        with quiet(), torch.random.fork_rng([]), contextlib.redirect_stderr(io.StringIO()):
            loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
                path.parent, config=config, dtype=torch.float32, output_loading_info=True, **place
            )
    except torch.OutOfMemoryError:
        raise  # no fault of the file
    except Exception as error:
        problem = f"{by} cannot load its tensors into a {config.model_type!r} model"
        raise ModelError(f"{path}: {problem}; {remedy}") from error
    model, info = loaded
    _check_nothing_lost(path, header, model, info)
    config = model.config
    del config.quantization_config  # it says how the file was read
    return config, model.state_dict(), _tokenizer(path, header)


def _tokenizer(path: Path, header: Any) -> "PreTrainedTokenizerBase | None":  # noqa: ANN401
    from transformers import AutoTokenizer

    kind = _text(header, "tokenizer.ggml.model")
    if kind in ("", "none", "no_vocab"):
        return None
    try:
        with quiet():
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
                path.parent, gguf_file=path.name, local_files_only=True
            )
    except Exception as error:
        # whatever a file's odd values lead to
        raise ModelError(f"{path}: its tokenizer ({kind!r}) cannot be read") from error
    return tokenizer


def _header(path: Path) -> Any:  # noqa: ANN401
    try:
        import accelerate  # noqa: F401
        from gguf import GGUFReader
    except ImportError as error:
        remedy = "`pip install gguf accelerate` (the extra ilubench[gguf])"
        raise ModelError(f"{path}: reading GGUF needs gguf and accelerate; {remedy}") from error
    try:
        header = GGUFReader(path)
    except Exception as error:
        # whatever a damaged file leads to
        size = path.stat().st_size
        problem = f"({size:,} bytes) is no GGUF file, or cut short or damaged"
        raise ModelError(f"{path} {problem}; copy it again") from error
    if not _text(header, "general.architecture"):
        raise ModelError(f"{path} names no architecture (general.architecture); copy it again")
    return header


def _field(header: Any, name: str) -> Any:  # noqa: ANN401
    field = header.get_field(name)
    return None if field is None else field.contents()


def _text(header: Any, name: str) -> str:  # noqa: ANN401
    return str(_field(header, name) or "")


def _check_nothing_lost(path: Path, header: Any, model: Any, info: Mapping[str, Any]) -> None:  # noqa: ANN401
    """Raise unless every number of the file is in the model: what has no place is left out."""
    odd = sorted({*info["missing_keys"], *(one[0] for one in info["mismatched_keys"])})
    if odd:
        raise ModelError(f"{path} lacks {len(odd)} tensors of its model, first {odd[0]!r}")
    held = sum(int(tensor.n_elements) for tensor in header.tensors)
    tensors = {one.data_ptr(): one.numel() for one in model.state_dict().values()}
    if held == sum(tensors.values()):
        return
    raise ModelError(
        f"{path} holds {held:,} weights, and the model that transformers makes of it "
        f"{sum(tensors.values()):,}{_first_lost(header, model)}; it would compute something else: "
        "give the weights that it was made from"
    )


def _first_lost(header: Any, model: Any) -> str:  # noqa: ANN401
    """Name a tensor of the file that no tensor of the model is called after."""
    import gguf

    kind = _text(header, "general.architecture")
    arch = next((one for one, name in gguf.MODEL_ARCH_NAMES.items() if name == kind), None)
    if arch is None:
        return ""
    names = gguf.get_tensor_name_map(arch, model.config.get_text_config().num_hidden_layers)
    suffixes = (".weight", ".bias")
    known = {names.get_name(name, try_suffixes=suffixes) for name in model.state_dict()}
    lost = next((one.name for one in header.tensors if one.name not in known), None)
    return f" (it has no place for {lost!r})" if lost else ""
