"""Chats: that a role's prompts and answers are turns of a conversation."""

from dataclasses import dataclass
from datetime import date

from ilubench.specs import DataSource

__all__ = ["Chat"]


@dataclass(frozen=True, slots=True)
class Chat:
    """How a role is asked through the model's own chat template.

    Attributes:
        role: whose rows are asked, for errors.
        system: the system turn's text; empty for none of ours.
        today: the day for a template that writes one.
    """

    role: str
    system: str
    today: date

    @classmethod
    def of(cls, source: DataSource, role: str) -> "Chat | None":
        """Return what a role's source says; None where its text is no chat."""
        return cls(role, source.system, source.today) if source.chat else None
