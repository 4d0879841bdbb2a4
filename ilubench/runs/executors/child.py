"""A process that carries out jobs for another: how it starts, and how it is heard."""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeAlias, TypeVar

from ilubench.errors import JobError

__all__ = ["FORKS", "Call", "Told", "begin", "how_ended", "import_ahead", "settle"]

Begun = TypeVar("Begun")

FORKS = "forkserver" in multiprocessing.get_all_start_methods()

_IMPORTS = "ilubench.runs.executors.imports"

Call: TypeAlias = tuple[str, tuple[object, ...]]
"""A call of a job's progress, as a process sends it."""


def import_ahead() -> None:
    """Begin to import, beside this process, what workers on CPUs will be forked from."""
    if FORKS:
        multiprocessing.set_forkserver_preload([_IMPORTS])
        multiprocessing.forkserver.ensure_running()


def begin(start: Callable[[], Begun]) -> Begun:
    """Start a process; again where the one that it is forked from was killed meanwhile.

    Raises:
        JobError: that happens twice.
    """
    with suppress(EOFError, ConnectionError):
        return start()
    time.sleep(0.5)  # an end is heard before it can be waited for, and till then it counts as alive
    try:
        return start()
    except (EOFError, ConnectionError) as error:
        problem = "what workers are forked from was killed twice (out of memory?)"
        raise JobError(f"{problem}; workers=1 does without them") from error


def how_ended(process: BaseProcess) -> str:
    """Return in words how a process ended, once it has."""
    process.join()
    code = process.exitcode or 0
    memory = " (SIGKILL: out of memory?)" if -code == signal.SIGKILL else ""
    return f"signal {-code}{memory}" if code < 0 else f"exit code {code}"


class Told:
    """A job's progress, sent to the process that shows it."""

    def __init__(self, tell: Callable[[Call], None]) -> None:
        """Send by ``tell``."""
        self._tell = tell

    def start(self, phase: str, total: int) -> None:
        """Send the begin of a phase."""
        self._tell(("start", (phase, total)))

    def advance(self, done: int, note: str = "") -> None:
        """Send how far it is; a process whose parent is gone ends here."""
        self._tell(("advance", (done, note)))


def settle(log: Path) -> None:
    """Make this process a worker: what it prints goes into a file, Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", buffering=1, encoding="utf-8") as chatter:
        os.dup2(chatter.fileno(), sys.stdout.fileno())
        os.dup2(chatter.fileno(), sys.stderr.fileno())
