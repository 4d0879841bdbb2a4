"""Writes that fail: from some write on, or because a small file system is full."""

import errno
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from random import Random

from runs import environment
from tiny_run import WORDS, Base, assert_complete, starting_with, with_target

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO)
WRITES = 500
"""Of a whole run; about."""

COMPLETE, NO_DATA, FAILED_JOBS = 0, 3, 4

SMALL = """
mkdir -p "$1" && mount -t tmpfs -o "$3" none "$1" && mv "$2"/* "$1"
shift 3 && "$@"
code=$?
mount -o remount,size=1g,nr_inodes=0 "$OUT" && cp -r "$OUT" "$OUT-after"
exit $code
"""
"""A file system of its own: mount it, run, and copy what is there then."""


def trial(random: Random, base: Base, folder: Path) -> int:
    """Run until the disk fails, then where it does not."""
    out = with_target(base, folder)
    command = [sys.executable, "-m", "ilubench", *WORDS, f"out={out}", "workers=1"]
    env = environment()
    if random.random() < 0.5 and _can_mount():
        held = out.with_name("held")
        out.rename(held)
        size = sum(path.stat().st_size for path in held.rglob("*"))
        entries = sum(1 for _ in held.rglob("*"))
        options = random.choice(
            (
                f"size={size + random.randrange(20_000, 6_000_000)}",
                f"nr_inodes={entries + random.randrange(3, 150)}",
            )
        )
        env["OUT"] = str(out)
        command = [
            "unshare",
            "-rm",
            "sh",
            "-c",
            SMALL,
            "small",
            str(out),
            str(held),
            options,
            *command,
        ]
        what = options
    else:
        number = random.choice(NUMBERS)
        first = random.randrange(WRITES)
        what = f"{errno.errorcode[number]} from write {first} on"
        env = starting_with(
            "failing",
            ILUBENCH_FAILING_BELOW=str(out),
            ILUBENCH_FAILING_ERRNO=str(number),
            ILUBENCH_FAILING_FROM=str(first),
        )
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=600, check=False
    )
    after = Path(f"{out}-after")
    if after.exists():
        shutil.rmtree(out)  # where it was mounted
        after.rename(out)
    told = done.stderr[-300:]
    assert done.returncode in (COMPLETE, NO_DATA, FAILED_JOBS), f"{what}: {done.returncode}: {told}"
    assert "Traceback" not in done.stderr, f"{what}: {told}"
    assert "internal" not in done.stderr, f"{what}: {told}"
    assert_complete(base, out, "workers=1")
    return 1


@cache
def _can_mount() -> bool:
    words = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/tmp"]
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(words, capture_output=True, check=False).returncode
    )
