"""A model's linear layers: what adapters stand beside, and what is quantised, pruned or shaken."""

from typing import TYPE_CHECKING, cast

import torch

from ilubench.models.forward import outline_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["by_outputs", "linear_layers", "linear_sizes"]


def linear_layers(model: "PreTrainedModel") -> dict[str, torch.nn.Module]:
    """Return the linear layers by name, all but the head, which may be one with the embedding."""
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def by_outputs(layer: torch.nn.Module) -> torch.Tensor:
    """Return a linear layer's weights, in the same memory: [outputs, inputs]."""
    weight = cast("torch.Tensor", layer.weight).detach()
    return weight if isinstance(layer, torch.nn.Linear) else weight.T  # GPT-2 has them crosswise


def linear_sizes(config: "PretrainedConfig") -> dict[str, tuple[int, int]]:
    """Return linear layer -> (outputs, inputs) of the model that a configuration describes."""
    found = {
        n: by_outputs(layer).shape for n, layer in linear_layers(outline_model(config)).items()
    }
    return {name: (shape[0], shape[1]) for name, shape in found.items()}
