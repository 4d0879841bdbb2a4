"""Workers that are actors of a Ray cluster."""

import contextlib
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ilubench.runs.executors.base import Ended, Watcher
from ilubench.runs.executors.child import Call, settle
from ilubench.runs.executors.ray_cluster import Need, RayCluster, connect, counted, places, shortage
from ilubench.runs.executors.worker import Worker
from ilubench.runs.executors.workers import Lost, Starts, Workers
from ilubench.runs.jobs import Job
from ilubench.specs import RunSpec

__all__ = ["RayHost", "ray_workers"]

_POLL_S = 1.0
"""So long a worker is asked for news at a time."""

_GATHER_S = 0.2
"""Steps are reported together, so long at a time."""

_PASSED_ON = ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE")
"""Variables of this process that workers have too, wherever they are."""


class _Actor:
    """A worker, in a process of a node: carries out a job in one thread, tells of it in another."""

    def __init__(self, config: Mapping[str, JsonValue], here: str, log: str) -> None:
        os.chdir(here)
        settle(Path(log))
        self._news: queue.SimpleQueue[Ended | Call] = queue.SimpleQueue()
        self._worker = Worker(config, self._news.put)

    def arrive(self) -> str:
        """Return the id of the node that it is on."""
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def give(self, job: Job) -> None:
        """Begin a job."""
        threading.Thread(target=self._carry_out, args=(job,), daemon=True).start()

    def _carry_out(self, job: Job) -> None:
        try:
            ended = self._worker.carry_out(job)
        except BaseException:  # noqa: BLE001 - a plugin's SystemExit would end the thread alone
            os._exit(1)
        self._news.put(ended)

    def hear(self) -> list[Ended | Call]:
        """Return what there is to tell, waiting for it."""
        told: list[Ended | Call] = []
        with contextlib.suppress(queue.Empty):
            told.append(self._news.get(timeout=_POLL_S))
            until = time.monotonic() + _GATHER_S
            while not isinstance(told[-1], Ended):
                told.append(self._news.get(timeout=max(0.0, until - time.monotonic())))
        return told

    def close(self) -> None:
        """Stop the engine."""
        self._worker.close()


class RayWorker:
    """A worker, seen from the driver.

    Attributes:
        actor: its handle.
        news: the answer that is waited for.
        ready: whether it is there; a cluster may first have to find room.
        node: its node's id, then.
    """

    def __init__(self, ray: Any, actor: Any) -> None:  # noqa: ANN401
        """It is on its way."""
        self._ray, self.actor = ray, actor
        self.news = actor.arrive.remote()
        self.ready, self.node = False, ""

    def give(self, job: Job) -> None:
        """Send a job."""
        self.actor.give.remote(job)

    def kill(self) -> None:
        """End it at once."""
        self._ray.kill(self.actor, no_restart=True)


class RayHost:
    """Starts actors and listens to them.

    Args:
        cluster: where.
        need: of each.
        config: of the run, as `config.yaml` holds it.
        folder: of the workers' logs; all nodes see it.
        wait: seconds in which there must be room for one.
    """

    def __init__(
        self,
        cluster: RayCluster,
        need: Need,
        config: Mapping[str, JsonValue],
        folder: Path,
        wait: float,
    ) -> None:
        """No worker is started yet."""
        self._cluster, self._need, self._wait = cluster, need, wait
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        self._options: dict[str, Any] = {
            "num_cpus": need.cpus,
            "num_gpus": need.gpus,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(need.cpus), **passed_on}},
        }
        if need.memory:
            self._options["memory"] = need.memory
        self._config, self._here, self._folder = dict(config), str(Path.cwd()), folder.resolve()
        self._ray = cluster.ray
        self._starts = Starts()
        self._crowded_since: float | None = None

    def start(self, number: int) -> RayWorker:
        """Ask for a worker; it comes when a node has room."""
        actor = self._ray.remote(_Actor).options(**self._options)
        log = str(self._folder / f"{number}.log")
        return RayWorker(self._ray, actor.remote(self._config, self._here, log))

    def hear(
        self, links: Sequence[RayWorker], seconds: float
    ) -> Iterator[tuple[RayWorker, Ended | Call | Lost]]:
        """Yield what workers say, waiting for the first of it.

        Raises:
            UsageError: no node can hold a worker, or one came to a node that does not fit.
            JobError: workers die again and again before they have begun.
        """
        by_news = {link.news: link for link in links}
        self._look_for_room(links)
        done, _ = (
            self._ray.wait(list(by_news), num_returns=1, timeout=seconds) if links else ((), ())
        )
        for news in done:
            link = by_news[news]
            try:
                told = self._ray.get(news)
            except self._ray.exceptions.RayError:
                yield link, self._loss(link)
                continue
            if not link.ready:
                self._cluster.came_to(told, self._need)
                link.ready, link.node = True, told
                self._starts.succeeded()
                told = []
            link.news = link.actor.hear.remote()
            for message in told:
                yield link, message

    def close(self, idle: Sequence[RayWorker], busy: Sequence[RayWorker]) -> None:
        """End the actors and leave the cluster."""
        closing = [link.actor.close.remote() for link in idle if link.ready]
        if closing:
            self._ray.wait(closing, num_returns=len(closing), timeout=2.0)
        for link in (*idle, *busy):
            link.kill()
        self._cluster.leave()

    def _look_for_room(self, links: Sequence[RayWorker]) -> None:
        if any(link.ready for link in links):
            self._crowded_since = None
            return
        nodes, now = self._cluster.nodes(), time.monotonic()
        if places(nodes, self._need):
            self._crowded_since = None
        elif self._crowded_since is None:
            self._crowded_since = now
        elif now - self._crowded_since > self._wait:
            raise shortage(nodes, self._need)

    def _loss(self, link: RayWorker) -> Lost:
        with contextlib.suppress(self._ray.exceptions.RayError):
            link.kill()  # one that only cannot be reached must not go on beside its successor
        if not link.ready:
            self._starts.failed(f"; executor=ray: {self._folder} and Ray's logs say why")
        alive = {node["NodeID"]: node["Alive"] for node in self._cluster.nodes()}
        if link.node and not alive.get(link.node, False):
            return Lost("its node went", "the cluster loses nodes")
        remedy = "ray.memory=GB leaves more to each worker"
        return Lost("its worker ended (killed, or out of memory?)", remedy)


def ray_workers(
    run: RunSpec,
    need: Need,
    left: int,
    config: Mapping[str, JsonValue],
    folder: Path,
    watcher: Watcher,
) -> Workers[RayWorker]:
    """Return a run's workers on a Ray cluster, whose nodes were looked at.

    Args:
        run: what was asked for.
        need: of each worker.
        left: how many jobs there are for them.
        config: of the run, as `config.yaml` holds it.
        folder: of their logs.
        watcher: is told of the jobs.

    Raises:
        UsageError: no cluster, no node with room, or one with other versions.
        PathError: a node does not see the store.
    """
    cluster = connect(run.ray, Path(run.out).resolve() / "store", watcher.tell)
    try:
        nodes = cluster.nodes()
        room = places(nodes, need)
        if not room:  # the workers' asking is what makes a cluster grow
            watcher.tell(f"waits up to {run.ray.wait:g} s for a node with {need}")
        cluster.check(need)
        count = min(left, room or left if run.workers == "auto" else run.workers)
        watcher.tell(f"{counted(count, 'worker')} on {cluster.name} ({need} each)")
        if room and count > room:
            watcher.tell(f"the cluster has room for {room} of them; the others wait")
        host = RayHost(cluster, need, config, folder, run.ray.wait)
        return Workers(host, count, watcher, run.job_timeout)
    except BaseException:
        cluster.leave()
        raise
