"""Sharpness-aware minimisation around another method."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from ilubench.interfaces import (
    Metrics,
    StepBatch,
)
from ilubench.methods.gradients import scale_gradients, swap_weights, take_gradients
from ilubench.methods.terms import ForgetRetain
from ilubench.methods.wrapping import Wrapper
from ilubench.specs import SearchSpec
from ilubench.training.proposals import spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["SAM"]


class SAM(Wrapper):
    """Sharpness-aware unlearning (Fan et al. 2025, arXiv 2502.05374).

    SAM (Foret et al. 2020, arXiv 2010.01412) on the base's forget term: its gradient is taken at
    theta + rho g / |g|, g its gradient at theta and |.| over all trained parameters; the retain
    term's stays at theta. Weights are perturbed in their own type: in bfloat16 a small rho can
    vanish in rounding.

    Published settings (NPO+SAM, WMDP): rho 0.01, beta 0.015, gamma 2.25, lr 5e-6, 125 steps.

    Attributes:
        base: the method whose loss is made flat; `train` and `trainable` are its own unless given.
        rho: length of the perturbation.
        terms: perturb for the `forget` term, or for the whole loss (`all`), which any base allows.
    """

    rho: float = Field(default=0.01, gt=0)
    terms: Literal["forget", "all"] = "forget"

    @model_validator(mode="after")
    def _has_the_terms(self) -> Self:
        if self.terms == "forget" and not isinstance(self.base, ForgetRetain):
            problem = f"{type(self.base).__name__} has no forget term of its own; give terms=all"
            raise ValueError(problem)
        return self

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return the base's rates, and lengths from the published one upwards."""
        return self.propose_around(config, rho=spread(0.003, 0.3))

    def backward(self, model: "PreTrainedModel", step: StepBatch, prepared: Any) -> Metrics:  # noqa: ANN401
        """Add the step's gradients into ``.grad``; return metrics.

        `loss` is of the perturbed weights where these count; `sharpness` is what the perturbation
        adds to it.
        """
        parameters = [p for p in model.parameters() if p.requires_grad]
        held = take_gradients(parameters)
        here = self._sharp(model, step, prepared)
        moved = self._moved(parameters)
        take_gradients(parameters)
        with swap_weights(parameters, moved):
            metrics = dict(self._sharp(model, step, prepared))
        metrics["sharpness"] = metrics["loss"] - here["loss"]
        if isinstance(self.base, ForgetRetain) and self.terms == "forget":
            retain = [micro.retain for micro in step.micro]
            metrics["loss"] += self.base.retain_backward(model, retain, prepared)
        scale_gradients(parameters, 1.0, held)
        return metrics

    def _sharp(self, model: "PreTrainedModel", step: StepBatch, prepared: Any) -> Metrics:  # noqa: ANN401
        """Add the gradients of what is made flat, at the weights as they are."""
        if isinstance(self.base, ForgetRetain) and self.terms == "forget":
            forget = [micro.forget for micro in step.micro]
            return {"loss": self.base.forget_backward(model, forget, prepared)}
        return self.base.backward(model, step, prepared)

    def _moved(self, parameters: Sequence[torch.nn.Parameter]) -> list[torch.Tensor]:
        """Return the weights, a step of length rho up the gradient."""
        norms = [p.grad.float().norm() for p in parameters if p.grad is not None]
        factor = self.rho / (torch.stack(norms).norm() + 1e-12)
        return [
            p.data if p.grad is None else (p.data + factor * p.grad).to(p.dtype) for p in parameters
        ]
