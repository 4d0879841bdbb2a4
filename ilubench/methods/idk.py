"""Learning to refuse."""

from typing import TYPE_CHECKING

import torch
from pydantic import Field

from ilubench.interfaces import Batch, Context, Metrics, StepBatch, UnlearnData
from ilubench.methods.refusals import (
    REFUSALS,
    Refusals,
    make_refusals,
    zero_loss,
)
from ilubench.methods.terms import ForgetRetain, summed_nll
from ilubench.specs import SearchSpec
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["IDK"]


class IDK(ForgetRetain):
    """Plain cross-entropy on a refusal in the answer's place (Maini et al. 2024, TOFU).

    l = mean over forget sequences of the refusal's NLL per token
      + gamma * mean NLL of the retain tokens; arXiv 2401.06121, "preference optimisation".

    Forget items without a prompt (plain text) have no refusal: they add nothing, and count in the
    mean. `prompted` in the log is the number of items of the step that have one.

    Published settings: TOFU lr 1e-5, 5 epochs, batch 32, gamma 1.

    Attributes:
        gamma: weight of the retain term.
        refusals: what to answer, without a leading space; each item gets one, by the seed.
    """

    refusals: tuple[str, ...] = Field(default=REFUSALS, min_length=1)

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates and retain weights around the published ones."""
        return propose(config, (2e-6, 3e-5), gamma=spread(0.3, 3))

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> Refusals:
        """Return the refusals.

        Raises:
            DataError: no forget item has a prompt, or the tokenizer does not know the refusals.
        """
        del model
        return make_refusals(data.forget, self.refusals, context)

    def forget_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: Refusals
    ) -> torch.Tensor:
        """Return the micro-batch's part of the refusals' NLL."""
        found = prepared.batch(batch)
        if found is None:
            return zero_loss(model)
        refusal, _ = found
        nll = summed_nll(model, refusal) / refusal.loss_mask.sum(1)
        return nll.sum() / batch.sequences

    def backward(self, model: "PreTrainedModel", step: StepBatch, prepared: Refusals) -> Metrics:
        """Add the step's gradients into ``.grad``; return metrics, `prompted` among them."""
        metrics = super().backward(model, step, prepared)
        return {**metrics, "prompted": prepared.prompted(step)}
