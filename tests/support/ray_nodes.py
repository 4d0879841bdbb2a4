"""Several Ray nodes on one machine, and runs on them."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Nodes:
    """A cluster whose nodes can be killed."""

    def __init__(self, count: int) -> None:
        from ray.cluster_utils import Cluster

        quick = {"num_cpus": 1, "include_log_monitor": False, "no_monitor": True}
        self._cluster: Any = Cluster(initialize_head=True, head_node_args=quick)
        self.others: list[Any] = [
            self._cluster.add_node(wait=False, **quick) for _ in range(count - 1)
        ]
        self._cluster.wait_for_nodes()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def kill_one(self) -> None:
        """Kill the raylet of a node that is not the first, as a machine that goes."""
        node = self.others.pop()
        for process in node.all_processes["raylet"]:
            os.kill(process.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self._cluster.shutdown()


@contextlib.contextmanager
def nodes(count: int) -> Iterator[Nodes]:
    """Yield a cluster of so many nodes of one core each."""
    before = os.environ.get("RAY_USAGE_STATS_ENABLED")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    made = Nodes(count)
    try:
        yield made
    finally:
        made.close()
        if before is None:
            del os.environ["RAY_USAGE_STATS_ENABLED"]


def workers_with_jobs() -> list[int]:
    """Return the process ids of this machine's actors that carry out jobs."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if (folder / "cmdline").read_bytes().startswith(b"ray::_Actor"):
                    found.append(int(folder.name))
    return sorted(found)


class Kills(threading.Thread):
    """Kills a worker, then nodes, each when so many artifacts are there.

    Args:
        store: where artifacts appear.
        cluster: whose nodes are killed.
        at: numbers of artifacts; at the first a worker is killed, then nodes.
    """

    def __init__(self, store: Path, cluster: Nodes, at: tuple[int, ...]) -> None:
        super().__init__(daemon=True)
        self._store, self._cluster, self._at = store, cluster, at
        self.done: list[str] = []
        self.ended = False

    def run(self) -> None:
        for number, count in enumerate(self._at):
            while len(list(self._store.glob("*/*/DONE"))) < count:
                if self.ended:
                    return
                time.sleep(0.02)
            if number == 0:
                os.kill(workers_with_jobs()[-1], signal.SIGKILL)
                self.done.append(f"worker at {count}")
            else:
                self._cluster.kill_one()
                self.done.append(f"node at {count}")
