"""Scorers: a model's answers -> per-sample scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from ilubench.interfaces.attacks import BoundPromptAttack
from ilubench.interfaces.chats import Chat
from ilubench.interfaces.engines import Engine
from ilubench.interfaces.training import Row
from ilubench.specs import Direction, Estimator, Range, Spec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Asked",
    "BoundScorer",
    "SampleScore",
    "ScoreContext",
    "Scorer",
]


@dataclass(frozen=True, slots=True)
class SampleScore:
    """One item's score in one metric.

    Attributes:
        item: stable id of the item.
        metric: name of the metric within the scorer.
        value: the score, on the metric's own scale.
        group: subset of the items (a subject, a half); empty for none.
        label: class, `0` or `1`, where the estimator is an area under a curve.
        choices: option log-probabilities, for multiple choice.
        text: what the model wrote; kept only for sources that allow publication.
    """

    item: str
    metric: str
    value: float
    group: str = ""
    label: str = ""
    choices: tuple[float, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What an evaluation asks of one row, as text.

    Attributes:
        prompt: without the examples that may be shown before it.
        answers: what may follow, its delimiter included: the right answers where the row says
            them, else all options.
        shots: examples that are shown before the prompt.
        system: the system turn, where the prompt is the user's turn of a chat.
    """

    prompt: str
    answers: tuple[str, ...]
    shots: int = 0
    system: str = ""


@dataclass(frozen=True)
class ScoreContext:
    """What a scorer is built with.

    Attributes:
        rows: role -> its rows.
        publish_text: role -> whether generated text may be recorded.
        seed: for scorers that sample.
        chat: role -> how its rows are asked as a chat; None where they are not.
    """

    rows: Callable[[str], Sequence[Row]]
    publish_text: Callable[[str], bool]
    seed: int = 0
    chat: Callable[[str], Chat | None] = lambda _: None


class BoundScorer(Protocol):
    """A scorer with its items rendered and tokenised once, ready for many checkpoints."""

    def score(self, engine: Engine, attack: BoundPromptAttack | None = None) -> list[SampleScore]:
        """Return the samples' scores, one an item and metric.

        With ``attack``, every item is asked as it is rewritten, and gets the reduced score
        (`ilubench.scoring.scorers.rewriting` does both).

        Raises:
            CannotApplyError: the scorer cannot apply ``attack``.
        """


class Scorer(Spec, ABC):
    """Turns a model into per-sample scores.

    Attributes:
        ranges: metric -> the lowest and the highest score that an item can get, None for no bound;
            `acc` stands for `acc_...`, too. A score beyond is an error, and the intervals of means
            stay within. A metric that is not named may have any score.
        chats: whether it asks a role as a chat where that says so (`ScoreContext.chat`).
    """

    version: ClassVar[int] = 1
    ranges: ClassVar[Mapping[str, Range]] = {}
    chats: ClassVar[bool] = False

    @abstractmethod
    def metrics(self) -> Mapping[str, Estimator]:
        """Return metric name -> how its samples become one number."""

    @abstractmethod
    def roles(self) -> tuple[str, ...]:
        """Return the data roles that it reads."""

    def item_roles(self) -> tuple[str, ...]:
        """Return those of the roles whose rows are its items (not few-shot examples)."""
        return self.roles()

    def directions(self) -> Mapping[str, Direction]:
        """Return metric -> which values say that the model knows more; none where nobody can say.

        A suite's word for a metric (`MetricSpec.direction`) counts before it.
        """
        return {}

    def columns(self) -> Mapping[str, tuple[str, ...]]:
        """Return role -> the columns of it that are read; none where the scorer cannot say."""
        return {}

    def asks(
        self,
        rows: Sequence[Row],  # noqa: ARG002
        chat: Chat | None = None,  # noqa: ARG002
    ) -> Sequence[Asked] | None:
        """Return what it would ask of rows like its items, in order; None where it cannot say.

        An attack's training text is compared with it, so that a prompt of another task shows. A
        scorer that asks no `chats` is given no ``chat``.
        """
        return None

    def files(self) -> tuple[Path, ...]:
        """Return further files that determine the scores (task definitions)."""
        return ()

    @abstractmethod
    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Render and tokenise the items."""
