"""Parts of a method with a loop of its own: a method before it, its batches, its gradients."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ilubench.data.batches import Stream, to_device
from ilubench.interfaces import (
    Batch,
    Context,
    Dataset,
    Method,
    Metrics,
    UnlearnData,
)
from ilubench.specs import TrainSpec
from ilubench.training import micro_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Batches", "accumulated", "run_first"]


def run_first(
    base: Method,
    model: "PreTrainedModel",
    data: UnlearnData,
    context: Context,
    trainable: tuple[str, ...],
) -> "tuple[PreTrainedModel, Context]":
    """Run another method before one's own loop, in a phase of its own.

    Args:
        base: the other method.
        model: the original model.
        data: what both are given.
        context: the job's.
        trainable: patterns that hold for the base too if it has the setting and was given none.

    Returns:
        The base's model, and the context of what follows: its steps are numbered on from the
        base's, so that a job's log has every step once.
    """
    last = 0

    def log(step: int, metrics: Metrics) -> None:
        nonlocal last
        last = step
        context.log(step, metrics)

    first = _first(base, trainable)
    found = first.unlearn(model, data, replace(context, phase=f"{context.phase}-base", log=log))
    return found, replace(context, log=lambda step, metrics: context.log(last + step, metrics))


def _first(base: Method, trainable: tuple[str, ...]) -> Method:
    if trainable and getattr(base, "trainable", None) == ():
        return base.model_copy(update={"trainable": trainable})
    return base


class Batches:
    """The global batch of each step of a loop, in micro-batches on the device.

    Args:
        dataset: the examples.
        name: of the order; two data sets of one loop have two.
        spec: its batch size and micro-batch are used.
        context: seed, device, tokenizer.
    """

    def __init__(self, dataset: Dataset, name: str, spec: TrainSpec, context: Context) -> None:
        """Raises DataError when the data set is empty."""
        self._dataset, self._spec, self._context = dataset, spec, context
        self._stream = Stream(len(dataset), context.seed, name)

    def step(self, step: int) -> list[Batch]:
        """Return the micro-batches of step ``step`` (from 0); they depend on (seed, step) alone."""
        chosen = self._stream.step(step, self._spec.batch_size)
        made = micro_batches(self._dataset, chosen, self._spec, self._context)
        return [to_device(batch, self._context.device) for batch in made]


def accumulated(parts: Iterable[torch.Tensor]) -> float:
    """Run each partial loss backward before the next one is made; return their sum."""
    value = 0.0
    for part in parts:
        part.backward()
        value += float(part.detach())
    return value
