"""`kill -9` of the command or of an actor, at random instants of a run on a Ray cluster."""

import atexit
import time
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from random import Random

from ray_nodes import Nodes, nodes
from tiny_run import AWAY_S, Base, Started, assert_complete, kill, with_target


def trial(random: Random, base: Base, folder: Path) -> int:
    """Kill a run once or twice, then let it end."""
    out, cluster = with_target(base, folder), _cluster()
    words = ("executor=ray", f"ray.address={cluster.address}")
    kills = 0
    for _ in range(random.randint(1, 2)):
        run = Started.begin(out, *words)
        while not cluster.actors() and run.process.poll() is None:
            time.sleep(0.05)
        time.sleep(random.uniform(0, base.seconds))
        actors = cluster.actors()
        if not actors:  # it had ended
            break
        of_command = random.random() < 0.5
        kill(run.process.pid if of_command else random.choice(actors))
        kills += 1
        if of_command:
            run.process.wait()
        else:
            code = run.ended(40 * base.seconds + 120)
            assert code in (0, 4), f"exit {code} after an actor's end: {run.told[-300:]}"
        deadline = time.monotonic() + AWAY_S
        while cluster.actors():
            assert time.monotonic() < deadline, "actors were left behind"
            time.sleep(0.05)
    assert_complete(base, out, *words)
    return kills


@cache
def _cluster() -> Nodes:
    """Return two nodes, which all trials share."""
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(nodes(2))
