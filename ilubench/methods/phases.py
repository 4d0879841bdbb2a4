"""Parts of a method with a loop of its own: a method before it, its gradients."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ilubench.interfaces import (
    Context,
    Method,
    Metrics,
    UnlearnData,
)
from ilubench.models.sharding import sum_over_ranks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["accumulate_gradients", "run_first"]


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


def accumulate_gradients(parts: Iterable[torch.Tensor]) -> float:
    """Run each partial loss backward before the next one is made; return all ranks' sum."""
    value = 0.0
    for part in parts:
        part.backward()
        value += float(part.detach())
    return sum_over_ranks(value)
