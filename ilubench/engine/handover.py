"""Weights on their way from training to an engine: written as safetensors, compared by shape."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from ilubench.errors import ModelError
from ilubench.models import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["Shapes", "compare", "same_model", "write_live"]

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""


def write_live(model: PreTrainedModel, dtype: str) -> tempfile.TemporaryDirectory[str]:
    """Write a live model as a checkpoint, to a memory file system where there is room.

    Raises:
        ModelError: the model has another dtype.
    """
    if str(model.dtype) != f"torch.{dtype}":
        problem = f"a live model of {str(model.dtype)[6:]} cannot be scored in {dtype}"
        raise ModelError(f"{problem}; a row never mixes dtypes")
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    folder = tempfile.TemporaryDirectory(prefix="ilubench-weights-", dir=_memory(size))
    with quiet():
        model.save_pretrained(folder.name, max_shard_size="1TB")
    return folder


def _memory(size: int) -> str | None:
    """Return a memory file system with room for ``size`` bytes; None: the temporary folder."""
    shared = Path("/dev/shm")
    if shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2 * size:
        return str(shared)
    return None


def same_model(one: PretrainedConfig, other: PretrainedConfig) -> bool:
    """Whether two configurations describe the same model, whatever its weights."""
    volatile = ("_name_or_path", "transformers_version", "dtype", "use_cache")

    def plan(config: PretrainedConfig) -> dict[str, Any]:
        return {key: value for key, value in config.to_diff_dict().items() if key not in volatile}

    return plan(one) == plan(other)


def compare(expected: Shapes, found: Shapes, folder: Path) -> None:
    """Raise unless a checkpoint has exactly the tensors of the engine's model.

    vLLM itself says nothing of a missing tensor (the old one stays), and a wrong shape leaves it
    half loaded.
    """
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    if missing or extra:
        problem = f"lacks {missing[0]!r}" if missing else f"has a tensor {extra[0]!r} too many"
        raise ModelError(f"{folder}: {problem}; the engine's model was another one")
    for name, shape in expected.items():
        if found[name] != shape:
            raise ModelError(
                f"{folder}: {name!r} has shape {list(found[name])}, not {list(shape)}; "
                "the engine's model was another one"
            )
