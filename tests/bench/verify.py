"""What it costs that the store believes no file.

    python tests/bench/verify.py [--megabytes 270] [WORD ...]

Three measurements, each a ratio of one run; nothing is tested:

- a run of the words (without: one method of the mini suite under one attack), against comparing
  every file of its store with the manifests, in a process that has seen none of them: seconds of
  the processor;
- the seconds that the run waited for the disk (fsync), against all of its seconds;
- a file of so many megabytes, as weights are: read alone and read for its hash, once from the disk
  and once from memory, and asked for its hash again.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.append(str(Path(__file__).parents[1] / "support"))

from runs import command

from ilubench.records.keys import file_sha256
from ilubench.records.store import Artifact

WORDS = ("suite=mini", "method=npo", "attacks=gsm8k", "seeds=0", "references=run", "workers=1")
CHUNK = 1 << 20


def cpu() -> float:
    """Return the processor's seconds of this process, all threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def verify(store: Path) -> None:
    """Compare all files of a store, and print the processor's seconds and the files' bytes."""
    began, size = cpu(), 0
    for manifest in sorted(store.glob("*/*/DONE")):
        folder = manifest.parent
        Artifact(folder.name, folder).check(weights=True)
        size += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(cpu() - began, size)


def measure_run(out: Path, words: list[str]) -> None:
    """Run, verify, and print the ratios."""
    waits: list[float] = []
    fsync = os.fsync

    def waited(descriptor: Any) -> None:
        began = time.perf_counter()
        fsync(descriptor)
        waits.append(time.perf_counter() - began)

    with mock.patch("os.fsync", waited):
        began, before = time.perf_counter(), cpu()
        done = command("run", *words, f"out={out}")
        wall, used = time.perf_counter() - began, cpu() - before
    assert done.code == 0, done.err
    again = [sys.executable, __file__, "--store", str(out / "store")]
    told = subprocess.run(again, capture_output=True, text=True, check=True).stdout.split()
    seconds, size = float(told[0]), int(told[1])
    print(f"run: {used:.1f} s of the processor, {wall:.1f} s")
    print(f"verified: {size / 1e6:.1f} MB, {seconds:.3f} s, {seconds / used:.2%} of the run's")
    total = sum(waits)
    print(f"fsync: {len(waits)} times, {total:.2f} s, {total / wall:.2%} of the run's seconds")


def measure_file(folder: Path, megabytes: int) -> None:
    """Write, read and hash a large file, and print megabytes a second."""
    file, content = folder / "model.safetensors", os.urandom(CHUNK)
    with file.open("wb") as handle:
        for _ in range(megabytes):
            handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
    size = file.stat().st_size / 1e6
    steps: tuple[tuple[str, Callable[[Path], object], bool], ...] = (
        ("read from the disk", _read, True),
        ("hashed from the disk", file_sha256, True),
        ("its hash asked for again", file_sha256, False),
        ("read from memory", _read, False),
        ("hashed from memory", _touched, False),
    )
    for what, call, cold in steps:
        if cold:
            with file.open("rb") as handle:
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began, before = time.perf_counter(), cpu()
        call(file)
        wall = time.perf_counter() - began
        used = cpu() - before
        print(f"{size:.0f} MB {what}: {wall:.4f} s ({size / wall:.0f} MB/s), {used:.3f} s of CPU")


def _read(file: Path) -> None:
    with file.open("rb", buffering=0) as handle:
        while handle.read(CHUNK):
            pass


def _touched(file: Path) -> str:
    """Its hash as if it had been written again."""
    os.utime(file)
    return file_sha256(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="of `ilubench run`")
    parser.add_argument("--megabytes", type=int, default=270)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.store:
        verify(asked.store)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure_file(Path(folder), asked.megabytes)
        measure_run(Path(folder) / "out", asked.words or list(WORDS))


if __name__ == "__main__":
    main()
