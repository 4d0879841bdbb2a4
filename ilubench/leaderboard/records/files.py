"""The leaderboards' files: the only place where records are read and written.

Records are strangers' data. Nothing is opened that is no regular file, nothing is followed that is
a link, nothing is read that is larger than it may be, and every error names file and field.
"""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar, cast

from pydantic import JsonValue, ValidationError

from ilubench.errors import DataError, SpecError, StoreError, did_you_mean
from ilubench.leaderboard.records.models import AttackEntry, Entry, Pointer, Reported
from ilubench.leaderboard.records.safe_json import MAX_RECORD, named, parse_json, read_text
from ilubench.leaderboard.records.samples import samples_file
from ilubench.records.finished import FinishedRun
from ilubench.records.ranges import Ranges, check_ranges
from ilubench.records.results import Record, RunRecord, rows_of
from ilubench.records.run_files import check_named, libraries_of, memory_of, read_run_samples
from ilubench.records.store import write_atomic
from ilubench.specs import SuiteSpec
from ilubench.specs.untrusted import shorten
from ilubench.specs.yaml_files import validate_spec

__all__ = [
    "ATTACKS",
    "OTHERS",
    "REPORTED",
    "Board",
    "finished_run",
    "list_suites",
    "listed",
    "read_attack",
    "read_board",
    "read_entry",
    "read_entry_run",
    "read_reported",
    "record_bytes",
    "records_in",
    "validate_record",
    "write_record",
]

REPORTED, ATTACKS = "reported", "attacks"
"""Folders in a suite's folder: rows of papers, attacks on entries."""

OTHERS = ("measured", "tuning")
"""Folders in a suite's folder that hold no records."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Board:
    """All records of one suite's folder, each kind by its id.

    Attributes:
        folder: `leaderboards/<suite>`.
        suite: the folder's name.
        entries: measured rows.
        reported: rows of papers; never ranked.
        attacks: that were submitted against entries.
    """

    folder: Path
    suite: str
    entries: tuple[Entry, ...]
    reported: tuple[Reported, ...] = ()
    attacks: tuple[AttackEntry, ...] = ()

    def entry(self, name: str) -> Entry:
        """Return an entry by its id.

        Raises:
            DataError: there is none of that name.
        """
        for entry in self.entries:
            if entry.entry == name:
                return entry
        remedy = did_you_mean(name, [entry.entry for entry in self.entries])
        raise DataError(f"{self.folder} has no entry {name!r}; {remedy}")


def read_entry(path: Path) -> Entry:
    """Return an entry.

    Raises:
        DataError: as `read_json`; or no entry, or of a newer schema; names the field.
    """
    return _read_record(path, Entry, path.parent.name)


def read_reported(path: Path) -> Reported:
    """Return a row of a paper.

    Raises:
        DataError: as `read_json`; or no such row, or of a newer schema; names the field.
    """
    return _read_record(path, Reported, path.parent.parent.name)


def read_attack(path: Path) -> AttackEntry:
    """Return an attack that was submitted.

    Raises:
        DataError: as `read_json`; or no such attack, or of a newer schema; names the field.
    """
    return _read_record(path, AttackEntry, path.parent.parent.name)


def list_suites(root: Path) -> list[Path]:
    """Return the suites' folders below `leaderboards`, by name.

    Raises:
        DataError: there is no such folder, or one of them is a link.
    """
    return [path for path in listed(root) if path.is_dir() and path.name not in _folders()]


def listed(folder: Path) -> list[Path]:
    """Return what lies in a folder, by name; hidden files aside.

    Raises:
        DataError: there is no such folder, or it or something in it is a link.
    """
    if folder.is_symlink():
        raise DataError(f"{folder} is a link; records and samples lie in plain folders")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give one like leaderboards/mini")
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for path in found:
        if path.is_symlink():
            raise DataError(f"{path} is a link; put the file itself there")
    return found


def records_in(folder: Path) -> tuple[list[Path], list[Path], list[Path]]:
    """Return the files of a suite's entries, reported rows and attacks, by name.

    Raises:
        DataError: there is no such folder, or something in it is a link.
    """
    kinds = (folder, folder / REPORTED, folder / ATTACKS)
    entries, reported, attacks = (
        [path for path in listed(kind) if path.suffix.lower() == ".json"]
        if kind == folder or os.path.lexists(kind)
        else []
        for kind in kinds
    )
    return entries, reported, attacks


def read_board(folder: Path) -> Board:
    """Return all records of a suite's folder.

    Raises:
        DataError: one of them cannot be read; names file and field.
    """
    entries, reported, attacks = records_in(folder)
    return Board(
        folder=folder,
        suite=folder.name,
        entries=tuple(sorted(map(read_entry, entries), key=lambda one: one.entry)),
        reported=tuple(sorted(map(read_reported, reported), key=lambda one: one.entry)),
        attacks=tuple(sorted(map(read_attack, attacks), key=lambda one: one.entry)),
    )


def record_bytes(record: Entry | Reported | AttackEntry) -> bytes:
    """Return a record as its file has it: fields in the model's order, one a line."""
    text = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def write_record(path: Path, record: Entry | Reported | AttackEntry) -> None:
    """Write a record so that it is there whole or not at all.

    Raises:
        DataError: the record is larger than a reader takes, or one of the path's folders is a
            link.
        StoreError: the file cannot be written.
    """
    content = record_bytes(record)
    if len(content) > MAX_RECORD:
        raise DataError(f"{path}: {len(content)} bytes; a record may have {MAX_RECORD}")
    for place in (path, path.parent):
        if place.is_symlink():
            raise DataError(f"{place} is a link; records are written to plain folders")
    write_atomic(path, content)


def read_entry_run(entry: Entry, folder: Path) -> FinishedRun:
    """Return an entry as a finished run, to rank and compare as a run's folder.

    Its `rows` are computed again from the samples when they are asked for.

    Raises:
        DataError: samples that are not what the record points to, or a record, configuration and
            samples that do not go together.
    """
    path = folder / f"{entry.entry}.json"
    run = finished_run(path, entry.run, entry.config, folder, entry.samples)
    return replace(run, libraries=entry.run.libraries or libraries_of(entry.environment))


def finished_run(
    path: Path, record: RunRecord, config: Mapping[str, JsonValue], folder: Path, pointer: Pointer
) -> FinishedRun:
    """Return a run that a record holds: an entry's, a verification's, one under an attack.

    Raises:
        DataError: as `finished`.
    """
    if not isinstance(record.method.get("use"), str):
        raise DataError(f"{path}: run.method.use: must be a method's name")
    if not isinstance(record.method.get("settings"), dict):
        raise DataError(f"{path}: run.method.settings: must be a mapping")
    try:
        rows = rows_of(record)
        suite = validate_spec(SuiteSpec, config.get("suite"), source=f"{path}: config.suite")
    except ValidationError as error:
        raise DataError(f"{path}: run.rows.{_first(error, RunRecord)}") from error
    except SpecError as error:
        raise DataError(str(error)) from error
    _check_run(path, record, suite)
    try:
        file = samples_file(folder, pointer)
        samples = read_run_samples(file)
        check_named(file, samples, record)
    except DataError as error:
        raise DataError(f"{path}: samples: {error}") from error
    check_ranges(path, samples, Ranges.of_suite(suite, record.ranges))
    settings = config.get("attacks")
    attacks = settings if isinstance(settings, dict) else {}
    memory = memory_of(config, f"{path}: config")
    return FinishedRun(
        path, record, rows, suite, samples, "", attacks, configured=True, memory=memory
    )


# --- inside ---


def _check_run(path: Path, record: RunRecord, suite: SuiteSpec) -> None:
    """A run's record against the suite in its configuration."""
    for field, one, other in (
        ("name", suite.name, record.suite),
        ("version", suite.version, record.suite_version),
        ("dtype", suite.dtypes, record.dtype),
    ):
        if one != other:
            raise DataError(f"{path}: config.suite.{field}: is {one!r}, and the run's is {other!r}")
    if suite.lacking:
        raise DataError(f"{path}: config.suite.{suite.lacking[0]}: is empty")
    for field, values in (("seeds", record.seeds), ("attacks", record.attacks)):
        if not values or len(set(values)) != len(values):
            raise DataError(f"{path}: run.{field}: needs at least one, and each once")
    unknown = sorted(set(record.attacks) - suite.attacks.keys())
    if unknown:
        remedy = did_you_mean(unknown[0], suite.attacks)
        raise DataError(f"{path}: run.attacks: no {shorten(unknown[0])} in the suite; {remedy}")
    labels = {metric.label for metric in suite.primary_forget}
    if record.rows.keys() != labels:
        wanted = ", ".join(sorted(labels))
        raise DataError(f"{path}: run.rows: needs one row each of {wanted}, and no others")


def _folders() -> tuple[str, ...]:
    return (REPORTED, ATTACKS, *OTHERS)


def _read_record(path: Path, kind: type[R], suite: str) -> R:
    return validate_record(path, read_text(path, MAX_RECORD), kind, suite)


def validate_record(path: Path, text: str, kind: type[R], suite: str) -> R:
    """Return the record that a text is.

    Raises:
        DataError: it is none; names the field.
    """
    value = parse_json(path, text)
    if not isinstance(value, dict):
        raise DataError(f"{path}: a record is an object with fields, not {type(value).__name__}")
    try:
        record = kind.model_validate(value)
    except ValidationError as error:
        raise DataError(f"{path}: {_first(error, kind)}") from error
    except StoreError as error:
        raise DataError(f"{path}: schema_version: {error}") from error
    changed = next(_converted(value, record.model_dump(mode="json")), None)
    if changed is not None:
        raise DataError(f"{path}: {changed}")
    _check_names(path, cast("Entry | Reported | AttackEntry", record), suite)
    return record


def _check_names(path: Path, record: Entry | Reported | AttackEntry, suite: str) -> None:
    if path.name != f"{record.entry}.json":
        raise DataError(f"{path}: entry: is {record.entry!r}; the file must be {record.entry}.json")
    named = record.run.suite if isinstance(record, Entry) else record.suite
    if suite and named != suite:
        field = "run.suite" if isinstance(record, Entry) else "suite"
        raise DataError(f"{path}: {field}: is {shorten(named)}, and the folder is {suite!r}'s")


def _converted(given: JsonValue, read: JsonValue, where: str = "") -> Iterator[str]:
    """Where a value was taken for another kind than it is: the text "5" for a number, say."""
    if isinstance(given, dict) and isinstance(read, dict):
        for key, value in given.items():
            yield from _converted(value, read[key], f"{where}.{key}" if where else key)
    elif isinstance(given, list) and isinstance(read, list):
        for place, pair in enumerate(zip(given, read, strict=True)):
            yield from _converted(*pair, f"{where}.{place}")
    elif type(given) is not type(read) and not (type(given) is int and type(read) is float):
        yield f"{named(where)}: must be {_KINDS[type(read)]}, not {_KINDS[type(given)]}"


_KINDS = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "null",
}


def _first(error: ValidationError, kind: type[Record]) -> str:
    """The first problem, with the remedy where a field's name is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    where = named(".".join(place))
    if first["type"] == "extra_forbidden":
        known: Collection[str] = kind.model_fields if len(place) == 1 else ()
        remedy = f"; {did_you_mean(place[-1], known)}" if known else ""
        return f"{where}: unknown field{remedy}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{where}: {message[:300]}"
