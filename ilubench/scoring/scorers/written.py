"""Texts that the model writes, each beside its reference."""

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from pydantic import Field

from ilubench.interfaces import (
    BoundPromptAttack,
    Engine,
    Ids,
    Item,
    Row,
    SampleScore,
    SamplingSpec,
    ScoreContext,
    Scorer,
)
from ilubench.scoring.scorers.rewriting import Change, ask_rewritten
from ilubench.scoring.scorers.rouge import RougeTokens, check_references, rouge_l
from ilubench.scoring.scorers.rows import item_ids, name_items
from ilubench.specs import Direction, Estimator

__all__ = ["AskedText", "BoundTexts", "TextScorer", "cleaned"]

_SPACES = (" .", " ?", " !", " ,", " ' ", " n't", " 'm", " 's", " 've", " 're")
"""What MUSE's decoding (transformers 4, `clean_up_tokenization_spaces=True`) writes together."""


def cleaned(text: str) -> str:
    """Return text without the spaces that tokenization left before marks and contractions.

    transformers 5 does so for some tokenizers only, whatever it is asked; the metric's definition
    must not depend on that.
    """
    for spaced in _SPACES:
        text = text.replace(spaced, spaced.strip())
    return text


class TextScorer(Scorer, ABC):
    """Compares what the model writes for each row of a role with what is right.

    Attributes:
        data: role of the rows.
        limit: items at most.
        rouge_tokens: what ROUGE counts: `latin`, as MUSE (a-z and 0-9 only); `stemmed`, as TOFU,
            words without their endings; or `unicode`, words and letters of any script.
    """

    metric: ClassVar[str]
    """Its one metric, a mean over items."""

    data: str
    limit: int | None = Field(default=None, ge=1)
    rouge_tokens: RougeTokens = "latin"

    def metrics(self) -> Mapping[str, Estimator]:
        """Return the metric."""
        return {self.metric: Estimator()}

    def directions(self) -> Mapping[str, Direction]:
        """Return `higher`: more of what is right is written."""
        return {self.metric: "higher"}

    def roles(self) -> tuple[str, ...]:
        """Return the role of the rows."""
        return (self.data,)

    def bind(
        self,
        rows: Sequence[Row],
        make: "Callable[[Item], AskedText]",
        column: str,
        sampling: SamplingSpec,
        context: ScoreContext,
    ) -> "BoundTexts":
        """Return the rows as items, all made once.

        Args:
            rows: those of the role that are scored.
            make: item -> what is asked.
            column: where the references are, for errors.
            sampling: how the texts are written.
            context: of the run.

        Raises:
            DataError: a reference has no words.
        """
        items = item_ids(rows, self.data)
        plain = [make(Item(name, row)) for name, row in zip(items, rows, strict=True)]
        references = [reference for _, reference in plain]
        check_references(self.data, items, column, references, self.rouge_tokens)
        return BoundTexts(
            metric=self.metric,
            role=self.data,
            items=items,
            rows=rows,
            make=make,
            plain=plain,
            sampling=sampling,
            publish_text=context.publish_text(self.data),
            tokens=self.rouge_tokens,
        )


AskedText: TypeAlias = tuple[Ids, str]
"""What is asked of a row, and its reference."""


@dataclass(frozen=True, kw_only=True)
class BoundTexts:
    """The items, ready for many checkpoints.

    Attributes:
        make: item -> what is asked.
        plain: the items without an attack, made.
        ends: what is written is cut at the first of each, one after the other.
        groups: item -> its subset.
        tokens: what ROUGE counts.
        measure: the score of what is written beside its reference.
        applies: what of a rewritten item ``make`` heeds.
    """

    metric: str
    role: str
    items: Sequence[str]
    rows: Sequence[Row]
    make: Callable[[Item], AskedText]
    plain: Sequence[AskedText]
    sampling: SamplingSpec
    publish_text: bool
    tokens: RougeTokens
    ends: tuple[str, ...] = ()
    groups: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[[str, str, RougeTokens], float] = rouge_l
    applies: tuple[Change, ...] = ("after", "frame")

    def score(self, engine: Engine, attack: BoundPromptAttack | None = None) -> list[SampleScore]:
        """Return the score of each item.

        Raises:
            CannotApplyError: the prompt attack asks for what the scorer has no place for.
        """
        if attack is None:
            return self._scores(engine, self.plain, self.sampling)
        sampling = attack.sampling(self.sampling)

        def ask(items: Sequence[Item]) -> list[SampleScore]:
            return self._scores(engine, [self.make(item) for item in items], sampling)

        rows = dict(zip(self.items, self.rows, strict=True))
        return ask_rewritten(attack, rows, ask, scorer=self.metric, applies=self.applies)

    def _scores(
        self, engine: Engine, made: Sequence[AskedText], sampling: SamplingSpec
    ) -> list[SampleScore]:
        """Score of what is written for each item, in the items' order; one a sample."""
        with name_items(self.items, self.role):
            found = engine.generate([prompt for prompt, _ in made], sampling)
        written = [[self._cut(cleaned(one.text)) for one in own] for own in found]
        return [
            SampleScore(
                item=item,
                metric=self.metric,
                value=self.measure(reference, text, self.tokens),
                group=self.groups.get(item, ""),
                text=text if self.publish_text else "",
            )
            for item, (_, reference), texts in zip(self.items, made, written, strict=True)
            for text in texts
        ]

    def _cut(self, text: str) -> str:
        for end in self.ends:
            text = text.partition(end)[0]
        return text
