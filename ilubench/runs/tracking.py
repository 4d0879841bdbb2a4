"""A run's jobs told to a tracker: read from the files that they write, wherever they run."""

import contextlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from ilubench.errors import StoreError
from ilubench.interfaces import Progress
from ilubench.records.scores import read_score, scored_checkpoints
from ilubench.records.store import write_json
from ilubench.runs.executors.base import EndWatcher, Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.trackers import TRACKERS, Told, TrackedRun

__all__ = ["tracking"]

PAUSE_S = 5.0
"""Seconds between two looks at a job's files."""


@contextlib.contextmanager
def tracking(plan: Plan, watcher: EndWatcher) -> Iterator[EndWatcher]:
    """Yield who is to be told of a plan's jobs: the watcher, with a tracker where one is asked for.

    What jobs wrote is read in this process, so that workers, clusters and resumed runs are alike,
    and no job knows of it. The first error ends the telling, not the run.
    """
    name = plan.experiment.run.track
    if name == "none":
        yield watcher
        return
    found = _Tracking(plan, name, watcher)
    try:
        yield found
    finally:
        found.close()


@dataclass
class _Known:
    """What a tracker knows of a job; kept in a file, so that nothing is told twice.

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


class _Tracking:
    """Tells a tracker of a plan's jobs: settings, steps and scores, each once."""

    def __init__(self, plan: Plan, name: str, watcher: EndWatcher) -> None:
        self._plan, self._name, self._watcher = plan, name, watcher
        self._out = Path(plan.experiment.run.out).absolute()
        self._open: dict[str, TrackedRun] = {}
        self._broken = False

    def started(self, job: Job) -> Progress:
        """Return the progress of a job whose files are looked at when it says something."""
        shown = self._watcher.started(job)
        return _Watched(shown, lambda: self._guarded(lambda: self._catch_up(job)))

    def silent(self, job: Job, seconds: float) -> None:
        """Pass it on."""
        self._watcher.silent(job, seconds)

    def tell(self, text: str) -> None:
        """Pass it on."""
        self._watcher.tell(text)

    def finished(self, outcome: Outcome) -> None:
        """Pass it on, and tell the rest of the job; one that is cached may have been told."""
        self._watcher.finished(outcome)
        if outcome.state != "skipped":
            self._guarded(lambda: self._end(outcome.job, failed=outcome.state == "failed"))

    def close(self) -> None:
        """End the runs of jobs that have not ended."""
        while self._open:
            _, run = self._open.popitem()
            self._guarded(partial(run.close, failed=True))

    # --- inside ---

    def _guarded(self, tell: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # a library's greetings
                tell()
        except Exception as error:  # noqa: BLE001 - a tracker may raise anything
            self._broken = True
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
            self.tell(f"track={self._name} stopped ({problem}); the run goes on without it")

    def _end(self, job: Job, *, failed: bool) -> None:
        self._catch_up(job)
        run = self._open.pop(job.key, None)
        if run is not None:
            run.close(failed=failed)

    def _catch_up(self, job: Job) -> None:
        """Tell what a job's files have that was not told."""
        known = self._known(job)
        if known.ended:
            return
        artifact, store = self._plan.artifact(job), self._plan.bench.store.root
        folder = artifact.folder if artifact else store / job.stage / f"{job.key}.partial"
        known.ended = artifact is not None
        for step, values in _steps(folder / "log.jsonl", known.step):
            self._run(job, known).log(step, values)
            known.step = step
        for path in scored_checkpoints(folder / "scores"):
            if path.stem in known.scores:
                continue
            record = read_score(path)
            step = record.step if record.step is not None else record.place or 0
            values = {f"{one.scorer}/{one.metric}": one.value for one in record.summaries}
            self._run(job, known).log(step, values)
            known.scores.append(path.stem)
        if known.id:
            write_json(self._file(job), vars(known))

    def _run(self, job: Job, known: _Known) -> TrackedRun:
        if job.key not in self._open:
            rows = [row for row in self._plan.rows if job.key in row.keys]
            group = rows[0].run_id if len(rows) == 1 else self._plan.run_id
            told = Told(group, job.label, self._config(job), self._out, known.id)
            self._open[job.key] = TRACKERS[self._name](told)
            known.id = self._open[job.key].id
        return self._open[job.key]

    def _config(self, job: Job) -> dict[str, JsonValue]:
        experiment = self._plan.experiment
        row = next(row for row in self._plan.rows if job.key in row.keys)
        method = row.experiment.method_ref if job.who == "method" else job.method
        found: dict[str, JsonValue] = {
            "suite": f"{experiment.suite.name} v{experiment.suite.version}",
            "stage": job.stage,
            "who": job.who,
            "seed": job.seed,
            "key": job.key,
        }
        if job.stage != "target" and method is not None:
            found["method"] = method.model_dump(mode="json")
        if job.attack:
            attack = self._plan.bench.attack(job.attack)
            found["attack"] = {"use": job.attack, **attack.plugin.model_dump(mode="json")}
        return found

    def _file(self, job: Job) -> Path:
        return self._out / "tracked" / self._name / f"{job.key}.json"

    def _known(self, job: Job) -> _Known:
        try:
            return _Known(**json.loads(self._file(job).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return _Known()
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(f"{self._file(job)} is damaged; delete it") from error


class _Watched:
    """A job's progress, passed on; now and then its files are looked at."""

    def __init__(self, shown: Progress, look: Callable[[], None]) -> None:
        self._shown, self._look, self._looked = shown, look, time.monotonic()

    def start(self, phase: str, total: int) -> None:
        """Pass it on."""
        self._shown.start(phase, total)

    def advance(self, done: int, note: str = "") -> None:
        """Pass it on, and look."""
        self._shown.advance(done, note)
        if time.monotonic() - self._looked > PAUSE_S:
            self._look()
            self._looked = time.monotonic()


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
