"""Pruning by magnitude: the smallest weights are set to zero."""

import bisect
from collections.abc import Mapping
from functools import partial
from typing import Annotated, TypeAlias

import torch
from pydantic import AfterValidator, Field

from ilubench.attacks.levels import Change, LevelAttack, rising

__all__ = ["Prune"]

Share: TypeAlias = Annotated[float, Field(gt=0, lt=1)]
Shares: TypeAlias = Annotated[tuple[Share, ...], Field(min_length=1), AfterValidator(rising)]


class Prune(LevelAttack):
    """Global magnitude pruning (Han et al. 2015, arXiv 1506.02626) of the linear layers' weights.

    Of all their weights together the smallest are set to zero; embedding, norms, biases and head
    stay. Where several are equally small, those of the first layers and outputs go first. Not
    torch's `prune.global_unstructured`, which puts all weights into one tensor: this needs a layer.

    Attributes:
        shares: of the weights that are zero, rising; each level begins with the unlearned weights.
    """

    shares: Shares = (0.1, 0.2, 0.3, 0.4, 0.5)

    def levels(self, seed: int) -> Mapping[str, Change]:  # noqa: ARG002
        """Return the shares."""
        return {str(share): partial(_prune, share) for share in self.shares}


# --- inside ---


def _prune(share: float, weights: Mapping[str, torch.Tensor]) -> None:
    count = round(share * sum(weight.numel() for weight in weights.values()))

    def small(size: int) -> int:
        return sum(int((_sizes(weight) <= size).sum()) for weight in weights.values())

    largest = bisect.bisect_left(range(2**31), count, key=small)  # of the sizes that go
    left = count - small(largest - 1)  # of those that are just as large
    for weight in weights.values():
        sizes = _sizes(weight)
        equal = (sizes == largest).flatten().nonzero()[:left]
        gone = (sizes < largest).flatten()
        gone[equal] = True
        left -= len(equal)
        weight.masked_fill_(gone.view_as(weight), 0.0)


def _sizes(weight: torch.Tensor) -> torch.Tensor:
    """Return whole numbers in the order of the weights' magnitudes: the bits of these."""
    return weight.float().abs().contiguous().view(torch.int32)
