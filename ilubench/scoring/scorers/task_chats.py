"""lm-eval's tasks asked as chats: its options, and what a prompt attack puts into a turn."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ilubench.data.chat import Turns, put_before
from ilubench.errors import CannotApplyError
from ilubench.interfaces import Chat

__all__ = ["begin_chats", "chat_options"]


def chat_options(chat: Chat | None) -> dict[str, Any]:
    """Return lm-eval's options for a chat; shown examples are turns of their own, its default."""
    if chat is None:
        return {}
    return {
        "apply_chat_template": True,
        "fewshot_as_multiturn": True,
        "system_instruction": chat.system or None,
    }


def begin_chats(tasks: Mapping[str, Any], before: Mapping[str, str]) -> Mapping[str, str]:
    """Have tasks put what a prompt attack puts before an item into the first user's turn.

    Returns:
        what is left to be put before a conversation's text: nothing.

    Raises:
        CannotApplyError: it cannot be told which item is asked; when it is.
    """
    for name, task in tasks.items():
        task.fewshot_context = partial(_begun, name, task.fewshot_context, before)
    return {}


def _begun(
    name: str,
    context: Callable[..., Any],
    before: Mapping[str, str],
    doc: Mapping[str, Any],
    *others: object,
    chat_template: Callable[..., str],
    **more: object,
) -> Any:  # noqa: ANN401
    if doc.get("id") is None:
        problem = f"{name} asks without the id of its items: no text can stand before it"
        raise CannotApplyError(problem)

    def begun(turns: Turns, **how: object) -> str:
        return chat_template(put_before(turns, before[str(doc["id"])]), **how)

    return context(doc, *others, chat_template=begun, **more)
