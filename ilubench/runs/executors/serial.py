"""One job after the other, in this process."""

from collections.abc import Callable

from ilubench.runs.executors.base import Ended, end_of
from ilubench.runs.jobs import Job

__all__ = ["ThisProcess"]


class ThisProcess:
    """A single place, in this process: a job is carried out when it is started."""

    count = 1

    def __init__(self, carry_out: Callable[[Job], object]) -> None:
        """Do each job by ``carry_out``."""
        self._carry_out = carry_out

    def start(self, job: Job) -> None:
        """Carry the job out."""
        self._ended = end_of(job, self._carry_out)

    def wait(self) -> Ended:
        """Return the job that was started."""
        return self._ended

    def close(self) -> None:
        """Nothing runs any more."""
