"""Attacks: on the weights, or by asking differently."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from pydantic import JsonValue

from ilubench.errors import CannotApplyError, SpecError
from ilubench.interfaces.engines import SamplingSpec
from ilubench.interfaces.methods import goes_with_shards
from ilubench.interfaces.training import Context, Dataset, Row
from ilubench.specs import Direction, Spec

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

__all__ = [
    "BoundPromptAttack",
    "Checkpoint",
    "Item",
    "Options",
    "PromptAttack",
    "PromptContext",
    "Shot",
    "Told",
    "WeightAttack",
]


Options: TypeAlias = Literal["lettered", "plain"]


@dataclass(frozen=True)
class Item:
    """One evaluation item before rendering.

    Attributes:
        id: the row's.
        fields: the row's columns, from which the scorer renders what it asks and what is right.
        before: text in front of all that the scorer asks, taken as it is.
        after: text behind it, with which the model's answer begins, in a chat the assistant's turn;
            never a part of what the model answers.
        frame: words in the place of the scorer's own `Question:` and `Answer:`; none: its own.
        options: how the options of a multiple choice are asked: `lettered`, shown behind letters,
            of which one is the answer; `plain`, not shown, their texts are compared; None: as the
            scorer asks them.
    """

    id: str
    fields: Row
    before: str = ""
    after: str = ""
    frame: tuple[str, str] | None = None
    options: Options | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A tampered model at one point of an attack's course.

    An attack has steps or levels, never both, but for a checkpoint at step 0 before its levels,
    where an FA task is scored. Levels come from the weakest to the strongest. An attack with
    neither has a single checkpoint.

    Attributes:
        model: the live model; it is scored before the attack goes on.
        step: optimizer steps so far, for attacks that take steps.
        level: strength, for attacks that have levels (bits, sparsity): lower-case letters, digits,
            `.`, `_` and `-`.
        settings: of a trial, for the record: what an attack that tunes chose.
        items: scorer (by its name in the suite) -> the ids of its items to score; a scorer that is
            not named scores all of its items. The same ids along the whole course; never of a
            scorer that measures utility, which must stay comparable with the unlearned model's.
            (An `Example`'s id is `role/id/part`.)
    """

    model: PreTrainedModel
    step: int | None
    level: str | None = None
    items: Mapping[str, frozenset[str]] = field(default_factory=dict)
    settings: Mapping[str, JsonValue] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name that is unique along the course and safe as a file name."""
        if self.step is not None:
            return f"step-{self.step:06d}"
        return "once" if self.level is None else f"level-{self.level}"


@dataclass(frozen=True, slots=True)
class Told:
    """What an attacker who tunes learns of a trial.

    Attributes:
        forgotten: how much is forgotten, from 0 (all known) to 1 (none), the mean of the suite's
            forget metrics, each against its chance level.
        utility_kept: share of the unlearned model's utility above chance that is left, in the
            worst metric.
    """

    forgotten: float
    utility_kept: float


class WeightAttack(Spec, ABC):
    """Changes the weights of the unlearned model.

    Attributes:
        version: raise it whenever the same settings give another result.
        adaptive: whether it tunes. Then its checkpoints are trials, each of which begins from the
            unlearned weights, their levels are of :func:`~ilubench.statistics.row.trial_level`, and
            `tamper` is a generator that is sent what each of them scored (:class:`Told`), or thrown
            the `DivergedError` of one whose scores are not finite. Only so many of them count as
            were scored: it may leave out numbers.
        shards: whether the class's own `tamper` goes with a model whose weights are divided among
            several devices; what overrides it says so again.
    """

    version: ClassVar[int] = 1
    adaptive: ClassVar[bool] = False
    shards: ClassVar[bool] = False

    def roles(self) -> tuple[str, ...]:
        """Return the roles that it trains on: the attack's own, else the suite's."""
        return ("train",)

    def identity(self) -> Mapping[str, JsonValue]:
        """Return what determines the result besides the settings (versions of libraries)."""
        return {}

    def checkpoints(self, examples: int) -> Sequence[int | str]:  # noqa: ARG002
        """Return the steps or levels that are scored, 0 first; none: it is not known beforehand.

        Args:
            examples: how many there are to train on.
        """
        return ()

    def check_model(self, config: PretrainedConfig) -> None:
        """Find settings that do not fit a model, or a library that is missing, before any job.

        Args:
            config: of the target model.

        Raises:
            SpecError: names the field.
            UsageError: a library is not installed.
        """

    def check_sharding(self) -> None:
        """Find what does not go with a model whose weights are divided among several devices.

        Raises:
            SpecError: the attack has steps of its own and does not say that they do.
        """
        if not goes_with_shards(type(self), ("tamper",)):
            problem = f"{type(self).__name__} does not attack a model that is divided among devices"
            remedy = "leave out the attack, or devices_per_job"
            raise SpecError(problem, remedy=remedy)

    def check_examples(self, counts: Mapping[str, int]) -> None:
        """Refuse settings that do not go with the training examples; asked before any job.

        Args:
            counts: role -> how many examples there are.

        Raises:
            SpecError: names the field.
        """

    @abstractmethod
    def tamper(
        self, model: PreTrainedModel, data: Mapping[str, Dataset], context: Context
    ) -> Iterator[Checkpoint]:
        """Yield checkpoints along the course; ``data`` has the attack's own roles."""


@dataclass(frozen=True, slots=True)
class Shot:
    """A row that a prompt attack may show, as text by the templates of its role."""

    fields: Row
    prompt: str
    completion: str


@dataclass(frozen=True)
class PromptContext:
    """What a prompt attack gets besides the items.

    Attributes:
        shots: each of the roles that the attack shows -> its rows as text, in their order.
        seed: derived from (user seed, role, attack name), for an attack that draws.
        rows: each of the attack's roles -> its rows.
    """

    shots: Mapping[str, Sequence[Shot]]
    seed: int
    rows: Mapping[str, Sequence[Row]] = field(default_factory=dict)


class PromptAttack(Spec, ABC):
    """Asks differently, and changes no weights: the unlearned model is scored once, so asked."""

    version: ClassVar[int] = 1

    def roles(self) -> tuple[str, ...]:
        """Return the roles that it reads: the attack's own, else the suite's."""
        return ()

    def shows(self) -> tuple[str, ...]:
        """Return those of the roles whose rows it shows to the model; they need templates."""
        return self.roles()

    @abstractmethod
    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        """Return the items to ask in its place; their ids do not count.

        None at all for an item that it cannot ask: a scorer of which it can ask some items only is
        an error, one of which it can ask none is left out.
        """

    def ways(self) -> int:
        """Return about how many items are asked in the place of one; forecasts count with it."""
        return 1

    def sampling(self) -> SamplingSpec | None:
        """Return how to sample, or None to leave it to the scorer.

        Temperature and number count, for scorers that generate. How long a text may be and where it
        ends is part of the scorer's metric; the seed of the samples is the context's.
        """
        return None

    @abstractmethod
    def reduce(self, scores: Sequence[float]) -> float:
        """Return one score from those of the rewritten items and samples.

        They are on the metric's own scale, negated where less says that the model knows more:
        higher = knows more.
        """


@dataclass
class BoundPromptAttack:
    """A prompt attack with what it shows, as a scorer applies it.

    Attributes:
        name: the attack's in the suite.
        plugin: what rewrites and reduces.
        context: what it gets.
        directions: metric of the scorer -> which values say that the model knows more.
        rewritten: items so far; a scorer that rewrote none did not apply the attack.
    """

    name: str
    plugin: PromptAttack
    context: PromptContext
    directions: Mapping[str, Direction] = field(default_factory=dict)
    rewritten: int = field(default=0, init=False)

    def on(self, directions: Mapping[str, Direction]) -> BoundPromptAttack:
        """Return the attack on a scorer with such metrics, which has rewritten no item yet."""
        return replace(self, directions=directions)

    def rewrite(self, item: Item) -> Sequence[Item]:
        """Return the items to ask in its place; none where it cannot be asked."""
        self.rewritten += 1
        return tuple(self.plugin.rewrite(item, self.context))

    def sampling(self, own: SamplingSpec) -> SamplingSpec:
        """Return how a scorer is to generate that samples as ``own`` without the attack."""
        asked = self.plugin.sampling()
        if asked is None:
            return own
        changes = {"temperature": asked.temperature, "n": asked.n, "seed": self.context.seed}
        return own.model_copy(update=changes)

    def reduce(self, metric: str, scores: Sequence[float]) -> float:
        """Return one score of a metric from those of the rewritten items and samples.

        Raises:
            CannotApplyError: there are several, and nobody says which way the metric goes.
        """
        direction = self.directions.get(metric)
        if direction is None and len(scores) > 1:
            problem = f"nothing says whether more or less {metric!r} is more knowledge"
            raise CannotApplyError(f"the prompt attack {self.name} makes one of several: {problem}")
        if direction == "lower":
            return -self.plugin.reduce([-score for score in scores])
        return self.plugin.reduce(scores)
