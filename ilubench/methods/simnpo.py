"""Simple negative preference optimisation."""

from typing import TYPE_CHECKING

import torch
from pydantic import Field

from ilubench.interfaces import Batch
from ilubench.methods.terms import ForgetRetain, summed_nll
from ilubench.specs import SearchSpec
from ilubench.training.losses import simnpo_loss
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["SimNPO"]


class SimNPO(ForgetRetain):
    """Simple negative preference optimisation (Fan et al. 2024, arXiv 2410.07163).

    l = mean over forget sequences of -(2/beta) log sigmoid(beta NLL / |y| - margin)
      + gamma * mean NLL of the retain tokens. There is no reference model; |y| is the number of
    target tokens. Some code has the margin inside beta, beta (NLL / |y| - margin): the same at
    the published margin of 0.

    Published settings: WMDP beta 0.1, margin 0, gamma 1, lr 9.5e-6, 500 steps; MUSE beta 0.7
    (News) and 0.75 (Books), margin 0, gamma 0.1.

    Attributes:
        gamma: weight of the retain term.
        beta: inverse temperature.
        margin: reward margin.
    """

    beta: float = Field(default=0.1, gt=0)
    margin: float = Field(default=0.0, ge=0)

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates, and betas from the published ones of WMDP to those of TOFU."""
        return propose(config, (2e-6, 3e-5), beta=spread(0.1, 5))

    def forget_term(self, model: "PreTrainedModel", batch: Batch, prepared: object) -> torch.Tensor:
        """Return the micro-batch's part of the forget term."""
        del prepared
        nll = summed_nll(model, batch) / batch.loss_mask.sum(1)
        return simnpo_loss(nll, self.beta, self.margin).sum() / batch.sequences
