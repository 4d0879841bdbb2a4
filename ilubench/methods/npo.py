"""Negative preference optimisation."""

from typing import TYPE_CHECKING, Literal

import torch
from pydantic import Field

from ilubench.interfaces import Batch, Context, UnlearnBatch, UnlearnData
from ilubench.losses import npo, sequence_sums, token_nll
from ilubench.models import answer_logits
from ilubench.training import LossMethod, sequence_nll

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["NPO"]


class NPO(LossMethod):
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868).

    l = mean over forget sequences of -(2/beta) log sigmoid(beta (NLL - NLL_ref))
      + gamma * mean NLL of the retain tokens. NLL_ref is the original model's, computed once.

    Attributes:
        beta: inverse temperature.
        gamma: weight of the retain term.
        reduction: a sequence's NLL is the `mean` or the `sum` over its target tokens. Public
            implementations disagree; the paper's equation is the sum.
    """

    beta: float = Field(default=0.1, gt=0)
    gamma: float = Field(default=1.0, ge=0)
    reduction: Literal["mean", "sum"] = "sum"

    def prepare(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> torch.Tensor:
        """Return the original model's NLL of each forget example: float32 [n]."""
        mean = self.reduction == "mean"
        return sequence_nll(model, data.forget, context, self.train, mean=mean)

    def loss(
        self, model: "PreTrainedModel", batch: UnlearnBatch, prepared: torch.Tensor
    ) -> torch.Tensor:
        """Return the micro-batch's part of the loss, a scalar."""
        reference = prepared[batch.forget.index].to(batch.forget.input_ids.device)
        nll = self._sequence_nll(model, batch.forget)
        forget = npo(nll, reference, self.beta).sum() / batch.forget.sequences
        if self.gamma == 0:
            return forget
        answers = answer_logits(model, batch.retain)
        retain = token_nll(answers.logits, answers.targets).sum() / batch.retain.tokens
        return forget + self.gamma * retain

    def _sequence_nll(self, model: "PreTrainedModel", batch: Batch) -> torch.Tensor:
        answers = answer_logits(model, batch)
        nll = token_nll(answers.logits, answers.targets)
        sums = sequence_sums(nll, answers.sequence, answers.count)
        return sums / batch.loss_mask.sum(1) if self.reduction == "mean" else sums
