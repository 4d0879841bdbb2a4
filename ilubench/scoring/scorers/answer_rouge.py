"""Is the right answer in what the model writes (TOFU)?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from ilubench.data.chat import closing_ids, encode_prompt
from ilubench.data.rows import render_template
from ilubench.data.template import template_columns
from ilubench.interfaces import BoundScorer, Item, SamplingSpec, ScoreContext
from ilubench.scoring.scorers.rewriting import reframed
from ilubench.scoring.scorers.rouge import RougeTokens, rouge_l_recall
from ilubench.scoring.scorers.rows import take_rows
from ilubench.scoring.scorers.written import AskedText, TextScorer, cleaned
from ilubench.specs import KNOWN_RANGES, DataSource, Range

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["AnswerRouge"]


class AnswerRouge(TextScorer):
    """ROUGE-L recall of a greedy answer against the right one (Maini et al. 2024).

    Attributes:
        prompt: template of what is given (`str.format` over the columns).
        completion: template of the right answer.
        max_tokens: tokens generated.
    """

    metric: ClassVar[str] = "rouge_l_recall"
    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["answer_rouge"]
    chats: ClassVar[bool] = True

    prompt: str
    completion: str
    max_tokens: int = Field(default=200, ge=1)
    rouge_tokens: RougeTokens = "stemmed"

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns that the templates name."""
        return {self.data: template_columns(self.prompt, self.completion)}

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Render and tokenise the prompts.

        Raises:
            DataError: no rows, a missing column, or an answer that has no words.
        """
        rows = take_rows(context.rows(self.data), self.limit, self.data)
        source, chat = DataSource(path=self.data), context.chat(self.data)

        def made(item: Item) -> AskedText:
            template = reframed(self.prompt, item.frame, "answer_rouge")
            prompt = item.before + render_template(template, item.fields, source, self.data)
            reference = render_template(self.completion, item.fields, source, self.data)
            return encode_prompt(tokenizer, prompt, chat, item.after), cleaned(reference)

        column = ", ".join(template_columns(self.completion))
        ends = closing_ids(tokenizer, chat) if chat else ()
        sampling = SamplingSpec(max_tokens=self.max_tokens, stop_ids=ends)
        return replace(self.bind(rows, made, column, sampling, context), measure=rouge_l_recall)
