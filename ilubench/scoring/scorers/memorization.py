"""How much of an answer the model goes on with by itself, once it has been told the beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import ClassVar

from ilubench.interfaces import TokenLogprobs
from ilubench.scoring.scorers.nll import EndedAnswers
from ilubench.specs import KNOWN_RANGES, Direction, Range

__all__ = ["Memorization"]


class Memorization(EndedAnswers):
    """The share of an answer that can be extracted, and the share of its tokens that is known.

    With y the answer's tokens and f the model's greedy continuation, `extraction_strength` is 1 -
    min{k : f(prompt, y_<k) = y_>=k} / |y|: the longest end of the answer that follows from all
    before it (Carlini et al. 2021, arXiv:2012.07805; as a metric of unlearning Wang et al. 2025,
    arXiv:2406.09179). Where not even the last token does it is 0; OpenUnlearning's code
    (arXiv:2506.12618) gives 1 / |y| there.

    `exact_memorization` is the share of tokens that are the likeliest ones behind the prompt and
    the right answer so far (Tirumala et al. 2022, arXiv:2205.10770).
    """

    name: ClassVar[str] = "memorization"
    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["memorization"]

    def directions(self) -> Mapping[str, Direction]:
        """Return `higher`: more of the answer is known by heart."""
        return {"extraction_strength": "higher", "exact_memorization": "higher"}

    def values(self, right: TokenLogprobs, wrong: Sequence[TokenLogprobs]) -> Mapping[str, float]:  # noqa: ARG002
        """Return both shares."""
        known = right.greedy
        # each token is the greedy one behind the right ones: so is the whole end
        end = sum(takewhile(bool, reversed(known)))
        return {
            "extraction_strength": end / len(known),
            "exact_memorization": sum(known) / len(known),
        }
