"""Weights on their way from training to an engine: written as safetensors, compared."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ilubench.errors import ModelError
from ilubench.models.quiet import quiet

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["Spool", "same_model", "write_live"]

_PREFIX = "ilubench-weights-"
_LOCK = "owner.lock"


class Spool:
    """A folder of its own for one checkpoint on its way; freed here, or by the next one made.

    A killed process cannot clean up, and on a memory file system its weights would stay in memory.
    Each folder holds a locked file; one whose lock is free has no owner any more.
    """

    def __init__(self, size: int) -> None:
        """Make a folder with room for ``size`` bytes, in memory if it fits there."""
        shared = Path("/dev/shm")
        parent = Path(tempfile.gettempdir())
        if shared.is_dir() and os.access(shared, os.W_OK):
            _free_orphans(shared)
            if shutil.disk_usage(shared).free > 2 * size:
                parent = shared
        _free_orphans(parent)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        self._lock = (self.folder / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def free(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _free_orphans(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # another user's, or removed at this moment
            if time.time() - folder.stat().st_mtime < 5:
                continue  # perhaps just made, and not locked yet
            with (folder / _LOCK).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)


def write_live(model: PreTrainedModel, dtype: str) -> Spool:
    """Write a live model as a checkpoint.

    Raises:
        ModelError: the model has another dtype.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != getattr(torch, dtype):
            problem = f"{name!r} of the live model is {str(parameter.dtype)[6:]}, not {dtype}"
            raise ModelError(f"{problem}; a row never mixes dtypes")
    spool = Spool(sum(p.numel() * p.element_size() for p in model.parameters()))
    try:
        with quiet():
            model.save_pretrained(spool.folder, max_shard_size="1TB")
    except BaseException:
        spool.free()
        raise
    return spool


def same_model(one: PretrainedConfig, other: PretrainedConfig) -> bool:
    """Whether two configurations describe the same model, whatever its weights."""
    volatile = ("_name_or_path", "transformers_version", "dtype", "use_cache")

    def plan(config: PretrainedConfig) -> dict[str, Any]:
        return {key: value for key, value in config.to_diff_dict().items() if key not in volatile}

    return plan(one) == plan(other)
