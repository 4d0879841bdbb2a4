"""Prompts and answers as turns of a conversation, as the model's own chat template writes them.

A template is code out of a model's files. transformers runs it in a sandbox; whether it writes what
it is given is looked at here, for each text.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, tzinfo
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

from ilubench.data.chat_trial import try_template
from ilubench.data.hub.models import OTHER_TOKENIZER
from ilubench.errors import DataError, ModelError
from ilubench.interfaces import Chat
from ilubench.records.keys import digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "ChatText",
    "Turns",
    "begin_answer",
    "begin_turn",
    "chat_turns",
    "closing_ids",
    "encode_chat",
    "encode_prompt",
    "encode_turns",
    "put_before",
    "render_chat",
    "render_turns",
    "template_hash",
]

Turns: TypeAlias = Sequence[Mapping[str, str]]
"""`role` and `content` of each turn, as transformers takes them."""

_TOLD = 120
"""Letters of a template's own error that are shown."""


class ChatText(NamedTuple):
    """A conversation's text, in three parts that follow each other.

    Attributes:
        prompt: all before the answer, the generation prompt included.
        answer: the answer, and the space that a template puts before it.
        end: what ends the assistant's turn, and what may stand behind.
    """

    prompt: str
    answer: str
    end: str


def chat_turns(prompt: str, chat: Chat, shown: Sequence[tuple[str, str]] = ()) -> Turns:
    """Return the turns up to a user's prompt; each pair of ``shown`` is two turns before it."""
    system = [("system", chat.system)] if chat.system else []
    examples = [
        turn for asked, answer in shown for turn in (("user", asked), ("assistant", answer))
    ]
    turns = [*system, *examples, ("user", prompt)]
    return [{"role": role, "content": content} for role, content in turns]


def put_before(turns: Turns, text: str) -> Turns:
    """Return turns with a text in front of the first user's: behind the system turn."""
    asked = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    return [
        {**turn, "content": text + turn["content"]} if place in asked[:1] else turn
        for place, turn in enumerate(turns)
    ]


def begin_answer(prompt: str, begun: str) -> str:
    """Return a prompt with the beginning of an answer behind it, a space between them."""
    parted = not (prompt and begun) or prompt[-1].isspace() or begun[0].isspace()
    return prompt + begun if parted else f"{prompt} {begun}"


def begin_turn(turns: Turns, text: str) -> Turns:
    """Return turns with the assistant's behind them, begun with a text; as they are without one."""
    return [*turns, {"role": "assistant", "content": text}] if text else turns


def render_turns(tokenizer: "PreTrainedTokenizerBase", turns: Turns, chat: Chat) -> str:
    """Return the text of turns, with the generation prompt where the last is not the assistant's.

    An assistant's last turn is left open, to be gone on with.

    Raises:
        DataError: a turn is blank.
        ModelError: the tokenizer has no chat template or no end-of-sequence token, or its template
            raises, or leaves out or changes a turn.
    """
    for turn in turns:
        if not turn["content"].strip():
            raise DataError(f"data.{chat.role}.chat: the {turn['role']}'s turn is blank; give text")
    is_open = turns[-1]["role"] == "assistant"
    text = _render(tokenizer, turns, chat, add_generation_prompt=not is_open, continued=is_open)
    for turn in turns:
        if turn["content"].strip() not in text:
            problem = f"does not write the {turn['role']}'s turn as it is given"
            remedy = f"leave data.{chat.role}.system out" if turn["role"] == "system" else ""
            raise _error(tokenizer, chat, problem, remedy)
    return text


def encode_turns(tokenizer: "PreTrainedTokenizerBase", turns: Turns, chat: Chat) -> list[int]:
    """Return the tokens of turns, with the generation prompt; the template alone begins the text.

    Raises:
        DataError: as of `render_turns`.
        ModelError: as of `render_turns`.
    """
    text = render_turns(tokenizer, turns, chat)
    return list(tokenizer.encode(text, add_special_tokens=False, verbose=False))


def encode_prompt(
    tokenizer: "PreTrainedTokenizerBase", prompt: str, chat: Chat | None, begun: str = ""
) -> list[int]:
    """Return the tokens of a prompt that an answer is to follow, or the rest of one.

    Args:
        tokenizer: the model's.
        prompt: what is asked.
        chat: how it is asked as a chat; None where it is not.
        begun: text that the answer begins with.

    Raises:
        DataError: as of `render_turns`.
        ModelError: as of `render_turns`.
    """
    if chat is not None:
        return encode_turns(tokenizer, begin_turn(chat_turns(prompt, chat), begun), chat)
    return list(tokenizer.encode(begin_answer(prompt, begun), verbose=False))


def render_chat(
    tokenizer: "PreTrainedTokenizerBase", prompt: str, completion: str, chat: Chat
) -> ChatText:
    """Return the text of a prompt and its answer as a conversation.

    The space before a completion, which parts it from a plain prompt, is left out: the template
    parts them.

    Raises:
        DataError: the prompt or the completion is blank.
        ModelError: as of `render_turns`; or what the template writes up to the answer depends on
            the answer, or it writes something before it that the model would have to write.
    """
    turns, answer = chat_turns(prompt, chat), completion.strip()
    before = render_turns(tokenizer, turns, chat)
    if not answer:
        raise DataError(f"data.{chat.role}.chat: the assistant's turn is blank; give text")
    said = {"role": "assistant", "content": completion.lstrip()}
    whole = _render(tokenizer, [*turns, said], chat, add_generation_prompt=False)
    if not whole.startswith(before):
        problem = "writes the prompt otherwise when an answer follows it"
        raise _error(tokenizer, chat, problem)
    rest = whole[len(before) :]
    space, _, end = rest.partition(answer)
    if answer not in rest or space.strip():
        problem = "does not write the assistant's turn as it is given, right behind the prompt"
        raise _error(tokenizer, chat, problem)
    return ChatText(before, space + answer, end)


def encode_chat(
    tokenizer: "PreTrainedTokenizerBase", prompt: str, completion: str, chat: Chat
) -> tuple[list[int], list[bool]]:
    """Return the tokens of a prompt and its answer, and the loss mask, both of length T.

    The tokens are those of transformers' `apply_chat_template`. Targets are the answer's, up to and
    with the first behind it that is no text: an added token, or the end-of-sequence token. Where
    there is none, the end-of-sequence token is appended and ends the turn.

    Raises:
        DataError: as of `render_chat`.
        ModelError: as of `render_chat`.
    """
    text = render_chat(tokenizer, prompt, completion, chat)
    encoded = tokenizer(
        "".join(text), add_special_tokens=False, return_offsets_mapping=True, verbose=False
    )
    ids: list[int] = list(encoded["input_ids"])
    offsets: list[tuple[int, int]] = list(encoded["offset_mapping"])
    begin, end = len(text.prompt), len(text.prompt) + len(text.answer)
    ending = {*tokenizer.added_tokens_decoder, cast("int", tokenizer.eos_token_id)}
    closing = (
        place
        for place, (token, (start, _)) in enumerate(zip(ids, offsets, strict=True))
        if start >= end and token in ending
    )
    last = next(closing, None)
    if last is None:
        last = len(ids)
        ids.append(cast("int", tokenizer.eos_token_id))
        offsets.append((end, end + 1))
    return ids, [place <= last and stop > begin for place, (_, stop) in enumerate(offsets)]


def closing_ids(tokenizer: "PreTrainedTokenizerBase", chat: Chat) -> tuple[int, ...]:
    """Return the tokens with which a model ends its turn, at which generation stops.

    Raises:
        ModelError: as of `render_chat`.
    """
    ids, mask = encode_chat(tokenizer, "Hello?", "Hello.", chat)
    return tuple(token for token, target in zip(ids, mask, strict=True) if target)[-1:]


def template_hash(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return what tells a tokenizer's chat template from others; empty where there is none."""
    template = _template(tokenizer)
    return digest(template)[:12] if template else ""


# --- inside ---


def _render(
    tokenizer: "PreTrainedTokenizerBase",
    turns: Turns,
    chat: Chat,
    *,
    add_generation_prompt: bool,
    continued: bool = False,
) -> str:
    """A conversation's text; templates that know of thinking are told to do without."""
    _check_tokenizer(tokenizer, chat)
    try:
        with _dated(chat.today):
            text = tokenizer.apply_chat_template(
                [dict(turn) for turn in turns],
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continued,
                enable_thinking=False,
            )
    except Exception as error:  # a template raises whatever its author, or its fault, leads to
        own = " ".join(str(error).split())[:_TOLD] or type(error).__name__
        remedy = ""
        if chat.system and turns[0]["role"] == "system":
            remedy = f"where it takes no system turn, leave data.{chat.role}.system out"
        raise _error(tokenizer, chat, f"cannot be filled ({own})", remedy) from error
    return str(text)


def _check_tokenizer(tokenizer: "PreTrainedTokenizerBase", chat: Chat) -> None:
    template = _template(tokenizer)
    if not template:
        problem = f"{_name(tokenizer)} has no chat template"
        remedy = f"leave data.{chat.role}.chat out, or {OTHER_TOKENIZER}"
        raise ModelError(f"data.{chat.role}.chat: {problem}; {remedy}")
    if tokenizer.eos_token_id is None:
        problem = f"{_name(tokenizer)} has no end-of-sequence token, so that no answer would end"
        remedy = "set eos_token in its tokenizer_config.json"
        raise ModelError(f"data.{chat.role}.chat: {problem}; {remedy}")
    if problem := try_template(template):
        raise _error(tokenizer, chat, problem)


def _template(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """A tokenizer's template; of several, its default."""
    template = tokenizer.chat_template
    return template.get("default") if isinstance(template, dict) else template


def _error(
    tokenizer: "PreTrainedTokenizerBase", chat: Chat, problem: str, remedy: str = ""
) -> ModelError:
    remedy = remedy or f"mend its chat_template.jinja, or leave data.{chat.role}.chat out"
    template = f"the chat template of {_name(tokenizer)}"
    return ModelError(f"data.{chat.role}.chat: {template} {problem}; {remedy}")


def _name(tokenizer: "PreTrainedTokenizerBase") -> str:
    return tokenizer.name_or_path or "the model's tokenizer"


@contextmanager
def _dated(today: date) -> Iterator[None]:
    """Have a template that writes the day write this one: a prompt must not change overnight."""
    templates: Any = importlib.import_module("transformers.utils.chat_template_utils")

    class _Datetime(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "_Datetime":
            return cls(today.year, today.month, today.day, tzinfo=tz)

    before = templates.datetime
    templates.datetime = _Datetime
    try:
        yield
    finally:
        templates.datetime = before
