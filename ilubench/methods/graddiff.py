"""Gradient difference."""

from typing import TYPE_CHECKING

import torch

from ilubench.interfaces import Batch
from ilubench.methods.terms import ForgetRetain, mean_nll
from ilubench.specs import SearchSpec
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["GradDiff"]


class GradDiff(ForgetRetain):
    """Gradient ascent on the forget set, descent on the retain set (Liu et al. 2022).

    l = -(mean NLL of the forget tokens) + gamma * mean NLL of the retain tokens; "Continual
    Learning and Private Unlearning", arXiv 2203.12817. The forget term has no lower bound: few
    steps or a small learning rate are what keeps the model.

    Published settings: WMDP lr 5e-6, 500 steps, batch 4; MUSE lr 1e-5.

    Attributes:
        gamma: weight of the retain term.
    """

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates below the published ones, since ascent has no bound, and retain weights."""
        return propose(config, (8e-7, 1e-5), gamma=spread(0.3, 3))

    def forget_term(self, model: "PreTrainedModel", batch: Batch, prepared: object) -> torch.Tensor:
        """Return the micro-batch's part of the negated mean NLL."""
        del prepared
        return -mean_nll(model, batch)
