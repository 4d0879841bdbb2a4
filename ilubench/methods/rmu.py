"""Representation misdirection."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import Field, model_validator

from ilubench.data.batches import collate, to_device
from ilubench.data.seeds import seed_for
from ilubench.interfaces import (
    Batch,
    Context,
    Dataset,
    UnlearnData,
)
from ilubench.methods.activations import check_layers, counted_tokens, find_layer, hidden_state
from ilubench.methods.original import Original
from ilubench.methods.terms import ForgetRetain
from ilubench.models.forward import evaluate_only
from ilubench.specs import SearchSpec
from ilubench.training import pad_id
from ilubench.training.losses import activation_error
from ilubench.training.proposals import layers_at, propose, spread

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["RMU"]

_LAYER = 7


@dataclass(frozen=True)
class _Prepared:
    target: torch.Tensor
    original: Original


class RMU(ForgetRetain):
    """Representation misdirection for unlearning (Li et al. 2024, arXiv 2403.03218, section 4).

    l = mean |h(x_f) - c u|^2 + gamma * mean |h(x_r) - h_original(x_r)|^2, h the output of layer
    `layer`. u has a uniform [0, 1) number per coordinate, drawn once from the job's seed, and
    length 1. |.|^2 is a mean over coordinates; it is averaged over a sequence's tokens, then over
    sequences. Layers above `layer` are not computed; h_original needs a copy of the trained
    matrices only.

    Published settings (Zephyr-7B-beta, WMDP): layer 7, c 6.5, gamma (the paper's alpha) 1200,
    lr 5e-5, batch 4, 150 batches, only the MLP's down_proj of layers 5-7 trained.

    Attributes:
        gamma: weight of the retain term.
        layer: index of the layer, from 0.
        coefficient: c.
        scale: c is `absolute`, or `relative`: a multiple of the mean length of the original
            model's activations on the forget set (after Huu-Tien et al. 2024, arXiv 2408.06223).
        tokens: which tokens count, in the forget and in the retain term: `content`, all but
            padding and the first (its activation does not depend on the text, so that the two
            terms would contradict each other on it); or `targets`, those with a loss, which
            leaves questions out.
        trainable: without `lora`, by default the down_proj of layers `layer` - 2 to `layer`.
    """

    gamma: float = Field(default=1200.0, ge=0)
    layer: int = Field(default=_LAYER, ge=0)
    coefficient: float = Field(default=6.5, gt=0)
    scale: Literal["absolute", "relative"] = "absolute"
    tokens: Literal["content", "targets"] = "content"

    @model_validator(mode="before")
    @classmethod
    def _three_matrices(cls, values: Any) -> Any:  # noqa: ANN401
        if not isinstance(values, Mapping) or values.get("trainable") or values.get("lora"):
            return values
        layer = values.get("layer", _LAYER)
        if not isinstance(layer, int):
            return values
        layers = range(max(0, layer - 2), layer + 1)
        patterns = tuple(f"*layers.{index}.mlp.down_proj.weight" for index in layers)
        return {**values, "trainable": patterns}

    def propose_search(self, config: "PretrainedConfig") -> SearchSpec:
        """Return layers around the published share of the depth, coefficients that need no norm.

        Relative to the length of the activations a coefficient means the same on any model. The
        published gamma goes with an absolute one, and keeps small models as they are.
        """
        return propose(
            config,
            (1.5e-5, 1.5e-4),
            {"scale": "relative"},
            layer=layers_at(config, 1 / 8, _LAYER / 32, 3 / 8),
            coefficient=spread(1, 10),
            gamma=spread(1, 100),
        )

    def check_model(self, config: "PretrainedConfig") -> None:
        """Raise unless the model has the layer.

        Raises:
            SpecError: it has not.
        """
        super().check_model(config)
        check_layers(config, (self.layer,), "layer")

    def prepare(self, model: "PreTrainedModel", data: UnlearnData, context: Context) -> _Prepared:
        """Return c u, float32 [H], and the original values of the trained matrices.

        Raises:
            SpecError: the model has no such layer.
        """
        find_layer(model, self.layer, "layer")
        generator = torch.Generator().manual_seed(seed_for(context.seed, "rmu"))
        length = self._mean_length(model, data.forget, context) if self.scale == "relative" else 1.0
        direction = torch.rand(model.config.hidden_size, generator=generator)
        target = self.coefficient * length * direction / direction.norm()
        return _Prepared(target.to(context.device), Original(model, self.changing))

    def forget_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: _Prepared
    ) -> torch.Tensor:
        """Return the micro-batch's part of the distance to c u."""
        hidden = hidden_state(model, batch, self.layer)
        errors = activation_error(hidden, prepared.target, counted_tokens(batch, self.tokens))
        return errors.sum() / batch.sequences

    def retain_term(
        self, model: "PreTrainedModel", batch: Batch, prepared: _Prepared
    ) -> torch.Tensor:
        """Return the micro-batch's part of the distance to the original activations."""
        with prepared.original.weights(model):
            before = hidden_state(model, batch, self.layer)
        hidden = hidden_state(model, batch, self.layer)
        return (
            activation_error(hidden, before, counted_tokens(batch, self.tokens)).sum()
            / batch.sequences
        )

    def _mean_length(self, model: "PreTrainedModel", dataset: Dataset, context: Context) -> float:
        total, tokens = 0.0, 0
        size = self.train.micro_batch or self.train.batch_size
        everything = range(len(dataset))
        with evaluate_only(model):
            for batch in collate(dataset, everything, pad_id(context.tokenizer), micro=size):
                moved = to_device(batch, context.device)
                hidden = hidden_state(model, moved, self.layer)[counted_tokens(moved, self.tokens)]
                total += float(hidden.float().norm(dim=-1).sum())
                tokens += len(hidden)
        return total / tokens
