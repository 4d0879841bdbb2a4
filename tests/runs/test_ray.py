"""Jobs as actors of a Ray cluster: which nodes fit, what is lost, what is refused."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from doubles import SilentProgress
from ray_nodes import Kills, nodes
from runs import (
    SUITE,
    WEAK,
    command,
    environment,
    interruptible,
    made,
    process,
    rows,
    samples,
    target_folder,
    weights,
)

from ilubench.errors import PathError, SpecError, UsageError
from ilubench.runs.executors.base import Ended, execute
from ilubench.runs.executors.child import Call
from ilubench.runs.executors.node_facts import FolderMark, compare, node_facts, versions
from ilubench.runs.executors.ray_actors import RayHost
from ilubench.runs.executors.ray_cluster import Need, connect, places, shortage
from ilubench.runs.executors.workers import Lost, Workers
from ilubench.runs.jobs import Job
from ilubench.runs.stages.devices import pick_device
from ilubench.specs import RaySpec, RunSpec
from ilubench.specs.yaml_files import validate_spec


def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, Any]:
    return {"NodeManagerHostname": name, "Alive": alive, "Resources": resources}


def test_a_cluster_has_room_for_as_many_workers_as_its_nodes_hold() -> None:
    both = [node("a", CPU=5, memory=9e9), node("b", CPU=2, memory=9e9, GPU=1)]
    assert places(both, Need(2, 0, 4 * 10**9)) == 3
    assert places(both, Need(2, 0, 6 * 10**9)) == 2
    assert places(both, Need(1, 1, 0)) == 1
    assert places([node("gone", alive=False, CPU=8)], Need(1, 0, 0)) == 0
    assert places([node("head")], Need(1, 0, 0)) == 0  # started with --num-cpus=0


def test_a_worker_that_fits_nowhere_is_refused_with_what_the_nodes_have() -> None:
    told = str(shortage([node("a", CPU=4, memory=9e9), node("b", alive=False)], Need(1, 1, 0)))
    assert "1 core, 1 GPU" in told
    assert "a has 4 cores, 0 GPUs, 9.0 GB" in told
    assert "b has" not in told
    assert "it has no node" in str(shortage([], Need(1, 0, 0)))


def test_a_run_does_not_wait_for_ever_for_room(tmp_path: Path) -> None:
    there = [node("a", CPU=4)]
    cluster: Any = SimpleNamespace(ray=None, nodes=lambda: there)
    host = RayHost(cluster, Need(1, 1, 0), {}, tmp_path, wait=0.0)
    assert list(host.hear([], 0.0)) == []
    with pytest.raises(UsageError, match="no node of the cluster has what a worker needs"):
        list(host.hear([], 0.0))
    there.append(node("b", CPU=1, GPU=1))  # the cluster grew
    assert list(host.hear([], 0.0)) == []


@pytest.mark.parametrize(
    "address", ["auto", "local", "10.0.0.1:6379", "head.lab:6379", "ray://[::1]:10001"]
)
def test_addresses(address: str) -> None:
    assert validate_spec(RaySpec, {"address": address}, source="words").address == address


@pytest.mark.parametrize("address", ["", "head", "http://head:8265", "head:", ":6379", "ray://"])
def test_what_is_no_address_is_refused_with_the_forms(address: str) -> None:
    with pytest.raises(SpecError, match=r"HOST:PORT or ray://HOST:PORT"):
        validate_spec(RaySpec, {"address": address}, source="words")


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_no_ray_and_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == "ray" else found(n))
    with pytest.raises(UsageError, match=r"pip install 'ilubench\[ray\]'"):
        connect(RaySpec(), tmp_path, print)
    monkeypatch.undo()
    pytest.importorskip("ray")
    port = closed_port()
    for address in (f"127.0.0.1:{port}", f"ray://127.0.0.1:{port}"):
        with pytest.raises(UsageError, match="nothing answers there"):
            connect(RaySpec(address=address), tmp_path, print)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(UsageError, match=f"RAY_ADDRESS=127.0.0.1:{port}"):
        connect(RaySpec(), tmp_path, print)


def test_a_cluster_may_have_gpus_that_this_machine_lacks() -> None:
    assert pick_device(RunSpec(executor="ray", device="cuda")) == "cuda"
    assert pick_device(RunSpec(executor="ray", device="cpu")) == "cpu"
    with pytest.raises(UsageError, match="write device=cuda"):
        pick_device(RunSpec(executor="ray", device="cuda:1"))


# --------------------------------------------------------------------------- nodes that do not fit


def test_a_node_with_other_versions_or_code_is_refused_by_name() -> None:
    here = {"python": "3.12.1", "ilubench": "1.0", "torch": "2.9", "vllm": "absent", "code": "aa"}
    compare("n1", here, here, answered=True)
    other = {**here, "torch": "2.8", "python": "3.11.4"}
    with pytest.raises(UsageError, match=r"n1 has .*torch 2.8 \(here 2.9\)") as told:
        compare("n1", other, here, answered=True)
    assert "python 3.11.4 (here 3.12.1)" in str(told.value)
    with pytest.raises(UsageError, match="node n2 has no ilubench"):
        compare("n2", {"ilubench": "absent"}, here, answered=False)
    with pytest.raises(UsageError, match=r"ilubench 0.9 \(here 1.0\)"):  # before there were facts
        compare("n3", {"ilubench": "0.9"}, here, answered=False)
    with pytest.raises(UsageError, match=r"node n4 has other code of ilubench 1\.0"):
        compare("n4", {**here, "code": "bb"}, here, answered=True)


def test_a_node_must_see_the_store(tmp_path: Path) -> None:
    store, mine = tmp_path / "store", versions()
    with FolderMark(store) as mark:
        facts = node_facts(str(tmp_path), str(store), mark.name, "n1")
        assert not mark.answered("n2")
        assert mark.answered("n1")
        compare("n1", facts, mine, answered=True)
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / mark.name).touch()
        facts = node_facts(str(tmp_path), str(elsewhere), mark.name, "n2")
        with pytest.raises(PathError, match="node n2 has another folder of that name"):
            compare("n2", facts, mine, answered=mark.answered("n2"))
        for here, folder in ((tmp_path, tmp_path / "none"), (tmp_path / "none", store)):
            facts = node_facts(str(here), str(folder), mark.name, "n3")
            with pytest.raises(PathError, match=r"node n3: .*none.*no such file.*all nodes"):
                compare("n3", facts, mine, answered=mark.answered("n3"))
        node_facts(str(tmp_path), str(store), mark.name, "n4")  # whose answer nobody reads
    assert [path.name for path in store.iterdir()] == []


# ------------------------------------------------------------------- workers that come and go


class Link:
    def __init__(self) -> None:
        self.ready, self.alive = False, True
        self.job: Job | None = None

    def give(self, job: Job) -> None:
        self.job = job

    def kill(self) -> None:
        self.alive = False


class Unsteady:
    """A host whose workers are ready when they were listened to once; some are lost."""

    def __init__(self, lost_idle: int = 0, lost_busy: int = 0) -> None:
        self.links: list[Link] = []
        self._idle, self._busy = lost_idle, lost_busy

    def start(self, number: int) -> Link:
        self.links.append(Link())
        return self.links[-1]

    def hear(
        self, links: Sequence[Link], seconds: float
    ) -> Iterator[tuple[Link, Ended | Call | Lost]]:
        for link in links:
            if not link.ready and self._idle:
                self._idle -= 1
                yield link, Lost("its node went", "")
            elif not link.ready:
                link.ready = True
            elif link.job and self._busy:
                self._busy -= 1
                yield link, Lost("its node went", "the cluster loses nodes")
            elif link.job:
                job, link.job = link.job, None
                yield link, ("start", ("train", 1))
                yield link, Ended(job, 0.0)

    def close(self, idle: Sequence[Link], busy: Sequence[Link]) -> None:
        for link in (*idle, *busy):
            link.kill()


class Watched:
    def started(self, job: Job) -> SilentProgress:
        return SilentProgress()

    def silent(self, job: Job, seconds: float) -> None:
        pass

    def tell(self, text: str) -> None:
        pass


def outcomes(host: Unsteady, jobs: int) -> list[str]:
    planned = [Job(stage="score", key=str(n), label=str(n)) for n in range(jobs)]
    found = list(execute([planned], lambda _: False, Workers(host, 2, Watched())))
    assert len(found) == jobs
    return [o.failure.message if o.failure else o.state for o in found]


def test_jobs_wait_for_workers_and_those_lost_idle_cost_no_try() -> None:
    host = Unsteady(lost_idle=3)
    assert outcomes(host, 5) == ["done"] * 5
    assert len(host.links) == 5  # two, and one for each that was lost


def test_a_job_that_loses_its_worker_twice_fails_and_the_others_are_done() -> None:
    assert sorted(outcomes(Unsteady(lost_busy=2), 4)).count("done") >= 3
    one = Unsteady(lost_busy=2)
    planned = [Job(stage="score", key="a", label="a")]
    (found,) = execute([planned], lambda _: False, Workers(one, 1, Watched()))
    assert found.failure is not None
    assert found.failure.message == "its node went, 2 times; the cluster loses nodes"


# --------------------------------------------------------------------------- a real cluster


@pytest.mark.slow
def test_a_run_on_a_cluster_that_loses_a_node(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    target = f"suite.target.model.path={target_folder(made())}"
    words = ("run", SUITE, target, "method=npo", "seeds=0..1", "attacks=gsm8k")
    with nodes(2) as cluster:
        kills = Kills(tmp_path / "ray" / "store", cluster, at={4: "node"})
        kills.start()
        address = cluster.address
        place = (f"ray.address={address}", f"out={tmp_path / 'ray'}")
        done = command(*words, "executor=ray", *place)
        kills.ended = True
    assert done.code == 0, done.err
    assert kills.done == ["node at 4"]
    assert f"2 workers on {address}" in done.err
    assert command(*words, f"out={tmp_path / 'serial'}").code == 0
    one, two = tmp_path / "serial", tmp_path / "ray"
    assert samples(one) == samples(two)
    assert weights(one) == weights(two)
    record, jobs, failures = rows(two)
    assert (record, sorted(jobs), failures) == (rows(one)[0], sorted(rows(one)[1]), [])
    assert not list(two.glob("store/.*"))


ONCE = """
import time
from pathlib import Path
from ilubench.interfaces import Method

class HangsTwice(Method):
    place: str

    def unlearn(self, model, data, context):
        begun = Path(self.place) / "begun"
        with begun.open("a") as file:
            file.write("x")
        context.progress.start("train", 3)
        if len(begun.read_text()) <= 2:
            time.sleep(600)
        return model
"""


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    (tmp_path / "once.py").write_text(ONCE)
    target = f"suite.target.model.path={target_folder(made())}"
    method = ("method=./once.py:HangsTwice", f"method.place={tmp_path}")
    words = (SUITE, target, *method, "seeds=0", "attacks=none", WEAK)
    begun = tmp_path / "begun"

    def started(address: str) -> "subprocess.Popen[str]":
        count = len(begun.read_text()) if begun.exists() else 0
        run = subprocess.Popen(
            [sys.executable, "-m", "ilubench", "run", *words, "executor=ray", address],
            cwd=tmp_path,
            env=environment(),
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        deadline = time.monotonic() + 240
        while not begun.exists() or len(begun.read_text()) == count:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return run

    with nodes(2) as cluster, interruptible():
        address = f"ray.address={cluster.address}"
        killed = started(address)
        assert cluster.actors()
        killed.kill()
        killed.communicate()
        at = time.monotonic()
        while cluster.actors():  # they end with the command that they worked for
            assert time.monotonic() - at < 60
            time.sleep(0.1)
        print(f"its workers ended after {time.monotonic() - at:.1f} s")
        pressed = started(address)
        os.killpg(pressed.pid, signal.SIGINT)
        at = time.monotonic()
        told = pressed.communicate(timeout=60)[1]
        print(f"Ctrl-C took {time.monotonic() - at:.1f} s")
        assert pressed.returncode == 130, told
        assert time.monotonic() - at < 5
        done = process("run", *words, "executor=ray", address, cwd=tmp_path)
    assert done.code == 0, done.err
    assert begun.read_text() == "xxx"


def test_ray_is_a_word_of_a_run() -> None:
    run = RunSpec.model_validate({"executor": "ray", "ray": {"memory": 8}})
    assert run.ray.memory == 8
    with pytest.raises(SpecError, match=r"executor"):
        validate_spec(RunSpec, {"executor": "dask"}, source="words")
