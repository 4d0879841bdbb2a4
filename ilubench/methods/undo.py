"""Unlearn, noise, distil."""

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field

from ilubench.data.seeds import seed_for
from ilubench.interfaces import (
    Context,
    Dataset,
    Method,
    Metrics,
    UnlearnData,
)
from ilubench.interfaces.discovery import PluginField
from ilubench.methods.divergence import mean_divergence
from ilubench.methods.original import Original
from ilubench.methods.phases import accumulate_gradients, run_first
from ilubench.specs import SearchSpec, TrainSpec
from ilubench.training import Batches, optimize, trainable_only
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["UNDO"]


class UNDO(Method):
    """Unlearn, noise, distil on outputs (Lee et al. 2025, arXiv 2506.06278, UNDO).

    1. theta_u: what the base method makes of the model.
    2. theta = (1 - alpha) theta_u + alpha beta N. N is fresh initialisation noise: for a matrix
       [m, n] Xavier's, uniform in +-sqrt(6 / (m + n)); for a vector (a norm's weight, a bias) zero.
    3. Minimise the mean KL(theta_u || theta) of the predicted tokens, in nats, over the
       distillation text, by the settings `train`.

    What the weights still held of the forgotten is in theta_u's weights, not in its answers: so
    the student does not get it. The noise is uniform, and spares vectors, as in the authors' code.

    Published settings (authors' code and post; the paper's tables were not checked): beta 0.1;
    alpha 0.2 to 0.8 for languages, 0.55 to 0.75 for arithmetic; language lr 9e-4, batch 240;
    WMDP (Gemma-2-2B) alpha 0.25, beta 0, lr 2e-5, 3000 steps of 110 sequences of 1024 tokens. The
    distillation text is a share of the pre-training data there, for languages with forget text
    among it; it ends when the student has 95 % of the teacher's retain performance, here after
    `train`'s steps. A retain set is a small text to distil on: alpha has to be small with it.

    Attributes:
        base: the method that unlearns; it keeps its own `train`.
        train: of the distillation.
        trainable: patterns of the parameters that are noised and distilled; none given: all. A base
            that was given none trains these.
        alpha: how much of the weights is replaced: 1 begins from noise alone.
        beta: size of the noise; 0 only shrinks.
        text: what is distilled on: the `retain` set, or `both` sets.
        tokens: which predictions are matched: `content`, all but that of the first token; or
            `targets`, those with a loss, which leaves questions out.
    """

    base: Annotated[Method, PluginField("methods")] = Field(default="npo", validate_default=True)
    train: TrainSpec
    trainable: tuple[str, ...] = ()
    alpha: float = Field(default=0.6, gt=0, le=1)
    beta: float = Field(default=0.1, ge=0)
    text: Literal["retain", "both"] = "retain"
    tokens: Literal["content", "targets"] = "content"

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates of the distillation, and alphas for a small text to distil on."""
        return propose(config, (5e-6, 5e-5), alpha=spread(0.003, 0.3))

    def environment_names(self) -> tuple[str, ...]:
        """Return the base's."""
        return self.base.environment_names()

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Unlearn, noise, distil; the base's model is changed in place.

        Raises:
            DivergedError: a loss or gradient is not finite.
        """
        model, later = run_first(self.base, model, data, context, self.trainable)
        with trainable_only(model, self.trainable):
            teacher = Original(model, self.trainable)
            self.corrupt(model, context.seed)
            examples = self.examples(data)
            batches = Batches(examples, "distil", self.train, later)

            def gradients(step: int) -> Metrics:
                parts = batches.step(step)
                tokens = sum(int(part.attention_mask.sum()) for part in parts)
                loss = accumulate_gradients(mean_divergence(model, part, teacher) for part in parts)
                return {"loss": loss, "tokens": float(tokens)}

            total = self.train.total_steps(len(examples))
            own = replace(later, phase=f"{context.phase}-distil")
            for _ in optimize(model, self.train, total, gradients, own):
                pass
        return model

    def corrupt(self, model: "PreTrainedModel", seed: int) -> None:
        """Shrink the trained parameters and add noise, in place.

        Args:
            model: its parameters with ``requires_grad`` change.
            seed: the noise of a tensor depends on it and on the tensor's name.
        """
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            shrunk = (1.0 - self.alpha) * parameter.detach().float()
            noise = self.alpha * self.beta * _noise(parameter.shape, seed_for(seed, "undo", name))
            with torch.no_grad():
                parameter.copy_(shrunk + noise.to(parameter.device))

    def examples(self, data: UnlearnData) -> Dataset:
        """Return what is distilled on, the predictions to match as its targets."""
        chosen = [*data.retain, *(data.forget if self.text == "both" else ())]
        if self.tokens == "targets":
            return chosen
        return [
            replace(item, loss_mask=(False, *(True for _ in item.input_ids[1:]))) for item in chosen
        ]


def _noise(shape: torch.Size, seed: int) -> torch.Tensor:
    """Return Xavier's uniform initialisation of a matrix (or a stack of them), zeros of a vector.

    It is drawn on the CPU, so that it is the same on every device; float32.
    """
    if len(shape) < 2:
        return torch.zeros(shape)
    bound = math.sqrt(6.0 / (shape[-2] + shape[-1]))
    generator = torch.Generator().manual_seed(seed)
    return (2.0 * torch.rand(shape, generator=generator) - 1.0) * bound
