"""The hidden state behind one of a model's layers."""

from typing import TYPE_CHECKING, Any

import torch

from ilubench.errors import ModelError, SpecError
from ilubench.interfaces import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["hidden_state", "layer_of"]


class _Reached(Exception):  # noqa: N818 - no error: it ends a forward early
    """The layer has been computed; those above it are not needed."""


def hidden_state(model: "PreTrainedModel", batch: Batch, layer: int) -> torch.Tensor:
    """Return the output of layer ``layer`` (from 0): [B, T, H]; layers above it are not run.

    Raises:
        SpecError: the model has no such layer.
        ModelError: the model's layers cannot be found.
    """
    found: list[torch.Tensor] = []

    def keep(_layer: torch.nn.Module, _inputs: object, output: Any) -> None:  # noqa: ANN401
        found.append(output[0] if isinstance(output, tuple) else output)
        raise _Reached

    handle = layer_of(model, layer).register_forward_hook(keep)
    try:
        model.base_model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        )
    except _Reached:
        pass
    finally:
        handle.remove()
    return found[0]


def layer_of(model: "PreTrainedModel", layer: int) -> torch.nn.Module:
    """Return one of the model's layers, counted from 0.

    Raises:
        SpecError: the model has no such layer.
        ModelError: the model's layers cannot be found.
    """
    count = model.config.num_hidden_layers
    for layers in model.base_model.children():
        if isinstance(layers, torch.nn.ModuleList) and len(layers) == count:
            break
    else:
        raise ModelError(f"the layers of a {type(model).__name__} cannot be found")
    if layer >= count:
        problem = f"the model has {count} layers, no layer {layer}"
        raise SpecError(problem, field="layer", remedy=f"give one of 0..{count - 1}")
    return layers[layer]
