"""Folders of runs: those within a folder, and what lies in one."""

from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["find_runs", "within"]

DEEPEST = 3
"""Levels below a folder in which runs are looked for."""


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs at and below a folder, finished or not; the store is none."""
    level = [folder]
    for _ in range(DEEPEST + 1):
        below: list[Path] = []
        for place in level:
            if _is_run(place):
                yield place
            elif place.is_dir():
                below += (one for one in sorted(place.iterdir()) if one.name != "store")
        level = below


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("results.json", "plan.json"))


def within(paths: Iterable[Path]) -> list[Path]:
    """Return the finished runs that paths stand for: each itself, or those in a folder of runs.

    Raises:
        UsageError: a folder has runs, and none is finished.
    """
    from ilubench.errors import UsageError

    found: list[Path] = []
    for path in paths:
        below = [] if _is_run(path) or not path.is_dir() else list(find_runs(path))
        finished = [run for run in below if (run / "results.json").is_file()]
        if below and not finished:
            remedy = "the same `ilubench run` goes on with it"
            raise UsageError(f"{path}: no finished run in it, only {below[0].name}; {remedy}")
        found += finished or [path]
    return found
