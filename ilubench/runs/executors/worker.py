"""What happens inside a worker: jobs, one after the other, with what they share kept."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from pydantic import JsonValue

from ilubench.errors import DataError, UsageError
from ilubench.runs.executors.base import Ended, end_of
from ilubench.runs.jobs import Job

if TYPE_CHECKING:
    from ilubench.runs.stages.workbench import Workbench

__all__ = ["Call", "Worker", "settle"]

Call: TypeAlias = tuple[str, tuple[object, ...]]
"""A call of a job's progress, as a worker sends it."""


class Worker:
    """Keeps imports, engine and bound scorers from job to job.

    Args:
        config: of the run, as `config.yaml` holds it.
        tell: sends how far a job is to the process that shows it.
    """

    def __init__(self, config: Mapping[str, JsonValue], tell: Callable[[Call], None]) -> None:
        """Load nothing before the first job."""
        self._config, self._tell = config, tell
        self._bench: Workbench | None = None

    def carry_out(self, job: Job) -> Ended:
        """Carry out a job and return how it ended, as any process can read it."""
        return _portable(end_of(job, self._do))

    def _do(self, job: Job) -> None:
        from ilubench.experiments.experiment import restore_experiment
        from ilubench.runs.carry_out import carry_out
        from ilubench.runs.stages.workbench import make_bench

        if self._bench is None:
            self._bench = make_bench(restore_experiment(self._config, Path("config.yaml")))
        carry_out(self._bench, job, _Told(self._tell))

    def close(self) -> None:
        """Stop the engine."""
        if self._bench is not None:
            self._bench.close()


class _Told:
    """A job's progress, sent to the process that shows it."""

    def __init__(self, tell: Callable[[Call], None]) -> None:
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


def _portable(ended: Ended) -> Ended:
    """Give an error a class that any process can make: a plugin's own may not be known there."""
    for kind in (UsageError, DataError):
        if isinstance(ended.wrong_input, kind):
            return replace(ended, wrong_input=kind(str(ended.wrong_input)))
    return ended
