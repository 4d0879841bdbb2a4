"""Which job comes next, and what became of it; where a job runs is the slots' business."""

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ilubench.errors import DataError, IlubenchError, JobError, UsageError, lacks_memory
from ilubench.interfaces import Progress
from ilubench.records.results import FailureRecord
from ilubench.runs.jobs import Job

__all__ = [
    "SILENT_S",
    "Ended",
    "Outcome",
    "Slots",
    "Watcher",
    "end_of",
    "execute",
    "failure_of",
    "longest_first",
]


SILENT_S = 120.0
"""After so long without a sign of progress, and again after as long, the display says so."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    job: Job
    state: Literal["cached", "done", "failed", "skipped"]
    seconds: float
    failure: FailureRecord | None = None
    trace: str = ""


@dataclass(frozen=True)
class Ended:
    """A job that was started and ended.

    Attributes:
        failure: what is recorded where it failed.
        trace: the traceback then.
        wrong_input: the error, where what was asked for or the data are at fault.
    """

    job: Job
    seconds: float
    failure: FailureRecord | None = None
    trace: str = ""
    wrong_input: UsageError | DataError | None = None


class Watcher(Protocol):
    """Is told of the jobs that run."""

    def started(self, job: Job) -> Progress:
        """A job that is not cached begins; return where it reports how far it is."""

    def silent(self, job: Job, seconds: float) -> None:
        """A job has given no sign of progress for so long."""

    def tell(self, text: str) -> None:
        """Say where the jobs run."""


class Slots(Protocol):
    """Places in which jobs run, as many at once as there are places."""

    @property
    def count(self) -> int:
        """How many jobs run at once."""

    def start(self, job: Job) -> None:
        """Begin a job in a free place."""

    def wait(self) -> Ended:
        """Return a job that ended; its place is free again."""

    def close(self) -> None:
        """End whatever still runs."""


def execute(
    batches: Iterable[Sequence[Job]], is_done: Callable[[Job], bool], slots: Slots
) -> Iterator[Outcome]:
    """Yield each job's outcome as it comes; a job waits for those that it needs.

    Whoever takes an outcome acts before anything that needs that job starts. A failed job does
    not stop the others; one whose need failed is skipped.

    Args:
        batches: jobs in the order in which they start where they can; a batch is asked for when all
            jobs before it have ended.
        is_done: whether a job's artifact is there already.
        slots: where they run.

    Raises:
        UsageError: a setting is wrong.
        DataError: data are wrong, and no job was done yet.
    """
    broken = set[str]()
    computed = False
    try:
        for jobs in batches:
            waiting, running = list(jobs), 0
            open_keys = {job.key for job in jobs}
            while waiting or running:
                for job in tuple(waiting):
                    if open_keys.intersection(job.needs):
                        continue
                    if broken.intersection(job.needs):
                        broken.add(job.key)
                        outcome = Outcome(job, "skipped", 0.0)
                    elif is_done(job):
                        outcome = Outcome(job, "cached", 0.0)
                    elif running < slots.count:
                        slots.start(job)
                        waiting.remove(job)
                        running += 1
                        continue
                    else:
                        continue
                    waiting.remove(job)
                    yield outcome
                    open_keys.discard(job.key)
                if running:
                    ended = slots.wait()
                    running -= 1
                    outcome = _outcome(ended, computed=computed)
                    # the original's weights and score say nothing of the others' inputs
                    first = ended.job.looks_first
                    computed = computed or (outcome.state == "done" and not first)
                    if outcome.state == "failed":
                        broken.add(ended.job.key)
                    yield outcome
                    open_keys.discard(ended.job.key)
    finally:
        slots.close()


def _outcome(ended: Ended, *, computed: bool) -> Outcome:
    if isinstance(ended.wrong_input, UsageError) or (ended.wrong_input and not computed):
        raise ended.wrong_input
    state: Literal["done", "failed"] = "done" if ended.failure is None else "failed"
    return Outcome(ended.job, state, ended.seconds, ended.failure, ended.trace)


def longest_first(jobs: Sequence[Job], seconds: Callable[[Job], float]) -> tuple[Job, ...]:
    """Order jobs by the time of the longest chain of jobs that begins with each.

    Args:
        jobs: each behind those that it needs.
        seconds: that a job takes, about.
    """
    chains: dict[str, float] = {}
    behind: dict[str, float] = {}
    for job in reversed(jobs):
        chains[job.key] = seconds(job) + behind.get(job.key, 0.0)
        for need in job.needs:
            behind[need] = max(chains[job.key], behind.get(need, 0.0))
    return tuple(sorted(jobs, key=lambda job: -chains[job.key]))


def end_of(job: Job, carry_out: Callable[[Job], object]) -> Ended:
    """Carry a job out in this process and return how it ended."""
    started = time.monotonic()
    try:
        try:
            carry_out(job)
        except SystemExit as end:  # a plugin's, which is no end of the run
            raise JobError(f"its code called sys.exit({end.code!r})") from end
    except Exception as error:  # noqa: BLE001 - a plugin may raise anything
        wrong_input = error if isinstance(error, UsageError | DataError) else None
        seconds, trace = time.monotonic() - started, traceback.format_exc()
        return Ended(job, seconds, failure_of(job, error), trace, wrong_input)
    return Ended(job, time.monotonic() - started)


def failure_of(job: Job, error: Exception) -> FailureRecord:
    """Return what is recorded of a job that failed."""
    message = str(error).split("\n", 1)[0] or "no message"
    if "out of memory" in message.lower() or lacks_memory(error):
        message = f"out of memory ({message}); lower micro_batch or suite.score_batch"
    kind = type(error).__name__
    if not isinstance(error, IlubenchError | JobError):
        message = f"{kind}: {message}"
    return FailureRecord(label=job.label, kind=kind, message=message)
