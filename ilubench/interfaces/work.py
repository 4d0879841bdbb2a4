"""What a method's training asks for, as the method tells it: `ilubench plan` makes hours of it.

Numbers only: nothing here needs a model, a tokenizer or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from ilubench.specs import TrainSpec

__all__ = ["Depth", "Drawn", "Effort", "Lengths", "Once", "Pass", "Sizes", "Updates"]


@dataclass(frozen=True)
class Lengths:
    """Training sequences by their lengths.

    Attributes:
        tokens: of each sequence; 0 for one that is left out.
        answers: target tokens of each.
        prompts: tokens of each before the first target.
        origin: `counted`; `sampled`, counted on some rows which the others are taken to be like; or
            `stated` in the suite, or from characters where there is no tokenizer.
    """

    tokens: tuple[int, ...]
    answers: tuple[int, ...]
    prompts: tuple[int, ...]
    origin: Literal["counted", "sampled", "stated"]

    def __len__(self) -> int:
        """How many sequences."""
        return len(self.tokens)

    def some(self, places: Sequence[int]) -> Lengths:
        """Return some of the sequences, without those that have no tokens."""
        kept = [at for at in places if self.tokens[at]]
        tokens, answers, prompts = (
            tuple(values[at] for at in kept) for values in (self.tokens, self.answers, self.prompts)
        )
        return Lengths(tokens, answers, prompts, self.origin)

    def __add__(self, other: Lengths) -> Lengths:
        """Return both, one after the other, as sure as the less sure of them."""
        order = ("counted", "sampled", "stated")
        return Lengths(
            self.tokens + other.tokens,
            self.answers + other.answers,
            self.prompts + other.prompts,
            max(self.origin, other.origin, key=order.index),
        )

    def longer(self, by: int) -> Lengths:
        """Return the sequences behind a context of so many tokens."""
        return replace(self, tokens=tuple(n + by for n in self.tokens))


@dataclass(frozen=True)
class Sizes:
    """What a method's work depends on.

    Attributes:
        forget: its training sequences.
        retain: likewise.
        environments: likewise, by name.
        layers: of the model.
        lowest: patterns of parameter names -> the lowest layer (from 0) that they train.
        seed: of the job, as `Context` has it.
        tokens: text -> how many tokens it has, about where there is no tokenizer.
    """

    forget: Lengths
    retain: Lengths
    environments: Mapping[str, Lengths]
    layers: int
    lowest: Callable[[Sequence[str]], int]
    seed: int
    tokens: Callable[[str], int]


@dataclass(frozen=True)
class Drawn:
    """The batches of a loop: items in a seeded order, cut into micro-batches of like lengths.

    Attributes:
        items: whose order it is.
        seed: of the order.
        stream: its name, as `ilubench.data.batches.Stream` has it.
        steps: of the loop.
        count: items a step.
        micro: items at once; all of a step, when None.
        run: what is run in the items' places, item by item; the items themselves, when None.
    """

    items: Lengths
    seed: int
    stream: str
    steps: int
    count: int
    micro: int | None
    run: Lengths | None = None

    @classmethod
    def by(
        cls, spec: TrainSpec, items: Lengths, seed: int, stream: str, steps: int | None = None
    ) -> Drawn:
        """Return the batches of a training on the items.

        Args:
            spec: its batches, and its steps.
            items: whose order it is.
            seed: of the order.
            stream: its name.
            steps: of the loop, where another data set decides how many.
        """
        length = spec.total_steps(len(items)) if steps is None else steps
        return cls(items, seed, stream, length, spec.batch_size, spec.micro_batch)


@dataclass(frozen=True)
class Once:
    """Every item once: what is computed before the first step.

    Attributes:
        items: in their order.
        size: items at once.
        shortest_first: whether batches are cut after sorting the items by length.
    """

    items: Lengths
    size: int
    shortest_first: bool = True


@dataclass(frozen=True)
class Depth:
    """The layers that a pass runs through.

    Attributes:
        upto: the first layer (from 0) that is not computed; None: all are.
        down_to: the lowest layer that gradients reach.
        head: whether tokens are predicted.
    """

    upto: int | None = None
    down_to: int = 0
    head: bool = True


@dataclass(frozen=True)
class Pass:
    """Passes over batches.

    Attributes:
        over: the batches.
        forward: forward passes over each.
        backward: backward passes over each; a gradient's own gradient takes two more.
        depth: the layers that they run through.
        graph: a name. Passes of one name are back-propagated together, so that what they computed
            is in memory at the same time.
        guessed: the method does not tell; the plan says so.
    """

    over: Drawn | Once
    forward: float = 1.0
    backward: float = 1.0
    depth: Depth = field(default_factory=Depth)
    graph: str = "loss"
    guessed: bool = False

    def times(self, factor: float) -> Pass:
        """Return so many times the passes."""
        return replace(self, forward=self.forward * factor, backward=self.backward * factor)


@dataclass(frozen=True)
class Updates:
    """Steps of an optimizer.

    Attributes:
        steps: how many.
        trainable: patterns of the parameters that it changes; none: all.
        simulated: of an attack that is played through within a step of the job: the weights come
            back as they were, and the optimizer is there besides the job's own.
    """

    steps: float
    trainable: tuple[str, ...] = ()
    simulated: bool = False


@dataclass(frozen=True)
class Effort:
    """A job's training.

    Attributes:
        passes: through the model.
        updates: of weights.
        copies: of the trained weights that are kept besides, on the device.
        known: False where it is a guess.
    """

    passes: tuple[Pass, ...] = ()
    updates: tuple[Updates, ...] = ()
    copies: float = 0.0
    known: bool = True

    def then(self, later: Effort) -> Effort:
        """Return this training and another one after it, in the same job."""
        mine = tuple(replace(one, graph=f"first {one.graph}") for one in self.passes)
        return Effort(
            mine + later.passes,
            self.updates + later.updates,
            max(self.copies, later.copies),
            self.known and later.known,
        )
