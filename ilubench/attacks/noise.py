"""Noise on the weights."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeAlias

import torch
from pydantic import AfterValidator, Field

from ilubench.attacks.levels import check_layers, rising, score_levels
from ilubench.data.seeds import seed_for
from ilubench.interfaces import Checkpoint, Context, Dataset, WeightAttack

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["Noise"]

Scale: TypeAlias = Annotated[float, Field(gt=0)]
Scales: TypeAlias = Annotated[tuple[Scale, ...], Field(min_length=1), AfterValidator(rising)]


class Noise(WeightAttack):
    """Gaussian noise on the linear layers' weights (after Tice et al. 2024, arXiv 2412.01784).

    They put noise of one standard deviation on all weights, and found what a model hides. Here it
    is relative to each matrix's own standard deviation, so that a level means the same in all of
    them and in other models; that, and leaving embedding, norms, biases and head alone, is ours.

    Attributes:
        scales: standard deviation of the noise in those of the matrix, rising; each level is drawn
            by itself and begins with the unlearned weights.
    """

    scales: Scales = (0.05, 0.1, 0.2, 0.4)

    def roles(self) -> tuple[str, ...]:
        """Return none."""
        return ()

    def checkpoints(self, examples: int) -> tuple[int | str, ...]:  # noqa: ARG002
        """Return the unlearned model, then the scales."""
        return (0, *map(_name, self.scales))

    def check_model(self, config: "PretrainedConfig") -> None:
        """Refuse a model with other layers.

        Raises:
            SpecError: names the tensor.
        """
        check_layers(config)

    def tamper(
        self,
        model: "PreTrainedModel",
        data: Mapping[str, Dataset],  # noqa: ARG002
        context: Context,
    ) -> Iterator[Checkpoint]:
        """Yield the live model before, and at each scale."""
        levels = {_name(scale): partial(_shake, scale, context.seed) for scale in self.scales}
        return score_levels(model, levels)


def _name(scale: float) -> str:
    return str(scale).replace("+", "")  # it is part of a file's name: no `+` of `1e+30`


def _shake(scale: float, seed: int, weights: Mapping[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        # on the CPU: the same on every device
        generator = torch.Generator().manual_seed(seed_for(seed, "noise", f"{scale}/{name}"))
        noise = torch.randn(weight.shape, generator=generator).to(weight.device)
        exact = weight.float()
        weight.copy_(exact + scale * exact.std() * noise)
