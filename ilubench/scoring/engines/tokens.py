"""From logits to tokens: the likeliest, a drawn one, or how likely given ones are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ilubench.interfaces import Ids, SamplingSpec
from ilubench.scoring.engines.text import sample_seed

__all__ = ["next_tokens", "score", "uniforms"]


def score(
    logits: torch.Tensor, places: Sequence[int], targets: Sequence[int]
) -> tuple[list[float], list[bool]]:
    """Return log-probabilities and argmax flags of targets under the rows of logits at places."""
    chosen = logits[places, targets] - logits.logsumexp(-1)[places]
    greedy = logits.argmax(-1)[places] == torch.tensor(targets, device=logits.device)
    return chosen.tolist(), greedy.tolist()


def uniforms(sampling: SamplingSpec, prompt: Ids, number: int) -> torch.Tensor:
    """Return the draws of one sample, a function of seed, prompt and number only."""
    generator = torch.Generator().manual_seed(sample_seed(sampling, prompt, number))
    return torch.rand(sampling.max_tokens, generator=generator, dtype=torch.float64)


def next_tokens(logits: torch.Tensor, draws: torch.Tensor | None, temperature: float) -> list[int]:
    """Return the next token of each row: the argmax, or by inverting the distribution at a draw."""
    if draws is None:
        best: list[int] = logits.argmax(-1).tolist()
        return best
    mass = torch.softmax(logits.double() / temperature, dim=-1).cumsum(-1)
    places = torch.searchsorted(mass, (draws * mass[:, -1]).unsqueeze(-1), right=True)
    drawn: list[int] = places.squeeze(-1).clamp(max=logits.shape[-1] - 1).tolist()
    return drawn
