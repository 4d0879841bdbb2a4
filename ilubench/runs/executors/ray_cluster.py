"""A Ray cluster: how it is reached, which of its nodes can hold workers, whether they fit."""

import contextlib
import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilubench.errors import UsageError
from ilubench.records.keys import library_versions
from ilubench.runs.executors.node_facts import Facts, FolderMark, compare, versions
from ilubench.specs import RaySpec

__all__ = ["Need", "RayCluster", "connect", "counted", "places", "shortage"]

_CONNECT_S = 10.0
"""After so long without an answer an address counts as unreachable."""

_JOIN_S = 60.0
"""So long may a cluster take until it lets a process join."""

_ANSWER_S = 90.0
"""So long may a node take until it has said what it has: its Python starts meanwhile."""

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of a change to come
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # else it writes of lost workers to stdout
    "RAY_raylet_start_wait_time_s": "120",  # seconds that it may take to start on busy cores
}
"""Variables that Ray reads, unless they are set."""

_LEFT_ASIDE = 80 * 2**20
"""Bytes of a Ray of our own for shared objects: there are none but messages."""

_JOIN = """
import logging, sys, ray
try:
    ray.init(sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except RuntimeError:
    sys.exit(3)
except ValueError:
    sys.exit(4)
"""
"""Joins a cluster in a process that can be ended: Ray itself tries for minutes."""


@dataclass(frozen=True)
class Need:
    """What a worker asks of a node."""

    cpus: int
    gpus: int
    memory: int

    def room(self, node: Mapping[str, float]) -> int:
        """Return how many such workers a node's resources hold."""
        asked = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return min(int(node.get(name, 0.0) // much) for name, much in asked.items() if much)

    def __str__(self) -> str:
        """Say it in words."""
        parts = [counted(self.cpus, "core")]
        parts += [counted(self.gpus, "GPU")] if self.gpus else []
        parts += [f"{self.memory / 1e9:.1f} GB"] if self.memory else []
        return ", ".join(parts)


def counted(count: float, what: str) -> str:
    """Return a number of things in words."""
    return f"{count:.0f} {what}{'' if count == 1 else 's'}"


def places(nodes: Sequence[Mapping[str, Any]], need: Need) -> int:
    """Return how many workers the nodes that are alive hold."""
    return sum(need.room(node["Resources"]) for node in nodes if node["Alive"])


def shortage(nodes: Sequence[Mapping[str, Any]], need: Need) -> UsageError:
    """Return the error of a cluster none of whose nodes can hold a worker."""
    there = []
    for node in nodes:
        if node["Alive"]:
            has = node["Resources"]
            parts = [counted(has.get("CPU", 0), "core"), counted(has.get("GPU", 0), "GPU")]
            parts.append(f"{has.get('memory', 0) / 1e9:.1f} GB")
            there.append(f"{node['NodeManagerHostname']} has {', '.join(parts)}")
    told = "; ".join(there[:8]) or "it has no node"
    remedy = "set ray.cpus, ray.memory or device=cpu; ray.wait=SECONDS waits for nodes to come"
    return UsageError(
        f"executor=ray: no node of the cluster has what a worker needs ({need}): {told}; {remedy}"
    )


class RayCluster:
    """A cluster that this process has joined.

    Attributes:
        ray: the library.
        name: what it is called in messages.
    """

    def __init__(self, ray: Any, name: str, store: Path) -> None:  # noqa: ANN401
        """Nothing is looked at yet."""
        self.ray, self.name = ray, name
        self._here, self._store = str(Path.cwd()), store
        self._facts = versions()
        self._checked: set[str] = set()

    def nodes(self) -> list[dict[str, Any]]:
        """Return all nodes, those that are gone too."""
        return list(self.ray.nodes())

    def check(self, need: Need) -> None:
        """Ask every node that can hold a worker what it has.

        Raises:
            UsageError: one has other versions, or does not answer.
            PathError: one does not see the store.
        """
        new = [
            node
            for node in self.nodes()
            if node["Alive"]
            and need.room(node["Resources"])
            and node["NodeID"] not in self._checked
        ]
        with FolderMark(self._store) as mark:
            asked = [self._ask(node["NodeID"], mark.name) for node in new]
            until = time.monotonic() + _ANSWER_S
            for node, answer in zip(new, asked, strict=True):
                name, number = str(node["NodeManagerHostname"]), str(node["NodeID"])
                facts = self._answer(name, answer, until - time.monotonic())
                compare(name, facts, self._facts, answered=mark.answered(number))
                self._checked.add(number)

    def came_to(self, node: str, need: Need) -> None:
        """Ask the nodes that are new, where a worker has come to one of them."""
        if node not in self._checked:
            self.check(need)

    def _ask(self, node: str, mark: str) -> object:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        options = {"num_cpus": 0, "max_retries": 0, "scheduling_strategy": there}
        ask = self.ray.remote(_question()).options(**options)
        found: object = ask.remote(self._here, str(self._store), mark, node)
        return found

    def _answer(self, node: str, answer: object, seconds: float) -> Facts:
        try:
            facts: Facts = self.ray.get(answer, timeout=max(0.0, seconds))
        except self.ray.exceptions.GetTimeoutError as error:
            problem = f"node {node} of the Ray cluster does not answer within {_ANSWER_S:.0f} s"
            raise UsageError(problem) from error
        except self.ray.exceptions.RayError as error:
            problem = f"node {node} of the Ray cluster could not say what it has"
            raise UsageError(f"{problem}: it went, or has another ilubench") from error
        return facts

    def leave(self) -> None:
        """Leave the cluster; a Ray of our own ends."""
        self.ray.shutdown()


def _question() -> Callable[[str, str, str, str], dict[str, str]]:
    """Return the question to a node, which Ray sends as code: it may have another ilubench."""

    def ask(here: str, folder: str, name: str, node: str) -> dict[str, str]:
        import importlib.metadata

        try:
            from ilubench.runs.executors.node_facts import node_facts
        except ImportError:
            try:
                return {"ilubench": importlib.metadata.version("ilubench")}
            except importlib.metadata.PackageNotFoundError:
                return {"ilubench": "absent"}
        return node_facts(here, folder, name, node)

    return ask


def connect(spec: RaySpec, store: Path, tell: Callable[[str], None]) -> RayCluster:
    """Join a cluster, or start a Ray of our own.

    Args:
        spec: which.
        store: the folder that all nodes must see.
        tell: is told where a Ray is started.

    Raises:
        UsageError: Ray is not installed, or the cluster cannot be reached or joined.
    """
    if importlib.util.find_spec("ray") is None:
        raise UsageError("executor=ray needs Ray: pip install 'ilubench[ray]'")
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    address = _address(spec.address)
    plain: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    with _handlers_kept():
        if address is None:
            tell("no Ray cluster is here: one is started on this machine, for this run")
            _start(ray, plain)
            return RayCluster(ray, "this machine", store)
        _try_to_join(address)
        ray.init(address, **plain)
    return RayCluster(ray, address, store)


def _start(ray: Any, plain: Mapping[str, Any]) -> None:  # noqa: ANN401
    try:
        ray.init("local", include_dashboard=False, object_store_memory=_LEFT_ASIDE, **plain)
    except Exception as error:  # what Ray raises here has no class of its own
        ray.shutdown()
        logs = Path(tempfile.gettempdir()) / "ray/session_latest/logs"
        problem = f"Ray could not be started on this machine; {logs} says why"
        raise UsageError(f"{problem}; workers=N shares its cores without Ray") from error


def _address(asked: str) -> str | None:
    """Return the address to join; None to start a Ray of our own.

    Raises:
        UsageError: nothing answers at an address that was given.
    """
    if asked == "local":
        return None
    given = os.environ.get("RAY_ADDRESS", "") if asked == "auto" else asked
    if given in ("", "auto", "local"):
        # what `ray start` leaves; Ray's own search also finds the Rays of other runs
        left = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray/ray_current_cluster"
        found = left.read_text().strip() if left.is_file() else ""
        return found if found and _listens(found) else None
    if not _listens(given):
        where = f"ray.address={given}" if asked != "auto" else f"RAY_ADDRESS={given}"
        raise UsageError(f"{where}: nothing answers there; is the cluster up, and the port open?")
    return given


def _listens(address: str) -> bool:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    with contextlib.suppress(OSError, ValueError):
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        return True
    return False


def _try_to_join(address: str) -> None:
    try:
        done = subprocess.run(
            [sys.executable, "-c", _JOIN, address],
            capture_output=True,
            check=False,
            timeout=_JOIN_S,
        )
    except subprocess.TimeoutExpired as error:
        problem = f"what answers at {address} let nobody join within {_JOIN_S:.0f} s"
        remedy = "is it Ray's own port (ray start --port, or ray:// with the client's)?"
        raise UsageError(f"{problem}; {remedy}") from error
    if done.returncode == 0:
        return
    mine = f"Ray {library_versions(('ray',))['ray']} and Python {sys.version.split()[0]}"
    if address.startswith("ray://") and importlib.util.find_spec("grpc") is None:
        raise UsageError(f"{address}: ray:// needs more of Ray: pip install 'ray[client]'")
    problem = f"the Ray cluster at {address} cannot be joined with {mine}"
    remedy = "it needs the same versions, and this machine in it (`ray start --address=...`)"
    raise UsageError(f"{problem}; {remedy}")


@contextlib.contextmanager
def _handlers_kept() -> Any:  # noqa: ANN401
    """Take back what Ray does about SIGTERM: it would leave without a word."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
