"""Where a run stands, by the files that it leaves: nothing of it need be on this machine's CPU."""

import contextlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ilubench.errors import DataError
from ilubench.records.figure_text import format_duration
from ilubench.specs.untrusted import read_json

__all__ = ["JobState", "RunState", "read_state", "state_lines"]

State: TypeAlias = Literal["done", "running", "stopped", "failed", "waiting"]

QUIET = 120.0
"""Seconds without a written file after which a job counts as stopped; a step may be slow."""

SHOWN = 12


@dataclass(frozen=True, slots=True)
class JobState:
    """A job.

    Attributes:
        label: its name.
        state: `stopped` is begun, and has written nothing for a while.
        told: the last step and loss, checkpoints scored; empty where nothing tells.
        silent: seconds since it last wrote.
    """

    label: str
    state: State
    told: str = ""
    silent: float = 0.0


@dataclass(frozen=True, slots=True)
class RunState:
    """A run: its jobs in their order, and whether its record is written."""

    run: str
    jobs: tuple[JobState, ...]
    finished: bool

    def count(self, state: State) -> int:
        """Return how many jobs are so."""
        return Counter(job.state for job in self.jobs)[state]


def read_state(folder: Path, now: float | None = None) -> RunState:
    """Return where a run stands.

    Args:
        folder: the run's, with `plan.json`; its store lies where the plan says, else beside it.
        now: seconds since 1970.

    Raises:
        DataError: no plan, or not one of a run.
    """
    plan = _read(folder / "plan.json")
    states = _read(folder / "status.json").get("states", {}) if _is_there(folder) else {}
    store = _store(folder)
    moment = time.time() if now is None else now
    try:
        jobs = [
            _job(store, str(job["stage"]), str(job["key"]), str(job["label"]), states, moment)
            for job in plan["jobs"]
        ]
    except (KeyError, TypeError) as error:
        raise DataError(f"{folder / 'plan.json'}: not what a run leaves ({error!r})") from error
    done = all(job.state in ("done", "failed") for job in jobs)
    return RunState(folder.name, tuple(jobs), done and (folder / "results.json").is_file())


def state_lines(state: RunState) -> Iterator[str]:
    """Yield lines of at most some 80 columns: how far it is, and each job that is not done."""
    parts = [f"{state.count('done')} of {len(state.jobs)} jobs done"]
    for name in ("running", "stopped", "failed", "waiting"):
        count = state.count(name)
        parts += [f"{count} {name}"] if count else []
    yield f"{state.run}: {', '.join(parts)}"
    if not state.finished and not state.count("running"):
        yield "  nothing is written: not begun, between two jobs, or stopped"
    open_jobs = [job for job in state.jobs if job.state not in ("done", "waiting")]
    waiting = [job for job in state.jobs if job.state == "waiting"]
    for job in [*open_jobs, *waiting[:3]][:SHOWN]:
        silent = f", {format_duration(job.silent)} ago" if job.told else ""
        yield f"  {job.state:<8} {job.label}{f': {job.told}{silent}' if job.told else ''}"
    more = len(open_jobs) + len(waiting) - SHOWN if len(open_jobs) > SHOWN else len(waiting) - 3
    if more > 0:
        yield f"  and {more} more"


# --- inside ---


def _is_there(folder: Path) -> bool:
    return (folder / "status.json").is_file()


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        problem = f"{file.parent} is no folder of a run: it has no {file.name}"
        raise DataError(f"{problem}; `ilubench ls runs FOLDER` lists the runs below one")
    found = read_json(file)
    if not isinstance(found, dict):
        raise DataError(f"{file}: not what a run leaves")
    return found


def _store(folder: Path) -> Path:
    """A run lies beside the store, a grid one level deeper."""
    beside = folder.resolve().parent / "store"
    return beside if beside.is_dir() else folder.resolve().parent.parent / "store"


def _job(
    store: Path, stage: str, key: str, label: str, states: dict[str, Any], now: float
) -> JobState:
    if states.get(key) == "failed":
        return JobState(label, "failed")
    if states.get(key) in ("done", "cached") or (store / stage / key / "DONE").is_file():
        return JobState(label, "done")
    work = store / stage / f"{key}.partial"
    times = [*_times(work)]
    if not times:
        return JobState(label, "waiting")
    silent = max(0.0, now - max(times))
    return JobState(label, "running" if silent < QUIET else "stopped", _told(work), silent)


def _times(work: Path) -> Iterator[float]:
    """When each file was written; one that was renamed or taken away meanwhile is left out."""
    for folder, _, files in os.walk(work):  # a folder that has gone is none
        for name in ("", *files):
            with contextlib.suppress(FileNotFoundError):
                yield (Path(folder) / name).stat().st_mtime


def _told(work: Path) -> str:
    parts = []
    last = _last_line(work / "log.jsonl")
    if isinstance(last.get("step"), int):
        loss = last.get("loss")
        parts.append(f"step {last['step']}" + (f", loss {loss:.3g}" if _number(loss) else ""))
    scored = len(list((work / "scores").glob("*.json")))
    if scored:
        parts.append(f"{scored} checkpoint{'' if scored == 1 else 's'} scored")
    return ", ".join(parts)


def _number(value: object) -> bool:
    return isinstance(value, int | float)


def _last_line(log: Path) -> dict[str, Any]:
    """The last whole line; the one that is being written is left out."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, 2)
            handle.seek(max(0, handle.tell() - 4096))
            lines = handle.read().split(b"\n")[:-1]
        found = json.loads(lines[-1]) if lines else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
