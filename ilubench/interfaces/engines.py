"""Engines: what answers token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from ilubench.interfaces.training import Ids
from ilubench.specs import Spec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "MAX_OPTIONS",
    "Engine",
    "Generation",
    "SamplingSpec",
    "TokenLogprobs",
]


class SamplingSpec(Spec):
    """How text is generated.

    Attributes:
        max_tokens: new tokens at most.
        temperature: 0 is greedy.
        n: samples a prompt.
        seed: of the samples.
        stop: strings that end a generation; they are not part of it.
        stop_ids: tokens that do, besides the end of the sequence.
    """

    max_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    n: int = Field(default=1, ge=1)
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated continuation: new token ids and their text (special tokens skipped)."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities (natural) of a continuation's tokens, and whether each was the argmax."""

    values: tuple[float, ...]
    greedy: tuple[bool, ...]

    @property
    def total(self) -> float:
        """Sum over the tokens, in nats."""
        return sum(self.values)

    @property
    def loss(self) -> float:
        """Mean negative log-probability, in nats a token."""
        return -self.total / len(self.values)


MAX_OPTIONS = 64
"""Distinct option tokens that every engine can answer in one call of ``choices``."""


class Engine(Protocol):
    """Works on token ids; one loaded engine, weights replaced in it.

    Every call raises ItemError, with the item's position, for a prompt that does not fit
    ``max_length``; nothing is truncated.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def load(self, weights: PreTrainedModel | Path) -> None:
        """Replace the weights: a live model of the same architecture, or a checkpoint's folder."""

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        """Return ``sampling.n`` continuations a prompt, in the prompts' order."""

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Return the log-probabilities of each (context, continuation)'s continuation."""

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Return next-token log-probabilities of the ``options`` tokens, one row a prompt."""

    def close(self) -> None:
        """Free what the engine holds; it is not used again."""
