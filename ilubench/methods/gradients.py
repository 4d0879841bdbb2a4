"""Gradients and weights put aside for a while, and put back."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import torch

from ilubench.models.sharding import is_shard

__all__ = ["scale_gradients", "swap_weights", "take_gradients"]


def take_gradients(parameters: Iterable[torch.nn.Parameter]) -> list[torch.Tensor | None]:
    """Return the gradients accumulated so far, and leave none."""
    held = []
    for parameter in parameters:
        held.append(parameter.grad)
        parameter.grad = None
    return held


def scale_gradients(
    parameters: Iterable[torch.nn.Parameter], factor: float, held: Iterable[torch.Tensor | None]
) -> None:
    """Scale the gradients by ``factor`` and add those that were taken before."""
    for parameter, before in zip(parameters, held, strict=True):
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
            if before is not None:
                parameter.grad.add_(before)
        else:
            parameter.grad = before


@contextlib.contextmanager
def swap_weights(
    parameters: Sequence[torch.nn.Parameter], values: Sequence[torch.Tensor]
) -> Iterator[None]:
    """Give the parameters other values for a while; theirs come back bit by bit.

    Graphs built before stay valid once the context is left, not inside it.
    """
    held = [
        parameter.detach().clone() if is_shard(parameter) else parameter.data
        for parameter in parameters
    ]
    _put(parameters, values)
    try:
        yield
    finally:
        _put(parameters, held)


def _put(parameters: Sequence[torch.nn.Parameter], values: Sequence[torch.Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        if is_shard(parameter):  # what is gathered is read from where the shard lies
            with torch.no_grad():
                parameter.copy_(value)
        else:
            parameter.data = value
    # autocast keeps half-precision copies of the weights until the step ends: of those before
    torch.clear_autocast_cache()
