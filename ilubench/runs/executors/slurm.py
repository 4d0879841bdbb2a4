"""Slurm: what can begin is submitted as one array job, and looked after until it ended.

submitit writes the batch file, hands it to sbatch and has a job queued again before its time is up
or when it is preempted. A job goes on from the state that it saved in the store. Which jobs were
submitted is in the run's folder, so that a run whose own process was killed finds them again.
"""

import contextlib
import importlib.util
import io
import itertools
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ilubench.errors import DataError, JobError, UsageError
from ilubench.interfaces import Progress
from ilubench.records.results import FailureRecord
from ilubench.records.store import write_json
from ilubench.runs.executors.base import SILENT_S, Ended, Watcher, failure_of
from ilubench.runs.executors.node_facts import versions
from ilubench.runs.executors.planned_job import PlannedJob, Report, read_sign
from ilubench.runs.executors.queues import LocalQueue, Place, Queue, SlurmQueue
from ilubench.runs.jobs import Job
from ilubench.specs import SlurmSpec

if TYPE_CHECKING:
    from submitit import Job as Submitted

__all__ = ["SlurmArrays"]

_RECORD = "submitted.json"
"""Numbers in the queue and keys of the jobs of one array."""

_TRIES = 2
"""How often a job is submitted that is lost with its node."""

_TIMEOUTS = 20
"""How often a job is queued again whose time was up; each time it goes on from its saved state."""

_LOOK_S = 1.0
"""How often results and signs of progress are looked for."""

_AGAIN_S = 60.0
"""When jobs are submitted again that Slurm did not take while others of the run are there."""

_WAITS = {"PENDING", "CONFIGURING", "SUSPENDED", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED"}
_RUNS = {"RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT", "STOPPED", "RESIZING"}
_LOST = {"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED", "COMPLETED", ""}
"""States without a result in which the job itself is not at fault."""

_NEVER = {
    "AssociationTimeLimit",
    "BadConstraints",
    "InvalidAccount",
    "InvalidQOS",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSMaxWallDurationPerJobLimit",
}
"""Reasons of waiting that do not pass."""

_REMEDIES = {
    "OUT_OF_MEMORY": "ask for more with slurm.memory=GB, or lower micro_batch or suite.score_batch",
    "TIMEOUT": "ask for more with slurm.time=MINUTES",
    "CANCELLED": "somebody cancelled it; the same command submits it again",
}


@dataclass(eq=False)
class _Task:
    """A job on its way.

    Attributes:
        submitted: submitit's view of it, once it was handed over.
        place: where it was when last seen.
        since: when it was first seen to run.
        heard: when its sign of progress last changed.
        gone: when it was first seen to have ended without a result.
    """

    job: Job
    progress: Progress
    submitted: "Submitted[Report] | None" = None
    place: Place | None = None
    since: float | None = None
    heard: float = 0.0
    sign: Mapping[str, Any] = field(default_factory=dict)
    gone: float | None = None
    tries: int = 0

    @property
    def number(self) -> str:
        """The job's in the queue."""
        assert self.submitted is not None
        return self.submitted.job_id


class SlurmArrays:
    """All jobs that can begin, in array jobs of Slurm.

    Args:
        spec: what each job asks for.
        folder: of the planned run.
        memory: gigabytes of a job, where the spec does not say.
        watcher: is told of the jobs.
        timeout: seconds after which a job is ended; None for never.

    Raises:
        UsageError: submitit or Slurm is missing.
    """

    def __init__(
        self,
        spec: SlurmSpec,
        folder: Path,
        memory: int | None,
        watcher: Watcher,
        timeout: float | None = None,
    ) -> None:
        """Find what was submitted before and still waits or runs."""
        if importlib.util.find_spec("submitit") is None:
            raise UsageError("executor=slurm needs submitit: pip install 'ilubench[slurm]'")
        self._spec, self._folder, self._memory = spec, folder.resolve(), spec.memory or memory
        self._watcher, self._timeout = watcher, timeout
        self._logs, self._local = self._folder / "slurm", spec.cluster == "local"
        self._queue: Queue = LocalQueue(self._logs) if self._local else SlurmQueue(folder.name)
        # what Slurm does not run at once waits in its queue
        self.count = (spec.parallel or 1) if self._local else sys.maxsize
        self._before = self._find_before()
        self._new: list[_Task] = []
        self._handed: list[_Task] = []
        self._ended: list[Ended] = []
        self._ask_at = self._submit_at = 0.0

    def start(self, job: Job) -> None:
        """Find a job that waits or runs already, else have it submitted by the next `wait`."""
        task = _Task(job, self._watcher.started(job), self._before.get(job.key))
        (self._new if task.submitted is None else self._handed).append(task)

    def wait(self) -> Ended:
        """Return a job that ended.

        All that ended meanwhile are told before anything is submitted: what they were waited for
        by goes into one array.
        """
        while not self._ended:
            self._submit()
            time.sleep(min(_LOOK_S, self._queue.every_s))
            self._look()
        return self._ended.pop(0)

    def close(self) -> None:
        """Cancel what waits or runs; what was done stays in the store and is gone on with."""
        if self._handed:
            for path in self._logs.glob(f"*/{_RECORD}"):  # nobody waits for these any more
                path.unlink(missing_ok=True)
            earlier = {one.job_id for one in self._before.values()}
            self._queue.cancel(earlier | {task.number for task in self._handed})

    # ----------------------------------------------------------------- submitting

    def _submit(self) -> None:
        """Submit what is new; what Slurm does not take now it may take when others have ended."""
        from submitit.core.utils import FailedJobError

        if not self._new or time.monotonic() < self._submit_at:
            return
        tasks, self._new = self._new, []
        stages = "+".join(dict.fromkeys(task.job.stage for task in tasks))
        folder = _make_folder(self._logs, stages)
        try:
            made = self._hand_over(folder, [task.job.key for task in tasks])
        except FailedJobError as error:
            shutil.rmtree(folder)
            said = str(error).strip().partition("\n")[0]
            said = said.removeprefix("sbatch: ").removeprefix("error: ")
            problem = f"Slurm does not take jobs with {self._words()}: {said}"
            if not self._handed:
                remedy = "change these words, or give the command where sbatch works"
                raise UsageError(f"{problem}; {remedy}") from error
            self._new, self._submit_at = tasks, time.monotonic() + _AGAIN_S
            self._watcher.tell(f"{problem}; tried again in {_AGAIN_S:.0f} s")
            return
        record: dict[str, JsonValue] = {}
        for task, one in zip(tasks, made, strict=True):
            record[one.job_id] = task.job.key
            task.submitted, task.place, task.since, task.gone = one, None, None, None
            task.tries, task.heard = task.tries + 1, time.monotonic()
        write_json(folder / _RECORD, record)
        self._handed += tasks
        self._ask_at = time.monotonic() + _LOOK_S

    def _hand_over(self, folder: Path, keys: Sequence[str]) -> "list[Submitted[Report]]":
        """Submit one array job."""
        from submitit import AutoExecutor

        spec = self._spec
        executor = AutoExecutor(
            folder,
            cluster=spec.cluster,
            slurm_max_num_timeout=_TIMEOUTS,
            local_max_num_timeout=_TIMEOUTS,
        )
        executor.update_parameters(
            name=self._folder.name,
            timeout_min=spec.time,
            mem_gb=self._memory,
            cpus_per_task=spec.cpus,
            gpus_per_node=spec.gpus or None,
            stderr_to_stdout=True,
            slurm_partition=spec.partition,
            slurm_account=spec.account,
            slurm_array_parallelism=spec.parallel,
            slurm_additional_parameters={"requeue": True, **spec.options},
        )
        job, folders = PlannedJob(spec.cpus, versions()), [str(self._folder)] * len(keys)
        if self._local:
            with _deaf():
                return executor.map_array(job, folders, keys)
        with contextlib.redirect_stderr(io.StringIO()):  # what sbatch says is in the error, too
            return executor.map_array(job, folders, keys)

    def _words(self) -> str:
        """The words that say what jobs ask for."""
        asked = self._spec.model_dump(exclude={"cluster", "options"}, exclude_none=True)
        asked |= {f"options.{name}": value for name, value in self._spec.options.items()}
        return " ".join(f"slurm.{name}={value}" for name, value in asked.items())

    def _find_before(self) -> "dict[str, Submitted[Report]]":
        """Return what an earlier process of the run submitted and still waits or runs, by key."""
        from submitit import LocalJob, SlurmJob

        kind = LocalJob if self._local else SlurmJob
        records = sorted(self._logs.glob(f"*/{_RECORD}"))
        places = (self._queue.places() if records else None) or {}
        found: dict[str, Submitted[Report]] = {}
        for path in records:
            for number, key in json.loads(path.read_text(encoding="utf-8")).items():
                if number in places and places[number].state in _WAITS | _RUNS:
                    found[key] = kind(path.parent, number)
        return found

    # ----------------------------------------------------------------- looking after

    def _look(self) -> None:
        now, places = time.monotonic(), None
        if now >= self._ask_at:
            self._ask_at = now + self._queue.every_s
            places = self._queue.places()
        for task in tuple(self._handed):
            assert task.submitted is not None
            if task.submitted.paths.result_pickle.exists():  # after the queue was asked
                self._end(task, self._reported(task))
                continue
            if places is not None:
                self._see(task, places.get(task.number), now)
            if task in self._handed and task.since is not None:
                self._show(task, now)

    def _see(self, task: _Task, place: Place | None, now: float) -> None:
        """Take note of where a job is in the queue."""
        state = place.state if place is not None else self._queue.last_state(task.number)
        if place is None or state not in _WAITS | _RUNS:
            task.gone = task.gone or now
            # the result of a job that did not fail may not be visible here yet
            if state not in _LOST or now - task.gone >= self._queue.lag_s:
                self._lost(task, state, place.nodes if place is not None else "")
            return
        before, task.place, task.gone = task.place, place, None
        if place.reason in _NEVER:
            problem = f"Slurm does not start jobs with {self._words()}: {place.reason}"
            raise UsageError(f"{problem}; change these words")
        if state in _WAITS and place != before:
            again = "was queued again" if task.since is not None else "waits"
            why = f" ({place.reason})" if place.reason else ""
            self._watcher.tell(f"{task.job.label}: {again} as {task.number}{why}")
            task.since = None
        elif state in _RUNS and task.since is None:
            self._watcher.tell(f"{task.job.label}: runs on {place.nodes} as {task.number}")
            task.since = task.heard = now

    def _show(self, task: _Task, now: float) -> None:
        """Show how far a job is; end one that takes too long, tell of one that is silent."""
        assert task.since is not None
        sign = read_sign(self._folder, task.job.key)
        if sign and sign != task.sign:
            if sign["phase"] != task.sign.get("phase"):
                task.progress.start(f"{sign['phase']} on {sign['host']}", sign["total"])
            task.progress.advance(sign["done"], sign["note"])
            task.sign, task.heard = sign, now
        if self._timeout is not None and now - task.since > self._timeout:
            self._queue.cancel([task.number])
            problem = f"it took longer than job_timeout={self._timeout:g} s, and was ended"
            self._fail(task, problem)
        elif now - task.heard > SILENT_S:
            task.heard = now
            self._watcher.silent(task.job, SILENT_S)

    def _lost(self, task: _Task, state: str, nodes: str) -> None:
        """Submit a job again that ended without a result and is not at fault, once."""
        assert task.submitted is not None
        word = state or "no longer known to the queue"
        if state in _LOST and task.tries < _TRIES:
            self._watcher.tell(f"{task.job.label}: was lost ({word}), is submitted again")
            self._handed.remove(task)
            self._new.append(task)
            return
        log = task.submitted.paths.stdout
        where = f" on {nodes}" if nodes else ""
        remedy = _REMEDIES.get(state, f"see {log}")
        if state not in _REMEDIES and not log.exists():
            remedy = f"it left no log: does{where or ' its node'} see {log.parent}? Every node must"
        times = f", {task.tries} times" if task.tries > 1 else ""
        self._fail(task, f"Slurm's job {task.number} ended{where} with {word}{times}; {remedy}")

    def _reported(self, task: _Task) -> Ended:
        """Return what a job says of its end."""
        from submitit.core.utils import UncompletedJobError

        assert task.submitted is not None
        error = task.submitted.exception()
        if error is not None:  # it did not come as far as to say it itself
            log = task.submitted.paths.stdout
            return self._failed(task, f"its process ended with an error of its own; see {log}")
        report = task.submitted.result()
        if report["wrong"]:
            kind = UsageError if report["wrong"] == "usage" else DataError
            return Ended(task.job, 0.0, wrong_input=kind(report["message"]))
        if report["kind"] == UncompletedJobError.__name__:
            problem = f"it needed more than slurm.time={self._spec.time} minutes, {_TIMEOUTS} times"
            return self._failed(task, f"{problem}; {_REMEDIES['TIMEOUT']}")
        if not report["kind"]:
            return Ended(task.job, report["seconds"])
        failure = FailureRecord(
            label=task.job.label, kind=report["kind"], message=report["message"]
        )
        return Ended(task.job, report["seconds"], failure)

    def _fail(self, task: _Task, problem: str) -> None:
        self._end(task, self._failed(task, problem))

    def _failed(self, task: _Task, problem: str) -> Ended:
        seconds = 0.0 if task.since is None else time.monotonic() - task.since
        return Ended(task.job, seconds, failure_of(task.job, JobError(problem)))

    def _end(self, task: _Task, ended: Ended) -> None:
        self._handed.remove(task)
        self._ended.append(ended)


def _make_folder(logs: Path, stages: str) -> Path:
    """Make the folder of one array job: its batch file, its jobs, their logs."""
    logs.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1 + sum(1 for _ in logs.glob("*-*"))):
        with contextlib.suppress(FileExistsError):
            folder = logs / f"{number}-{stages}"
            folder.mkdir()
            return folder
    raise AssertionError


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Let processes that are started meanwhile leave Ctrl-C to this one, which ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
