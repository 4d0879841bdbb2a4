"""Signals that ask a run to end, at random instants."""

import signal
import time
from pathlib import Path
from random import Random

from tiny_run import Base, Started, assert_complete, kill, with_target

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SOON_S = 5.0
COMPLETE, INTERRUPTED = 0, 130


def trial(random: Random, base: Base, folder: Path) -> int:
    """Ask once or twice, then let the run end."""
    out, workers = with_target(base, folder), f"workers={random.choice((1, 2))}"
    signals = 0
    for _ in range(random.randint(1, 2)):
        number = random.choice(ASKED)
        run = Started.begin(out, workers)
        time.sleep(random.uniform(0, base.seconds))
        while run.process.poll() is None and "jobs " not in run.told:
            time.sleep(0.05)  # while Python and the libraries start, nothing is under way
        pressed = time.monotonic()
        kill(run.process.pid, number)
        code = run.ended(60)
        took = time.monotonic() - pressed
        if code == COMPLETE:  # it had ended
            break
        signals += 1
        assert code == INTERRUPTED, f"{number.name}: exit {code}: {run.told[-300:]}"
        assert took < SOON_S, f"{number.name}: took {took:.1f} s"
        assert "Traceback" not in run.told, f"{number.name}: a traceback"
        assert "the same command" in run.told, f"{number.name} does not say how to go on"
    assert_complete(base, out, workers)
    return signals
