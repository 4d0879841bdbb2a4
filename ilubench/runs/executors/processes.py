"""Workers that are processes of this machine, each with its own device or share of the cores."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ilubench.runs.executors.base import Ended
from ilubench.runs.executors.child import FORKS, Call, begin, how_ended, settle
from ilubench.runs.executors.worker import Worker
from ilubench.runs.executors.workers import Lost, Starts
from ilubench.runs.jobs import Job

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess, SpawnProcess

__all__ = ["ThisMachine"]


class Process:
    """A process and the connection to it.

    Attributes:
        ready: whether it has loaded what its jobs share.
    """

    def __init__(
        self,
        process: "SpawnProcess | ForkServerProcess",
        connection: Connection,
        threads: Callable[[Job], int],
    ) -> None:
        """The process runs."""
        self.process, self.connection, self._threads = process, connection, threads
        self.ready = False

    def give(self, job: Job) -> None:
        """Send a job."""
        with suppress(BrokenPipeError):  # it died idle; whoever listens hears that
            self.connection.send((job, self._threads(job)))

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class ThisMachine:
    """Starts processes and listens to them.

    Args:
        config: of the run, as `config.yaml` holds it.
        environments: variables of each worker: its device, its number of threads.
        folder: of the workers' logs.
        threads: of a job's sums on a CPU; 0 leaves it to torch.
        device: of the run.
    """

    def __init__(
        self,
        config: Mapping[str, JsonValue],
        environments: Sequence[Mapping[str, str]],
        folder: Path,
        threads: Callable[[Job], int] = lambda _: 0,
        device: str = "cpu",
    ) -> None:
        """No process is started yet."""
        self._config, self._environments, self._folder = config, environments, folder
        self._threads = threads
        self._forks = FORKS and device == "cpu"
        self._starts = Starts()

    def start(self, number: int) -> Process:
        """Start a worker.

        On CPUs it is forked from a process that has imported everything and computed nothing; a
        GPU's driver does not outlive a fork.

        Raises:
            JobError: it cannot be forked.
        """
        return begin(lambda: self._started(number))

    def _started(self, number: int) -> Process:
        own = self._environments[number]
        fork = multiprocessing.get_context("forkserver") if self._forks else None
        context = fork or multiprocessing.get_context("spawn")
        mine, theirs = context.Pipe()
        log = self._folder / f"{number}.log"
        process = context.Process(
            target=_serve,
            args=(theirs, {**os.environ, **own}, dict(self._config), log),
            name=f"ilubench-{number}",
        )
        process.start()
        theirs.close()  # so that the end of the process is the end of the connection
        return Process(process, mine, self._threads)

    def hear(
        self, links: Sequence[Process], seconds: float
    ) -> Iterator[tuple[Process, Ended | Call | Lost]]:
        """Yield what workers say, waiting for the first of it.

        Raises:
            JobError: workers end again and again before they have begun.
        """
        by_connection = {link.connection: link for link in links}
        for connection in wait(list(by_connection), timeout=seconds):
            link = by_connection[connection]  # type: ignore[index]
            try:
                message: Ended | Call | None = link.connection.recv()
            except (EOFError, OSError):
                lost = _loss(link)
                if not link.ready:
                    where = f"what they said is above or in {self._folder}"
                    self._starts.failed(f": {lost.how}; {where}, and workers=1 does without them")
                yield link, lost
            else:
                if message is None:
                    link.ready = True
                    self._starts.succeeded()
                else:
                    yield link, message

    def close(self, idle: Sequence[Process], busy: Sequence[Process]) -> None:
        """End the processes; what they were doing stays in the store and is gone on with."""
        for link in idle:
            with suppress(OSError):
                link.connection.send(None)
        for link in busy:
            link.process.terminate()
        deadline = time.monotonic() + 2.0
        for link in (*idle, *busy):
            link.process.join(timeout=max(0.0, deadline - time.monotonic()))
            link.kill()


def _loss(link: Process) -> Lost:
    link.connection.close()
    how = f"its worker ended with {how_ended(link.process)}"
    if (link.process.exitcode or 0) >= 0:
        return Lost(how, "what it printed is in the run's `workers/`")
    return Lost(how, "fewer workers leave more memory to each")


def _serve(
    connection: Connection, environment: dict[str, str], config: dict[str, JsonValue], log: Path
) -> None:
    """Carry out jobs until None comes, or the other end is gone."""
    settle(log)
    os.environ.clear()
    os.environ.update(environment)
    worker = Worker(config, connection.send)
    with suppress(EOFError, BrokenPipeError):
        connection.send(None)
        while (given := connection.recv()) is not None:
            connection.send(worker.carry_out(*given))
    worker.close()
