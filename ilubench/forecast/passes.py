"""A method's training in numbers: the passes that it tells of, over the batches that are drawn.

Counted as `ilubench.runs.stages.cost.Passes` counts what finished jobs did: at the layers,
positions with padding, a pass through a quarter of the layers as a quarter of one. What a method
tells stands beside its loss (`Method.work`); one that tells nothing is guessed, and said to be so.
"""

from collections import defaultdict
from dataclasses import dataclass, field

from ilubench.forecast.anatomy import Anatomy
from ilubench.forecast.lengths import Group, drawn, in_order
from ilubench.forecast.work import Work
from ilubench.interfaces import Drawn, Effort, Lengths, Method, Once, Pass, Sizes, Updates
from ilubench.specs import TrainSpec

__all__ = ["MethodWork", "fine_tuning", "in_numbers", "method_work"]


@dataclass(frozen=True)
class MethodWork:
    """A job's training.

    Attributes:
        work: of the whole job.
        trained: parameters that it changes.
        copies: of the trained weights that it keeps besides, on the device.
        largest: positions whose activations are held at once, as if in all layers.
        longest: answers whose logits are.
        simulated: parameters that a second optimizer changes, of attacks within a step.
        known: False where the passes are a guess.
    """

    work: Work = field(default_factory=Work)
    trained: int = 0
    copies: float = 0.0
    largest: int = 0
    longest: int = 0
    simulated: int = 0
    known: bool = True


def method_work(method: Method, sizes: Sizes, anatomy: Anatomy) -> MethodWork:
    """Return what a method's training asks for.

    Args:
        method: one that trains.
        sizes: of its data and the model.
        anatomy: of the model.
    """
    return in_numbers(method.work(sizes), anatomy)


def fine_tuning(
    anatomy: Anatomy, lengths: Lengths, spec: TrainSpec, stream: tuple[int, str]
) -> MethodWork:
    """Return what plain fine-tuning of all weights asks for."""
    batches = Drawn.by(spec, lengths, *stream)
    return in_numbers(Effort((Pass(batches),), (Updates(batches.steps),)), anatomy)


def in_numbers(effort: Effort, anatomy: Anatomy) -> MethodWork:
    """Return the work of a training as it is told."""
    batches: dict[Drawn | Once, Group] = {}
    work = Work()
    tokens: dict[str, float] = defaultdict(float)
    answers: dict[str, int] = defaultdict(int)
    for one in effort.passes:
        if one.over not in batches:
            batches[one.over] = _made(one.over)
        made = batches[one.over]
        work += _run(one, made, anatomy.layers)
        if one.backward:
            tokens[one.graph] += made.largest * _shares(one, anatomy.layers)[1]
            answers[one.graph] += made.longest if one.depth.head else 0
    trained = simulated = 0
    for some in effort.updates:
        changed = anatomy.trained(some.trainable)
        if some.simulated:
            simulated = max(simulated, changed)
        else:
            trained = max(trained, changed)
        steps = 0.0 if some.simulated else some.steps
        work += Work(steps=steps, updated=some.steps * changed)
    return MethodWork(
        work,
        trained,
        effort.copies,
        round(max(tokens.values(), default=0.0)),
        max(answers.values(), default=0),
        simulated,
        effort.known and not any(one.guessed for one in effort.passes),
    )


def _made(over: Drawn | Once) -> Group:
    if isinstance(over, Drawn):
        return drawn(over)
    return in_order(over.items, over.size, shortest_first=over.shortest_first)


def _shares(one: Pass, layers: int) -> tuple[float, float]:
    """Return the shares of the layers that a pass runs through, forwards and backwards."""
    upto = layers if one.depth.upto is None else min(one.depth.upto, layers)
    return upto / layers, max(0, upto - one.depth.down_to) / layers


def _run(one: Pass, made: Group, layers: int) -> Work:
    down, up = _shares(one, layers)
    down, up = one.forward * down, one.backward * up
    head = float(one.depth.head)
    return Work(
        forward_passes=made.batches * down,
        backward_passes=made.batches * up,
        forward_tokens=made.tokens * down,
        backward_tokens=made.tokens * up,
        forward_squares=made.squares * down,
        backward_squares=made.squares * up,
        forward_answers=made.answers * one.forward * head,
        backward_answers=made.answers * one.backward * head,
    )
