"""Hundreds of jobs: memory, open files and threads of each process stay what they were."""

import statistics
import time
from collections import defaultdict
from pathlib import Path
from random import Random

from tiny_run import WORDS, Base, Started, with_target

SEEDS = 84
"""Of 6 jobs each: 504."""
GROWTH = 1.15
MANY = 60
"""Looks, two a second; fewer show no course."""
SPARE = {"memory, MB": 30.0, "open files": 4.0, "threads": 2.0}


def trial(random: Random, base: Base, folder: Path) -> int:
    """Watch a long run; every second trial has two workers."""
    out = with_target(base, folder)
    workers = folder.name.endswith(tuple("13579")) + 1
    words = [*WORDS[:-1], f"seeds=0..{SEEDS - 1}"]
    run = Started.begin(out, f"workers={workers}", command=words)
    seen: dict[int, list[dict[str, float]]] = defaultdict(list)
    while run.process.poll() is None:
        for pid in run.family():
            if found := _amounts(pid):
                seen[pid].append(found)
        time.sleep(0.5)
    assert run.ended(60) == 0, run.told[-300:]
    long = [course for course in seen.values() if len(course) > MANY]
    assert len(long) >= workers, f"{len(long)} of its processes were watched for long enough"
    for course in long:
        third = len(course) // 3
        for what, spare in SPARE.items():
            middle, last = (
                statistics.median(one[what] for one in part)
                for part in (course[third : 2 * third], course[2 * third :])
            )
            assert last <= GROWTH * middle + spare, f"{what}: {middle:.0f}, later {last:.0f}"
    return 0


def _amounts(pid: int) -> dict[str, float]:
    here = Path(f"/proc/{pid}")
    try:
        lines = dict(line.split(":", 1) for line in (here / "status").read_text().splitlines())
        return {
            "memory, MB": float(lines["VmRSS"].split()[0]) / 1024,
            "open files": len(list((here / "fd").iterdir())),
            "threads": float(lines["Threads"]),
        }
    except (OSError, KeyError):  # it ended meanwhile
        return {}
