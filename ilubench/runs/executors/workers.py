"""Several workers that share a run's jobs: who has which, who died, who takes too long.

A worker is started once and keeps what its jobs share (imports, engine, bound scorers). It reads
the run's configuration, like `ilubench job`, and is told jobs; store and run folder are on disk.
Where workers live is their host's business.
"""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ilubench.errors import JobError
from ilubench.interfaces import Progress
from ilubench.runs.executors.base import SILENT_S, Ended, Watcher, failure_of
from ilubench.runs.executors.child import Call
from ilubench.runs.jobs import Job

__all__ = ["Host", "Link", "Lost", "Starts", "Workers"]

_TRIES = 2
"""How often a job is tried whose worker dies: what killed it may have been another program."""

_LOOK_S = 1.0
"""How often a worker that says nothing is looked after."""


_STARTS = 3
"""So many workers in a row that end before they have begun are no accident."""


class Starts:
    """Counts workers that end before they have begun, so that a host does not go on for ever."""

    def __init__(self) -> None:
        """None was started yet."""
        self._failed = 0

    def succeeded(self) -> None:
        """A worker has begun."""
        self._failed = 0

    def failed(self, advice: str) -> None:
        """A worker has ended before.

        Raises:
            JobError: so have those before it; ends with the advice.
        """
        self._failed += 1
        if self._failed >= _STARTS:
            problem = f"{_STARTS} workers in a row ended before they had begun"
            raise JobError(f"{problem}{advice}")


@dataclass(frozen=True)
class Lost:
    """A worker is gone: how, and what helps, as its job's failure says it."""

    how: str
    remedy: str


class Link(Protocol):
    """One worker, seen from the process that has the jobs."""

    @property
    def ready(self) -> bool:
        """Whether it can be given a job."""

    def give(self, job: Job) -> None:
        """Send a job."""

    def kill(self) -> None:
        """End it at once."""


L = TypeVar("L", bound=Link)


class Host(Protocol[L]):
    """Where workers live."""

    def start(self, number: int) -> L:
        """Start a worker."""

    def hear(self, links: Sequence[L], seconds: float) -> Iterable[tuple[L, Ended | Call | Lost]]:
        """Yield what workers say, waiting so long for the first of it."""

    def close(self, idle: Sequence[L], busy: Sequence[L]) -> None:
        """End all workers within seconds."""


@dataclass
class _Task:
    """A job that was begun, and what is known of it."""

    job: Job
    progress: Progress
    tries: int = 0
    begun: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)


@dataclass
class _Place(Generic[L]):
    """A worker and the job that it has; None where it died and nobody needed another yet."""

    link: L | None
    task: _Task | None = None


class Workers(Generic[L]):
    """Workers that carry out a run's jobs; one that dies is replaced, and its job tried again.

    Args:
        host: where they live.
        count: how many.
        watcher: is told of the jobs.
        timeout: seconds after which a job is ended; None for never.
    """

    def __init__(
        self, host: Host[L], count: int, watcher: Watcher, timeout: float | None = None
    ) -> None:
        """Start them."""
        self._host, self._watcher, self._timeout = host, watcher, timeout
        self._places = [_Place(host.start(number)) for number in range(count)]
        self._waiting: deque[_Task] = deque()

    @property
    def count(self) -> int:
        """How many jobs run at once."""
        return len(self._places)

    def start(self, job: Job) -> None:
        """Give a job to a worker that has none, as soon as one is ready."""
        self._waiting.append(_Task(job, self._watcher.started(job)))
        self._assign()

    def wait(self) -> Ended:
        """Return a job that ended.

        A worker that died is replaced, and its job tried once more.
        """
        while True:
            places = {id(place.link): place for place in self._places}
            links = [place.link for place in self._places if place.link is not None]
            for link, message in self._host.hear(links, _LOOK_S):
                ended = self._take(places[id(link)], message)
                if ended is not None:
                    return ended
            for place in self._places:
                ended = self._look_after(place)
                if ended is not None:
                    return ended
            self._show_silent()
            self._assign()

    def close(self) -> None:
        """End the workers."""
        there = [(place.link, place.task) for place in self._places if place.link is not None]
        idle = [link for link, task in there if task is None]
        self._host.close(idle, [link for link, task in there if task is not None])

    # ----------------------------------------------------------------- inside

    def _assign(self) -> None:
        for number, place in enumerate(self._places):
            if not self._waiting:
                return
            if place.link is None:
                place.link = self._host.start(number)
            if place.task is None and place.link.ready:
                place.task = task = self._waiting.popleft()
                task.tries += 1
                task.begun = task.heard = time.monotonic()
                place.link.give(task.job)

    def _take(self, place: _Place[L], message: Ended | Call | Lost) -> Ended | None:
        """Take one message; return the job's end if it is that."""
        task = place.task
        if isinstance(message, Lost):
            place.link = place.task = None
            return None if task is None else self._again(task, message)
        assert task is not None
        task.heard = time.monotonic()
        if isinstance(message, Ended):
            place.task = None
            return message
        name, values = message
        getattr(task.progress, name)(*values)
        return None

    def _again(self, task: _Task, lost: Lost) -> Ended | None:
        if task.tries < _TRIES:
            self._waiting.appendleft(task)
            self._assign()
            return None
        return _failed(task, f"{lost.how}, {_TRIES} times; {lost.remedy}")

    def _look_after(self, place: _Place[L]) -> Ended | None:
        """End a job that takes too long."""
        task = place.task
        late = self._timeout is not None and task and time.monotonic() - task.begun > self._timeout
        if task is None or place.link is None or not late:
            return None
        place.link.kill()
        place.link = place.task = None
        return _failed(task, f"it took longer than job_timeout={self._timeout:g} s, and was ended")

    def _show_silent(self) -> None:
        begun = (*(place.task for place in self._places), *self._waiting)
        for task in begun:
            if task is not None and time.monotonic() - task.heard > SILENT_S:
                task.heard = time.monotonic()
                self._watcher.silent(task.job, SILENT_S)


def _failed(task: _Task, problem: str) -> Ended:
    seconds = time.monotonic() - task.begun
    return Ended(task.job, seconds, failure_of(task.job, JobError(problem)))
