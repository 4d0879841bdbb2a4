"""Invariant unlearning: an invariance penalty on benign fine-tuning sets, added to a base."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field, model_validator

from ilubench.interfaces import Batch, Context, Metrics, StepBatch, UnlearnBatch, UnlearnData
from ilubench.loading import merge
from ilubench.losses import invariance_gradient, token_nll
from ilubench.models import answer_logits
from ilubench.plugins import PluginField, create
from ilubench.specs import PluginRef, TrainSpec
from ilubench.training import LossMethod

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ILU"]


class ILU(LossMethod):
    """Invariant LLM unlearning (ICML 2025, arXiv 2506.01339).

    l = l_base + weight * sum over environments of penalty_i. With `penalty=irm`, penalty_i =
    g_i^2 and g_i = mean over the environment's answer tokens of E_p[z] - z_y: IRMv1's gradient
    with respect to a scalar on the logits, in closed form. `penalty=cross_entropy` is the
    control: the environment's plain cross-entropy in the penalty's place.

    Attributes:
        base: the method whose loss is regularised; `train` and `trainable` are its own unless
            given.
        weight: lambda.
        environments: the suite's benign sets to be invariant to; attacks with them are `seen`.
        environment_batch: sequences of each environment a step.
        penalty: `irm` or `cross_entropy`.
    """

    base: Annotated[LossMethod, PluginField("methods", lends=("train", "trainable"))] = Field(
        default="npo", validate_default=True
    )
    weight: float = Field(default=1.0, ge=0)
    environments: tuple[str, ...] = Field(default=("gsm8k",), min_length=1)
    environment_batch: int = Field(default=16, ge=1)
    penalty: Literal["irm", "cross_entropy"] = "irm"

    @model_validator(mode="before")
    @classmethod
    def _train_as_the_base(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, Mapping):
            return values
        base = values.get("base", "npo")
        if isinstance(base, str | Mapping):
            base = create("methods", PluginRef.model_validate(base))
        if not isinstance(base, LossMethod):
            problem = f"base: {type(base).__name__} is not a LossMethod"
            raise ValueError(problem)  # noqa: TRY004 - pydantic reports no TypeError
        train = values.get("train") or {}
        if isinstance(train, Mapping):
            below = base.train.model_dump(mode="json")
            if "steps" in train or "epochs" in train:
                below.update(steps=None, epochs=None)
            train = TrainSpec.model_validate(merge(below, train))
        trainable = tuple(values.get("trainable") or base.trainable)
        base = base.model_copy(update={"train": train, "trainable": trainable})
        return {**values, "base": base, "train": train, "trainable": trainable}

    def environment_batches(self) -> Mapping[str, int]:
        """Return environment name -> sequences a step, the base's included."""
        own = dict.fromkeys(self.environments, self.environment_batch)
        return {**self.base.environment_batches(), **own}

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> Any:  # noqa: ANN401
        """Return what the base needs of the original model."""
        return self.base.prepare(model, data, context)

    def loss(self, model: "PreTrainedModel", batch: UnlearnBatch, prepared: Any) -> torch.Tensor:  # noqa: ANN401
        """Return the base's partial loss; the penalty is no sum over micro-batches."""
        return self.base.loss(model, batch, prepared)

    def backward(self, model: "PreTrainedModel", step: StepBatch, prepared: Any) -> Metrics:  # noqa: ANN401
        """Add the gradients of base and penalties.

        d(g^2) = 2 g dg, and g is a mean over the whole environment batch: so its micro-batches
        come first and accumulate dg, which is then scaled by 2 weight g, before the base's loss
        is accumulated on top. Several environments need one further gradient buffer.
        """
        metrics: dict[str, float] = {}
        total = 0.0
        parameters = [p for p in model.parameters() if p.requires_grad]
        for name in self.environments:
            batches = step.environments[name]
            if self.penalty == "irm":
                held = _take_gradients(parameters)
                gradient = self._accumulate(model, batches, scale=1.0)
                _scale_gradients(parameters, 2.0 * self.weight * gradient, held)
                penalty = gradient**2
                metrics[f"g/{name}"] = gradient
            else:
                penalty = self._accumulate(model, batches, scale=self.weight)
            metrics[f"penalty/{name}"] = penalty
            total += self.weight * penalty
        metrics.update(self.base.backward(model, step, prepared))
        metrics["loss"] += total
        return metrics

    def _accumulate(
        self, model: "PreTrainedModel", batches: Sequence[Batch], *, scale: float
    ) -> float:
        """Back-propagate the environment's mean token value; return it unscaled."""
        value = 0.0
        of_tokens = invariance_gradient if self.penalty == "irm" else token_nll
        for batch in batches:
            answers = answer_logits(model, batch)
            part = of_tokens(answers.logits, answers.targets).sum() / batch.tokens
            (scale * part).backward()
            value += float(part.detach())
        return value


def _take_gradients(parameters: Iterable[torch.nn.Parameter]) -> list[torch.Tensor | None]:
    held = []
    for parameter in parameters:
        held.append(parameter.grad)
        parameter.grad = None
    return held


def _scale_gradients(
    parameters: Iterable[torch.nn.Parameter], factor: float, held: Iterable[torch.Tensor | None]
) -> None:
    for parameter, before in zip(parameters, held, strict=True):
        if parameter.grad is not None:
            parameter.grad.mul_(factor)
            if before is not None:
                parameter.grad.add_(before)
        else:
            parameter.grad = before
