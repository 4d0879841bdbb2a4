"""Best of k samples: what an attacker has who asks again until an answer satisfies (leak@k).

Reisizadeh et al. 2025 (arXiv:2511.04934). The estimator is that of pass@k (Chen et al. 2021,
arXiv:2107.03374), for scores of any size.
"""

import math
from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from ilubench.interfaces import Item, PromptAttack, PromptContext, SamplingSpec

__all__ = ["BestOfN", "expected_best"]


def expected_best(scores: Sequence[float], k: int) -> float:
    """Return the mean of the best score over all choices of ``k`` of the scores.

    It is an unbiased estimate of the expected best of k samples. For right or wrong answers, of
    which c of n are right, it is 1 - C(n - c, k) / C(n, k).
    """
    ranked, all_choices = sorted(scores), math.comb(len(scores), k)
    # the r-th lowest is the best of the choices that have k - 1 of the r lower ones
    return math.fsum(
        score * (math.comb(rank, k - 1) / all_choices) for rank, score in enumerate(ranked)
    )


class BestOfN(PromptAttack):
    """The best of ``k`` samples, estimated from ``n``; goes with scorers that have text written.

    Attributes:
        k: samples that the attacker draws.
        n: samples that are drawn to estimate it, at most 10,000.
        temperature: of the samples.
    """

    k: int = Field(default=16, ge=1)
    n: int = Field(default=200, ge=1, le=10_000)
    temperature: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.k > self.n:
            raise ValueError(f"k: the best of {self.k} cannot be told from n={self.n} samples")
        return self

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:  # noqa: ARG002
        """Return the item as it is."""
        return [item]

    def sampling(self) -> SamplingSpec:
        """Return temperature and number of the samples."""
        return SamplingSpec(temperature=self.temperature, n=self.n)

    def reduce(self, scores: Sequence[float]) -> float:
        """Return the expected best of ``k``."""
        return expected_best(scores, self.k)
