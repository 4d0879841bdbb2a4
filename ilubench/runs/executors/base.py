"""What every executor takes and yields."""

from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from ilubench.records.results import FailureRecord

__all__ = ["Outcome", "T", "Task"]


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
