"""Gradient checkpointing: layers computed again on the way back (Chen et al. 2016, 1604.06174)."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from ilubench.errors import SpecError
from ilubench.models.forward import model_layers

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["LARGE", "checkpoint_layers", "wants_checkpoints"]

LARGE = 1e9
"""Weights from which on layers are computed again unless `memory.checkpointing` says otherwise."""


def wants_checkpoints(model: "PreTrainedModel", asked: bool | None) -> bool:
    """Return whether layers are computed again: as asked, else those of a large model."""
    if asked is not None:
        return asked
    count = sum(parameter.numel() for parameter in model.parameters())
    return count > LARGE and bool(model_layers(model))


class _Checkpointed:
    """A layer's `forward` that keeps its inputs only and runs again on the way back."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        self._forward = forward

    def __call__(self, *args: Any, **inputs: Any) -> Any:  # noqa: ANN401
        if not torch.is_grad_enabled():
            return self._forward(*args, **inputs)
        return checkpoint(self._forward, *args, use_reentrant=False, context_fn=_contexts, **inputs)


class _SameAttention(AbstractContextManager[None]):
    """The attention kernels that were allowed when this was made; may be entered many times.

    What differentiates twice asks for the plain kernel; a layer may run again after that.
    """

    def __init__(self) -> None:
        cuda = torch.backends.cuda
        allowed = {
            SDPBackend.FLASH_ATTENTION: cuda.flash_sdp_enabled(),
            SDPBackend.EFFICIENT_ATTENTION: cuda.mem_efficient_sdp_enabled(),
            SDPBackend.CUDNN_ATTENTION: cuda.cudnn_sdp_enabled(),
            SDPBackend.MATH: cuda.math_sdp_enabled(),
        }
        self._allowed = [backend for backend, enabled in allowed.items() if enabled]
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> None:
        self._entered.enter_context(sdpa_kernel(self._allowed))

    def __exit__(self, *error: object) -> None:
        self._entered.close()


def _contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return contexts of a layer's first run and of the later ones."""
    return contextlib.nullcontext(), _SameAttention()


@contextlib.contextmanager
def checkpoint_layers(model: "PreTrainedModel", *, on: bool) -> Iterator[None]:
    """Compute the model's layers again on the way back, as long as the context lasts.

    Not transformers' own switch: hooks on a layer stay outside of what runs twice, so that what
    they add, read or count happens once. Contexts in each other are one.

    Args:
        model: its layers' `forward` is wrapped.
        on: nothing happens if not.

    Raises:
        SpecError: the model's layers cannot be found.
    """
    if not on:
        yield
        return
    layers = model_layers(model)
    if not layers:
        raise SpecError(
            f"the layers of a {type(model).__name__} cannot be found",
            field="memory.checkpointing",
            remedy="give memory.checkpointing=false",
        )
    before: dict[torch.nn.Module, Any] = {layer: layer.__dict__.get("forward") for layer in layers}
    wrapped = [layer for layer in layers if not isinstance(before[layer], _Checkpointed)]
    for layer in wrapped:
        layer.forward = _Checkpointed(layer.forward)
    try:
        yield
    finally:
        for layer in wrapped:
            del layer.forward
            if before[layer] is not None:
                layer.forward = before[layer]
