"""Task-vector negation."""

from typing import TYPE_CHECKING

import torch
from pydantic import Field

from ilubench.interfaces import (
    Context,
    Method,
    UnlearnData,
)
from ilubench.specs import SearchSpec, TrainSpec
from ilubench.training import fine_tune, trainable_only
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["TaskVector"]


class TaskVector(Method):
    """Negation of the forget set's task vector (Ilharco et al. 2022, arXiv 2212.04089).

    theta = theta_o - scale * (theta_ft - theta_o), theta_ft the target model fine-tuned on the
    forget set until it knows it too well. The retain set is not used.

    Published settings (MUSE): lr 1e-5; length of the tuning and scale are chosen per benchmark.

    Attributes:
        train: of the fine-tuning.
        trainable: patterns of the parameters that are tuned; none given: all.
        scale: how far to go the other way.
    """

    train: TrainSpec
    trainable: tuple[str, ...] = ()
    scale: float = Field(default=1.0, gt=0)

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates from half the published one, and scales."""
        return propose(config, (5e-6, 1e-4), scale=spread(0.3, 3))

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Fine-tune on the forget set, then go the other way; the model is changed in place.

        Raises:
            DivergedError: a loss or gradient is not finite.
        """
        with trainable_only(model, self.trainable):
            trained = [p for p in model.parameters() if p.requires_grad]
            before = [p.detach().to("cpu", copy=True) for p in trained]
            for _ in fine_tune(model, data.forget, self.train, context):
                pass
        with torch.no_grad():
            for parameter, original in zip(trained, before, strict=True):
                start = original.to(parameter.device).float()
                parameter.copy_(start - self.scale * (parameter.float() - start))
        return model
