"""Direct preference optimisation of a refusal over the true answer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field

from ilubench.interfaces import (
    Batch,
    Context,
    Metrics,
    StepBatch,
    UnlearnData,
)
from ilubench.methods.refusals import (
    REFUSALS,
    Refusals,
    make_refusals,
    zero_loss,
)
from ilubench.methods.terms import ForgetRetain, pick_references, summed_nll
from ilubench.specs import SearchSpec
from ilubench.training import sequence_nll
from ilubench.training.losses import dpo_loss
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["DPO"]


@dataclass(frozen=True)
class _Prepared:
    refusals: Refusals
    worse: torch.Tensor
    better: torch.Tensor


class DPO(ForgetRetain):
    """Preference of a refusal over the true answer (Rafailov et al. 2023, arXiv 2305.18290).

    l = mean over forget sequences of -(2/beta) log sigmoid(beta (d(answer) - d(refusal)))
      + gamma * mean NLL of the retain tokens, with d(y) = NLL(y | x) - NLL_original(y | x), summed
    over tokens; as an unlearning method in Maini et al. 2024, arXiv 2401.06121 (TOFU). NPO is this
    without d(refusal).

    Forget items without a prompt (plain text) have no refusal: they add nothing, and count in the
    mean. `prompted` in the log is the number of items of the step that have one.

    Published settings: TOFU beta 0.1, lr 1e-5, 5 epochs, batch 32, no retain term (gamma 0).

    Attributes:
        gamma: weight of the retain term.
        beta: inverse temperature.
        refusals: what to answer, without a leading space; each item gets one, by the seed.
    """

    forget_passes: ClassVar[int] = 2  # an answer and its refusal

    beta: float = Field(default=0.1, gt=0)
    refusals: tuple[str, ...] = Field(default=REFUSALS, min_length=1)

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates and betas around the published ones."""
        return propose(config, (2e-6, 3e-5), beta=spread(0.01, 0.3))

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> _Prepared:
        """Return the refusals, and the original model's NLL of answers [n] and of refusals [r].

        Raises:
            DataError: no forget item has a prompt, or the tokenizer does not know the refusals.
        """
        refusals = make_refusals(data.forget, self.refusals, context)
        seen = data.forget_seen
        refused = None
        if seen is not None:
            refused = {refusals.places[index] for index in seen if index in refusals.places}
        worse, better = (
            sequence_nll(model, dataset, context, self.train, mean=False, seen=chosen)
            for dataset, chosen in ((data.forget, seen), (refusals.examples, refused))
        )
        return _Prepared(refusals, worse, better)

    def forget_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: _Prepared
    ) -> torch.Tensor:
        """Return the micro-batch's part of the forget term."""
        found = prepared.refusals.batch(batch)
        if found is None:
            return zero_loss(model)
        refusal, rows = found
        worse = summed_nll(model, batch) - pick_references(prepared.worse, batch)
        better = summed_nll(model, refusal) - pick_references(prepared.better, refusal)
        return dpo_loss(better, worse[rows], self.beta).sum() / batch.sequences

    def backward(self, model: "PreTrainedModel", step: StepBatch, prepared: _Prepared) -> Metrics:
        """Add the step's gradients into ``.grad``; return metrics, `prompted` among them."""
        metrics = super().backward(model, step, prepared)
        return {**metrics, "prompted": prepared.refusals.prompted(step)}
