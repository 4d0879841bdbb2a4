"""MUSE (Shi et al. 2024, arXiv:2407.06460): does the model still recite the text?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from ilubench.errors import UsageError
from ilubench.interfaces import (
    BoundScorer,
    Engine,
    PromptAttack,
    SampleScore,
    SamplingSpec,
    ScoreContext,
    Scorer,
)
from ilubench.scorers.rows import item_ids, naming, take, text_of
from ilubench.specs import Estimator

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["VerbMem"]


class VerbMem(Scorer):
    """Verbatim memorisation: ROUGE-L F1 of a greedy continuation against the true one.

    Rows are `{prompt, gt}` with an optional `id`. The prompt is used as it is, with special tokens;
    the reference is the first ``max_tokens`` ids of `gt` *encoded with special tokens* (so BOS is
    one of them), decoded without. Values are on 0-1; the paper shows them times 100.

    Attributes:
        data: role of the rows.
        max_tokens: tokens generated, and of the reference.
        limit: items at most.
    """

    data: str
    max_tokens: int = Field(default=128, ge=1)
    limit: int | None = Field(default=None, ge=1)

    def metrics(self) -> Mapping[str, Estimator]:
        """Return `verbmem`, a mean over items."""
        return {"verbmem": Estimator()}

    def roles(self) -> tuple[str, ...]:
        """Return the role of the rows."""
        return (self.data,)

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Tokenise prompts and cut references.

        Raises:
            DataError: no rows, or a row without `prompt` or `gt`.
        """
        rows = take(context.rows(self.data), self.limit, self.data)
        references = []
        for row in rows:
            ids = tokenizer.encode(text_of(row, "gt", self.data), verbose=False)
            references.append(
                tokenizer.decode(
                    ids[: self.max_tokens],
                    skip_special_tokens=True,
                    clean_up_tokenization_spaces=True,
                )
            )
        return _Bound(
            role=self.data,
            items=item_ids(rows, self.data),
            prompts=[
                tokenizer.encode(text_of(row, "prompt", self.data), verbose=False) for row in rows
            ],
            references=[str(reference) for reference in references],
            sampling=SamplingSpec(max_tokens=self.max_tokens),
            publish_text=context.publish_text(self.data),
        )


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """The items, ready for many checkpoints."""

    role: str
    items: Sequence[str]
    prompts: Sequence[Sequence[int]]
    references: Sequence[str]
    sampling: SamplingSpec
    publish_text: bool

    def score(self, engine: Engine, attack: PromptAttack | None = None) -> list[SampleScore]:
        """Return ROUGE-L F1 of each item.

        Raises:
            UsageError: a prompt attack was given.
        """
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped, unused-ignore]

        if attack is not None:
            raise UsageError(f"verbmem cannot apply the prompt attack {type(attack).__name__}")
        rouge = RougeScorer(["rougeL"], use_stemmer=False)
        with naming(self.items, self.role):
            written = [found[0].text for found in engine.generate(self.prompts, self.sampling)]
        return [
            SampleScore(
                item=item,
                metric="verbmem",
                value=float(rouge.score(reference, text)["rougeL"].fmeasure),
                text=text if self.publish_text else "",
            )
            for item, reference, text in zip(self.items, self.references, written, strict=True)
        ]
