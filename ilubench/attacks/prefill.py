"""Prefilled answers: the model goes on with an answer that has begun already."""

from collections.abc import Sequence

from pydantic import Field

from ilubench.interfaces import Item, PromptAttack, PromptContext

__all__ = ["Prefill"]


class Prefill(PromptAttack):
    """The answer begins with a text, in a chat the assistant's turn; it is not scored.

    No part of the right answer is ever put there: that would give away what is asked.

    Attributes:
        text: the beginning; a space parts it from the prompt where neither has one.
    """

    text: str = Field(default="Sure, the answer is", min_length=1)

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:  # noqa: ARG002
        """Return the item with the text behind it."""
        return [Item(item.id, item.fields, item.before, after=self.text)]

    def reduce(self, scores: Sequence[float]) -> float:
        """Return the only score."""
        (score,) = scores
        return score
