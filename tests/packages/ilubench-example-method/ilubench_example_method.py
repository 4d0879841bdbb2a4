"""An unlearning method of one loss: change `loss`, and it is yours."""

import torch
from ilubench.interfaces import Batch, UnlearnBatch
from ilubench.models.forward import token_values
from ilubench.training import LossMethod
from ilubench.training.losses import token_nll
from pydantic import Field
from transformers import PreTrainedModel


class ExampleMethod(LossMethod):
    """Gradient ascent on the forget set that stops at a margin, descent on the retain set.

    l = mean of max(0, margin - NLL(forget token)) + gamma * mean of NLL(retain token).

    Attributes:
        margin: NLL in nats at which a forget token counts as forgotten.
        gamma: weight of the retain term.
    """

    margin: float = Field(default=5.0, gt=0)
    gamma: float = Field(default=1.0, ge=0)

    def loss(self, model: PreTrainedModel, batch: UnlearnBatch, prepared: object) -> torch.Tensor:
        """Return the micro-batch's part of the loss: sums over the whole batch's tokens."""
        known = torch.relu(self.margin - nll(model, batch.forget)).sum() / batch.forget.tokens
        kept = nll(model, batch.retain).sum() / batch.retain.tokens
        return known + self.gamma * kept


def nll(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return the negative log-likelihood of each target token: float32 [N]."""
    return token_values(model, batch, token_nll).values
