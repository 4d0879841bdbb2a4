"""One job in several processes, each with a device of its own: the ranks of a sharded model.

The process that has the job starts them, once for all of its jobs. All carry out the same job; the
first one writes, scores and reports (see `ilubench.models.sharding`). They live and die together:
when one fails or is gone the others are ended, and when the process that started them is gone they
end themselves.
"""

import multiprocessing
import os
import pickle
import queue
import tempfile
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from pydantic import JsonValue

from ilubench.errors import JobError
from ilubench.interfaces import Progress
from ilubench.models.sharding import from_the_leader, join_ranks, leads, together, world_size
from ilubench.records.store import Artifact, Store
from ilubench.runs.executors.child import Told, begin, how_ended, import_ahead, settle
from ilubench.runs.jobs import Job
from ilubench.training import NoRoomError

if TYPE_CHECKING:
    from multiprocessing.context import (
        ForkServerContext,
        ForkServerProcess,
        SpawnContext,
        SpawnProcess,
    )

__all__ = ["Ranks"]

_TRIES = 2
"""How often a job is tried of whose ranks one dies: another program may have killed it."""

_LAST_WORDS_S = 1.0
"""How long to wait for what the others of a failed set of ranks have to say."""


class Ranks:
    """Processes that carry out one job together.

    Args:
        config: of the run, as `config.yaml` holds it.
        count: of processes.
        device: `cpu` or `cuda`.
        folder: of their logs.
    """

    def __init__(
        self, config: Mapping[str, JsonValue], count: int, device: str, folder: Path
    ) -> None:
        """Nothing is started before there is a job."""
        self._config, self._count, self._device = dict(config), count, device
        self._folder = folder
        self._running: list[tuple[ForkServerProcess | SpawnProcess, Connection]] = []
        self._meeting: tempfile.TemporaryDirectory[str] | None = None

    def carry_out(self, job: Job, progress: Progress) -> None:
        """Do a job; what does not fit into memory is begun again in smaller micro-batches.

        Raises:
            Exception: what went wrong in the first rank in which something did.
            JobError: a rank ended by itself, as often as it was tried.
        """
        tries, limit = 1, None
        while True:
            try:
                return self._try(job, limit, progress)
            except NoRoomError as error:
                if error.largest < 2:
                    raise
                limit = error.largest // 2
            except _RankDiedError as died:
                if tries == _TRIES:
                    raise JobError(f"{died}, {_TRIES} times") from None
                tries += 1

    def close(self) -> None:
        """End the processes."""
        for process, connection in self._running:
            process.kill()
            connection.close()
        for process, _ in self._running:
            process.join()
        self._running = []
        if self._meeting is not None:
            self._meeting.cleanup()
            self._meeting = None

    # ----------------------------------------------------------------- inside

    def _start(self) -> None:
        context: ForkServerContext | SpawnContext = multiprocessing.get_context("spawn")
        if self._device == "cpu":  # a GPU's driver, touched by an import, does not outlive a fork
            import_ahead()
            context = multiprocessing.get_context("forkserver")
        self._meeting = tempfile.TemporaryDirectory(prefix="ilubench-ranks-")
        for rank in range(self._count):
            given = _Given(
                self._config,
                rank,
                self._count,
                self._device,
                Path(self._meeting.name) / "meeting",
                self._folder / f"{rank}.log",
                max(1, torch.get_num_threads() // self._count),
            )
            self._running.append(begin(partial(_started, context, given)))

    def _try(self, job: Job, limit: int | None, progress: Progress) -> None:
        if not self._running:
            self._start()
        complete = False
        try:
            for _, connection in self._running:
                with suppress(OSError):  # it died idle; `_listen` sees that
                    connection.send((job, limit))
            self._listen(progress)
            complete = True
        finally:
            if not complete:
                self.close()

    def _listen(self, progress: Progress) -> None:
        """Wait until all ranks have ended the job; raise what went wrong."""
        busy = {connection: process for process, connection in self._running}
        while busy:
            for connection in cast("list[Connection]", wait(list(busy))):
                try:
                    message = connection.recv()
                except (EOFError, OSError):
                    raise self._died(busy[connection]) from None
                if message is None:
                    del busy[connection]
                elif isinstance(message, Exception):
                    raise self._cause(message)
                else:
                    name, values = message
                    getattr(progress, name)(*values)

    def _cause(self, error: Exception) -> Exception:
        """Return a rank's error, or the end of another one that may have led to it."""
        wait([process.sentinel for process, _ in self._running], timeout=_LAST_WORDS_S)
        ended = (process for process, _ in self._running if not process.is_alive())
        return next((self._died(process) for process in ended), error)

    def _died(self, process: "ForkServerProcess | SpawnProcess") -> "_RankDiedError":
        how = how_ended(process)
        return _RankDiedError(f"one of its {self._count} processes ended with {how}")


class _RankDiedError(JobError):
    """A rank ended by itself."""


# --------------------------------------------------------------------------- in a rank


@dataclass(frozen=True)
class _Given:
    """What a rank is told when it starts."""

    config: dict[str, JsonValue]
    rank: int
    count: int
    device: str
    meeting: Path
    log: Path
    threads: int


def _started(
    context: "ForkServerContext | SpawnContext", given: _Given
) -> "tuple[ForkServerProcess | SpawnProcess, Connection]":
    mine, theirs = context.Pipe()
    name = f"ilubench-rank-{given.rank}"
    process = context.Process(target=_serve, args=(theirs, given), name=name)
    process.start()
    theirs.close()  # so that the end of the process is the end of the connection
    return process, mine


def _serve(connection: Connection, given: _Given) -> None:
    """Carry out jobs with the other ranks until the other end is gone."""
    asked: queue.SimpleQueue[tuple[Job, int | None]] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(connection, asked), daemon=True).start()
    settle(given.log)
    torch.set_num_threads(given.threads)
    join_ranks(given.rank, given.count, given.device, given.meeting)
    from ilubench.experiments.experiment import restore_experiment
    from ilubench.runs.stages.stage import do
    from ilubench.runs.stages.workbench import make_bench

    bench = make_bench(restore_experiment(given.config, Path("config.yaml")))
    bench.devices = given.count
    told = Told(connection.send) if given.rank == 0 else _Nowhere()
    while True:
        job, bench.room = asked.get()
        bench.shards = bench.trains(job)
        bench.store = (_RankStore if bench.shards else Store)(bench.store.root)
        try:
            if bench.shards:
                with together():
                    do(bench, job, told)
            elif given.rank == 0:
                do(bench, job, told)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            connection.send(_portable(error))
        else:
            connection.send(None)


def _take(connection: Connection, asked: "queue.SimpleQueue[tuple[Job, int | None]]") -> None:
    """Hand on the jobs; end the process, whatever it waits for, when there is nobody to ask."""
    while True:
        try:
            asked.put(connection.recv())
        except (EOFError, OSError):
            os._exit(1)


def _portable(error: Exception) -> Exception:
    """Return an error that another process can read, with where it came from."""
    trace = traceback.format_exc()
    try:
        found: Exception = pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - a plugin's error may need anything
        found = JobError(f"{type(error).__name__}: {error}")
    found.add_note(trace)
    return found


class _Nowhere:
    """The progress of the ranks whose progress is that of the first."""

    def start(self, phase: str, total: int) -> None:
        """Say nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Say nothing."""


class _RankStore(Store):
    """The store as the ranks of a job share it: the first one locks and writes."""

    @contextmanager
    def work(self, stage: str, key: str) -> Iterator[Path]:
        """Lock a key on the first rank; the others wait for it, and find what it finds."""
        if not leads():
            from_the_leader(None)
            yield self.root / stage / f"{key}.partial"
            return
        with super().work(stage, key) as folder:
            from_the_leader(None)
            yield folder

    def finish(self, stage: str, key: str, meta: Mapping[str, JsonValue]) -> Artifact:
        """Finish an artifact on the first rank; it tells how many there were."""
        if not leads():
            return Artifact(key, self.root / stage / key)
        return super().finish(stage, key, {**meta, "world_size": world_size()})
