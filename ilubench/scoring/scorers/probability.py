"""How probable the model finds the right answer, alone and beside wrong ones (TOFU).

Maini et al. 2024 (arXiv:2401.06121), computed as their code does. P below is a length-normalised
probability: exp of the mean log-probability of an answer's tokens, its end among them.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from pydantic import Field

from ilubench.data.chat import closing_ids
from ilubench.data.rows import render_template
from ilubench.data.template import template_columns
from ilubench.data.values import describe_value, list_in, row_name
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
from ilubench.scoring.scorers.nll import asked_text, split_answer
from ilubench.scoring.scorers.rewriting import ask_rewritten, refuse_sampling
from ilubench.scoring.scorers.rows import item_ids, name_items, take_rows
from ilubench.specs import KNOWN_RANGES, DataSource, Direction, Estimator, Range

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["AnswerProbability", "ChoiceProbability", "TruthRatio"]

_LARGEST = 700.0
"""Largest exponent of a ratio; e to the 710th is no float any more."""


class _Answers(Scorer):
    """Asks for the log-probability of answers that a row holds.

    Attributes:
        data: role of the rows.
        prompt: template of what is given (`str.format` over the columns).
        completion: template of the right answer, with the space before it.
        labels: column -> names that stand for its integers 0, 1, ...
        end: whether the end of the sequence is the last token of each answer; in a chat, what ends
            the assistant's turn.
        limit: items at most.
    """

    chats: ClassVar[bool] = True

    data: str
    prompt: str
    completion: str
    labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    end: bool = True
    limit: int | None = Field(default=None, ge=1)

    @abstractmethod
    def values(self, right: float, wrong: Sequence[float]) -> Mapping[str, float]:
        """Return metric -> an item's score.

        Args:
            right: mean negative log-likelihood of a token of the right answer.
            wrong: the same of each wrong one.
        """

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
        pairs = [(self._render(self.prompt, row), self._texts(row)[0]) for row in rows]
        return [asked_text(prompt, answer, chat) for prompt, answer in pairs]

    def _texts(self, row: Row) -> tuple[str, ...]:
        """The right answer, then the wrong ones."""
        return (self._answer(row),)

    def _answer(self, row: Row) -> str:
        answer = self._render(self.completion, row)
        if not answer.strip():
            raise DataError(f"{row_name(self.data, row)}: an answer is blank")
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
        if self.end and end is None:
            problem = f"data.{self.data}: the tokenizer has no end-of-sequence token"
            raise DataError(f"{problem}; set end to false in the scorer's settings")

        def made(row: Row, before: str) -> _Made:
            prompt = before + self._render(self.prompt, row)
            pairs = [split_answer(tokenizer, prompt, text, chat) for text in self._texts(row)]
            if not all(given and answer for given, answer in pairs):
                raise DataError(f"data.{self.data}: {row['id']}: prompt or answer has no tokens")
            if self.end:
                pairs = [(given, [*ids, *([end] * (ids[-1] != end))]) for given, ids in pairs]
            return pairs

        items = item_ids(rows, self.data)
        named = [{**row, "id": item} for item, row in zip(items, rows, strict=True)]
        plain = [made(row, "") for row in named]
        return _Bound(type(self).__name__, self.data, items, named, made, plain, self.values)


class AnswerProbability(_Answers):
    """P of the right answer."""

    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["answer_probability"]

    def directions(self) -> Mapping[str, Direction]:
        """Return `higher`: less surprised."""
        return {"probability": "higher"}

    def values(self, right: float, wrong: Sequence[float]) -> Mapping[str, float]:  # noqa: ARG002
        """Return P."""
        return {"probability": math.exp(-right)}


class _Choices(_Answers):
    """Asks for wrong answers, too.

    Attributes:
        wrong: column of the list of wrong answers. Each is asked for as the right one is: in the
            place of the only column that `completion` names.
    """

    wrong: str

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns that the templates name, and that of the wrong answers."""
        return {self.data: (*super().columns()[self.data], self.wrong)}

    def _texts(self, row: Row) -> tuple[str, ...]:
        where, found = row_name(self.data, row), row.get(self.wrong)
        wrong = list_in(found)
        if not wrong:
            has = describe_value(found) if self.wrong in row else "missing"
            raise DataError(
                f"{where}: column {self.wrong!r} is {has}; give a list of wrong answers"
            )
        named = template_columns(self.completion)
        if len(named) != 1:
            problem = f"completion {self.completion!r} must name one column, for which a wrong "
            raise DataError(f"{where}: {problem}answer can stand")
        return (self._answer(row), *(self._answer({**row, named[0]: text}) for text in wrong))


class ChoiceProbability(_Choices):
    """P of the right answer, divided by the sum of P over all answers.

    The paper writes probabilities here that are not length-normalised; its code normalises them.
    """

    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["choice_probability"]

    def directions(self) -> Mapping[str, Direction]:
        """Return `higher`: the right answer stands out."""
        return {"probability": "higher"}

    def values(self, right: float, wrong: Sequence[float]) -> Mapping[str, float]:
        """Return the right answer's share."""
        odds = math.fsum(math.exp(min(right - other, _LARGEST)) for other in wrong)
        return {"probability": 1 / (1 + odds)}


class TruthRatio(_Choices):
    """How probable wrong answers are beside a paraphrase of the right one.

    `truth_ratio` is R = exp(mean log P(wrong)) / P(right): the code takes the geometric mean over
    the wrong answers where the paper writes the arithmetic one. Two shares follow from it:
    `closer_to_1` is min(R, 1/R), near 1 where the model cannot tell them apart; `true_better` is
    max(0, 1 - R), above 0 where it prefers the right answer.
    """

    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["truth_ratio"]

    def directions(self) -> Mapping[str, Direction]:
        """Return which values say that the right answer is known."""
        return {"truth_ratio": "lower", "closer_to_1": "lower", "true_better": "higher"}

    def values(self, right: float, wrong: Sequence[float]) -> Mapping[str, float]:
        """Return R and the two shares."""
        power = max(-_LARGEST, min(right - math.fsum(wrong) / len(wrong), _LARGEST))
        return {
            "truth_ratio": math.exp(power),
            "closer_to_1": math.exp(-abs(power)),
            "true_better": max(0.0, -math.expm1(power)),
        }


_Made: TypeAlias = Sequence[tuple[Ids, Ids]]
"""(prompt, answer) of each answer of an item, the right one first."""


@dataclass(frozen=True)
class _Bound:
    """The items, ready for many checkpoints; `make` has (row, text before it), `plain` none."""

    name: str
    role: str
    items: Sequence[str]
    rows: Sequence[Row]
    make: Callable[[Row, str], _Made]
    plain: Sequence[_Made]
    values: Callable[[float, Sequence[float]], Mapping[str, float]]

    def score(self, engine: Engine, attack: BoundPromptAttack | None = None) -> list[SampleScore]:
        """Return each item's scores.

        Raises:
            CannotApplyError: the prompt attack samples; nothing is generated here.
        """
        if attack is None:
            return self._scores(engine, self.plain)
        refuse_sampling(self.name, attack)

        def ask(rows: Sequence[Row], before: Mapping[str, str]) -> list[SampleScore]:
            return self._scores(engine, [self.make(row, before[str(row["id"])]) for row in rows])

        return ask_rewritten(attack, self.rows, self.items, ask)

    def _scores(self, engine: Engine, made: Sequence[_Made]) -> list[SampleScore]:
        asked = [(item, *pair) for item, own in zip(self.items, made, strict=True) for pair in own]
        with name_items([item for item, _, _ in asked], self.role):
            found = engine.logprobs([(given, answer) for _, given, answer in asked])
        lost: dict[str, list[float]] = {}
        for (item, _, _), one in zip(asked, found, strict=True):
            lost.setdefault(item, []).append(-one.total / len(one.values))
        return [
            SampleScore(item=item, metric=metric, value=value)
            for item, (right, *wrong) in lost.items()
            for metric, value in self.values(right, wrong).items()
        ]
