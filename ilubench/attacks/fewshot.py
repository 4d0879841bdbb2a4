"""Few-shot prompting: questions with their answers stand before each question."""

from collections.abc import Sequence

from pydantic import Field

from ilubench.data.overlap import asks_same
from ilubench.errors import DataError
from ilubench.interfaces import Item, PromptAttack, PromptContext

__all__ = ["FewShot"]


class FewShot(PromptAttack):
    r"""The first rows of a role stand before each question, as its templates write them.

    A row that asks the question itself is never shown before it
    (:func:`~ilubench.data.overlap.asks_same`).

    Attributes:
        k: rows shown.
        role: whose rows; `prompt` and `completion` of its source are what is shown.
        separator: text behind each.
    """

    k: int = Field(default=5, ge=1)
    role: str = "shots"
    separator: str = "\n\n"

    def roles(self) -> tuple[str, ...]:
        """Return the role of the rows that are shown."""
        return (self.role,)

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        """Return the item with ``k`` rows before it.

        Raises:
            DataError: there are fewer.
        """
        others = [
            shot
            for shot in context.shots[self.role]
            if not asks_same(item.fields, shot.fields, shot.prompt)
        ]
        if len(others) < self.k:
            problem = f"{len(others)} rows besides item {item.id!r}, and k={self.k} are to be shown"
            raise DataError(f"data.{self.role}: {problem}; give more, or lower k")
        shown = (shot.prompt + shot.completion + self.separator for shot in others[: self.k])
        return [Item(item.id, item.fields, "".join(shown) + item.before)]

    def reduce(self, scores: Sequence[float]) -> float:
        """Return the only score."""
        (score,) = scores
        return score
