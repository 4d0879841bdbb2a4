"""Every record of a leaderboard looked through, every figure computed again from the samples."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import JsonValue

from ilubench.errors import DataError, IlubenchError
from ilubench.leaderboard.check.figures import (
    attack_problems,
    measured_problems,
    reported_problems,
    verification_problems,
    without_samples,
)
from ilubench.leaderboard.records.files import (
    ATTACKS,
    OTHERS,
    REPORTED,
    listed,
    read_attack,
    read_entry,
    read_entry_run,
    read_reported,
    records_in,
)
from ilubench.leaderboard.records.models import AttackEntry, AttackResult, Entry
from ilubench.records.comparing import check_alike
from ilubench.records.finished import FinishedRun

__all__ = ["Problem", "check_boards"]

KINDS = (REPORTED, ATTACKS)
DEEPEST = 2
LONGEST = 600


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file.

    Attributes:
        file: it.
        problem: names the field.
    """

    file: Path
    problem: str

    @property
    def line(self) -> str:
        """The problem as one line, whatever a stranger's names hold."""
        text = f"{self.file}: {self.problem}"
        shown = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
        return shown if len(shown) <= LONGEST else f"{shown[:LONGEST]}..."

    def plain(self) -> dict[str, JsonValue]:
        """Return the problem as JSON values."""
        return {"file": ascii(str(self.file))[1:-1], "problem": self.line}


def check_boards(paths: Sequence[Path]) -> list[Problem]:
    """Return what is wrong with records: the first problem of each, and of each part of it.

    Args:
        paths: records; suites' folders; folders of suites' folders. Of a folder, all that a
            leaderboard consists of is looked at, and that the entries can stand in one table.

    Raises:
        DataError: there is no record.
    """
    found: list[Problem] = []
    for path in paths:
        if path.suffix.lower() == ".json":
            found += _one(path)
            continue
        suites, problems = _suites_below(path, DEEPEST)
        found += problems
        for folder in suites:
            found += _suite(folder)
        if not suites and not problems:
            raise DataError(f"{path}: no record in it; give leaderboards, or a suite's folder")
    return found


# --- inside ---


def _suites_below(folder: Path, depth: int) -> tuple[list[Path], list[Problem]]:
    """A folder and those below it that hold records; links in them are problems."""
    try:
        inside = listed(folder)
    except DataError as error:
        return [], [_problem(folder, error)]
    mine = any(path.suffix.lower() == ".json" or path.name in KINDS for path in inside)
    found, problems = [folder] if mine else [], []
    for path in inside:
        if path.is_dir() and path.name not in (*KINDS, *OTHERS):
            if depth == 0:
                problem = "a folder this deep holds no records; leaderboards/<suite> does"
                problems.append(Problem(path, problem))
                continue
            below, more = _suites_below(path, depth - 1)
            found += below
            problems += more
    return found, problems


def _one(path: Path) -> list[Problem]:
    """The problems of one record."""
    path = path if len(path.parts) > 3 else path.absolute()  # its folders' names count
    if path.parent.name == REPORTED:
        return _first(path, partial(_reported, path))
    if path.parent.name == ATTACKS:
        return _attack(path, path.parent.parent, [])
    return _entry(path, path.parent, [])


def _suite(folder: Path) -> list[Problem]:
    """The problems of a suite's folder: of each record, and of them together."""
    try:
        entries, reported, attacks = records_in(folder)
    except DataError as error:
        return [_problem(folder, error)]
    found: list[Problem] = []
    sound: list[tuple[Entry, FinishedRun]] = []
    told: list[AttackEntry] = []
    for path in entries:
        found += _entry(path, folder, sound)
    for path in reported:
        found += _first(path, partial(_reported, path))
    for path in attacks:
        found += _attack(path, folder, told)
    found += _names(folder, [*entries, *reported, *attacks])
    found += _alike([run for _, run in sound])
    return found or _samples_problems(folder, [entry for entry, _ in sound], told)


def _names(folder: Path, paths: Sequence[Path]) -> list[Problem]:
    """Ids are unique in a suite, whatever the case: they are addresses on the page."""
    seen: dict[str, Path] = {}
    found = []
    for path in paths:
        other = seen.setdefault(path.stem.lower(), path)
        if other is not path:
            found.append(Problem(path, f"entry: {other.relative_to(folder)} has the same name"))
    return found


def _samples_problems(
    folder: Path, entries: Sequence[Entry], attacks: Sequence[AttackEntry]
) -> list[Problem]:
    """Samples that two entries share, and samples beside the records that none points to."""
    found: list[Problem] = []
    owners: dict[str, str] = {}
    known: set[str] = set()
    for entry in entries:
        for pointer in (entry.samples, *(one.samples for one in entry.verifications)):
            known.add(pointer.path)
            other = owners.setdefault(pointer.sha256, entry.entry)
            if other != entry.entry:
                path = folder / f"{entry.entry}.json"
                found.append(Problem(path, f"samples: are those of {other}.json, too"))
    known |= {one.samples.path for attack in attacks for one in attack.results}
    found += [
        Problem(path, "no record points to it; delete it, or submit its run")
        for path in listed(folder)
        if path.suffix.lower() == ".parquet" and path.name not in known
    ]
    return found


def _alike(runs: Sequence[FinishedRun]) -> list[Problem]:
    """Entries of one version of the suite must be able to stand in one table."""
    versions: dict[int, list[FinishedRun]] = {}
    for run in runs:
        versions.setdefault(run.record.suite_version, []).append(run)
    found = []
    for group in versions.values():
        try:
            check_alike(group)
        except IlubenchError as error:
            found.append(_problem(group[0].path.parent, error))
    return found


def _problem(path: Path, error: IlubenchError) -> Problem:
    return Problem(path, str(error).removeprefix(str(path)).lstrip(": "))


def _first(path: Path, look: Callable[[], Iterator[str]]) -> list[Problem]:
    """The first thing that a look at a record finds.

    What strangers write must end the check of their record only, whatever it makes arithmetic or a
    library do.
    """
    try:
        problem = next(look(), None)
    except IlubenchError as error:
        return [_problem(path, error)]
    except Exception as error:  # noqa: BLE001
        return [Problem(path, f"cannot be checked: {type(error).__name__}: {error}")]
    return [] if problem is None else [Problem(path, problem)]


def _entry(path: Path, folder: Path, sound: list[tuple[Entry, FinishedRun]]) -> list[Problem]:
    """An entry's problems; one without any joins the ``sound``, without its samples."""
    problems: list[Problem] = []

    def look() -> Iterator[str]:
        entry = read_entry(path)
        run = read_entry_run(entry, folder)
        yield from measured_problems(entry, run)
        for place, one in enumerate(entry.verifications):
            part = partial(verification_problems, entry, run, one, folder)
            problems.extend(_part(path, f"verifications.{place}", part))
        if not problems:
            sound.append((entry, without_samples(run)))

    first = _first(path, look)
    return problems + first


def _attack(path: Path, folder: Path, told: list[AttackEntry]) -> list[Problem]:
    """An attack's problems, of each of its results the first; one that was read joins ``told``."""
    problems: list[Problem] = []

    def look() -> Iterator[str]:
        attack = read_attack(path)
        told.append(attack)
        for place, one in enumerate(attack.results):
            part = partial(_result, attack, one, folder)
            problems.extend(_part(path, f"results.{place}", part))
        yield from ()

    return _first(path, look) + problems


def _result(attack: AttackEntry, one: AttackResult, folder: Path) -> Iterator[str]:
    entry = read_entry(folder / f"{one.entry}.json")
    yield from attack_problems(attack, one, entry, folder)


def _reported(path: Path) -> Iterator[str]:
    yield from reported_problems(read_reported(path))


def _part(path: Path, field: str, look: Callable[[], Iterator[str]]) -> list[Problem]:
    """The first problem of a part of a record."""
    return [Problem(path, f"{field}.{one.problem}") for one in _first(path, look)]
