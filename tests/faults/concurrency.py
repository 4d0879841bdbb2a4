"""Several commands with overlapping grids on one store; some of their holders die."""

import time
from pathlib import Path
from random import Random

from tiny_run import WORDS, Base, Started, assert_complete, kill, with_target

COMMANDS = 8


def trial(random: Random, base: Base, folder: Path) -> None:
    """Start all at once, kill a quarter of them, and let the others end."""
    out = with_target(base, folder)
    runs = []
    for _ in range(COMMANDS):
        attacks = random.choice(("gsm8k", "agnews", "gsm8k,agnews"))
        seeds = random.choice(("0", "1", "0,1"))
        words = [*WORDS[:-1], f"seeds={seeds}", f"attacks={attacks}"]
        runs.append(Started.begin(out, command=words))
    victims = random.sample(runs, COMMANDS // 4)
    for victim in victims:
        time.sleep(random.uniform(0, base.seconds))
        kill(victim.process.pid)
        victim.process.wait()
    done: list[str] = []
    for run in runs:
        code = run.ended(COMMANDS * 20 * base.seconds + 60)
        assert run in victims or code == 0, f"exit {code}: {run.told[-300:]}"
        done += [line.partition("] ")[2].partition(": done,")[0] for line in run.told.splitlines()
                 if ": done, " in line]  # fmt: skip
    twice = sorted({job for job in done if done.count(job) > 1})
    assert not twice, f"done twice: {twice[0]}"
    whole = folder / "whole"
    whole.mkdir()
    (out / "store").rename(whole / "store")
    assert_complete(base, whole)
