"""Work: what jobs ask of the hardware, whatever the hardware is."""

from dataclasses import dataclass, fields, replace
from typing import Self

__all__ = ["Asking", "Work"]


@dataclass(frozen=True)
class _Amounts:
    """Numbers that add up field by field."""

    def __add__(self, other: Self) -> Self:
        """Return the work of both."""
        return replace(
            self, **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    def times(self, factor: float) -> Self:
        """Return the work of so many times the same."""
        return replace(self, **{f.name: getattr(self, f.name) * factor for f in fields(self)})


@dataclass(frozen=True)
class Work(_Amounts):
    """Training work of a job.

    Attributes:
        steps: of optimizers.
        updated: parameters, summed over the steps that change them.
        forward_passes: micro-batches through the whole model; half its layers are half a pass.
        backward_passes: likewise, for gradients.
        forward_tokens: positions through the whole model, padding included.
        backward_tokens: likewise, for gradients.
        forward_squares: sum of squared sequence lengths, for attention.
        backward_squares: likewise, for gradients.
        forward_answers: positions through the head.
        backward_answers: likewise, for gradients.
    """

    steps: float = 0.0
    updated: float = 0.0
    forward_passes: float = 0.0
    backward_passes: float = 0.0
    forward_tokens: float = 0.0
    backward_tokens: float = 0.0
    forward_squares: float = 0.0
    backward_squares: float = 0.0
    forward_answers: float = 0.0
    backward_answers: float = 0.0


@dataclass(frozen=True)
class Asking(_Amounts):
    """Scoring work.

    Attributes:
        items: requests, as a scorer makes them.
        passes: forward passes of prompts, packed as the engine packs them.
        tokens: positions of prompts and continuations, a shared prefix counted once.
        squares: sum of squared prompt lengths.
        answers: positions through the head.
        written: tokens that are generated, at most.
        steps: decoding steps, at most: the longest text of each batch.
    """

    items: float = 0.0
    passes: float = 0.0
    tokens: float = 0.0
    squares: float = 0.0
    answers: float = 0.0
    written: float = 0.0
    steps: float = 0.0
