"""A model's weights in another type for a while, and back, bit for bit."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["weights_in"]


@contextlib.contextmanager
def weights_in(model: "PreTrainedModel", dtype: str) -> Iterator[None]:
    """Hold the weights in a wider type; each parameter stays the same object.

    One copy exists at a time, so that it costs the device the difference: 2 bytes a weight for
    bfloat16 ones that are read in float32.

    Args:
        model: may be in the middle of a training.
        dtype: weights of a type that it does not hold stay as they are (norms that are always in
            float32).
    """
    wanted: torch.dtype = getattr(torch, dtype)
    own = {p: p.dtype for p in model.parameters() if _is_wider(wanted, p.dtype)}
    narrow = set(own.values())
    buffers = [
        (module, name, value)
        for module in model.modules()
        for name, value in module.named_buffers(recurse=False)
        if value.dtype in narrow
    ]
    try:
        for parameter in own:
            parameter.data = parameter.data.to(wanted)
        for module, name, value in buffers:
            module._buffers[name] = value.to(wanted)
        yield
    finally:
        for parameter, kind in own.items():
            parameter.data = parameter.data.to(kind)
        for module, name, value in buffers:
            module._buffers[name] = value


def _is_wider(wanted: torch.dtype, own: torch.dtype) -> bool:
    return own.is_floating_point and own != wanted and torch.promote_types(own, wanted) == wanted
