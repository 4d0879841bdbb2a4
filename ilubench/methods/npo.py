"""Negative preference optimisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from pydantic import Field

from ilubench.errors import IlubenchError, SpecError
from ilubench.interfaces import (
    Batch,
    Context,
    UnlearnData,
)
from ilubench.methods.divergence import mean_divergence
from ilubench.methods.gradients import scale_gradients, take_gradients
from ilubench.methods.original import Original
from ilubench.methods.terms import ForgetRetain, mean_nll, pick_references, summed_nll
from ilubench.models.sharding import sum_over_ranks
from ilubench.specs import SearchSpec
from ilubench.training import sequence_nll
from ilubench.training.losses import npo_loss
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["NPO"]


@dataclass(frozen=True)
class _Prepared:
    reference: torch.Tensor
    original: Original | None


class NPO(ForgetRetain):
    """Negative preference optimisation (Zhang et al. 2024, arXiv 2404.05868).

    l = mean over forget sequences of -(2/beta) log sigmoid(beta (NLL - NLL_ref))
      + gamma * mean NLL of the retain tokens. NLL_ref is the original model's, computed once.

    Published settings: WMDP beta 0.0225, gamma 1, lr 5e-6, 125 steps, batch 4
    (`reduction=batch_mean`); MUSE beta 0.1, gamma 1, lr 1e-5, 10 epochs, constant schedule.

    Attributes:
        beta: inverse temperature.
        gamma: weight of the retain term.
        reduction: a sequence's NLL is the `mean` or the `sum` over its target tokens. Public
            implementations disagree; the paper's equation is the sum. `batch_mean`: one sigmoid a
            step, of the mean NLL of all the batch's forget tokens, as in public code for WMDP.
        retain: the retain term is the retain tokens' mean NLL (`nll`) or their mean
            KL(original || model) (`kl`), which keeps a copy of the trained weights.
    """

    shards: ClassVar[bool] = True

    beta: float = Field(default=0.1, gt=0)
    gamma: float = Field(default=1.0, ge=0)
    reduction: Literal["mean", "sum", "batch_mean"] = "sum"
    retain: Literal["nll", "kl"] = "nll"

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates and betas around the published ones."""
        return propose(config, (2e-6, 3e-5), beta=spread(0.01, 0.3))

    def check_sharding(self) -> None:
        """Refuse a retain term that needs the original's head beside the trained one.

        Raises:
            SpecError: names the setting.
        """
        super().check_sharding()
        if self.retain == "kl":
            problem = "kl does not go with a model that is divided among devices"
            raise SpecError(problem, field="method.retain", remedy="use nll, or no devices_per_job")

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> _Prepared:
        """Return the original's NLL of the forget examples to come, float32 [n], and its weights.

        NaN where no step sees the example.
        """
        mean, seen = self.reduction == "mean", data.forget_seen
        reference = sequence_nll(model, data.forget, context, self.train, mean=mean, seen=seen)
        kept = Original(model, self.changing) if self.retain == "kl" and self.gamma else None
        return _Prepared(reference, kept)

    def forget_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: _Prepared
    ) -> torch.Tensor:
        """Return the micro-batch's part of the forget term.

        Raises:
            IlubenchError: `batch_mean`, and the micro-batch is not the whole batch: the sigmoid of
                a mean is no sum over micro-batches; `backward` takes care of it.
        """
        reference = pick_references(prepared.reference, batch)
        nll = summed_nll(model, batch)
        if self.reduction == "batch_mean":
            if len(nll) != batch.sequences:
                raise IlubenchError("NPO: batch_mean has no partial loss; call backward")
            ratio = (nll.sum() - reference.sum()) / batch.tokens
            return npo_loss(ratio, torch.zeros_like(ratio), self.beta)
        if self.reduction == "mean":
            nll = nll / batch.loss_mask.sum(1)
        return npo_loss(nll, reference, self.beta).sum() / batch.sequences

    def retain_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: _Prepared
    ) -> torch.Tensor:
        """Return the micro-batch's part of the retain term, unweighted."""
        if prepared.original is None:
            return mean_nll(model, batch)
        return mean_divergence(model, batch, prepared.original)

    def forget_backward(
        self, model: "PreTrainedModel", batches: Sequence[Batch], prepared: _Prepared
    ) -> float:
        """Add the forget term's gradients into ``.grad``; return its value.

        `batch_mean`: f(m)' = f'(m) m', and the mean m is known after the last micro-batch only. So
        they accumulate m', which is then scaled.
        """
        if self.reduction != "batch_mean":
            return super().forget_backward(model, batches, prepared)
        parameters = [p for p in model.parameters() if p.requires_grad]
        held = take_gradients(parameters)
        ratio = 0.0
        for batch in batches:
            part = mean_nll(model, batch)
            part.backward()
            reference = float(pick_references(prepared.reference, batch).sum()) / batch.tokens
            ratio += float(part.detach()) - reference
        mean = torch.tensor(sum_over_ranks(ratio), dtype=torch.float64, requires_grad=True)
        value = npo_loss(mean, torch.zeros_like(mean), self.beta)
        (slope,) = torch.autograd.grad(value, mean)
        scale_gradients(parameters, float(slope), held)
        return float(value.detach())
