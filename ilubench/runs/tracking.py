"""A run's jobs told to a tracker by a process beside the run: see `tracker_process`."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import IO

from pydantic import JsonValue

from ilubench.runs.executors.base import Watcher
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.tracker_process import PATIENCE_S

__all__ = ["tracking"]

_CHILD = (sys.executable, "-P", "-m", "ilubench.runs.tracker_process")


@contextlib.contextmanager
def tracking(plan: Plan, watcher: Watcher) -> Iterator[None]:
    """Have a plan's jobs told to the tracker that was asked for, as long as the block lasts.

    A tracker is a library of others that may raise, wait for ever, print, or end its process: it
    works in a process of its own, which a run waits for at its end, and not where it was
    interrupted. That ends by itself once this one is gone.
    """
    name = plan.experiment.run.track
    if name == "none":
        yield
        return
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    child = subprocess.Popen(
        _CHILD,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
        start_new_session=True,  # Ctrl-C is for this process
    )
    assert child.stdin is not None
    assert child.stdout is not None
    listener = Thread(target=_pass_on, args=(name, child.stdout, watcher), daemon=True)
    listener.start()
    patience = 0.0  # what was told is noted, and a run that goes on tells the rest
    try:
        with contextlib.suppress(OSError):  # it has ended
            child.stdin.write(json.dumps(_asked(plan, name)) + "\n")
            child.stdin.flush()
        yield
        patience = PATIENCE_S + 2
    finally:
        try:
            with contextlib.suppress(OSError):
                child.stdin.close()
            child.wait(patience)
        except subprocess.TimeoutExpired:
            pass  # it says so itself before that, unless it can do nothing at all
        finally:
            child.kill()
            child.wait()
            listener.join(1)  # what the tracker started may have the pipe open, still


def _pass_on(name: str, said: IO[str], watcher: Watcher) -> None:
    with said:
        for line in said:
            watcher.tell(f"track={name} stopped ({line.strip()}); the run goes on without it")


def _asked(plan: Plan, name: str) -> dict[str, JsonValue]:
    """What the process beside is told: which tracker, and of each job where its files lie."""
    out, store = Path(plan.experiment.run.out).absolute(), plan.bench.store.root.absolute()
    jobs: list[JsonValue] = []
    for job in plan.jobs:
        rows = [row for row in plan.rows if job.key in row.keys]
        jobs.append(
            {
                "key": job.key,
                "done": str(store / job.stage / job.key),
                "work": str(store / job.stage / f"{job.key}.partial"),
                "group": rows[0].run_id if len(rows) == 1 else plan.run_id,
                "name": job.label,
                "config": _config(plan, rows[0], job),
            }
        )
    return {"tracker": name, "out": str(out), "patience": PATIENCE_S, "jobs": jobs}


def _config(plan: Plan, row: Plan, job: Job) -> dict[str, JsonValue]:
    suite = plan.experiment.suite
    method = row.experiment.method_ref if job.who == "method" else job.method
    found: dict[str, JsonValue] = {
        "suite": f"{suite.name} v{suite.version}",
        "stage": job.stage,
        "who": job.who,
        "seed": job.seed,
        "key": job.key,
    }
    if job.stage != "target" and method is not None:
        found["method"] = method.model_dump(mode="json")
    if job.attack:
        attack = plan.bench.attack(job.attack)
        found["attack"] = {"use": job.attack, **attack.plugin.model_dump(mode="json")}
    return found
