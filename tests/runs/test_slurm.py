"""Runs by a scheduler: submitit's processes of this machine, and a queue that a test makes up."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from doubles import SilentProgress
from runs import SUITE, WEAK, command, environment, interruptible, made, rows, samples, weights

from ilubench.errors import DataError, UsageError
from ilubench.interfaces import Progress
from ilubench.runs.executors import slurm
from ilubench.runs.executors.base import Ended
from ilubench.runs.executors.planned_job import Report
from ilubench.runs.executors.queues import LocalQueue, Place, SlurmQueue
from ilubench.runs.executors.slurm import SlurmArrays
from ilubench.runs.jobs import Job
from ilubench.runs.stages.devices import pick_device
from ilubench.specs import RunSpec, SlurmSpec

pytest.importorskip("submitit")


class Told:
    """Remembers what is said of jobs."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def started(self, job: Job) -> Progress:
        return SilentProgress()

    def silent(self, job: Job, seconds: float) -> None:
        self.notes.append(f"{job.key} silent")

    def tell(self, text: str) -> None:
        self.notes.append(text)


class Scripted:
    """A queue that answers what a test says, one answer a question; the last one stays."""

    every_s = lag_s = 0.0

    def __init__(self, *answers: Mapping[str, Place] | None, last: str = "") -> None:
        self._answers, self._last = list(answers), last
        self.cancelled: list[str] = []

    def places(self) -> Mapping[str, Place] | None:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def last_state(self, job: str) -> str:
        return self._last

    def cancel(self, jobs: Iterable[str]) -> None:
        self.cancelled += jobs


class Handed:
    """What submitit gives back of a submitted job."""

    def __init__(self, folder: Path, number: str, report: Report | None, trace: str) -> None:
        from submitit.core.utils import JobPaths

        self.job_id, self._report, self._trace = number, report, trace
        self.paths = JobPaths(folder, number)
        if report is not None or trace:
            self.paths.result_pickle.touch()

    def exception(self) -> Exception | None:
        return RuntimeError(self._trace) if self._trace else None

    def result(self) -> Report | None:
        return self._report


class Arrays(SlurmArrays):
    """Slots whose jobs are numbered 1, 2, ... and end as a test says."""

    reports: Mapping[str, Report | str] = {}
    refusals: list[Exception]
    handed = 0

    def _hand_over(self, folder: Path, keys: Any) -> Any:
        if self.refusals:
            raise self.refusals.pop(0)
        found = []
        for key in keys:
            self.handed += 1
            end = self.reports.get(f"{key} {self.handed}", self.reports.get(key))
            report, trace = (None, end) if isinstance(end, str) else (end, "")
            found.append(Handed(folder, str(self.handed), report, trace or ""))
        return found


def report(**values: Any) -> Report:
    return Report(**{"seconds": 1.0, "wrong": "", "message": "", "kind": "", **values})  # type: ignore[typeddict-item]


@pytest.fixture
def slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arrays:
    monkeypatch.setattr(slurm, "_LOOK_S", 0.0)
    found = Arrays(SlurmSpec(cluster="local"), tmp_path, None, Told())
    found.refusals = []
    return found


def job(key: str) -> Job:
    return Job(stage="score", key=key, label=f"score {key}")


def ended(slots: Arrays, queue: Scripted, *keys: str) -> list[Ended]:
    slots._queue = queue
    for key in keys:
        slots.start(job(key))
    return [slots.wait() for _ in keys]


def notes(slots: Arrays) -> list[str]:
    told = slots._watcher
    assert isinstance(told, Told)
    return told.notes


RUNNING, PENDING = Place("RUNNING", "n1"), Place("PENDING", "", "Priority")


def test_where_a_job_waits_and_runs_is_told(slots: Arrays, tmp_path: Path) -> None:
    queue = Scripted(
        {"1": PENDING}, None, {"1": PENDING}, {"1": RUNNING}, {"1": PENDING}, {"1": RUNNING}, {}
    )
    (end,) = ended(slots, queue, "a")
    assert notes(slots)[:4] == [
        "score a: waits as 1 (Priority)",
        "score a: runs on n1 as 1",
        "score a: was queued again as 1 (Priority)",
        "score a: runs on n1 as 1",
    ]
    record = json.loads((tmp_path / "slurm" / "1-score" / "submitted.json").read_text())
    assert record == {"1": "a"}
    assert end.failure is not None


@pytest.mark.parametrize("state", ["NODE_FAIL", "PREEMPTED", ""])
def test_a_job_that_is_lost_is_submitted_once_more(slots: Arrays, state: str) -> None:
    slots.reports = {"a 2": report()}
    (end,) = ended(slots, Scripted({"1": RUNNING}, {"1": Place(state)} if state else {}), "a")
    assert end.failure is None
    assert slots.handed == 2
    assert any("was lost" in note for note in notes(slots))
    (end,) = ended(slots, Scripted({"3": Place("NODE_FAIL", "n1"), "4": Place("NODE_FAIL")}), "b")
    assert end.failure is not None
    assert "NODE_FAIL, 2 times" in end.failure.message


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("OUT_OF_MEMORY", "slurm.memory=GB"),
        ("TIMEOUT", "slurm.time=MINUTES"),
        ("CANCELLED", "somebody cancelled it"),
        ("FAILED", "it left no log: does on n1 see"),
    ],
)
def test_a_job_that_slurm_ends_fails_with_slurms_word(
    slots: Arrays, state: str, words: str
) -> None:
    (end,) = ended(slots, Scripted({"1": Place(state, "n1")}), "a")
    assert slots.handed == 1
    assert end.failure is not None
    assert f"job 1 ended on n1 with {state}" in end.failure.message
    assert words in end.failure.message


def test_what_a_job_reports_is_its_end(slots: Arrays) -> None:
    slots.reports = {
        "done": report(),
        "failed": report(kind="DivergedError", message="a loss is not finite"),
        "slow": report(kind="UncompletedJobError"),
        "other": report(wrong="usage", message="torch 1 (planned with 2)"),
        "data": report(wrong="data", message="no rows"),
        "crash": "a traceback",
    }
    ends = ended(slots, Scripted({}), *slots.reports)
    found = {end.job.key: end for end in ends}
    assert (found["done"].seconds, found["done"].failure) == (1.0, None)
    failures = {key: end.failure.message for key, end in found.items() if end.failure}
    assert failures["failed"] == "a loss is not finite"
    assert "slurm.time=60 minutes, 20 times" in failures["slow"]
    assert "_log.out" in failures["crash"]
    assert isinstance(found["other"].wrong_input, UsageError)
    assert isinstance(found["data"].wrong_input, DataError)


def test_a_refusal_is_one_sentence_and_is_waited_for_while_others_run(
    slots: Arrays, monkeypatch: pytest.MonkeyPatch
) -> None:
    from submitit.core.utils import FailedJobError

    monkeypatch.setattr(slurm, "_AGAIN_S", 0.0)
    said = "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job failed"
    slots.refusals = [FailedJobError(said)]
    with pytest.raises(UsageError, match=r"slurm\.time=60 .*: invalid partition specified: x; ch"):
        ended(slots, Scripted({}), "a")
    slots.close()
    slots.reports = {"c": report()}
    slots._queue = Scripted({"1": RUNNING})
    slots.start(job("b"))
    slots._submit()
    slots.refusals = [FailedJobError("sbatch: error: limit of submitted jobs")]
    slots.start(job("c"))
    assert slots.wait().job.key == "c"
    assert any("limit of submitted jobs; tried again" in note for note in notes(slots))


def test_a_job_that_never_starts_ends_the_run(slots: Arrays) -> None:
    with pytest.raises(UsageError, match=r"slurm\.time=60 .*PartitionTimeLimit; change"):
        ended(slots, Scripted({"1": Place("PENDING", "", "PartitionTimeLimit")}), "a")


def test_a_job_that_takes_too_long_is_cancelled(slots: Arrays, tmp_path: Path) -> None:
    slots._timeout = 0.0
    queue = Scripted({"1": RUNNING})
    (end,) = ended(slots, queue, "a")
    assert end.failure is not None
    assert "job_timeout=0 s" in end.failure.message
    assert queue.cancelled == ["1"]
    slots.start(job("b"))
    slots._submit()
    assert list((tmp_path / "slurm").glob("*/submitted.json"))
    slots.close()
    assert sorted(queue.cancelled) == ["1", "2"]
    assert not list((tmp_path / "slurm").glob("*/submitted.json"))


def test_slurms_answer_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, text in {
        "squeue": "12_0|RUNNING|n[1-2]|None\n12_1|PENDING||launch failed, requeued held\n",
        "sacct": "CANCELLED by 1000\n",
        "sbatch": "",
        "srun": "",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{text}'\n".replace("\n'", "\\n'"))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    queue = SlurmQueue("a-run")
    assert queue.places() == {
        "12_0": Place("RUNNING", "n[1-2]"),
        "12_1": Place("PENDING", "", "launch failed, requeued held"),
    }
    assert queue.last_state("12_0") == "CANCELLED"
    (tmp_path / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert queue.places() is None


def test_bad_input(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = ("run", SUITE, "method=npo", "executor=slurm")
    done = command(*asked)
    assert done.code == 2
    assert "this machine has no sbatch" in done.err
    assert "Traceback" not in done.err
    assert not Path("runs").exists() or not list(Path("runs").glob("tiny-*"))
    monkeypatch.setitem(sys.modules, "submitit", None)
    done = command(*asked)
    assert done.code == 2
    assert "pip install 'ilubench[slurm]'" in done.err
    for word, told in {
        "slurm.partitions=gpu": "did you mean 'partition'?",
        "device=cuda": "add slurm.gpus=1",
    }.items():
        words = [one for one in asked if one.partition("=")[0] != word.partition("=")[0]]
        done = command(*words, word)
        assert done.code == 2, word
        assert told in done.err, done.err


def test_the_device_is_the_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    asked = RunSpec(executor="slurm", slurm=SlurmSpec(gpus=1))
    assert pick_device(asked) == "cuda"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert pick_device(RunSpec(executor="slurm")) == "cpu"


# --------------------------------------------------------------------------- real processes


def begin(*words: str, cwd: Path) -> "subprocess.Popen[str]":
    """Start a run in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "ilubench", *words],
        env=environment(),
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def submitted(out: Path, run: "subprocess.Popen[str]") -> Path:
    """Wait until a run has submitted jobs; return its folder of them."""
    deadline = time.monotonic() + 60
    while not (found := list(out.glob("tiny-*/slurm/*/submitted.json"))):
        assert time.monotonic() < deadline
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)
    return found[0].parents[1]


def killed_and_begun_again(
    tmp_path: Path,
    *slurm_words: str,
    todo: tuple[str, ...],
    between: Callable[[Path], object] = lambda _: None,
) -> None:
    """Compare jobs of some stages with those of a run whose process is killed after submitting."""
    one, two = tmp_path / "serial", tmp_path / "slurm"
    shutil.copytree(made() / "store", one / "store")
    words = ["run", SUITE, WEAK, "method=npo", "attacks=none", "--json"]
    assert command(*words, f"out={one}").code == 0
    shutil.copytree(one / "store", two / "store")
    for stage, key, label in rows(one)[1]:
        if stage in todo and "npo" in label:
            shutil.rmtree(two / "store" / stage / key)
    words += [f"out={two}", "executor=slurm", *slurm_words]
    with begin(*words, cwd=tmp_path) as run:
        folder = submitted(two, run)
        run.kill()
    between(folder)
    done = command(*words)
    assert done.code == 0, done.err
    arrays = [f"{number}-{stage}" for number, stage in enumerate(todo, start=1)]
    assert sorted(path.name for path in folder.glob("[0-9]*")) == arrays
    assert samples(one) == samples(two)
    assert weights(one) == weights(two)
    assert rows(one)[0] == rows(two)[0]


def test_a_run_whose_process_was_killed_finds_its_jobs(tmp_path: Path) -> None:
    killed_and_begun_again(tmp_path, "slurm.cluster=local", todo=("unlearn",))


def requeue(folder: Path) -> None:
    """Have the job that a run submitted begin anew, once it runs."""
    (number,) = json.loads((folder / "1-unlearn" / "submitted.json").read_text())
    queue = SlurmQueue(folder.parent.name)
    deadline = time.monotonic() + 60
    while (queue.places() or {})[number].state != "RUNNING":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    subprocess.run(["scontrol", "requeue", number], check=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("sbatch") is None, reason="needs Slurm: .ci/slurm-local")
def test_slurm_itself(tmp_path: Path) -> None:
    asked = ("slurm.time=10", "slurm.memory=2")
    killed_and_begun_again(tmp_path, *asked, todo=("unlearn", "score"), between=requeue)


def test_ctrl_c_ends_the_jobs(tmp_path: Path) -> None:
    shutil.copytree(made() / "store", tmp_path / "out" / "store")
    words = ("run", SUITE, WEAK, "method=npo", "attacks=none", f"out={tmp_path / 'out'}")
    with interruptible(), begin(*words, "executor=slurm", "slurm.cluster=local", cwd=tmp_path) as r:
        folder = submitted(tmp_path / "out", r)
        assert LocalQueue(folder).places()
        pressed = time.monotonic()
        r.send_signal(signal.SIGINT)
        told = r.communicate(timeout=30)[1]
    assert time.monotonic() - pressed < 5
    assert r.returncode == 130, told
    assert "Traceback" not in told
    assert not list(folder.glob("*/submitted.json"))
    while LocalQueue(folder).places():  # what was killed may take a moment to go
        assert time.monotonic() - pressed < 20
        time.sleep(0.1)
