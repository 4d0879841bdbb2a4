"""Losses of two terms: one that forgets, one that retains."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field

from ilubench.errors import PluginError
from ilubench.interfaces import Batch, Metrics, StepBatch, UnlearnBatch
from ilubench.methods.phases import accumulate_gradients
from ilubench.models.forward import token_values
from ilubench.training import LossMethod
from ilubench.training.losses import sequence_sums, token_nll

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ForgetRetain", "mean_nll", "pick_references", "summed_nll"]


def mean_nll(model: "PreTrainedModel", batch: Batch) -> torch.Tensor:
    """Return the micro-batch's part of the mean NLL of the global batch's target tokens."""
    return token_values(model, batch, token_nll).values.sum() / batch.tokens


def summed_nll(model: "PreTrainedModel", batch: Batch) -> torch.Tensor:
    """Return each sequence's NLL, summed over its target tokens: float32 [B]."""
    nll = token_values(model, batch, token_nll)
    return sequence_sums(nll.values, nll.sequence, nll.count)


def pick_references(values: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return what `sequence_nll` found for a batch's examples: float32 [B], on its device.

    Args:
        values: one an example of the data set, float32 [n].
        batch: B of the examples.

    Raises:
        PluginError: an example was left out, since no step was to see it.
    """
    found = values[batch.index]
    left_out = found.isnan()
    if left_out.any():
        place = int(batch.index[left_out][0])
        raise PluginError(
            f"forget example {place} was to be seen by no step, so that its likelihood under the "
            "original model was not computed; a method that draws forget examples in an order of "
            "its own must override forget_seen(data, context) and return the positions of all "
            "that it draws"
        )
    return found.to(batch.input_ids.device)


class ForgetRetain(LossMethod):
    """A loss of the common form l = forget term + gamma * retain term.

    Define `forget_term`. The terms are apart so that a wrapper can treat one of them otherwise
    (see `ilubench.methods.sam`).

    Attributes:
        forget_passes: forward passes of the forget term that are kept for the way back together.
        gamma: weight of the retain term.
    """

    forget_passes: ClassVar[int] = 1

    gamma: float = Field(default=1.0, ge=0)

    @abstractmethod
    def forget_term(self, model: "PreTrainedModel", batch: Batch, prepared: Any) -> torch.Tensor:  # noqa: ANN401
        """Return the forget micro-batch's partial loss, a scalar."""

    def retain_term(self, model: "PreTrainedModel", batch: Batch, prepared: Any) -> torch.Tensor:  # noqa: ANN401, ARG002
        """Return the retain micro-batch's partial loss, unweighted: the mean NLL of its tokens."""
        return mean_nll(model, batch)

    def loss(self, model: "PreTrainedModel", batch: UnlearnBatch, prepared: Any) -> torch.Tensor:  # noqa: ANN401
        """Return the micro-batch's part of the loss, a scalar."""
        forget = self.forget_term(model, batch.forget, prepared)
        if self.gamma == 0:
            return forget
        return forget + self.gamma * self.retain_term(model, batch.retain, prepared)

    def backward(self, model: "PreTrainedModel", step: StepBatch, prepared: Any) -> Metrics:  # noqa: ANN401
        """Add the step's gradients into ``.grad``, term by term; return metrics, `loss` among them.

        What the forget term keeps for its way back is gone before the retain term runs. A class
        that overrides `loss` is asked for that.
        """
        if type(self).loss is not ForgetRetain.loss:
            return super().backward(model, step, prepared)
        forget = self.forget_backward(model, [micro.forget for micro in step.micro], prepared)
        retain = self.retain_backward(model, [micro.retain for micro in step.micro], prepared)
        return {"loss": forget + retain}

    def forget_backward(
        self,
        model: "PreTrainedModel",
        batches: Sequence[Batch],
        prepared: Any,  # noqa: ANN401
    ) -> float:
        """Add the forget term's gradients into ``.grad``; return its value."""
        return accumulate_gradients(self.forget_term(model, batch, prepared) for batch in batches)

    def retain_backward(
        self,
        model: "PreTrainedModel",
        batches: Sequence[Batch],
        prepared: Any,  # noqa: ANN401
    ) -> float:
        """Add the weighted retain term's gradients into ``.grad``; return its weighted value."""
        used = batches if self.gamma else ()
        return accumulate_gradients(self.gamma * self.retain_term(model, b, prepared) for b in used)
