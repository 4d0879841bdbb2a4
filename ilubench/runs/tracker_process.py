"""The process that tells a tracker of a run's jobs, from the files that they write.

So workers, clusters and resumed runs are alike, and no job knows of it. On its stdin come a line
that says which jobs there are, and nothing more: the end of the stream is the end of the run,
however that ended. What was told is noted in files, so that nothing is told twice; a job's is
locked, since another run may tell of it, too. The first error ends the telling, and is a line on
stdout.
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from threading import Event, Thread
from typing import IO, TYPE_CHECKING, Any

from ilubench.errors import StoreError
from ilubench.records.scores import read_score, scored_checkpoints
from ilubench.records.store import LOG, write_json
from ilubench.runs.trackers import TRACKERS, Told, TrackedRun

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = ["PATIENCE_S"]

PAUSE_S = 2.0
"""Seconds between two looks at the jobs' files."""

PATIENCE_S = 60.0
"""Seconds that a tracker has once the run has ended."""


@dataclass
class _Known:
    """What a tracker knows of a job, as the file notes it.

    Attributes:
        id: of its run there.
        step: the last one that was told.
        scores: names of the checkpoints that were told.
        ended: whether it was told that the job is done.
    """

    id: str = ""
    step: int = 0
    scores: list[str] = field(default_factory=list)
    ended: bool = False


@dataclass
class _Job:
    """A job that is told of: where its files lie, and what the tracker knows."""

    told: Told
    done: Path
    work: Path
    file: Path
    lock: "FileLock"
    known: _Known | None = None
    run: TrackedRun | None = None

    def catch_up(self, name: str) -> bool:
        """Tell what its files have that was not told; whether that is all that will come."""
        if self.known is None:
            self.known = self._read_known()
        if self.known.ended:
            return True
        done = self.done.is_dir()
        folder = self.done if done else self.work
        try:
            steps = [*_steps(folder / LOG, self.known.step)]
            scores = [*_scores(folder / "scores", self.known.scores)]
        except (FileNotFoundError, StoreError):
            if folder.is_dir():
                raise
            return False  # it was renamed meanwhile: the job is done
        if self.run is None and (steps or scores):
            self.run = TRACKERS[name](replace(self.told, id=self.known.id))
            self.known.id = self.run.id
        if self.run is not None:
            for step, values in steps:
                self.run.log(step, values)
                self.known.step = step
            for checkpoint, step, values in scores:
                self.run.log(step, values)
                self.known.scores.append(checkpoint)
        self.known.ended = done
        if self.known.id:
            write_json(self.file, asdict(self.known))
        return done

    def _read_known(self) -> _Known:
        try:
            return _Known(**json.loads(self.file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return _Known()
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{self.file} is damaged; delete it") from error


def _main() -> None:
    asked = json.loads(sys.stdin.readline())
    said = os.fdopen(os.dup(1), "w")
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:  # what libraries print
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    ended = Event()
    Thread(target=_leave, args=(ended, said, asked["patience"]), daemon=True).start()
    try:
        _tell(asked["tracker"], [*_jobs(asked)], ended)
    except BaseException as error:  # noqa: BLE001 - a tracker may raise anything
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        _say(said, problem)
        os._exit(1)  # whatever its threads still do


def _leave(ended: Event, said: IO[str], patience: float) -> None:
    """Wait for the run's end, and then not for ever."""
    sys.stdin.buffer.read()
    ended.set()
    time.sleep(patience)
    _say(said, f"it did not end within {patience:.0f} s of the run")
    os._exit(1)


def _say(said: IO[str], text: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        print(text, file=said, flush=True)


def _jobs(asked: Mapping[str, Any]) -> Iterator[_Job]:
    from filelock import FileLock

    out = Path(asked["out"])
    notes = out / "tracked" / asked["tracker"]
    notes.mkdir(parents=True, exist_ok=True)
    for one in asked["jobs"]:
        told = Told(one["group"], one["name"], one["config"], out)
        file = notes / f"{one['key']}.json"
        lock = FileLock(notes / f".{one['key']}.lock")
        yield _Job(told, Path(one["done"]), Path(one["work"]), file, lock)


def _tell(name: str, jobs: list[_Job], ended: Event) -> None:
    """Tell of jobs until all have ended, or the run has."""
    from filelock import Timeout

    last = False
    while jobs and not last:
        last = ended.wait(PAUSE_S)
        for job in tuple(jobs):
            if not (job.done.is_dir() or job.work.is_dir()):
                continue
            try:
                job.lock.acquire(timeout=0)
            except Timeout:  # another run's process tells of it
                continue
            whole = job.catch_up(name)
            if (whole or last) and job.run is not None:
                job.run.close(failed=not whole)
            if whole:
                jobs.remove(job)
                job.lock.release(force=True)


def _steps(log: Path, after: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Yield the optimizer steps behind one, each once: a job that was killed repeats some."""
    if not log.is_file():
        return
    for line in log.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):  # the line that is being written
            entry = json.loads(line)
            step = entry.pop("step")
            if step > after:
                after = step
                numbers = {k: v for k, v in entry.items() if isinstance(v, int | float)}
                yield step, {f"train/{k}": v for k, v in numbers.items() if math.isfinite(v)}


def _scores(folder: Path, told: list[str]) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Yield checkpoints that were not told: name, step, and what they scored."""
    for path in scored_checkpoints(folder):
        if path.stem not in told:
            record = read_score(path)
            step = record.step if record.step is not None else record.place or 0
            yield (
                path.stem,
                step,
                {f"{one.scorer}/{one.metric}": one.value for one in record.summaries},
            )


if __name__ == "__main__":
    _main()
