"""Noise on the weights."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, TypeAlias

import torch
from pydantic import AfterValidator, Field

from ilubench.attacks.levels import Change, LevelAttack, rising
from ilubench.data.seeds import seed_for

__all__ = ["Noise"]

Scale: TypeAlias = Annotated[float, Field(gt=0)]
Scales: TypeAlias = Annotated[tuple[Scale, ...], Field(min_length=1), AfterValidator(rising)]


class Noise(LevelAttack):
    """Gaussian noise on the linear layers' weights (after Tice et al. 2024, arXiv 2412.01784).

    They put noise of one standard deviation on all weights, and found what a model hides. Here it
    is relative to each matrix's own standard deviation, so that a level means the same in all of
    them and in other models; that, and leaving embedding, norms, biases and head alone, is ours.

    Attributes:
        scales: standard deviation of the noise in those of the matrix, rising; each level is drawn
            by itself and begins with the unlearned weights.
    """

    scales: Scales = (0.05, 0.1, 0.2, 0.4)

    def levels(self, seed: int) -> Mapping[str, Change]:
        """Return the scales."""
        return {_name(scale): partial(_shake, scale, seed) for scale in self.scales}


def _name(scale: float) -> str:
    return str(scale).replace("+", "")  # it is part of a file's name: no `+` of `1e+30`


def _shake(scale: float, seed: int, weights: Mapping[str, torch.Tensor]) -> None:
    for name, weight in weights.items():
        # on the CPU: the same on every device
        generator = torch.Generator().manual_seed(seed_for(seed, "noise", f"{scale}/{name}"))
        noise = torch.randn(weight.shape, generator=generator).to(weight.device)
        exact = weight.float()
        weight.copy_(exact + scale * exact.std() * noise)
