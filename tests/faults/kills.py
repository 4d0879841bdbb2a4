"""`kill -9` at random instants of a run with workers: of the command, or of what it started."""

import time
from pathlib import Path
from random import Random

from tiny_run import (
    Base,
    Started,
    assert_complete,
    assert_no_memory,
    kill,
    shared_memory,
    with_target,
)


def trial(random: Random, base: Base, folder: Path) -> int:
    """Kill a run up to four times, then let it end."""
    out, before = with_target(base, folder), shared_memory()
    workers = f"workers={random.choice((1, 2))}"
    kills = 0
    for _ in range(random.randint(1, 4)):
        run = Started.begin(out, workers)
        time.sleep(random.uniform(0, 0.8 * base.seconds))  # the base made its target besides
        family = sorted(run.family())
        if not family:  # it had ended
            break
        victim = run.process.pid if random.random() < 0.5 else random.choice(family)
        kill(victim)
        kills += 1
        if victim == run.process.pid:
            run.process.wait()
            run.assert_gone()
        else:  # the command goes on, or says what it lost
            code = run.ended(20 * base.seconds + 60)
            assert code in (0, 4), f"exit {code} after a worker's end: {run.told[-300:]}"
    assert_complete(base, out, workers)
    assert_no_memory(shared_memory() - before, 10 * base.seconds)
    return kills
