"""Finished jobs of the same suite on the same device: what they took."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["STARTS", "Began", "Finished", "finished_jobs"]

Began = Literal["training", "scoring"]

STARTS: Mapping[Began, tuple[str, ...]] = {
    "training": ("target", "unlearn", "attack"),
    "scoring": ("score", "attack"),
}
"""Stages of which the first one in a process pays for what the others find."""


@dataclass(frozen=True)
class Finished:
    """A finished job.

    Attributes:
        stage: `target`, `unlearn`, `score` or `attack`.
        name: of the method or attack; empty for others.
        seconds: in all.
        cost: what it counted, by name.
        folder: of its artifact.
        began: what it was the first of in its process: `training`, `scoring`, both or neither.
    """

    stage: str
    name: str
    seconds: float
    cost: dict[str, float]
    folder: Path
    began: frozenset[Began] = frozenset()


def finished_jobs(out: Path, suite: str, device: str) -> list[Finished]:
    """Return the finished jobs of the runs in a folder.

    Args:
        out: folder of runs.
        suite: name of the suite whose runs count.
        device: as a run's `env.json` names it: `cpu`, or the card's name.
    """
    keys: dict[tuple[str, str], set[Began]] = {}
    for file in sorted(out.glob(f"{suite}-*/plan.json")):
        environment = _read(file.with_name("env.json"))
        if environment.get("device") == device:
            jobs = _read(file).get("jobs")
            names = [
                (str(job.get("stage")), str(job.get("key")))
                for job in (jobs if isinstance(jobs, list) else ())
            ]
            for name in names:
                keys.setdefault(name, set())
            for name, began in _first(names, file.with_name("status.json")):
                keys[name].add(began)
    return list(_found(out / "store", keys))


def _first(names: list[tuple[str, str]], status: Path) -> Iterator[tuple[tuple[str, str], Began]]:
    """Yield the jobs that were the first of their kind in a run's process, which did what it says.

    `none` and its like load a model and train nothing; that is told by what they counted.
    """
    states = _read(status).get("states")
    done = [n for n in names if isinstance(states, dict) and states.get(n[1]) == "done"]
    for began, stages in STARTS.items():
        first = next((name for name in done if name[0] in stages), None)
        if first is not None:
            yield first, began


def _found(store: Path, keys: dict[tuple[str, str], set[Began]]) -> Iterator[Finished]:
    for (stage, key), began in keys.items():
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
        yield Finished(stage, name, float(meta["seconds"]), counted, folder, frozenset(began))


def _read(path: Path) -> dict[str, Any]:
    """Return a file's JSON; nothing where there is none, or it is damaged: it is only a hint."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
