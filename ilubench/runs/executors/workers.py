"""Several processes of this machine, each with its own device or its share of the cores.

A worker is started once and keeps what its jobs share (imports, engine, bound scorers). It reads
the run's configuration, like `ilubench job`, and is told jobs; store and run folder are on disk.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pydantic import JsonValue

from ilubench.errors import DataError, JobError, UsageError
from ilubench.interfaces import Progress
from ilubench.runs.executors.base import Ended, Watcher, end_of, failure_of
from ilubench.runs.jobs import Job

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

    from ilubench.runs.stages.workbench import Workbench

__all__ = ["Told", "Workers", "write_output_to"]

_TRIES = 2
"""How often a job is tried whose worker dies: what killed it may have been another program."""

_SILENT_S = 120.0
"""After so long without a sign of progress, and again after as long, the display says so."""

_LOOK_S = 1.0
"""How often a worker that says nothing is looked after."""

_Call: TypeAlias = tuple[str, tuple[object, ...]]
"""A call of a job's progress, as a worker sends it."""


@dataclass(eq=False)
class _Worker:
    """A process and the job that it has."""

    process: "SpawnProcess"
    connection: Connection
    environment: Mapping[str, str]
    job: Job | None = None
    progress: Progress | None = None
    begun: float = 0.0
    heard: float = 0.0
    tries: int = 1


class Workers:
    """Processes that carry out a run's jobs; one that dies is replaced, and its job tried again.

    Args:
        config: of the run, as `config.yaml` holds it.
        environments: variables of each worker: its device, its number of threads.
        folder: of the workers' logs.
        watcher: is told of the jobs.
        timeout: seconds after which a job is ended; None for never.
    """

    def __init__(
        self,
        config: Mapping[str, JsonValue],
        environments: Sequence[Mapping[str, str]],
        folder: Path,
        watcher: Watcher,
        timeout: float | None = None,
    ) -> None:
        """Start the processes."""
        self._config, self._folder, self._timeout = config, folder, timeout
        self._watcher = watcher
        self._workers = [self._spawn(number, one) for number, one in enumerate(environments)]

    @property
    def count(self) -> int:
        """How many jobs run at once."""
        return len(self._workers)

    def start(self, job: Job) -> None:
        """Give a job to a worker that has none."""
        worker = next(worker for worker in self._workers if worker.job is None)
        worker.progress = self._watcher.started(job)
        worker.tries = 1
        self._give(worker, job)

    def wait(self) -> Ended:
        """Return a job that ended.

        A worker that died is replaced, and its job tried once more.
        """
        while True:
            busy = {worker.connection: worker for worker in self._workers if worker.job}
            for connection in wait(list(busy), timeout=_LOOK_S):
                ended = self._hear(busy[connection])  # type: ignore[index]
                if ended is not None:
                    return ended
            for worker in tuple(self._workers):  # one that died was replaced meanwhile
                ended = self._look_after(worker)
                if ended is not None:
                    return ended

    def close(self) -> None:
        """End the processes; what they were doing stays in the store and is gone on with."""
        for worker in self._workers:
            if worker.job is None:
                with suppress(OSError):
                    worker.connection.send(None)
            else:
                worker.process.terminate()
        deadline = time.monotonic() + 2.0
        for worker in self._workers:
            worker.process.join(timeout=max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()

    # ----------------------------------------------------------------- inside

    def _spawn(self, number: int, environment: Mapping[str, str]) -> _Worker:
        context = multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        log = self._folder / f"{number}.log"
        process = context.Process(
            target=_serve, args=(theirs, dict(self._config), log), name=f"ilubench-{number}"
        )
        with _environment(environment):
            process.start()
        theirs.close()  # so that the end of the process is the end of the connection
        return _Worker(process, mine, environment)

    def _give(self, worker: _Worker, job: Job) -> None:
        worker.job, worker.begun = job, time.monotonic()
        worker.heard = worker.begun
        with suppress(BrokenPipeError):  # it died idle; `wait` sees that
            worker.connection.send(job)

    def _hear(self, worker: _Worker) -> Ended | None:
        """Take one message; return the job's end if it is that."""
        try:
            message: Ended | _Call = worker.connection.recv()
        except (EOFError, OSError):
            return self._died(worker)
        worker.heard = time.monotonic()
        if isinstance(message, Ended):
            worker.job = worker.progress = None
            return message
        name, values = message
        getattr(worker.progress, name)(*values)
        return None

    def _died(self, worker: _Worker) -> Ended | None:
        worker.process.join()
        code = worker.process.exitcode or 0
        job, seconds = worker.job, time.monotonic() - worker.begun
        assert job is not None
        fresh = self._replace(worker)
        if worker.tries < _TRIES:
            fresh.progress, fresh.tries = worker.progress, worker.tries + 1
            self._give(fresh, job)
            return None
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        memory = " (SIGKILL: out of memory?)" if -code == signal.SIGKILL else ""
        problem = f"its worker ended with {how}{memory}, {_TRIES} times"
        problem += "; fewer workers leave more memory to each"
        return Ended(job, seconds, failure_of(job, JobError(problem)))

    def _look_after(self, worker: _Worker) -> Ended | None:
        """End a job that takes too long; show one that gives no sign."""
        job, now = worker.job, time.monotonic()
        if job is None:
            return None
        if self._timeout is not None and now - worker.begun > self._timeout:
            worker.process.kill()
            worker.process.join()
            self._replace(worker)
            problem = f"it took longer than job_timeout={self._timeout:g} s, and was ended"
            return Ended(job, now - worker.begun, failure_of(job, JobError(problem)))
        if now - worker.heard > _SILENT_S:
            worker.heard = now
            self._watcher.silent(job, _SILENT_S)
        return None

    def _replace(self, worker: _Worker) -> _Worker:
        place = self._workers.index(worker)
        worker.connection.close()
        self._workers[place] = self._spawn(place, worker.environment)
        return self._workers[place]


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a process that is started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


# --------------------------------------------------------------------------- in the worker


class Told:
    """A job's progress, sent to the process that shows it."""

    def __init__(self, connection: Connection) -> None:
        """Send over ``connection``."""
        self._connection = connection

    def start(self, phase: str, total: int) -> None:
        """Send the begin of a phase."""
        self._connection.send(("start", (phase, total)))

    def advance(self, done: int, note: str = "") -> None:
        """Send how far it is; a process whose parent is gone ends here."""
        self._connection.send(("advance", (done, note)))


def write_output_to(log: Path) -> None:
    """Append what this process prints, and libraries in it, to a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1, encoding="utf-8") as chatter:
        os.dup2(chatter.fileno(), sys.stdout.fileno())
        os.dup2(chatter.fileno(), sys.stderr.fileno())


def _serve(connection: Connection, config: dict[str, JsonValue], log: Path) -> None:
    """Carry out jobs until None comes, or the other end is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to act upon
    write_output_to(log)
    bench: Workbench | None = None

    def carry_out_job(job: Job) -> None:
        nonlocal bench
        from ilubench.experiments.experiment import restore_experiment
        from ilubench.runs.carry_out import carry_out
        from ilubench.runs.stages.workbench import make_bench

        if bench is None:
            bench = make_bench(restore_experiment(config, Path("config.yaml")))
        carry_out(bench, job, Told(connection))

    with suppress(EOFError, BrokenPipeError):
        while (job := connection.recv()) is not None:
            connection.send(_portable(end_of(job, carry_out_job)))
    if bench is not None:
        bench.close()


def _portable(ended: Ended) -> Ended:
    """Give an error a class that any process can make: a plugin's own may not be known there."""
    for kind in (UsageError, DataError):
        if isinstance(ended.wrong_input, kind):
            return replace(ended, wrong_input=kind(str(ended.wrong_input)))
    return ended
