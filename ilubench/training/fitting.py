"""What does not fit into memory is done again in smaller micro-batches."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from ilubench.errors import JobError
from ilubench.interfaces import Context
from ilubench.specs import MemorySpec

__all__ = ["fit_in_memory", "too_little_memory"]

T = TypeVar("T")


def fit_in_memory(
    work: Callable[[], T], context: Context, what: str, again: Callable[[], None] | None = None
) -> T:
    """Return what the work returns; what does not fit into memory is done in smaller parts.

    The work asks `context.room` how many sequences it may run at once. Each time it fails, that
    number is halved, for the whole job.

    Args:
        work: must be repeatable from its start.
        context: its `room` shrinks.
        what: is done, for the message.
        again: called before each repetition, once the failed try's tensors are gone.

    Raises:
        JobError: one sequence at a time does not fit.
    """
    room = context.room
    outer, room.largest = room.largest, 0
    try:
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                pass
            # the handler is left: the traceback no longer holds the tensors of the failed try
            if again is not None:
                again()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            if not room.shrink():
                raise too_little_memory(what, context.memory, cut=room.largest > 0)
    finally:
        room.largest = max(outer, room.largest)


def too_little_memory(what: str, memory: MemorySpec, *, cut: bool = True) -> JobError:
    """Return the error of what cannot be made to fit; it names what has not been tried.

    Args:
        what: does not fit.
        memory: as it was set.
        cut: whether the work is cut as `context.room` says; else only its own setting helps.
    """
    words = [] if cut else ["a lower micro_batch"]
    if memory.checkpointing is not True:
        words.append("memory.checkpointing=true")
    if memory.moments != "float8":
        words.append("memory.moments=float8")
    if memory.update != "stochastic":
        words.append("memory.update=stochastic")
    if not memory.offload:
        words.append("memory.offload=true")
    words.append("a lower suite.max_length")
    return JobError(f"{what} does not fit into the device's memory; try {', '.join(words)}")
