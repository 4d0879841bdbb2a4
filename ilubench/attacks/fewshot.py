"""Few-shot prompting: questions with their answers stand before each question."""

from collections.abc import Mapping, Sequence

from pydantic import Field, JsonValue

from ilubench.errors import DataError
from ilubench.interfaces import Item, PromptAttack, PromptContext, Row

__all__ = ["FewShot"]


class FewShot(PromptAttack):
    r"""The first rows of a role stand before each question, as its templates write them.

    A row is never shown before the question that it is itself.

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
        own = _columns(item.fields)
        others = [shot for shot in context.shots[self.role] if _columns(shot.fields) != own]
        if len(others) < self.k:
            problem = f"{len(others)} rows besides item {item.id!r}, and k={self.k} are to be shown"
            raise DataError(f"data.{self.role}: {problem}; give more, or lower k")
        shown = (shot.prompt + shot.completion + self.separator for shot in others[: self.k])
        return [Item(item.id, item.fields, "".join(shown) + item.before)]

    def reduce(self, scores: Sequence[float]) -> float:
        """Return the only score."""
        (score,) = scores
        return score


def _columns(row: Row) -> Mapping[str, JsonValue]:
    return {name: value for name, value in row.items() if name != "id"}
