"""How surprised the model is by the right answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ilubench.data.chat import render_chat
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
    Row,
    SampleScore,
    ScoreContext,
    Scorer,
)
from ilubench.scoring.scorers.rewriting import ask_rewritten, refuse_sampling
from ilubench.scoring.scorers.rows import item_ids, name_items, take_rows
from ilubench.specs import KNOWN_RANGES, DataSource, Direction, Estimator, Range

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["AnswerNLL", "asked_text", "split_answer"]


class AnswerNLL(Scorer):
    """Mean negative log-likelihood of the answer's tokens, in nats a token.

    Attributes:
        data: role of the rows.
        prompt: template of what is given (`str.format` over the columns).
        completion: template of the answer, with the space before it.
        labels: column -> names that stand for its integers 0, 1, ...
        limit: items at most.

    Of a chat, prompt and answer are the user's and the assistant's turn; what ends the latter is
    not scored.
    """

    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["answer_nll"]
    chats: ClassVar[bool] = True

    data: str
    prompt: str
    completion: str
    labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)

    def metrics(self) -> Mapping[str, Estimator]:
        """Return `nll`, a mean over items."""
        return {"nll": Estimator()}

    def roles(self) -> tuple[str, ...]:
        """Return the role of the rows."""
        return (self.data,)

    def directions(self) -> Mapping[str, Direction]:
        """Return `lower`: less surprised."""
        return {"nll": "lower"}

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns that the templates name."""
        return {self.data: template_columns(self.prompt, self.completion, labels=self.labels)}

    def asks(self, rows: Sequence[Row], chat: Chat | None = None) -> Sequence[Asked]:
        """Return prompt and answer of each row.

        Raises:
            DataError: a row lacks a column, or its answer is blank.
        """
        return [asked_text(*self._text(row), chat) for row in rows]

    def _text(self, row: Row) -> tuple[str, str]:
        source = DataSource(path=self.data, labels=self.labels)
        prompt = render_template(self.prompt, row, source, self.data)
        answer = render_template(self.completion, row, source, self.data)
        if not answer.strip():
            raise DataError(f"{row_name(self.data, row)}: the answer is blank")
        return prompt, answer

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Render and tokenise the items.

        Raises:
            DataError: no rows, a missing column, or an answer without tokens.
        """
        rows, chat = (
            take_rows(context.rows(self.data), self.limit, self.data),
            context.chat(self.data),
        )

        def made(row: Row, before: str) -> tuple[Ids, Ids]:
            prompt, completion = self._text(row)
            context_ids, answer_ids = split_answer(tokenizer, before + prompt, completion, chat)
            if not context_ids or not answer_ids:
                raise DataError(f"data.{self.data}: {row['id']}: prompt or answer has no tokens")
            return context_ids, answer_ids

        items = item_ids(rows, self.data)
        named = [{**row, "id": item} for item, row in zip(items, rows, strict=True)]
        return _Bound(self.data, items, named, made, [made(row, "") for row in named])


def asked_text(prompt: str, answer: str, chat: Chat | None) -> Asked:
    """Return what is asked of a row by a prompt and its right answer: in a chat, two turns."""
    if chat is None:
        return Asked(prompt, (answer,))
    return Asked(prompt, (answer.lstrip(),), system=chat.system)


def split_answer(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str, chat: Chat | None = None
) -> tuple[list[int], list[int]]:
    """Encode prompt and completion together and divide the ids where the prompt's own end.

    A token that merges the end of the prompt with the start of the completion belongs to the
    completion, so that no part of the answer is given away. In a chat the prompt is all up to the
    assistant's answer, and the answer ends before what ends its turn.

    Raises:
        DataError: a turn of a chat is blank.
        ModelError: the tokenizer has no chat template, or one that cannot be used.
    """
    special = chat is None  # a template writes the tokens that begin a text itself
    if chat is not None:
        prompt, completion, _ = render_chat(tokenizer, prompt, completion, chat)
    alone, whole = (
        list(tokenizer.encode(text, add_special_tokens=special, verbose=False))
        for text in (prompt, prompt + completion)
    )
    cut = 0
    while cut < min(len(alone), len(whole)) and alone[cut] == whole[cut]:
        cut += 1
    return whole[:cut], whole[cut:]


@dataclass(frozen=True)
class _Bound:
    """The items, ready for many checkpoints; `make` has (row, text before it), `plain` none."""

    role: str
    items: Sequence[str]
    rows: Sequence[Row]
    make: Callable[[Row, str], tuple[Ids, Ids]]
    plain: Sequence[tuple[Ids, Ids]]

    def score(self, engine: Engine, attack: BoundPromptAttack | None = None) -> list[SampleScore]:
        """Return the mean negative log-likelihood of each item's answer tokens.

        Raises:
            CannotApplyError: the prompt attack samples; nothing is generated here.
        """
        if attack is None:
            return self._scores(engine, self.plain)
        refuse_sampling("answer_nll", attack)

        def ask(rows: Sequence[Row], before: Mapping[str, str]) -> list[SampleScore]:
            return self._scores(engine, [self.make(row, before[str(row["id"])]) for row in rows])

        return ask_rewritten(attack, self.rows, self.items, ask)

    def _scores(self, engine: Engine, pairs: Sequence[tuple[Ids, Ids]]) -> list[SampleScore]:
        with name_items(self.items, self.role):
            scores = engine.logprobs(pairs)
        return [
            SampleScore(item=item, metric="nll", value=-scored.total / len(scored.values))
            for item, scored in zip(self.items, scores, strict=True)
        ]
