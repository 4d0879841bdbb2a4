"""A small run with workers, undisturbed and disturbed, and the processes that belong to it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from runs import SUITE, WEAK, environment, interruptible, rows, samples, weights

MARK = "ILUBENCH_FAULTS"
"""In the environment of a run and of all that it starts."""

WORDS = ("run", SUITE, WEAK, "method=npo", "seeds=0,1")
JOBS = 15
AWAY_S = 30.0
"""So long may processes stay that lost the one that they worked for."""


@dataclass(frozen=True)
class Base:
    """A run that nothing disturbed."""

    out: Path
    seconds: float

    @cached_property
    def found(self) -> tuple[Any, ...]:
        """All that a disturbed run must end with."""
        return everything(self.out)


def everything(out: Path) -> tuple[Any, ...]:
    """Return what a run found, its samples and its weights."""
    found, _, failures = rows(out)
    return found, failures, samples(out), weights(out)


def make_base(out: Path) -> Base:
    """Return the undisturbed run; it is made once."""
    seconds = out / "seconds"
    if not seconds.exists():
        shutil.rmtree(out, ignore_errors=True)
        run = Started.begin(out, "workers=2")
        began = time.monotonic()
        assert run.ended(600) == 0, run.told
        seconds.write_text(str(time.monotonic() - began))
    return Base(out, float(seconds.read_text()))


@dataclass(frozen=True)
class Started:
    """A command that runs, with its streams in files."""

    process: subprocess.Popen[bytes]
    mark: str
    stream: Path

    @classmethod
    def begin(
        cls,
        out: Path,
        *words: str,
        command: Sequence[str] = WORDS,
        env: Mapping[str, str] | None = None,
    ) -> "Started":
        """Start a run; `words` come after the usual ones."""
        mark = uuid4().hex
        out.mkdir(parents=True, exist_ok=True)
        stream = out.parent / f"{mark}.log"
        with stream.open("wb") as file, interruptible():
            process = subprocess.Popen(
                [sys.executable, "-m", "ilubench", *command, f"out={out}", *words],
                stdout=file,
                stderr=file,
                stdin=subprocess.DEVNULL,
                env={**(env or environment()), MARK: mark},
                start_new_session=True,
            )
        return cls(process, mark, stream)

    @property
    def told(self) -> str:
        """What it wrote so far."""
        return self.stream.read_text(errors="replace")

    def ended(self, within: float) -> int:
        """Return its exit code; it and all that it started must end in time."""
        try:
            code = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill_all()
            raise AssertionError(f"no end within {within:.0f} s; {self.told[-300:]}") from None
        self.assert_gone()
        return code

    def family(self) -> list[int]:
        """Return the numbers of its living processes."""
        names = (path.name for path in Path("/proc").iterdir())
        return [pid for pid in map(int, filter(str.isdecimal, names)) if self._is(pid)]

    def _is(self, pid: int) -> bool:
        try:
            mine = f"{MARK}={self.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
            return (
                mine and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
            )
        except OSError:  # it ended meanwhile, or is another user's
            return False

    def assert_gone(self) -> None:
        """No process of it is left."""
        deadline = time.monotonic() + AWAY_S
        while left := self.family():
            if time.monotonic() > deadline:
                self.kill_all()
                raise AssertionError(f"{len(left)} processes were left behind")
            time.sleep(0.05)

    def kill_all(self) -> None:
        """End what is left of it."""
        for pid in self.family():
            kill(pid)
        self.process.wait()


def kill(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def starting_with(what: str, **variables: str) -> dict[str, str]:
    """Return an environment in which Python starts with the `sitecustomize` of a folder here."""
    env = environment()
    paths = filter(None, (str(Path(__file__).parent / what), env.get("PYTHONPATH", "")))
    return {**env, "PYTHONPATH": os.pathsep.join(paths), **variables}


def with_target(base: Base, folder: Path) -> Path:
    """Return an `out` folder whose store has the target model alone."""
    out = folder / "out"
    shutil.copytree(base.out / "store" / "target", out / "store" / "target")
    return out


def copied(base: Base, folder: Path) -> Path:
    """Return a copy of the undisturbed run's `out` folder."""
    out = folder / "out"
    shutil.copytree(base.out, out, symlinks=True)
    return out


def assert_complete(base: Base, out: Path, *words: str) -> None:
    """The same command ends as if nothing had disturbed it, and leaves nothing behind."""
    run = Started.begin(out, *words)
    code = run.ended(20 * base.seconds + 60)
    assert code == 0, f"exit {code}: {run.told[-300:]}"
    for what, here, there in zip(
        ("figures", "failures", "samples", "weights"), everything(out), base.found, strict=True
    ):
        assert here == there, f"other {what} than undisturbed"
    left = [path for path in out.rglob("*") if path.name.endswith((".tmp", ".partial"))]
    assert not left, f"left behind: {left[0].relative_to(out)}"


def shared_memory() -> set[str]:
    """Return the names in shared memory that ilubench, Python or torch may have made."""
    names = (path.name for path in Path("/dev/shm").glob("*"))
    return {name for name in names if name.startswith(("ilubench", "psm_", "sem.", "torch_"))}


def assert_no_memory(names: set[str], within: float) -> None:
    """None of the names stays in shared memory; those of other processes that work there go."""
    deadline = time.monotonic() + within
    while left := names & shared_memory():
        assert time.monotonic() < deadline, f"left in shared memory: {sorted(left)[0]}"
        time.sleep(0.5)
