"""One job after the other, in this process; a failed job does not stop the others."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from ilubench.errors import DataError, IlubenchError, JobError, UsageError
from ilubench.results import FailureRecord

__all__ = ["Outcome", "Task", "execute"]


class Task(Protocol):
    """A job as the executor sees it."""

    @property
    def key(self) -> str:
        """Unique key."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Keys of the jobs that come before."""

    @property
    def label(self) -> str:
        """For people."""


T = TypeVar("T", bound=Task)


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of a job."""

    job: T
    state: Literal["cached", "done", "failed", "skipped"]
    seconds: float
    failure: FailureRecord | None = None
    trace: str = ""


def execute(
    jobs: Sequence[T], is_done: Callable[[T], bool], run: Callable[[T], None]
) -> Iterator[Outcome[T]]:
    """Carry out the jobs in order; yield each outcome as it comes.

    A job whose input failed is skipped. A usage error, and a data error before anything was
    computed, stop everything; any other error is recorded, and the next job starts.

    Raises:
        UsageError: a setting is wrong.
        DataError: data are wrong, and no job was done yet.
    """
    broken: set[str] = set()
    computed = False
    for job in jobs:
        started = time.monotonic()
        if is_done(job):
            yield Outcome(job, "cached", 0.0)
            continue
        if broken & set(job.needs):
            broken.add(job.key)
            yield Outcome(job, "skipped", 0.0)
            continue
        try:
            run(job)
        except UsageError:
            raise
        except Exception as error:
            if isinstance(error, DataError) and not computed:
                raise  # nothing was computed yet: the inputs are wrong
            broken.add(job.key)
            yield Outcome(
                job,
                "failed",
                time.monotonic() - started,
                _failure(job.label, error),
                traceback.format_exc(),
            )
        else:
            computed = True
            yield Outcome(job, "done", time.monotonic() - started)


def _failure(label: str, error: Exception) -> FailureRecord:
    message = str(error).split("\n", 1)[0] or "no message"
    if "out of memory" in message.lower() or isinstance(error, MemoryError):
        message = f"out of memory ({message}); lower micro_batch or suite.score_batch"
    kind = type(error).__name__
    if not isinstance(error, IlubenchError | JobError):
        message = f"{kind}: {message}"
    return FailureRecord(label=label, kind=kind, message=message)
