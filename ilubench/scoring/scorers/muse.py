"""MUSE (Shi et al. 2024, arXiv:2407.06460): is the text still recited, are its facts known?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ilubench.data.chat import (
    begin_answer,
    begin_turn,
    chat_turns,
    closing_ids,
    encode_turns,
    put_before,
)
from ilubench.data.overlap import asks_same
from ilubench.errors import DataError
from ilubench.interfaces import BoundScorer, Item, Row, SamplingSpec, ScoreContext
from ilubench.scoring.scorers.rewriting import reframed
from ilubench.scoring.scorers.rows import groups_of, item_ids, take_rows, text_of
from ilubench.scoring.scorers.written import AskedText, TextScorer, cleaned
from ilubench.specs import KNOWN_RANGES, Range

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["KnowMem", "VerbMem"]

_ASKED = "Question: {}\nAnswer: "
_ANSWER_ENDS = ("\n\n", "\nQuestion", "Question:")
"""An answer is cut at the first of each, in this order."""


class VerbMem(TextScorer):
    """Verbatim memorisation: ROUGE-L F1 of a greedy continuation against the true one.

    Rows are `{prompt, gt}` with an optional `id`. The prompt is used as it is, with special tokens;
    the reference is the first ``max_tokens`` ids of `gt` *encoded with special tokens* (so BOS is
    one of them), decoded without. Values are on 0-1; the paper shows them times 100.

    Attributes:
        max_tokens: tokens generated, and of the reference.
    """

    metric: ClassVar[str] = "verbmem"
    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["verbmem"]

    max_tokens: int = Field(default=128, ge=1)

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns of prompt and true continuation."""
        return {self.data: ("prompt", "gt")}

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Tokenise prompts and cut references.

        Raises:
            DataError: no rows, a row without `prompt` or `gt`, or a reference that has no words.
        """
        rows = take_rows(context.rows(self.data), self.limit, self.data)

        def made(item: Item) -> AskedText:
            ids = tokenizer.encode(text_of(item.fields, "gt", self.data), verbose=False)
            reference = tokenizer.decode(
                ids[: self.max_tokens],
                skip_special_tokens=True,
                clean_up_tokenization_spaces=False,
            )
            prompt = item.before + text_of(item.fields, "prompt", self.data)
            asked = begin_answer(prompt, item.after)
            return tokenizer.encode(asked, verbose=False), cleaned(str(reference))

        sampling = SamplingSpec(max_tokens=self.max_tokens)
        return replace(self.bind(rows, made, "gt", sampling, context), applies=("after",))


class KnowMem(TextScorer):
    r"""Knowledge memorisation: ROUGE-L F1 of a short greedy answer against the right one.

    Rows are `{question, answer}` with an optional `id`. The prompt is `Question: {q}\nAnswer:
    {a}\n\n` for each example pair, but not one that asks the same, then `Question: {q}\nAnswer: `
    with the space at its end, all with special tokens. What is written is cut at the first "\n\n",
    then at "\nQuestion", then at "Question:". Values are on 0-1; the paper shows them times 100.

    The cut comes after the whole generation. Ending it at these strings could give another text:
    with byte-level fallback, as in Llama 2's tokenizer, two newlines decode as such only until the
    bytes that follow them make the run invalid.

    In a chat each example pair is a user's and an assistant's turn, and the question is the last
    user's turn, without the space at its end.

    Attributes:
        icl: role of the example pairs shown before each question, all of them.
        max_tokens: tokens generated.
        group_by: column that names the subset of the questions that each belongs to.
    """

    metric: ClassVar[str] = "knowmem"
    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["knowmem"]
    chats: ClassVar[bool] = True

    icl: str
    max_tokens: int = Field(default=32, ge=1)
    group_by: str | None = None

    def roles(self) -> tuple[str, ...]:
        """Return the roles of questions and example pairs."""
        return (self.data, self.icl)

    def item_roles(self) -> tuple[str, ...]:
        """Return the role of the questions."""
        return (self.data,)

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns of question and answer."""
        pair = ("question", "answer")
        return {self.data: (*pair, self.group_by) if self.group_by else pair, self.icl: pair}

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Render and tokenise the prompts.

        Raises:
            DataError: no rows, a row without `question` or `answer`, an answer that has no words,
                or a question that all the pairs ask.
        """
        rows = take_rows(context.rows(self.data), self.limit, self.data)
        items, chat = item_ids(rows, self.data), context.chat(self.data)
        pairs = [
            (pair, _asked(pair, self.icl), text_of(pair, "answer", self.icl))
            for pair in take_rows(context.rows(self.icl), None, self.icl)
        ]

        def made(item: Item) -> AskedText:
            row, template = item.fields, reframed(_ASKED, item.frame, "knowmem")
            shown = [
                (_asked(pair, self.icl, template), answer)
                for pair, question, answer in pairs
                if not asks_same(row, pair, question)
            ]
            asked = _asked(row, self.data, template)
            if chat is None:
                plain = "".join(f"{question}{answer}\n\n" for question, answer in shown)
                whole = begin_answer(item.before + plain + asked, item.after)
                ids = tokenizer.encode(whole, verbose=False)
            else:
                stripped = [(question.rstrip(), answer) for question, answer in shown]
                turns = put_before(chat_turns(asked.rstrip(), chat, stripped), item.before)
                ids = encode_turns(tokenizer, begin_turn(turns, item.after), chat)
            return ids, text_of(row, "answer", self.data)

        for item, row in zip(items, rows, strict=True):
            if all(asks_same(row, pair, asked) for pair, asked, _ in pairs):
                problem = f"data.{self.icl}: no pair besides item {item!r} of data.{self.data}"
                raise DataError(f"{problem} can be shown before it; give others")
        stops = closing_ids(tokenizer, chat) if chat else ()
        sampling = SamplingSpec(max_tokens=self.max_tokens, stop_ids=stops)
        bound = self.bind(rows, made, "answer", sampling, context)
        return replace(bound, ends=_ANSWER_ENDS, groups=groups_of(rows, self.group_by, self.data))


def _asked(row: Row, role: str, template: str = _ASKED) -> str:
    return template.format(text_of(row, "question", role))
