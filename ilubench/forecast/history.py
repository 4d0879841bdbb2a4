"""Finished jobs of the same suite on the same device: what they took."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Finished", "finished_jobs"]


@dataclass(frozen=True)
class Finished:
    """A finished job.

    Attributes:
        stage: `target`, `unlearn`, `score` or `attack`.
        name: of the method or attack; empty for others.
        seconds: in all.
        cost: what it counted, by name.
        folder: of its artifact.
    """

    stage: str
    name: str
    seconds: float
    cost: dict[str, float]
    folder: Path


def finished_jobs(out: Path, suite: str, device: str) -> list[Finished]:
    """Return the finished jobs of the runs in a folder.

    Args:
        out: folder of runs.
        suite: name of the suite whose runs count.
        device: as a run's `env.json` names it: `cpu`, or the card's name.
    """
    keys: dict[tuple[str, str], None] = {}
    for file in sorted(out.glob(f"{suite}-*/plan.json")):
        environment = _read(file.with_name("env.json"))
        if environment.get("device") == device:
            jobs = _read(file).get("jobs")
            for job in jobs if isinstance(jobs, list) else ():
                keys[str(job.get("stage")), str(job.get("key"))] = None
    return list(_found(out / "store", keys))


def _found(store: Path, keys: dict[tuple[str, str], None]) -> Iterator[Finished]:
    for stage, key in keys:
        folder = store / stage / key
        meta = _read(folder / "DONE").get("meta")
        if not isinstance(meta, dict) or not isinstance(meta.get("seconds"), int | float):
            continue
        cost = meta.get("cost")
        counted = {
            name: float(value)
            for name, value in (cost if isinstance(cost, dict) else {}).items()
            if isinstance(value, int | float)
        }
        name = str(meta.get("method") or meta.get("attack") or "")
        yield Finished(stage, name, float(meta["seconds"]), counted, folder)


def _read(path: Path) -> dict[str, Any]:
    """Return a file's JSON; nothing where there is none, or it is damaged: it is only a hint."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
