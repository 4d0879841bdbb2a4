"""Jobs on one place or several: order, failures, workers that die, hang or are interrupted."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from doubles import SilentProgress
from runs import (
    SUITE,
    command,
    environment,
    interruptible,
    made,
    rows,
    samples,
    target_folder,
    weights,
)

from ilubench.errors import DataError, JobError, UsageError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.forecast.memory import shape_of
from ilubench.models.configuration import load_config
from ilubench.runs.executors.base import Ended, Outcome, end_of, execute, longest_first
from ilubench.runs.executors.child import begin, import_ahead
from ilubench.runs.executors.processes import ThisMachine
from ilubench.runs.executors.share import Share, share_machine
from ilubench.runs.executors.workers import Workers
from ilubench.runs.folder import run_config
from ilubench.runs.jobs import Job
from ilubench.runs.placing import lone_jobs
from ilubench.specs import PluginRef
from ilubench.specs.overrides import parse_words


def job(key: str, *needs: str) -> Job:
    return Job(stage="score", key=key, label=key, needs=needs)


class Places:
    """Places that remember what was started; the longest-running job ends first."""

    def __init__(self, count: int, **errors: Exception) -> None:
        self.count, self._errors = count, errors
        self.running: list[Job] = []
        self.started: list[str] = []
        self.most = 0

    def start(self, job: Job) -> None:
        self.running.append(job)
        self.started.append(job.key)
        self.most = max(self.most, len(self.running))

    def wait(self) -> Ended:
        return end_of(self.running.pop(0), self._carry_out)

    def _carry_out(self, job: Job) -> None:
        if job.key in self._errors:
            raise self._errors[job.key]

    def close(self) -> None:
        self.closed = True


DIAMOND = (job("a"), job("b", "a"), job("c", "a"), job("d", "b", "c"), job("e"))


def states(jobs: Sequence[Job], places: Places, done: Sequence[str] = ()) -> dict[str, str]:
    found = execute([jobs], lambda job: job.key in done, places)
    return {outcome.job.key: outcome.state for outcome in found}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_job_waits_for_those_that_it_needs(count: int) -> None:
    places = Places(count)
    assert set(states(DIAMOND, places).values()) == {"done"}
    at = {key: place for place, key in enumerate(places.started)}
    assert at["a"] < min(at["b"], at["c"])
    assert max(at["b"], at["c"]) < at["d"]
    assert places.most == min(count, 3)  # b, c and e
    assert places.closed


def test_what_needs_a_failed_job_is_skipped_and_the_rest_goes_on() -> None:
    found = states(DIAMOND, Places(2, b=RuntimeError("no")), done=["c"])
    assert found == {"a": "done", "b": "failed", "c": "cached", "d": "skipped", "e": "done"}


def test_nothing_that_needs_a_job_starts_before_its_outcome_was_dealt_with() -> None:
    places = Places(3)
    for outcome in execute([DIAMOND], lambda _: False, places):
        if outcome.job.key == "a":
            assert not {"b", "c", "d"} & set(places.started)


def test_wrong_data_end_a_run_that_has_computed_nothing() -> None:
    with pytest.raises(DataError, match="no rows"):
        states(DIAMOND, Places(1, a=DataError("no rows")))
    assert states(DIAMOND, Places(1, e=DataError("no rows")))["e"] == "failed"
    with pytest.raises(UsageError):
        states(DIAMOND, Places(1, e=UsageError("wrong")))


def test_the_longest_chain_starts_first() -> None:
    seconds = {"a": 1.0, "b": 1.0, "c": 9.0, "d": 1.0, "e": 5.0}
    order = longest_first(DIAMOND, lambda job: seconds[job.key])
    assert [one.key for one in order] == ["a", "c", "e", "b", "d"]


def test_small_models_get_one_worker_and_large_ones_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr("ilubench.runs.executors.share._memory", lambda: 16 * 2**30)
    tiny = load_config(target_folder(made()))
    assert share_machine("auto", "cpu", tiny, 9) == Share(1)
    assert share_machine(3, "cpu", tiny, 2) == Share(3, 2, 8)
    tiny.vocab_size = 32_000
    assert shape_of(tiny, "float32").parameters > 1_000_000
    assert share_machine("auto", "cpu", tiny, 9) == Share(1)  # embeddings take little time
    tiny.num_hidden_layers = 12
    assert share_machine("auto", "cpu", tiny, 9) == Share(7, 1, 8)  # they fill the memory
    assert share_machine("auto", "cpu", tiny, 3) == Share(3, 2, 8)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert share_machine("auto", "cpu", tiny, 9) == Share(7, 2, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    both = share_machine("auto", "cuda", tiny, 9)
    assert [both.environment(n)["CUDA_VISIBLE_DEVICES"] for n in (0, 1, 2)] == ["3", "5", "3"]


def test_a_job_beside_which_none_can_run() -> None:
    assert not lone_jobs(DIAMOND)
    assert lone_jobs(DIAMOND[:-1]) == {"a", "d"}


# --------------------------------------------------------------------------- real processes


def test_results_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    target = f"suite.target.model.path={target_folder(made())}"
    words = ("run", SUITE, target, "method=npo", "seeds=0..1", "attacks=gsm8k")
    one, three = tmp_path / "1", tmp_path / "3"
    for out in (one, three):
        done = command(*words, f"workers={out.name}", f"out={out}")
        assert done.code == 0, done.err
        assert "attack npo with gsm8k, seed 1: done" in done.err
    assert samples(one) == samples(three)
    assert weights(one) == weights(three)
    record, jobs, failures = rows(three)
    assert (record, sorted(jobs), failures) == (rows(one)[0], sorted(rows(one)[1]), [])
    assert (next(three.glob("tiny-*")) / "workers" / "2.log").is_file()


PLUGIN = """
    import os, signal, time
    from pathlib import Path
    from ilubench.interfaces import Method

    class Ends(Method):
        how: str
        place: str

        def unlearn(self, model, data, context):
            marker = Path(self.place) / self.how
            seen = marker.exists()
            marker.touch()
            context.progress.start("train", 3)
            if self.how == "hangs":
                time.sleep(600)
            if self.how == "dies" or (self.how == "dies once" and not seen):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "raises":
                raise RuntimeError("a plugin's own error")
            return model
"""


class Watched:
    """Remembers the jobs that began."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.progress: list[SilentProgress] = []

    def started(self, job: Job) -> SilentProgress:
        self.began.append(job.label)
        return SilentProgress()

    def silent(self, job: Job, seconds: float) -> None:
        del job, seconds

    def tell(self, text: str) -> None:
        del text


def test_a_plugin_that_exits_fails_its_job_and_ends_no_run() -> None:
    failed = end_of(job("a"), lambda _: sys.exit(3)).failure
    assert failed is not None
    assert "sys.exit(3)" in failed.message


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Outcome]:
    """What became of jobs whose method dies, hangs or raises, on two workers."""
    monkeypatch.chdir(tmp_path)
    Path("ends.py").write_text(textwrap.dedent(PLUGIN))
    target = f"suite.target.model.path={target_folder(made())}"
    experiment = resolve_experiment(parse_words([SUITE, target, "method=npo"]))
    jobs = [
        Job(
            stage="unlearn",
            key=how.replace(" ", "-"),
            label=how,
            method=PluginRef(use="./ends.py:Ends", settings={"how": how, "place": str(tmp_path)}),
        )
        for how in ("dies once", "dies", "hangs", "raises", "is fine")
    ]
    watcher = Watched()
    share = [{"OMP_NUM_THREADS": "1"}] * 2
    import_ahead()
    here = ThisMachine(run_config(experiment), share, tmp_path / "workers")
    workers = Workers(here, 2, watcher, timeout=8.0)
    found = list(execute([jobs], lambda _: False, workers))
    assert sorted(watcher.began) == sorted(job.label for job in jobs)
    return {outcome.job.label: outcome for outcome in found}


def test_a_worker_that_dies_is_replaced_and_its_job_tried_once_more(
    ends: dict[str, Outcome],
) -> None:
    assert {label: outcome.state for label, outcome in ends.items()} == {
        "dies once": "done",
        "dies": "failed",
        "hangs": "failed",
        "raises": "failed",
        "is fine": "done",
    }
    told = {label: o.failure.message for label, o in ends.items() if o.failure is not None}
    assert "signal 9" in told["dies"]
    assert "fewer workers" in told["dies"]
    assert "job_timeout=8 s" in told["hangs"]
    assert told["raises"] == "RuntimeError: a plugin's own error"
    assert "ends.py" in ends["raises"].trace


def test_workers_that_never_begin_end_the_run(tmp_path: Path) -> None:
    (tmp_path / "workers").touch()  # no folder for their logs
    workers = Workers(ThisMachine({}, [{}], tmp_path / "workers"), 1, Watched())
    with pytest.raises(JobError, match=r"3 workers in a row .* workers=1"):
        list(execute([[job("a")]], lambda _: False, workers))


@pytest.mark.parametrize("kind", [EOFError, ConnectionResetError])
def test_a_process_begins_again_once(kind: type[Exception]) -> None:
    ends: list[Exception | str] = [kind(), "it runs"]

    def start() -> str:
        end = ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    assert begin(start) == "it runs"
    ends = [kind(), kind()]
    with pytest.raises(JobError, match=r"killed twice .* workers=1 does without"):
        begin(start)


@pytest.mark.slow
def test_what_workers_are_forked_from_is_killed_while_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_ahead()
    server: Any = forkserver._forkserver
    ensure, asked = server.ensure_running, []

    def found_alive() -> None:
        asked.append(ensure())
        if len(asked) == 1:
            os.kill(server._forkserver_pid, signal.SIGKILL)

    monkeypatch.setattr(server, "ensure_running", found_alive)
    here = ThisMachine({}, [{}], tmp_path / "workers")
    here.start(0).kill()
    assert len(asked) == 2


def group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_ends_all_workers_within_seconds(tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(textwrap.dedent(PLUGIN))
    target = f"suite.target.model.path={target_folder(made())}"
    settings = ("method.how=hangs", f"method.place={tmp_path}")
    asked = (SUITE, target, "method=./ends.py:Ends", *settings)
    words = ("run", *asked, "workers=2", "allow_weak_target=true")
    with (
        interruptible(),
        subprocess.Popen(
            [sys.executable, "-m", "ilubench", *words],
            cwd=tmp_path,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as run,
    ):
        deadline = time.monotonic() + 60
        while not (tmp_path / "hangs").exists():
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.1)
        os.killpg(run.pid, signal.SIGINT)
        pressed = time.monotonic()
        run.communicate(timeout=30)
        assert time.monotonic() - pressed < 5
        assert run.returncode == 130
        while group_lives(run.pid):  # Python's own tracker of resources ends last
            assert time.monotonic() - pressed < 10
            time.sleep(0.1)
