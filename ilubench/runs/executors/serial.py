"""One job after the other, in this process; a failed job does not stop the others."""

import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence

from ilubench.errors import DataError, IlubenchError, JobError, UsageError
from ilubench.records.results import FailureRecord
from ilubench.runs.executors.base import Outcome, T

__all__ = ["execute", "one_process"]

_WORLD_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE")
"""Variables in which torchrun, accelerate and mpirun tell a process how many of it there are."""


def one_process(environment: Mapping[str, str]) -> None:
    """Refuse to be one of several processes of a distributed launch.

    Each would do the same jobs in the same store. A step's batch comes from the settings alone,
    and must not grow with the number of processes.

    Args:
        environment: of the process.

    Raises:
        UsageError: a launcher started more than one.
    """
    for name in _WORLD_SIZES:
        value = environment.get(name, "")
        if value.isdecimal() and int(value) > 1:
            raise UsageError(
                f"{name}={value}: a run is one process, and a launcher started {value} of them, "
                "which would all do the same; start `ilubench run` without torchrun, accelerate or "
                "mpirun. Batches are set by batch_size; run other seeds or methods at the same time"
            )


def execute(
    jobs: Sequence[T], is_done: Callable[[T], bool], run: Callable[[T], None]
) -> Iterator[Outcome[T]]:
    """Carry out the jobs in order; yield each outcome as it comes.

    A job whose input failed is skipped. A usage error, and a data error before anything was
    computed, stop everything; any other error is recorded, and the next job starts.

    Raises:
        UsageError: a setting is wrong, or this is one of several processes of a launch.
        DataError: data are wrong, and no job was done yet.
    """
    one_process(os.environ)
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
