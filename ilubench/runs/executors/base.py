"""What every executor takes and yields: jobs and what they need, and what became of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ilubench.errors import IlubenchError, JobError
from ilubench.records.results import FailureRecord
from ilubench.runs.jobs import Job

__all__ = ["Executor", "Outcome", "failure_of"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    state: Literal["cached", "done", "failed", "skipped"]
    seconds: float
    failure: FailureRecord | None = None
    trace: str = ""


class Executor(Protocol):
    """Carries out jobs, each after those that it needs; a failed job does not stop the others."""

    def execute(self, jobs: Sequence[Job], is_done: Callable[[Job], bool]) -> Iterator[Outcome]:
        """Yield each job's outcome as it comes; a job whose need failed is skipped.

        Raises:
            UsageError: a setting is wrong.
            DataError: data are wrong, and no job was done yet.
        """


def failure_of(job: Job, error: Exception) -> FailureRecord:
    """Return what is recorded of a job that failed."""
    message = str(error).split("\n", 1)[0] or "no message"
    if "out of memory" in message.lower() or isinstance(error, MemoryError):
        message = f"out of memory ({message}); lower micro_batch or suite.score_batch"
    kind = type(error).__name__
    if not isinstance(error, IlubenchError | JobError):
        message = f"{kind}: {message}"
    return FailureRecord(label=job.label, kind=kind, message=message)
