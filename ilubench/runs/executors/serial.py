"""One job after the other, in this process; a failed job does not stop the others."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from ilubench.errors import DataError, UsageError
from ilubench.runs.executors.base import Outcome, failure_of
from ilubench.runs.jobs import Job

__all__ = ["SerialExecutor"]


class SerialExecutor:
    """One job after the other, in the order given, in this process."""

    def __init__(self, carry_out: Callable[[Job], object]) -> None:
        """Do each job by ``carry_out``."""
        self._carry_out = carry_out

    def execute(self, jobs: Sequence[Job], is_done: Callable[[Job], bool]) -> Iterator[Outcome]:
        """Yield each job's outcome as it comes; see :class:`Executor`.

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
                self._carry_out(job)
            except UsageError:
                raise
            except Exception as error:
                if isinstance(error, DataError) and not computed:
                    raise  # nothing else was computed yet: the inputs are wrong
                broken.add(job.key)
                seconds = time.monotonic() - started
                failure, trace = failure_of(job, error), traceback.format_exc()
                yield Outcome(job, "failed", seconds, failure, trace)
            else:
                # the original's weights and score come first and say nothing of the others' inputs
                computed = computed or not job.scores_original
                yield Outcome(job, "done", time.monotonic() - started)
