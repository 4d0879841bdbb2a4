"""The README's first run with one worker and with as many as there are cores: where its time goes.

python tests/bench/first_run.py [WORKERS ...]

Prints, for each number of workers (by default 1 and auto), the seconds until the plan stands,
until the method has unlearned, and until the end; and how many times as fast as with the first.
"""

import subprocess
import sys
import tempfile
import time


def timed(workers: str) -> dict[str, float]:
    found: dict[str, float] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as out:
        words = ("run", "method=ilu", f"workers={workers}", f"out={out}")
        command = [sys.executable, "-m", "ilubench", *words]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as run:
            assert run.stderr is not None
            for line in run.stderr:
                for what, begin in (("planned", "folder "), ("unlearned", "unlearn ilu")):
                    if begin in line:
                        found[what] = time.monotonic() - began
    assert run.returncode == 0
    return {**found, "done": time.monotonic() - began}


def main(counts: list[str]) -> None:
    times = [timed(count) for count in counts]
    for count, found in zip(counts, times, strict=True):
        shown = ", ".join(f"{what} after {seconds:.1f} s" for what, seconds in found.items())
        print(f"workers={count}: {shown}; {times[0]['done'] / found['done']:.2f} times as fast")


if __name__ == "__main__":
    main(sys.argv[1:] or ["1", "auto"])
