"""How probable the model finds the right answer, alone and beside wrong ones (TOFU).

Maini et al. 2024 (arXiv:2401.06121), computed as their code does. P below is a length-normalised
probability: exp of the mean log-probability of an answer's tokens, its end among them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import JsonValue

from ilubench.data.template import template_columns
from ilubench.data.values import describe_value, list_in, row_name, text_in
from ilubench.errors import DataError
from ilubench.interfaces import BoundScorer, Row, ScoreContext, TokenLogprobs
from ilubench.scoring.scorers.nll import EndedAnswers
from ilubench.scoring.scorers.rows import take_rows
from ilubench.specs import KNOWN_RANGES, Direction, Range

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["AnswerProbability", "ChoiceProbability", "TruthRatio"]

_LARGEST = 700.0
"""Largest exponent of a ratio; e to the 710th is no float any more."""


class AnswerProbability(EndedAnswers):
    """P of the right answer."""

    name: ClassVar[str] = "answer_probability"
    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["answer_probability"]

    def directions(self) -> Mapping[str, Direction]:
        """Return `higher`: less surprised."""
        return {"probability": "higher"}

    def values(self, right: TokenLogprobs, wrong: Sequence[TokenLogprobs]) -> Mapping[str, float]:  # noqa: ARG002
        """Return P."""
        return {"probability": math.exp(-right.loss)}


class _Choices(EndedAnswers):
    """Asks for wrong answers, too.

    Attributes:
        wrong: column of the list of wrong answers. Each is asked for as the right one is: in the
            place of the only column that `completion` names.
    """

    wrong: str

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return the columns that the templates name, and that of the wrong answers."""
        return {self.data: (*super().columns()[self.data], self.wrong)}

    def texts(self, row: Row) -> tuple[str, ...]:
        """Return the right answer, then those of the column.

        Raises:
            DataError: there is none, one is no text or blank, or two answers are the same.
        """
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
        texts = [self.answer(row)]
        for number, text in enumerate(wrong, start=1):
            problem = _no_text(text)
            if not problem:
                texts.append(self.answer({**row, named[0]: text}))
                *before, own = (one.strip() for one in texts)
                if own in before:
                    same = before.index(own)
                    problem = f"wrong answer {same}" if same else "the right one"
                    problem = f"the same as {problem}"
            if problem:
                problem = f"wrong answer {number} in {self.wrong!r} is {problem}"
                raise DataError(f"{where}: {problem}; give another text")
        return tuple(texts)

    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Render and tokenise the items.

        Raises:
            DataError: as of other answers; or an item has more wrong ones than another, and so
                another score by chance.
        """
        bound = super().build(tokenizer, context)
        rows = take_rows(context.rows(self.data), self.limit, self.data)
        first, *others = [len(list_in(row[self.wrong]) or ()) for row in rows]
        for row, count in zip(rows[1:], others, strict=True):
            if count != first:
                problem = f"{count} wrong answers in {self.wrong!r}, and the first item {first}"
                raise DataError(
                    f"{row_name(self.data, row)} has {problem}; give each as many, "
                    "or ask them by scorers of their own"
                )
        return bound


def _no_text(value: JsonValue) -> str:
    """Say what a wrong answer is instead of text; empty where it is text, or a number."""
    text = text_in(value)
    if text is None:
        return f"{describe_value(value)}, not text"
    return "" if text.strip() else "blank"


class ChoiceProbability(_Choices):
    """P of the right answer, divided by the sum of P over all answers.

    The paper writes probabilities here that are not length-normalised; its code normalises them.
    """

    name: ClassVar[str] = "choice_probability"
    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["choice_probability"]

    def directions(self) -> Mapping[str, Direction]:
        """Return `higher`: the right answer stands out."""
        return {"probability": "higher"}

    def values(self, right: TokenLogprobs, wrong: Sequence[TokenLogprobs]) -> Mapping[str, float]:
        """Return the right answer's share."""
        odds = math.fsum(math.exp(min(right.loss - other.loss, _LARGEST)) for other in wrong)
        return {"probability": 1 / (1 + odds)}


class TruthRatio(_Choices):
    """How probable wrong answers are beside a paraphrase of the right one.

    `truth_ratio` is R = exp(mean log P(wrong)) / P(right): the code takes the geometric mean over
    the wrong answers where the paper writes the arithmetic one. Two shares follow from it:
    `closer_to_1` is min(R, 1/R), near 1 where the model cannot tell them apart; `true_better` is
    max(0, 1 - R), above 0 where it prefers the right answer.
    """

    name: ClassVar[str] = "truth_ratio"
    ranges: ClassVar[Mapping[str, Range]] = KNOWN_RANGES["truth_ratio"]

    def directions(self) -> Mapping[str, Direction]:
        """Return which values say that the right answer is known."""
        return {"truth_ratio": "lower", "closer_to_1": "lower", "true_better": "higher"}

    def values(self, right: TokenLogprobs, wrong: Sequence[TokenLogprobs]) -> Mapping[str, float]:
        """Return R and the two shares."""
        mean = math.fsum(one.loss for one in wrong) / len(wrong)
        power = max(-_LARGEST, min(right.loss - mean, _LARGEST))
        return {
            "truth_ratio": math.exp(power),
            "closer_to_1": math.exp(-abs(power)),
            "true_better": max(0.0, -math.expm1(power)),
        }
