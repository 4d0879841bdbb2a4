"""What does not fit into memory is done again in smaller micro-batches."""

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

from ilubench.errors import JobError
from ilubench.interfaces import Context
from ilubench.models.sharding import world_size
from ilubench.specs import MemorySpec

__all__ = ["NoRoomError", "fit_in_memory", "too_little_memory"]

T = TypeVar("T")


class NoRoomError(JobError):
    """A micro-batch of a sharded model did not fit into a rank's memory.

    Attributes:
        largest: how many sequences it had.
    """

    def __init__(self, message: str, largest: int) -> None:
        """Say what did not fit."""
        super().__init__(message)
        self.args, self.largest = (message, largest), largest  # so that it can be sent

    def __str__(self) -> str:
        """Return the message alone."""
        return str(self.args[0])


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
                if world_size() > 1:  # the other ranks wait for this one: all must begin again
                    error = too_little_memory(what, context.memory, cut=room.largest > 0)
                    raise NoRoomError(str(error), room.largest) from None
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
