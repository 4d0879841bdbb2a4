"""A job of a planned run as a scheduler carries it out: named by folder and key, on any node."""

import json
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from pydantic import JsonValue

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

    from ilubench.interfaces import Progress

__all__ = ["PlannedJob", "Report", "read_sign", "sign_path"]

_SIGN_S = 2.0
"""How often a job writes how far it is, at most."""


class Report(TypedDict):
    """How a job ended, in plain data.

    Attributes:
        wrong: the kind of error where what was asked for or the data are at fault, else empty.
        message: of the error or failure; empty where it is done.
        kind: of the failure.
    """

    seconds: float
    wrong: Literal["", "usage", "data"]
    message: str
    kind: str


def sign_path(folder: Path, key: str) -> Path:
    """Return the file in which a job of a run says how far it is."""
    return folder / "slurm" / "signs" / f"{key}.json"


def read_sign(folder: Path, key: str) -> dict[str, Any]:
    """Return what a job said last: host, phase, total, done, note; empty where it said nothing."""
    with suppress(OSError, ValueError):
        found = json.loads(sign_path(folder, key).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


class _Signs:
    """Progress that is written to a file, which the process that shows it reads."""

    def __init__(self, path: Path) -> None:
        self._path, self._written = path, 0.0
        self._sign: dict[str, JsonValue] = {"host": socket.gethostname()}

    def start(self, phase: str, total: int) -> None:
        """Write the begin of a phase."""
        self._sign |= {"phase": phase, "total": total, "done": 0, "note": ""}
        self._write()

    def advance(self, done: int, note: str = "") -> None:
        """Write how far it is, now and then."""
        self._sign |= {"done": done, "note": note}
        if time.monotonic() - self._written > _SIGN_S:
            self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        aside = self._path.with_suffix(".tmp")
        with suppress(OSError):  # a job does not fail because nobody can see how far it is
            self._path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(json.dumps(self._sign), encoding="utf-8")
            aside.replace(self._path)


class PlannedJob:
    """What submitit starts: the job's folder and key come as plain arguments."""

    def __init__(self, threads: int, versions: Mapping[str, str]) -> None:
        """Compute with so many threads, and with no other versions."""
        self._threads, self._versions = threads, versions

    def __call__(self, folder: str, key: str) -> Report:
        """Carry the job out and say how it ended."""
        os.environ.setdefault("OMP_NUM_THREADS", str(self._threads))  # before torch is imported
        from ilubench.errors import DataError, UsageError
        from ilubench.runs.carry_out import carry_out_planned
        from ilubench.runs.executors.node_facts import compare, versions

        begun = time.monotonic()
        progress: Progress = _Signs(sign_path(Path(folder), key))
        progress.start("begin", 1)
        try:
            compare(socket.gethostname(), versions(), self._versions, answered=True)
            outcome = carry_out_planned(Path(folder), key, progress)
        except (UsageError, DataError) as error:
            kind: Literal["usage", "data"] = "usage" if isinstance(error, UsageError) else "data"
            return Report(seconds=0.0, wrong=kind, message=str(error), kind=type(error).__name__)
        seconds, failure = time.monotonic() - begun, outcome.failure
        if failure is None:
            return Report(seconds=seconds, wrong="", message="", kind="")
        return Report(seconds=seconds, wrong="", message=failure.message, kind=failure.kind)

    def checkpoint(self, folder: str, key: str) -> "DelayedSubmission":
        """Return what is queued again before the node is taken away: the store has the state."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, folder, key)
