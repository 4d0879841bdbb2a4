"""How weights are trained."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from ilubench.specs.base import Spec

__all__ = ["LoraSpec", "TrainSpec"]


class TrainSpec(Spec):
    """How weights are trained: target, method and attack alike.

    One step sees ``batch_size`` sequences, however few fit in memory at once (``micro_batch``).
    Batches are always full: where the last batch of an epoch is not, the next epoch's first
    sequences fill it, so that no sequence is left out and all weigh alike.

    Attributes:
        lr: learning rate, the highest of the schedule.
        steps: optimizer steps; or give `epochs`.
        epochs: passes over the data, rounded up to full batches; or give `steps`.
        batch_size: sequences a step.
        micro_batch: sequences that go through the model at once, at most; none: the whole batch.
            Where it saves padding, sequences of unlike lengths go apart all the same.
        schedule: of the learning rate, after the warm-up.
        warmup_steps: first steps, in which the learning rate rises from 0.
        weight_decay: of AdamW.
        betas: of AdamW.
        eps: of AdamW.
        clip: largest norm of a step's gradient; none: not clipped.
        precision: of the forward and backward pass.
        save_every_s: seconds between the saved states from which a killed job goes on.
    """

    lr: float = Field(gt=0)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0, le=1e6)
    batch_size: int = Field(default=4, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    clip: float | None = Field(default=1.0, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    save_every_s: float = Field(default=60.0, ge=0)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give exactly one of steps, epochs")
        return self

    def total_steps(self, examples: int) -> int:
        """Return the number of optimizer steps over ``examples`` training items."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return self.steps_of(self.epochs, examples)

    def steps_of(self, epochs: float, examples: int) -> int:
        """Return the steps after which ``epochs`` passes over ``examples`` items are complete."""
        # what is a whole number of batches must not become one more by rounding
        return max(1, math.ceil(epochs * examples / self.batch_size - 1e-9))


class LoraSpec(Spec):
    """Low-rank adapters in the place of full training (Hu et al. 2021, arXiv 2106.09685).

    Beside the weights W of a linear layer B A alpha / rank is trained, A drawn by the seed and B
    zero. They are float32 and merged into W at the end: the model that comes out has no adapter.

    Attributes:
        rank: of A and B.
        alpha: strength, relative to the rank.
        dropout: share of a layer's inputs that A does not see in a step.
        targets: linear layers by name, or by its end (`q_proj`); none: all but the head.
    """

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()
