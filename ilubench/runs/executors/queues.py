"""What waits and runs: Slurm's queue, or processes of this machine that stand in for it."""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from ilubench.errors import UsageError

__all__ = ["LocalQueue", "Place", "Queue", "SlurmQueue"]

_ANSWER_S = 60.0
"""A controller that is busy answers late."""


class Place(NamedTuple):
    """Where a job of the queue is: its state in Slurm's word, the nodes, why it waits."""

    state: str
    nodes: str = ""
    reason: str = ""


class Queue(Protocol):
    """Jobs that were handed over.

    Attributes:
        every_s: how often it may be asked.
        lag_s: after so long what a job wrote is visible here.
    """

    every_s: float
    lag_s: float

    def places(self) -> Mapping[str, Place] | None:
        """Return what the queue knows, by job; None where it does not answer."""

    def last_state(self, job: str) -> str:
        """Return the state of a job that the queue has forgotten; empty where nobody knows."""

    def cancel(self, jobs: Iterable[str]) -> None:
        """End jobs, whether they wait or run."""


class SlurmQueue:
    """Slurm's, asked by its own commands: accounting (sacct) need not be set up."""

    every_s = 10.0
    lag_s = 75.0  # NFS remembers for a minute that a file was not there

    def __init__(self, name: str) -> None:
        """Look after the jobs of a name.

        Raises:
            UsageError: there is no Slurm here.
        """
        self._name = name
        lacking = [word for word in ("sbatch", "srun", "squeue") if shutil.which(word) is None]
        if lacking:
            remedy = "give the command where jobs are submitted, or try slurm.cluster=local"
            raise UsageError(f"executor=slurm: this machine has no {lacking[0]}; {remedy}")

    def places(self) -> Mapping[str, Place] | None:
        """Return the jobs, also those that ended some minutes ago."""
        asked = ("squeue", "--me", f"--name={self._name}", "--states=all", "--array", "--noheader")
        told = _output(*asked, "--format=%i|%T|%N|%r")
        if told is None:
            return None
        lines = (line.split("|", 3) for line in told.splitlines())
        return {
            job: Place(state, nodes, "" if reason == "None" else reason)
            for job, state, nodes, reason in lines
        }

    def last_state(self, job: str) -> str:
        """Return it from the accounting, where there is one."""
        told = _output("sacct", "--allocations", "--noheader", "--parsable2", "-oState", f"-j{job}")
        return (told or "").partition("\n")[0].partition(" ")[0]

    def cancel(self, jobs: Iterable[str]) -> None:
        """End jobs by scancel, which does not wait for their end."""
        _output("scancel", *jobs, wait=4.0)


class LocalQueue:
    """Processes of this machine, which submitit names by their numbers."""

    every_s = 0.5
    lag_s = 0.5

    def __init__(self, folder: Path) -> None:
        """Look after the processes that work in a folder."""
        self._folder = str(folder)

    def places(self) -> Mapping[str, Place]:
        """Return the processes that live."""
        host = socket.gethostname()
        return {job: Place("RUNNING", host) for job, _ in self._processes()}

    def last_state(self, job: str) -> str:  # noqa: ARG002
        """Return nothing: nobody keeps books."""
        return ""

    def cancel(self, jobs: Iterable[str]) -> None:
        """Kill the processes, and those that they started."""
        ended = set(jobs)
        for job in ended & {job for job, _ in self._processes()}:
            _send(job, signal.SIGSTOP)  # so that it starts no other while they are listed
        for job, parent in self._processes():
            if job in ended or parent in ended:
                _send(job, signal.SIGKILL)

    def _processes(self) -> list[tuple[str, str]]:
        """Return number and parent of each process that works in the folder."""
        lines = (_output("ps", "-A", "-ww", "-o", "pid=,ppid=,command=") or "").splitlines()
        fields = (line.split(None, 2) for line in lines if self._folder in line)
        return [(job, parent) for job, parent, command in fields if "submitit" in command]


def _send(job: str, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(int(job), number)


def _output(*command: str, wait: float = _ANSWER_S) -> str | None:
    """Return what a command prints; None where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=wait)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
