"""A fixed text before each question: an instruction, a role to play, a claim that it is allowed."""

from collections.abc import Sequence

from pydantic import Field

from ilubench.interfaces import Item, PromptAttack, PromptContext

__all__ = ["Prefix"]


class Prefix(PromptAttack):
    """The same text stands before all that is asked, examples included.

    Attributes:
        text: taken as it is, with the space or line break at its end.
    """

    text: str = Field(min_length=1)

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:  # noqa: ARG002
        """Return the item with the text before it."""
        return [Item(item.id, item.fields, self.text + item.before)]

    def reduce(self, scores: Sequence[float]) -> float:
        """Return the only score."""
        (score,) = scores
        return score
