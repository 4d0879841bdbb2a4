"""What a job trains on and with: examples, batches, its context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from pydantic import JsonValue

from ilubench.specs import MemorySpec

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Batch",
    "Context",
    "Dataset",
    "Example",
    "Ids",
    "Metrics",
    "Progress",
    "Room",
    "Row",
    "StateStore",
    "StepBatch",
    "UnlearnBatch",
    "UnlearnData",
]

Ids: TypeAlias = Sequence[int]
"""Token ids of one sequence."""

Row: TypeAlias = Mapping[str, JsonValue]
"""One row of a table, as JSON Lines holds it."""

Metrics: TypeAlias = Mapping[str, float]
"""What one optimizer step reports: `loss` and anything else worth a log line."""


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
    """What a method may train on: forget set, retain set, and the environments it declared.

    Attributes:
        forget: the forget set.
        retain: the retain set.
        environments: name -> its examples.
        forget_seen: positions of the forget examples that will be trained on, where that is known
            beforehand (`ilubench.training.LossMethod` says so to `prepare`); None: any may be.
    """

    forget: Dataset
    retain: Dataset
    environments: Mapping[str, Dataset] = field(default_factory=dict)
    forget_seen: frozenset[int] | None = None


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
        sequences: number of sequences in the global batch; infinite in one that does not count.
        tokens: number of target tokens in the global batch; likewise.
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


@dataclass
class Room:
    """How many sequences fit into memory at once, as far as a job has found out.

    Attributes:
        limit: at most so many; None as long as everything has fitted.
        largest: of the micro-batches that were cut since it was set to 0.
    """

    limit: int | None = None
    largest: int = 0

    def micro(self, asked: int | None, count: int) -> int:
        """Return how many of ``count`` sequences to run at once: ``asked``, or as many as fit."""
        size = max(1, min(n for n in (asked, count, self.limit) if n is not None))
        self.largest = max(self.largest, size)
        return size

    def at_most(self, limit: int) -> None:
        """Lower the limit, if it is higher."""
        self.limit = limit if self.limit is None else min(limit, self.limit)

    def shrink(self) -> bool:
        """Halve what was too large; return whether there was anything to halve."""
        if self.largest < 2:
            return False
        self.at_most(self.largest // 2)
        self.largest = 0
        return True


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
        memory: what training keeps in memory.
        room: how many sequences fit at once; one for the whole job.
    """

    seed: int
    device: str
    tokenizer: PreTrainedTokenizerBase
    state: StateStore
    progress: Progress
    log: Callable[[int, Metrics], None]
    phase: str = "train"
    memory: MemorySpec = field(default_factory=MemorySpec)
    room: Room = field(default_factory=Room)
