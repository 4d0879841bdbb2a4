"""How far a model's predictions are from those of the weights that it began with."""

from typing import TYPE_CHECKING

import torch

from ilubench.interfaces import Batch
from ilubench.methods.original import Original
from ilubench.models.forward import answer_states, token_values
from ilubench.training.losses import kl_divergence

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["mean_divergence"]


def mean_divergence(model: "PreTrainedModel", batch: Batch, original: Original) -> torch.Tensor:
    """Return the micro-batch's part of the mean KL(original || model) of the target tokens."""
    with original.weights(model):
        before = answer_states(model, batch)

    def divergence(
        logits: torch.Tensor, _targets: torch.Tensor, before: torch.Tensor
    ) -> torch.Tensor:
        return kl_divergence(logits, original.logits(model, before))

    values = token_values(model, batch, divergence, beside=(before,)).values
    return values.sum() / batch.tokens
