"""Tamper-resistant safeguards, first-order."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, Self

import torch
from pydantic import Field, JsonValue, model_validator
from torch.nn import functional

from ilubench.data.seeds import seed_for
from ilubench.errors import DivergedError
from ilubench.interfaces import (
    Batch,
    Context,
    Dataset,
    Method,
    Metrics,
    UnlearnData,
)
from ilubench.interfaces.discovery import PluginField
from ilubench.methods.activations import counted_tokens, hidden_states
from ilubench.methods.gradients import scale_gradients, swap_weights, take_gradients
from ilubench.methods.none import NoUnlearning
from ilubench.methods.original import Original
from ilubench.methods.phases import accumulate_gradients, run_first
from ilubench.methods.terms import mean_nll
from ilubench.models.forward import token_values
from ilubench.specs import SearchSpec, TrainSpec
from ilubench.training import Batches, fine_tune, optimize, trainable_only
from ilubench.training.losses import activation_error
from ilubench.training.proposals import propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["TAR"]

_FORGET = "forget"
"""The name that stands for the forget set among the data of the attacks."""

_DECAY = 0.0625
"""What the gradient k steps before an attack's end counts: exp(-k / 16), as published."""


@dataclass(frozen=True)
class _Prepared:
    context: Context
    original: Original | None
    forget: Batches
    retain: Batches
    attacks: Mapping[str, Dataset]


class TAR(Method):
    """Tamper-resistant safeguards, first-order (Tamirisa et al. 2024, arXiv 2408.00761, alg. 1).

    Each step draws an attack (a data set and a learning rate), fine-tunes all weights for
    `inner_steps` steps of AdamW, theta -> theta', and goes from theta along

    weight * d l_T(theta') / d theta' + gamma * d l_R(theta) / d theta.

    l_T is minus the entropy of the predictions of the forget tokens (or minus their NLL), a mean
    over tokens; d theta' / d theta is taken to be 1, as in first-order MAML and in the authors'
    code. l_R = mean NLL of the retain tokens + hidden * |h(x_r) - h_original(x_r)|^2, h each
    layer's output; |.|^2 is a mean over coordinates, a sequence's tokens (but the first), sequences
    and layers (in their code the norm's mean, not squared).

    A step costs `inner_steps` ordinary ones, a copy of the weights, and the attack's optimizer
    state. theta' is fine-tuned by the code of the benchmark's own attacks. The forget batch of l_T
    is drawn from the set that the attacks are drawn from; the paper holds it out.

    Published settings (the authors' script for WMDP-bio; the paper's tables were not checked): lr
    2e-5, 750 steps, batch 8, weight 4, gamma 1, 64 inner steps of batch 4 with lr 2e-6, 2e-5 or
    4e-5, `every` 4, after a first method of their own (random mapping) in `base`'s place, with a
    schedule-free AdamW; attacks on forget text, on other biology, and on retain, then forget text.

    Attributes:
        base: the method that comes first, with its own `train`; by default none.
        train: of the outer loop.
        trainable: patterns of the parameters that the outer loop changes; none given: all. A base
            that was given none trains these. An attack always trains all.
        weight: of the tamper-resistance gradient (their lambda_TR).
        gamma: weight of the retain term (their lambda_retain).
        hidden: weight of the hidden states' distance in it; 0 saves a copy of the weights.
        tamper_loss: `entropy` or `nll`, which has no lower bound.
        inner_data: what the attacks train on: environments of the suite, whose attacks then count
            as seen, or `forget`. Each step draws one.
        inner_steps: steps of an attack.
        inner_lr: learning rates of the attacks; each step draws one. None given: 0.1, 1 and 2
            times `train.lr`, the published ratios.
        inner_batch: sequences a step of an attack.
        every: the tamper-resistance gradient is taken after every so many of its steps, weighted
            by exp(-k / 16) k steps before the end, and summed; none given: at the end only.
    """

    base: Annotated[Method, PluginField("methods")] = Field(default="none", validate_default=True)
    train: TrainSpec
    trainable: tuple[str, ...] = ()
    weight: float = Field(default=4.0, gt=0)
    gamma: float = Field(default=1.0, ge=0)
    hidden: float = Field(default=1.0, ge=0)
    tamper_loss: Literal["entropy", "nll"] = "entropy"
    inner_data: tuple[str, ...] = Field(default=(_FORGET,), min_length=1)
    inner_steps: int = Field(default=16, ge=1)
    inner_lr: tuple[Annotated[float, Field(gt=0)], ...] = ()
    inner_batch: int = Field(default=4, ge=1)
    every: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _ends_with_a_gradient(self) -> Self:
        if self.inner_steps % (self.every or 1):
            raise ValueError(f"every={self.every} does not divide inner_steps={self.inner_steps}")
        return self

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return rates and weights around the published ones."""
        return propose(config, (2e-6, 3e-5), weight=spread(0.3, 8))

    def environment_names(self) -> tuple[str, ...]:
        """Return the environments of the attacks, and the base's."""
        own = (name for name in self.inner_data if name != _FORGET)
        return tuple(dict.fromkeys((*self.base.environment_names(), *own)))

    def unlearn(
        self, model: "PreTrainedModel", data: UnlearnData, context: Context
    ) -> "PreTrainedModel":
        """Run the base, then the outer loop; the base's model is changed in place.

        Raises:
            DivergedError: a loss or gradient is not finite, in the loop or in an attack.
        """
        prepared = self.prepare(model, data, context)
        model, later = run_first(self.base, model, data, context, self.trainable)
        with trainable_only(model, self.trainable):

            def gradients(step: int) -> Metrics:
                return self.backward(model, step, prepared)

            total = self.train.total_steps(len(data.forget))
            for _ in optimize(model, self.train, total, gradients, later):
                pass
        return model

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> _Prepared:
        """Return batches, the attacks' data, and the original weights of what may change."""
        patterns = self.trainable if isinstance(self.base, NoUnlearning) else ()
        return _Prepared(
            context,
            Original(model, patterns) if self.gamma and self.hidden else None,
            Batches(data.forget, "forget", self.train, context),
            Batches(data.retain, "retain", self.train, context),
            {
                name: data.forget if name == _FORGET else data.environments[name]
                for name in self.inner_data
            },
        )

    def backward(self, model: "PreTrainedModel", step: int, prepared: _Prepared) -> Metrics:
        """Add an outer step's gradients into ``.grad``, which is empty; return metrics.

        `tamper` is l_T at the attack's end, `retain` l_R, both unweighted; `loss` is their weighted
        sum (with `every`, the tamper losses along the attack are in it).
        """
        trained = [p for p in model.parameters() if p.requires_grad]
        forget, retain = prepared.forget.step(step), prepared.retain.step(step)
        held, metrics = self._tamper(model, forget, step, prepared)
        for parameter, gradient in zip(trained, held, strict=True):
            parameter.grad = gradient
        metrics["tokens"] += sum(int(batch.attention_mask.sum()) for batch in (*forget, *retain))
        if self.gamma:
            losses = (self.gamma * self._retain(model, b, prepared.original) for b in retain)
            value = accumulate_gradients(losses)
            metrics["retain"] = value / self.gamma
            metrics["loss"] += value
        return metrics

    def _tamper(
        self, model: "PreTrainedModel", forget: Sequence[Batch], step: int, prepared: _Prepared
    ) -> tuple[list[torch.Tensor | None], dict[str, float]]:
        """Return the weighted gradients at attacked weights; the weights come back as they were."""
        trained = [p for p in model.parameters() if p.requires_grad]
        everything = list(model.parameters())
        copies = [p.detach().clone() for p in everything]
        held: list[torch.Tensor | None] = [None] * len(trained)
        training, steps = model.training, self.inner_steps
        tokens: list[float] = []
        loss = value = 0.0
        try:
            with swap_weights(everything, copies), trainable_only(model, ()):
                for done in self._attack(model, step, prepared, tokens):
                    torch.clear_autocast_cache()  # its half-precision weights are the step's before
                    if done % (self.every or steps):
                        continue
                    value = accumulate_gradients(
                        self._tamper_loss(model, batch) for batch in forget
                    )
                    factor = self.weight * math.exp(_DECAY * (done - steps))
                    loss += factor * value
                    scale_gradients(trained, factor, held)
                    held = take_gradients(trained)
                    model.zero_grad(set_to_none=True)
        except DivergedError as error:
            problem = f"step {step + 1}: the attack within it diverged ({error})"
            raise DivergedError(f"{problem}; lower method.inner_lr or method.weight") from error
        finally:
            model.train(training)
        return held, {"loss": loss, "tamper": value, "tokens": sum(tokens)}

    def _attack(
        self, model: "PreTrainedModel", step: int, prepared: _Prepared, tokens: list[float]
    ) -> Iterator[int]:
        """Fine-tune the model; yield after each step, its number of tokens added to ``tokens``."""
        seed = seed_for(prepared.context.seed, "tar", str(step))
        rng = random.Random(seed)
        name = rng.choice(self.inner_data)
        rate = rng.choice(self.inner_lr or tuple(x * self.train.lr for x in (0.1, 1.0, 2.0)))
        spec = TrainSpec(
            lr=rate,
            steps=self.inner_steps,
            batch_size=self.inner_batch,
            micro_batch=self.train.micro_batch,
            precision=self.train.precision,
        )
        nowhere = _Nowhere()
        context = replace(
            prepared.context,
            seed=seed,
            state=nowhere,
            progress=nowhere,
            log=lambda _, metrics: tokens.append(metrics["tokens"]),
        )
        stops = range(1, self.inner_steps + 1)
        return fine_tune(model, prepared.attacks[name], spec, context, stops)

    def _tamper_loss(self, model: "PreTrainedModel", batch: Batch) -> torch.Tensor:
        """Return the micro-batch's part of l_T."""
        if self.tamper_loss == "nll":
            return -mean_nll(model, batch)
        return token_values(model, batch, _negentropy).values.sum() / batch.tokens

    def _retain(
        self, model: "PreTrainedModel", batch: Batch, original: Original | None
    ) -> torch.Tensor:
        """Return the micro-batch's part of l_R."""
        if original is None:
            return mean_nll(model, batch)
        layers = range(model.config.num_hidden_layers)
        with original.weights(model):
            before = hidden_states(model, batch, layers)
        tokens = counted_tokens(batch, "content")
        pairs = zip(hidden_states(model, batch, layers), before, strict=True)
        errors = torch.stack([activation_error(now, old, tokens) for now, old in pairs]).mean(0)
        return mean_nll(model, batch) + self.hidden * errors.sum() / batch.sequences


def _negentropy(logits: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
    predicted = functional.log_softmax(logits.float(), dim=-1)
    return (predicted.exp() * predicted).sum(-1)


class _Nowhere:
    """State and progress of a simulated attack: the step that it is part of is repeated whole."""

    def save(
        self, phase: str, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, JsonValue]
    ) -> None:
        """Keep nothing."""

    def load(self, phase: str) -> tuple[dict[str, torch.Tensor], dict[str, JsonValue]] | None:
        """Find nothing."""
        del phase
        return None

    def start(self, phase: str, total: int) -> None:
        """Show nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Show nothing."""
