"""Several Ray nodes on one machine, and runs on them."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "180"}


class Nodes:
    """A cluster whose nodes can be killed."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        quick = {"num_cpus": 1, "include_log_monitor": False, "no_monitor": True}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=quick)
        self.others: list[Any] = [
            self._cluster.add_node(wait=False, **quick) for _ in range(count - 1)
        ]
        self._all = [self._cluster.head_node, *self.others]
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def actors(self) -> list[int]:
        """Return the process ids of the nodes' actors that carry out jobs."""
        raylets = {raylet for node in self._all for raylet in _raylets(node)}
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                number = int(folder.name)
                if (folder / "cmdline").read_bytes().startswith(b"ray::_Actor"):
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                    found += [number] * (int(parent) in raylets)
        return sorted(found)

    def kill_one(self) -> None:
        """Kill the raylet of a node that is not the first, as a machine that goes."""
        for raylet in _raylets(self.others.pop()):
            os.kill(raylet, signal.SIGKILL)

    def close(self) -> None:
        self._cluster.shutdown()


def _raylets(node: Any) -> list[int]:
    return [one.process.pid for one in node.all_processes.get("raylet", ())]


@contextlib.contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """Yield a cluster of so many nodes of one core each."""
    with mock.patch.dict(os.environ, _QUIET):
        made = Nodes(count)
        try:
            yield made
        finally:
            made.close()


class Kills(threading.Thread):
    """Kills workers and nodes.

    Args:
        store: where artifacts appear.
        cluster: whose.
        at: numbers of artifacts -> `worker` or `node`, killed when so many are there.
    """

    def __init__(self, store: Path, cluster: Nodes, at: Mapping[int, str]) -> None:
        super().__init__(daemon=True)
        self._store, self._cluster, self._at = store, cluster, at
        self.done: list[str] = []
        self.ended = False

    def run(self) -> None:
        for count, what in self._at.items():
            while len(list(self._store.glob("*/*/DONE"))) < count:
                if self.ended:
                    return
                time.sleep(0.02)
            if what == "node":
                self._cluster.kill_one()
            else:
                os.kill(self._cluster.actors()[-1], signal.SIGKILL)
            self.done.append(f"{what} at {count}")
