"""A stranger's method: gradient difference, written against ilubench's public names only."""

import torch
from pydantic import Field
from transformers import PreTrainedModel

from ilubench.interfaces import Batch, UnlearnBatch
from ilubench.models.forward import token_values
from ilubench.training import LossMethod
from ilubench.training.losses import token_nll


def mean_nll(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    return token_values(model, batch, token_nll).values.sum() / batch.tokens


class GradDiff(LossMethod):
    """Gradient difference: -NLL on the forget set + gamma * NLL on the retain set."""

    gamma: float = Field(default=1.0, ge=0)

    def loss(self, model: PreTrainedModel, batch: UnlearnBatch, prepared: object) -> torch.Tensor:
        return self.gamma * mean_nll(model, batch.retain) - mean_nll(model, batch.forget)
