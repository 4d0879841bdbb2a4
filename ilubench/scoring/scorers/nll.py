"""How likely the model finds the answers that a row holds; how surprised it is by the right one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from pydantic import Field

from ilubench.data.chat import begin_answer, closing_ids, render_chat
from ilubench.data.rows import render_template
from ilubench.data.template import template_columns
from ilubench.data.values import row_name
from ilubench.errors import DataError
from ilubench.interfaces import (
    Asked,
    BoundPromptAttack,
    BoundScorer,
    Chat,
    Engine,
    Ids,
    Item,
    Row,
    SampleScore,
    ScoreContext,
    Scorer,
    TokenLogprobs,
)
from ilubench.scoring.scorers.rewriting import ask_rewritten, reframed, refuse_sampling
from ilubench.scoring.scorers.rows import item_ids, name_items, take_rows
from ilubench.specs import KNOWN_RANGES, DataSource, Direction, Estimator, Range

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["AnswerLikelihoods", "AnswerNLL", "EndedAnswers", "asked_text", "split_answer"]


class AnswerLikelihoods(Scorer, ABC):
    """Asks for the log-likelihood of answers that a row holds.

    Attributes:
        data: role of the rows.
        prompt: template of what is given (`str.format` over the columns).
        completion: template of the right answer, with the space before it.
        labels: column -> names that stand for its integers 0, 1, ...
        limit: items at most.
    """

    name: ClassVar[str]
    """As which it is registered."""

    chats: ClassVar[bool] = True

    data: str
    prompt: str
    completion: str
    labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)

    @abstractmethod
    def values(self, right: TokenLogprobs, wrong: Sequence[TokenLogprobs]) -> Mapping[str, float]:
        """Return metric -> an item's score.

        Args:
            right: of the right answer's tokens.
            wrong: of each wrong one's.
        """

    @property
    def scores_end(self) -> bool:
        """Whether what ends an answer is its last token; in a chat, what ends the turn."""
        return False

    def metrics(self) -> Mapping[str, Estimator]:
        """Return the metrics, means over items."""
        return dict.fromkeys(self.directions(), Estimator())

    def roles(self) -> tuple[str, ...]:
        """Return the role of the rows."""
        return (self.data,)

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns that the templates name."""
        return {self.data: template_columns(self.prompt, self.completion, labels=self.labels)}

    def asks(self, rows: Sequence[Row], chat: Chat | None = None) -> Sequence[Asked]:
        """Return prompt and right answer of each row.

        Raises:
            DataError: a row lacks a column, or an answer is blank.
        """
        pairs = [(self._render(self.prompt, row), self.texts(row)[0]) for row in rows]
        return [asked_text(prompt, answer, chat) for prompt, answer in pairs]

    def texts(self, row: Row) -> tuple[str, ...]:
        """Return the right answer, then the wrong ones.

        Raises:
            DataError: one of them is missing or blank.
        """
        return (self.answer(row),)

    def answer(self, row: Row) -> str:
        """Return a row's right answer.

        Raises:
            DataError: it is blank.
        """
        answer = self._render(self.completion, row)
        if not answer.strip():
            raise DataError(f"{row_name(self.data, row)}: the answer is blank")
        return answer

    def _render(self, template: str, row: Row) -> str:
        source = DataSource(path=self.data, labels=self.labels)
        return render_template(template, row, source, self.data)

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Render and tokenise the items.

        Raises:
            DataError: no rows, a missing column, an answer without tokens, or no end of sequence.
        """
        rows, chat = (
            take_rows(context.rows(self.data), self.limit, self.data),
            context.chat(self.data),
        )
        end = tokenizer.eos_token_id if chat is None else closing_ids(tokenizer, chat)[0]
        if self.scores_end and end is None:
            problem = f"data.{self.data}: the tokenizer has no end-of-sequence token"
            raise DataError(f"{problem}; set end to false in the scorer's settings")

        def made(item: Item) -> _Made:
            template = reframed(self.prompt, item.frame, self.name)
            prompt = item.before + self._render(template, item.fields)
            texts = self.texts(item.fields)
            pairs = [split_answer(tokenizer, prompt, text, chat, item.after) for text in texts]
            if not all(given and answer for given, answer in pairs):
                raise DataError(f"data.{self.data}: {item.id}: prompt or answer has no tokens")
            if self.scores_end:
                pairs = [(given, [*ids, *([end] * (ids[-1] != end))]) for given, ids in pairs]
            return pairs

        items = item_ids(rows, self.data)
        named = [{**row, "id": item} for item, row in zip(items, rows, strict=True)]
        plain = [made(Item(item, row)) for item, row in zip(items, named, strict=True)]
        return _Bound(self.name, self.data, items, named, made, plain, self.values)


class AnswerNLL(AnswerLikelihoods):
    """Mean negative log-likelihood of the answer's tokens, in nats a token.

    Of a chat, prompt and answer are the user's and the assistant's turn; what ends the latter is
    not scored.
    """

    name: ClassVar[str] = "answer_nll"
    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["answer_nll"]

    def directions(self) -> Mapping[str, Direction]:
        """Return `lower`: less surprised."""
        return {"nll": "lower"}

    def values(self, right: TokenLogprobs, wrong: Sequence[TokenLogprobs]) -> Mapping[str, float]:  # noqa: ARG002
        """Return the loss."""
        return {"nll": right.loss}


class EndedAnswers(AnswerLikelihoods, ABC):
    """Adds the choice whether the answer's end counts.

    Attributes:
        end: whether the end of the sequence is the last token of each answer; in a chat, what ends
            the assistant's turn.
    """

    end: bool = True

    @property
    def scores_end(self) -> bool:
        """Whether what ends an answer is its last token."""
        return self.end


def asked_text(prompt: str, answer: str, chat: Chat | None) -> Asked:
    """Return what is asked of a row by a prompt and its right answer: in a chat, two turns."""
    if chat is None:
        return Asked(prompt, (answer,))
    return Asked(prompt, (answer.lstrip(),), system=chat.system)


def split_answer(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    completion: str,
    chat: Chat | None = None,
    begun: str = "",
) -> tuple[list[int], list[int]]:
    """Encode prompt and completion together and divide the ids where the prompt's own end.

    A token that merges the end of the prompt with the start of the completion belongs to the
    completion, so that no part of the answer is given away. In a chat the prompt is all up to the
    assistant's answer, and the answer ends before what ends its turn. A text that the answer begins
    with belongs to the prompt.

    Raises:
        DataError: a turn of a chat is blank.
        ModelError: the tokenizer has no chat template, or one that cannot be used.
    """
    completion = begin_answer(begun, completion)[len(begun) :]
    special = chat is None  # a template writes the tokens that begin a text itself
    if chat is not None:
        prompt, answer, _ = render_chat(tokenizer, prompt, begun + completion, chat)
        cut = answer.index(begun.strip()) + len(begun.lstrip())
        prompt, completion = prompt + answer[:cut], answer[cut:]
    else:
        prompt = begin_answer(prompt, begun)
    alone, whole = (
        list(tokenizer.encode(text, add_special_tokens=special, verbose=False))
        for text in (prompt, prompt + completion)
    )
    cut = 0
    while cut < min(len(alone), len(whole)) and alone[cut] == whole[cut]:
        cut += 1
    return whole[:cut], whole[cut:]


_Made: TypeAlias = Sequence[tuple[Ids, Ids]]
"""(prompt, answer) of each answer of an item, the right one first."""


@dataclass(frozen=True)
class _Bound:
    """The items, ready for many checkpoints; `plain` are made without an attack."""

    name: str
    role: str
    items: Sequence[str]
    rows: Sequence[Row]
    make: Callable[[Item], _Made]
    plain: Sequence[_Made]
    values: Callable[[TokenLogprobs, Sequence[TokenLogprobs]], Mapping[str, float]]

    def score(self, engine: Engine, attack: BoundPromptAttack | None = None) -> list[SampleScore]:
        """Return each item's scores.

        Raises:
            CannotApplyError: the prompt attack samples, and nothing is generated here; or it asks
                for what the scorer has no place for.
        """
        if attack is None:
            return self._scores(engine, self.plain)
        refuse_sampling(self.name, attack)

        def ask(items: Sequence[Item]) -> list[SampleScore]:
            return self._scores(engine, [self.make(item) for item in items])

        rows = dict(zip(self.items, self.rows, strict=True))
        return ask_rewritten(attack, rows, ask, scorer=self.name, applies=("after", "frame"))

    def _scores(self, engine: Engine, made: Sequence[_Made]) -> list[SampleScore]:
        asked = [(item, *pair) for item, own in zip(self.items, made, strict=True) for pair in own]
        with name_items([item for item, _, _ in asked], self.role):
            found = engine.logprobs([(given, answer) for _, given, answer in asked])
        answered: dict[str, list[TokenLogprobs]] = {}
        for (item, _, _), one in zip(asked, found, strict=True):
            answered.setdefault(item, []).append(one)
        return [
            SampleScore(item=item, metric=metric, value=value)
            for item, (right, *wrong) in answered.items()
            for metric, value in self.values(right, wrong).items()
        ]
