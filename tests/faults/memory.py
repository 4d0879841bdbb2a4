"""Runs with less memory than they need: said in a sentence, and finished where there is more."""

import resource
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from random import Random

from runs import environment
from tiny_run import WORDS, Base, Started, assert_complete, with_target

COMPLETE, NO_DATA, FAILED_JOBS = 0, 3, 4
LEAST = 0.3
"""Of what a run takes; with less, Python does not get as far as the command."""


def trial(random: Random, base: Base, folder: Path) -> int:
    """Run where memory cannot be had beyond a limit, then where it can."""
    out = with_target(base, folder)
    limit = int(random.uniform(LEAST, 1) * _needed(base))
    done = subprocess.run(
        [sys.executable, "-m", "ilubench", *WORDS, f"out={out}", "workers=1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    if done.returncode != COMPLETE and not _is_beyond_words(done.stderr):
        what, told = f"{limit / 1e6:.0f} MB", done.stderr[-300:]
        assert done.returncode in (NO_DATA, FAILED_JOBS), f"{what}: {done.returncode}: {told}"
        said, _, end = done.stderr.partition("error: ")  # then torch's exit handlers raise, too
        assert "Traceback" not in said + end.partition("\n")[0], f"{what}: {told}"
        assert "internal" not in done.stderr, f"{what}: {told}"
        assert "memory" in done.stderr, f"{what}: not named: {told}"
    assert_complete(base, out, "workers=1")
    return int(done.returncode != COMPLETE)


def _is_beyond_words(told: str) -> bool:
    """Whether Python had no memory left to say more, or C++ had none, whose error has no class."""
    return set(told.split()) == {"MemoryError:"} or "std::bad_alloc" in told


@cache
def _needed(base: Base) -> int:
    """Return the address space that an undisturbed run takes, bytes."""
    out = with_target(base, base.out.with_name("memory"))
    run, most = Started.begin(out, "workers=1"), 0
    while run.process.poll() is None:
        lines = Path(f"/proc/{run.process.pid}/status").read_text().splitlines()
        most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("VmPeak"))])
        time.sleep(0.05)
    assert run.ended(60) == 0, run.told[-300:]
    return most * 1024
