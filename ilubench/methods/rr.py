"""Representation rerouting, the method behind circuit breakers."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch.nn import functional

from ilubench.data.seeds import seed_for
from ilubench.errors import SpecError
from ilubench.interfaces import Batch, Context, UnlearnData
from ilubench.methods.activations import (
    Layers,
    check_layers,
    counted_tokens,
    find_layer,
    hidden_states,
)
from ilubench.methods.original import Original
from ilubench.methods.terms import ForgetRetain
from ilubench.specs import Plain, SearchSpec
from ilubench.training import trainable_only
from ilubench.training.proposals import layers_at, propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["RR"]

_LAYERS = (10, 20)


class RR(ForgetRetain):
    """Representation rerouting: circuit breakers (Zou et al. 2024, arXiv 2406.04313, algorithm 1).

    l = c_s * mean ReLU(cos(h(x_f), h_original(x_f)))
      + gamma * c_r * mean |h(x_r) - h_original(x_r)|_2,
    c_s = alpha (1 - t / 2T), c_r = alpha t / 2T in step t (from 0) of T: the weight moves from
    rerouting to retaining, half-way. h is the output of each of `layers`. The means are over the
    layers and a sequence's tokens, then over sequences. The original model costs a copy of the
    trained weights.

    At the original weights the cosine is 1, its maximum, where it has no gradient: the equation
    alone never begins, and an implementation begins by its rounding errors, which Adam makes as
    large as any step and which differ between machines. So the trained weights get a little noise
    first, drawn from the job's seed (`jitter`); h_original has none.

    Published settings: Llama-3-8B-Instruct alpha 10, Mistral-7B-Instruct-v2 alpha 5; both layers 10
    and 20, 150 steps, batch 16, and, as far as we could verify, lr 1e-4 and LoRA of rank 16 on all
    linear maps up to the upper layer. `lora` does not go with it: the noise is a share of what is
    trained, and new adapters are zero. The same maps are trained in full, which asks for a lower
    lr. The public code counts the embedding as layer 0, so that its layer 10 is our 9, and retains
    the output of every layer (`retain_layers=all`).

    Attributes:
        gamma: weight of the retain term, besides c_r; the paper's loss has 1.
        alpha: weight of the whole; under Adam it matters only beside another loss, or where
            gradients are clipped.
        layers: indices of the layers, from 0.
        retain_layers: which layers the retain term compares: the `same`, or `all`.
        tokens: which tokens count, in both terms: `content`, all but padding and the first; or
            `targets`, those with a loss, which leaves questions out.
        jitter: standard deviation of the first noise, relative to a tensor's root mean square.
        trainable: by default the projections (`*_proj`) of layer 0 to the highest of `layers`.
    """

    shards: ClassVar[bool] = False

    alpha: float = Field(default=10.0, gt=0)
    layers: Layers = _LAYERS
    retain_layers: Literal["same", "all"] = "same"
    tokens: Literal["content", "targets"] = "content"
    jitter: float = Field(default=1e-2, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _projections(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, Mapping) or values.get("trainable") or values.get("lora"):
            return values
        layers = values.get("layers", _LAYERS)
        if not isinstance(layers, list | tuple) or not all(isinstance(at, int) for at in layers):
            return values
        patterns = tuple(f"*layers.{at}.*_proj.weight" for at in range(max(layers, default=-1) + 1))
        return {**values, "trainable": patterns}

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return the published layers by depth, rates below those for LoRA, and retain weights."""
        fixed: dict[str, Plain | tuple[Plain, ...]] = {"layers": layers_at(config, 9 / 32, 19 / 32)}
        return propose(config, (5e-6, 1e-4), fixed, gamma=spread(0.3, 10))

    def check_model(self, config: "PretrainedConfig") -> None:
        """Raise unless the model has the layers, and its weights are trained themselves.

        Raises:
            SpecError: it has not, or adapters are.
        """
        if self.lora is not None:
            problem = "RR begins with noise, a share of what is trained, and new adapters are zero"
            raise SpecError(problem, field="lora", remedy="give trainable instead")
        check_layers(config, self.layers, "layers")

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> Original:
        """Return the original values of the trained weights; then put noise on these.

        Raises:
            SpecError: the model has no such layer, or adapters are trained.
        """
        del data
        self.check_model(model.config)
        for layer in self.layers:
            find_layer(model, layer, "layers")
        original = Original(model, self.changing)
        if self.jitter:
            self._shake(model, context.seed)
        return original

    def _shake(self, model: "PreTrainedModel", seed: int) -> None:
        """Put noise on the trained weights."""
        with torch.no_grad(), trainable_only(model, self.trainable):
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    generator = torch.Generator().manual_seed(seed_for(seed, "rr", name))
                    noise = torch.randn(parameter.shape, generator=generator)
                    size = self.jitter * float(parameter.float().square().mean().sqrt())
                    parameter.add_(noise.to(parameter), alpha=size)

    def forget_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: Original
    ) -> torch.Tensor:
        """Return the micro-batch's part of c_s times the cosine to the original activations."""
        before, now = self._activations(model, batch, prepared, self.layers)
        cosines = functional.cosine_similarity(now, before, dim=-1).relu()
        scale = self.alpha * (1.0 - batch.progress / 2.0)
        return scale * self._mean(cosines, batch)

    def retain_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: Original
    ) -> torch.Tensor:
        """Return the micro-batch's part of c_r times the distance to the original activations."""
        layers = self.layers
        if self.retain_layers == "all":
            layers = tuple(range(model.config.num_hidden_layers))
        before, now = self._activations(model, batch, prepared, layers)
        scale = self.alpha * batch.progress / 2.0
        return scale * self._mean((now - before).norm(dim=-1), batch)

    def _activations(
        self,
        model: "PreTrainedModel",
        batch: Batch,
        prepared: Original,
        layers: tuple[int, ...],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the original's and the model's activations: float32 [layers, B, T, H] each."""
        with prepared.weights(model):
            before = torch.stack(hidden_states(model, batch, layers)).float()
        return before, torch.stack(hidden_states(model, batch, layers)).float()

    def _mean(self, values: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Return the micro-batch's part of the mean of [layers, B, T]."""
        chosen = counted_tokens(batch, self.tokens)
        means = (values.mean(0) * chosen).sum(1) / chosen.sum(1)
        return means.sum() / batch.sequences
