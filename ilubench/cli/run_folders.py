"""Folders of runs: those within a folder, and what lies in one."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

__all__ = ["RunStatus", "find_runs", "is_run", "read_status", "within"]

RUN_FILES = ("results.json", "status.json", "plan.json")

SCORED = "scored"

APART = ("store", "grids")
"""Folders beside those of runs."""

DEEPEST = 3
"""Levels below a folder in which runs are looked for."""


def find_runs(folder: Path) -> Iterator[Path]:
    """Yield the folders of runs at and below a folder, finished or not; no store's, no grid's."""
    level = [folder]
    for _ in range(DEEPEST + 1):
        below: list[Path] = []
        for place in level:
            if is_run(place):
                yield place
            elif place.is_dir():
                below += (one for one in sorted(place.iterdir()) if one.name not in APART)
        level = below


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, finished or not."""
    return any((folder / name).is_file() for name in RUN_FILES)


def within(paths: Iterable[Path]) -> list[Path]:
    """Return the finished runs that paths stand for: each itself, or those in a folder of runs.

    Models that were only scored have no row, and are left out of a folder's.

    Raises:
        UsageError: a folder has runs, and none is finished.
    """
    from ilubench.errors import UsageError

    found: list[Path] = []
    for path in paths:
        below = [] if is_run(path) or not path.is_dir() else list(find_runs(path))
        finished = [run for run in below if (run / "results.json").is_file()]
        if below and not finished:
            remedy = "the same `ilubench run` goes on with it"
            raise UsageError(f"{path}: no finished run in it, only {below[0].name}; {remedy}")
        found += [run for run in finished if read_status(run).status != SCORED] or [path]
    return found


class RunStatus(NamedTuple):
    """What a list says of a run."""

    folder: str
    suite: str
    method: str
    seeds: str
    status: str
    date: str


def read_status(folder: Path) -> RunStatus:
    """Return what a run's files say of it; what cannot be read is said, never raised."""
    from ilubench.errors import IlubenchError
    from ilubench.records.run_files import read_record

    record_file = folder / "results.json"
    newest = max((folder / name for name in RUN_FILES if (folder / name).is_file()), key=_changed)
    date = datetime.fromtimestamp(_changed(newest), UTC).strftime("%Y-%m-%d %H:%M")
    if not record_file.is_file():
        return RunStatus(str(folder), "", "", "", "not finished", date)
    try:
        record, rows = read_record(record_file)
    except IlubenchError as error:
        return RunStatus(str(folder), "", "", "", f"cannot be read: {error}", date)
    states = dict.fromkeys(row.status for row in rows.values())
    status = f"{len(record.failures)} jobs failed" if record.failures else ", ".join(states)
    return RunStatus(
        str(folder),
        record.suite,
        record.method_name,
        ",".join(map(str, record.seeds)) if record.method else "",
        status or SCORED,
        date,
    )


def _changed(file: Path) -> float:
    return file.stat().st_mtime
