"""Several commands with overlapping grids on one store; some of their holders die."""

import time
from pathlib import Path
from random import Random

from tiny_run import WORDS, Base, Started, assert_complete, kill, starting_with, with_target

COMMANDS = 8


def trial(random: Random, base: Base, folder: Path) -> int:
    """Start all at once, kill a quarter of them, and let the others end."""
    out, finished = with_target(base, folder), folder / "finished"
    env = starting_with("counting", ILUBENCH_FINISHED=str(finished))
    runs = []
    for _ in range(COMMANDS):
        attacks = random.choice(("gsm8k", "agnews", "gsm8k,agnews"))
        seeds = random.choice(("0", "1", "0,1"))
        words = [*WORDS[:-1], f"seeds={seeds}", f"attacks={attacks}"]
        runs.append(Started.begin(out, command=words, env=env))
    victims = random.sample(runs, COMMANDS // 4)
    for victim in victims:
        time.sleep(random.uniform(0, base.seconds))
        kill(victim.process.pid)
        victim.process.wait()
    for run in runs:
        code = run.ended(COMMANDS * 20 * base.seconds + 60)
        assert run in victims or code == 0, f"exit {code}: {run.told[-300:]}"
    made = finished.read_text().splitlines()
    twice = sorted({job for job in made if made.count(job) > 1})
    assert made, "nothing was made"
    assert not twice, f"made twice: {twice[0]}"
    whole = folder / "whole"
    whole.mkdir()
    (out / "store").rename(whole / "store")
    assert_complete(base, whole)
    return len(victims)
