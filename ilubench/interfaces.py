"""What a plugin author reads: methods, attacks, engines, scorers, generators and their types.

Nothing here imports torch; tensors appear in annotations only. A plugin class *is* its typed
configuration: its pydantic fields are what `method.<field>=<value>` sets on the command line.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from pydantic import Field, JsonValue

from ilubench.errors import DataError
from ilubench.specs import Estimator, Spec

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "MAX_OPTIONS",
    "Asked",
    "Batch",
    "BoundPromptAttack",
    "BoundScorer",
    "Checkpoint",
    "Context",
    "Dataset",
    "Engine",
    "Example",
    "Generation",
    "Generator",
    "Ids",
    "Item",
    "Method",
    "Metrics",
    "Progress",
    "PromptAttack",
    "PromptContext",
    "Row",
    "SampleScore",
    "SamplingSpec",
    "ScoreContext",
    "Scorer",
    "Shot",
    "StateStore",
    "StepBatch",
    "TokenLogprobs",
    "UnlearnBatch",
    "UnlearnData",
    "WeightAttack",
]

Ids: TypeAlias = Sequence[int]
"""Token ids of one sequence."""

Row: TypeAlias = Mapping[str, JsonValue]
"""One row of a table, as JSON Lines holds it."""

Metrics: TypeAlias = Mapping[str, float]
"""What one optimizer step reports: `loss` and anything else worth a log line."""


# --------------------------------------------------------------------------- training data


@dataclass(frozen=True, slots=True)
class Example:
    """One training sequence.

    Attributes:
        id: stable name of the item; records and overlap checks refer to it.
        input_ids: the tokens, special tokens included; shape [T].
        loss_mask: True where the token is a target (answer or content); shape [T]. The first
            token is never a target, since nothing predicts it.
    """

    id: str
    input_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]


Dataset: TypeAlias = Sequence[Example]


@dataclass(frozen=True)
class UnlearnData:
    """What a method may train on: forget set, retain set, and the environments it declared."""

    forget: Dataset
    retain: Dataset
    environments: Mapping[str, Dataset] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """Right-padded sequences: one micro-batch of a step's global batch.

    A loss over a micro-batch is a *partial* loss: a sum over its sequences (or tokens) divided by
    the global batch's ``sequences`` (or ``tokens``), so that micro-batches add up to the whole.

    Attributes:
        input_ids: int64 [B, T].
        attention_mask: int64 [B, T], 1 where there is a token.
        loss_mask: bool [B, T], True where the token is a target.
        index: int64 [B], positions of the sequences in their data set (not moved to a device).
        sequences: number of sequences in the global batch.
        tokens: number of target tokens in the global batch.
        progress: share of the training's steps that lie before this one, in [0, 1): for losses
            that change along the way.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    loss_mask: torch.Tensor
    index: torch.Tensor
    sequences: int
    tokens: int
    progress: float = 0.0


@dataclass(frozen=True)
class UnlearnBatch:
    """A micro-batch of forget and of retain sequences."""

    forget: Batch
    retain: Batch


@dataclass(frozen=True)
class StepBatch:
    """One optimizer step: micro-batches to accumulate, and those of each environment."""

    micro: Sequence[UnlearnBatch]
    environments: Mapping[str, Sequence[Batch]] = field(default_factory=dict)


# --------------------------------------------------------------------------- context


class StateStore(Protocol):
    """Where a job that may be killed keeps its state, a slot a phase; a save is atomic."""

    def save(
        self, phase: str, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, JsonValue]
    ) -> None:
        """Replace a phase's saved state."""

    def load(self, phase: str) -> tuple[dict[str, torch.Tensor], dict[str, JsonValue]] | None:
        """Return a phase's saved state, or None when there is none; called once a phase."""


class Progress(Protocol):
    """Where a job reports how far it is."""

    def start(self, phase: str, total: int) -> None:
        """Begin a phase of ``total`` units."""

    def advance(self, done: int, note: str = "") -> None:
        """Report that ``done`` units of the phase are done."""


@dataclass(frozen=True)
class Context:
    """What a method or attack gets besides model and data.

    Attributes:
        seed: derived from (user seed, role, attack name); never from the method.
        device: where the model lies.
        tokenizer: of the target model.
        state: save and load; without it a killed job starts again from zero.
        progress: display.
        log: called with (step, metrics) after each optimizer step.
        phase: names the training phase. A job that trains more than once gives each its own:
            ``dataclasses.replace(context, phase="distil")``.
    """

    seed: int
    device: str
    tokenizer: PreTrainedTokenizerBase
    state: StateStore
    progress: Progress
    log: Callable[[int, Metrics], None]
    phase: str = "train"


# --------------------------------------------------------------------------- methods


class Method(Spec, ABC):
    """An unlearning method; subclass `ilubench.training.LossMethod` unless you need your own loop.

    Attributes:
        version: raise it whenever the same settings give another result.
        seeded: False when the result does not depend on the seed.
        trains: False when the result does not depend on the forget and retain sets.
    """

    version: ClassVar[int] = 1
    seeded: ClassVar[bool] = True
    trains: ClassVar[bool] = True

    def environment_names(self) -> tuple[str, ...]:
        """Return the benign sets that the method trains on; attacks with them count as seen."""
        return ()

    def identity(self) -> Mapping[str, JsonValue]:
        """Return what determines the result besides the settings (hashes of files read)."""
        return {}

    def check_model(self, config: PretrainedConfig) -> None:
        """Find settings that do not fit a model, before any job; a base's are checked by itself.

        Args:
            config: of the target model.

        Raises:
            SpecError: names the field, its value, and what the model has.
        """

    @abstractmethod
    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        """Return the unlearned model (the same object, changed in place, or another)."""


# --------------------------------------------------------------------------- attacks


@dataclass(frozen=True)
class Item:
    """One evaluation item before rendering.

    Attributes:
        id: the row's.
        fields: the row's columns, from which the scorer renders what it asks and what is right.
        before: text in front of all that the scorer asks, taken as it is.
    """

    id: str
    fields: Row
    before: str = ""


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
        items: scorer (by its name in the suite) -> the ids of its items to score; a scorer that is
            not named scores all of its items. The same ids along the whole course; never of a
            scorer that measures utility, which must stay comparable with the unlearned model's.
            (An `Example`'s id is `role/id/part`.)
    """

    model: PreTrainedModel
    step: int | None
    level: str | None = None
    items: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """A name that is unique along the course and safe as a file name."""
        if self.step is not None:
            return f"step-{self.step:06d}"
        return "once" if self.level is None else f"level-{self.level}"


class WeightAttack(Spec, ABC):
    """Changes the weights of the unlearned model."""

    version: ClassVar[int] = 1

    def roles(self) -> tuple[str, ...]:
        """Return the roles that it trains on: the attack's own, else the suite's."""
        return ("train",)

    @abstractmethod
    def tamper(
        self, model: PreTrainedModel, data: Mapping[str, Dataset], context: Context
    ) -> Iterator[Checkpoint]:
        """Yield checkpoints along the course; ``data`` has the attack's own roles."""


class SamplingSpec(Spec):
    """How text is generated.

    Attributes:
        max_tokens: new tokens at most.
        temperature: 0 is greedy.
        n: samples a prompt.
        seed: of the samples.
        stop: strings that end a generation; they are not part of it.
        stop_ids: tokens that do, besides the end of the sequence.
    """

    max_tokens: int = Field(default=128, ge=1)
    temperature: float = Field(default=0.0, ge=0)
    n: int = Field(default=1, ge=1)
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = ()


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
        shots: each of the attack's roles -> its rows as text, in their order.
        seed: derived from (user seed, role, attack name), for an attack that draws.
    """

    shots: Mapping[str, Sequence[Shot]]
    seed: int


class PromptAttack(Spec, ABC):
    """Asks differently, and changes no weights: the unlearned model is scored once, so asked."""

    version: ClassVar[int] = 1

    def roles(self) -> tuple[str, ...]:
        """Return the roles whose rows it shows: the attack's own, else the suite's."""
        return ()

    @abstractmethod
    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        """Return the items to ask in its place, at least one; their ids do not count."""

    def sampling(self) -> SamplingSpec | None:
        """Return how to sample, or None to leave it to the scorer.

        Temperature and number count, for scorers that generate. How long a text may be and where it
        ends is part of the scorer's metric; the seed of the samples is the context's.
        """
        return None

    @abstractmethod
    def reduce(self, scores: Sequence[float]) -> float:
        """Return one score from those of the rewritten items and samples, on the metric's scale."""


@dataclass
class BoundPromptAttack:
    """A prompt attack with what it shows, as scorers apply it.

    Attributes:
        name: the attack's in the suite.
        plugin: what rewrites and reduces.
        context: what it gets.
        rewritten: items so far; a scorer that rewrote none did not apply the attack.
    """

    name: str
    plugin: PromptAttack
    context: PromptContext
    rewritten: int = field(default=0, init=False)

    def rewrite(self, item: Item) -> Sequence[Item]:
        """Return the items to ask in its place.

        Raises:
            DataError: there is none.
        """
        asked = tuple(self.plugin.rewrite(item, self.context))
        if not asked:
            raise DataError(f"attack {self.name}: it asks nothing in place of item {item.id!r}")
        self.rewritten += 1
        return asked

    def sampling(self, own: SamplingSpec) -> SamplingSpec:
        """Return how a scorer is to generate that samples as ``own`` without the attack."""
        asked = self.plugin.sampling()
        if asked is None:
            return own
        changes = {"temperature": asked.temperature, "n": asked.n, "seed": self.context.seed}
        return own.model_copy(update=changes)

    def reduce(self, scores: Sequence[float]) -> float:
        """Return one score from those of the rewritten items and samples."""
        return self.plugin.reduce(scores)


# --------------------------------------------------------------------------- engines


@dataclass(frozen=True, slots=True)
class Generation:
    """One generated continuation: new token ids and their text (special tokens skipped)."""

    ids: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class TokenLogprobs:
    """Log-probabilities (natural) of a continuation's tokens, and whether each was the argmax."""

    values: tuple[float, ...]
    greedy: tuple[bool, ...]

    @property
    def total(self) -> float:
        """Sum over the tokens, in nats."""
        return sum(self.values)


MAX_OPTIONS = 64
"""Distinct option tokens that every engine can answer in one call of ``choices``."""


class Engine(Protocol):
    """Works on token ids; one loaded engine, weights replaced in it.

    Every call raises ItemError, with the item's position, for a prompt that does not fit
    ``max_length``; nothing is truncated.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def load(self, weights: PreTrainedModel | Path) -> None:
        """Replace the weights: a live model of the same architecture, or a checkpoint's folder."""

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        """Return ``sampling.n`` continuations a prompt, in the prompts' order."""

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Return the log-probabilities of each (context, continuation)'s continuation."""

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Return next-token log-probabilities of the ``options`` tokens, one row a prompt."""

    def close(self) -> None:
        """Free what the engine holds; it is not used again."""


# --------------------------------------------------------------------------- scorers


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
    """

    prompt: str
    answers: tuple[str, ...]
    shots: int = 0


@dataclass(frozen=True)
class ScoreContext:
    """What a scorer is built with.

    Attributes:
        rows: role -> its rows.
        publish_text: role -> whether generated text may be recorded.
        seed: for scorers that sample.
    """

    rows: Callable[[str], Sequence[Row]]
    publish_text: Callable[[str], bool]
    seed: int = 0


class BoundScorer(Protocol):
    """A scorer with its items rendered and tokenised once, ready for many checkpoints."""

    def score(self, engine: Engine, attack: BoundPromptAttack | None = None) -> list[SampleScore]:
        """Return the samples' scores, one an item and metric.

        With ``attack``, every item is asked as it is rewritten, and gets the reduced score
        (`ilubench.scorers.rewriting` does both).

        Raises:
            CannotApplyError: the scorer cannot apply ``attack``.
        """


class Scorer(Spec, ABC):
    """Turns a model into per-sample scores."""

    version: ClassVar[int] = 1

    @abstractmethod
    def metrics(self) -> Mapping[str, Estimator]:
        """Return metric name -> how its samples become one number."""

    @abstractmethod
    def roles(self) -> tuple[str, ...]:
        """Return the data roles that it reads."""

    def item_roles(self) -> tuple[str, ...]:
        """Return those of the roles whose rows are its items (not few-shot examples)."""
        return self.roles()

    def asks(self, rows: Sequence[Row]) -> Sequence[Asked] | None:  # noqa: ARG002
        """Return what it would ask of rows like its items, in order; None where it cannot say.

        An attack's training text is compared with it, so that a prompt of another task shows.
        """
        return None

    def files(self) -> tuple[Path, ...]:
        """Return further files that determine the scores (task definitions)."""
        return ()

    @abstractmethod
    def build(self, tokenizer: PreTrainedTokenizerBase, context: ScoreContext) -> BoundScorer:
        """Render and tokenise the items."""


class Generator(Spec, ABC):
    """Makes tables of text, from nothing or from other tables."""

    version: ClassVar[int] = 1

    @abstractmethod
    def tables(self, inputs: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        """Return table name -> rows; the same inputs give the same rows."""
