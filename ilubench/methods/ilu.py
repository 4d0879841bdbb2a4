"""Invariant unlearning: an invariance penalty on benign fine-tuning sets, added to a base."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ilubench.errors import SpecError
from ilubench.interfaces import (
    Batch,
    Metrics,
    StepBatch,
)
from ilubench.methods.gradients import scale_gradients, take_gradients
from ilubench.methods.invariance import Statistic, add_penalty
from ilubench.methods.wrapping import Wrapper
from ilubench.models.forward import token_values
from ilubench.models.sharding import sum_over_ranks
from ilubench.specs import SearchSpec
from ilubench.training.losses import invariance_gradient, token_nll
from ilubench.training.proposals import spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["ILU"]


FORGET = "forget"
"""The name that stands for the forget set among the environments."""


class ILU(Wrapper):
    """Invariant LLM unlearning (ICML 2025, arXiv 2506.01339).

    l = l_base + weight * sum over environments of penalty_i. With `penalty=irm`, penalty_i =
    |g_i|^2 and g_i = d/dw of the environment's mean cross-entropy at w = 1: IRMv1 (Arjovsky et al.
    2019, arXiv 1907.02893). By default w is a scalar on the logits; then g_i = mean over the
    environment's answer tokens of E_p[z] - z_y, in closed form. `penalty=cross_entropy` is the
    control: the environment's plain cross-entropy in the penalty's place.

    Published settings: environment GSM8K, 48 sequences a step, weight 0.1 to 2.

    Attributes:
        base: the method whose loss is regularised; `train` and `trainable` are its own unless
            given.
        weight: lambda.
        environments: the suite's benign sets to be invariant to; attacks with them are `seen`.
            `forget` is the step's own forget batch, an ablation; an attack that relearns the
            forget set is no more `seen` by it than by any method, since all train on that set.
        environment_batch: sequences of each environment a step.
        penalty: `irm`; `grad_norm`, |d l_i / d theta|^2 over the trained weights; or
            `cross_entropy`.
        predictor: what w multiplies, with `penalty=irm`: the `logits`; each coordinate of the
            final hidden state (`elementwise`: w is a vector); or the trained weights (`params`:
            g_i = theta . d l_i / d theta).
        estimator: `plain` squares the batch's mean, which is biased upwards by its variance;
            `split` multiplies those of two random halves.
    """

    shards: ClassVar[bool] = True

    weight: float = Field(default=1.0, ge=0)
    environments: tuple[str, ...] = Field(default=("gsm8k",), min_length=1)
    environment_batch: int = Field(default=16, ge=1)
    penalty: Literal["irm", "grad_norm", "cross_entropy"] = "irm"
    predictor: Literal["logits", "elementwise", "params"] = "logits"
    estimator: Literal["plain", "split"] = "plain"

    @model_validator(mode="after")
    def _variants(self) -> Self:
        if self.predictor != "logits" and self.penalty != "irm":
            raise ValueError(f"predictor={self.predictor} needs penalty=irm")
        if self.estimator == "split":
            if self.penalty == "cross_entropy":
                raise ValueError("estimator=split needs a squared penalty: irm or grad_norm")
            sizes = {self.environment_batch} if set(self.environments) - {FORGET} else set()
            if FORGET in self.environments:
                sizes.add(self.train.batch_size)
            if min(sizes) < 2:
                raise ValueError("estimator=split needs batches of 2 sequences at least")
        return self

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return the base's rates, and the published weights."""
        return self.propose_around(config, weight=spread(0.1, 2))

    def environment_batches(self) -> Mapping[str, int]:
        """Return environment name -> sequences a step, the base's included."""
        mine = (name for name in self.environments if name != FORGET)
        own = dict.fromkeys(mine, self.environment_batch)
        return {**super().environment_batches(), **own}

    def check_sharding(self) -> None:
        """Refuse penalties that differentiate twice, or look at the whole batch at once.

        Raises:
            SpecError: names the setting.
        """
        super().check_sharding()
        self.base.check_sharding()
        if self._statistic() is not None:
            field = "estimator" if self.estimator == "split" else "predictor"
            field = "penalty" if self.penalty == "grad_norm" else field
            problem = f"{getattr(self, field)} does not go with a model divided among devices"
            remedy = "use penalty=irm or cross_entropy, predictor=logits and estimator=plain"
            raise SpecError(problem, field=f"method.{field}", remedy=remedy)

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
            batches = _environment(step, name)
            statistic = self._statistic()
            if statistic is not None:
                split = self.estimator == "split"
                penalty = add_penalty(model, batches, statistic, weight=self.weight, split=split)
            elif self.penalty == "irm":
                held = take_gradients(parameters)
                gradient = self._accumulate(model, batches, scale=1.0)
                scale_gradients(parameters, 2.0 * self.weight * gradient, held)
                penalty = gradient**2
                metrics[f"g/{name}"] = gradient
            else:
                penalty = self._accumulate(model, batches, scale=self.weight)
            metrics[f"penalty/{name}"] = penalty
            total += self.weight * penalty
        metrics.update(self.base.backward(model, step, prepared))
        metrics["loss"] += total
        return metrics

    def _statistic(self) -> Statistic | None:
        """Return what `add_penalty` squares; None for what one backward pass is enough for."""
        if self.penalty == "grad_norm":
            return "weights"
        one_pass = self.predictor == "logits" and self.estimator == "plain"
        return None if self.penalty == "cross_entropy" or one_pass else self.predictor

    def _accumulate(
        self, model: "PreTrainedModel", batches: Sequence[Batch], *, scale: float
    ) -> float:
        """Back-propagate the environment's mean token value; return it unscaled, of all ranks."""
        value = 0.0
        of_tokens = invariance_gradient if self.penalty == "irm" else token_nll
        for batch in batches:
            part = token_values(model, batch, of_tokens).values.sum() / batch.tokens
            (scale * part).backward()
            value += float(part.detach())
        return sum_over_ranks(value)


def _environment(step: StepBatch, name: str) -> Sequence[Batch]:
    if name == FORGET:
        return [micro.forget for micro in step.micro]
    return step.environments[name]
