"""A finished run, packaged as a leaderboard's entry."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from ilubench.errors import DataError, UsageError
from ilubench.leaderboard.records.consistency import entry_problems, incomplete
from ilubench.leaderboard.records.files import (
    read_entry,
    record_bytes,
    validate_record,
    write_record,
)
from ilubench.leaderboard.records.models import (
    MAX_SAMPLES,
    Entry,
    Package,
    Pointer,
    Submission,
    Weights,
)
from ilubench.leaderboard.records.safe_json import check_plain_file, read_json, read_text
from ilubench.leaderboard.records.samples import check_samples, point_to_samples
from ilubench.leaderboard.submit.standing import standing
from ilubench.records.finished import REFERENCES, FinishedRun, read_run
from ilubench.records.keys import file_sha256
from ilubench.records.results import RunRecord
from ilubench.records.run_files import read_record
from ilubench.records.store import write_atomic
from ilubench.records.training_data import seen_by, trained_roles
from ilubench.specs.yaml_files import load_yaml

__all__ = ["About", "Submitted", "next_steps", "read_citation", "read_package", "submit_run"]

MAX_PACKAGE = 100_000_000
ARCHIVE = r"([A-Za-z0-9._]+)-([0-9][A-Za-z0-9.!+_]*)(-.*\.whl|\.tar\.gz)"
"""Name and version in the name of a wheel or sdist."""

HOME = "the public leaderboards are in a clone of ilubench: work there, or give --to"

RECORD, SAMPLES = "results.json", "samples.parquet"


@dataclass(frozen=True)
class About:
    """What a submitter says of a run, or of an attack.

    Attributes:
        by: who sends it in.
        label: the record's name without the version; empty: what was asked for, or the attack's.
        title: what tables show; empty: the label.
        code: https address of the code.
        paper: https address of its paper.
        citation: BibTeX, or words.
        remarks: what a reader must know.
        trains_on: data roles that it trains on besides those that its settings name.
        package: of a method that does not come with ilubench.
    """

    by: str
    label: str = ""
    title: str = ""
    code: str = ""
    paper: str = ""
    citation: str = ""
    remarks: str = ""
    trains_on: tuple[str, ...] = ()
    package: Package | None = None

    def submission(self) -> Submission:
        """What the record says of who sent it in, today."""
        return Submission(
            by=self.by,
            day=datetime.now(tz=UTC).date(),
            code=self.code,
            paper=self.paper,
            citation=self.citation,
            remarks=self.remarks,
        )


@dataclass(frozen=True)
class Submitted:
    """What was written.

    Attributes:
        path: the record.
        entry: what it holds.
        copied: the samples beside it; None where the record points to samples that lay there.
        notes: what a reader of the record will ask about.
    """

    path: Path
    entry: Entry
    copied: Path | None
    notes: tuple[str, ...]


def submit_run(
    folder: Path,
    to: Path,
    about: About,
    *,
    weights: tuple[Weights, ...] = (),
    replace: bool = False,
) -> Submitted:
    """Write a finished run's entry and its samples into `<to>/<suite>/`, and return them.

    Raises:
        DataError: the run is incomplete, lacks a file, its figures do not follow from its samples,
            or what is said of it does not go with it; names the field.
        UsageError: there is an entry of that name, or a word is no name, line or address.
    """
    run = _read(folder)
    config = _config(folder)
    label = about.label or _label(run, config)
    name = f"{label}-{run.record.method_version}"
    place = to / run.record.suite
    path = place / f"{name}.json"
    if path.exists() and not replace:
        remedy = "give another --label, or --replace it"
        raise UsageError(f"{path} is there already{_of_another(path, run.record)}; {remedy}")
    pointer, content = _samples(folder, place, f"{name}.parquet")
    entry = _entry(run, (config, _environment(folder)), (name, label), about, (pointer, weights))
    validate_record(path, record_bytes(entry).decode(), Entry, run.record.suite)
    assert run.suite is not None  # `_read` refuses a run without samples
    problem = next(entry_problems(entry, run.suite), None)
    if problem is not None:
        raise DataError(f"{folder}: {problem}")
    made = () if to.exists() else (f"there was no folder {to}: it was made; {HOME}",)
    notes = (
        *made,
        *_notes(entry),
        *standing(dataclasses.replace(run, record=entry.run), name, place),
    )
    copied = None
    if content is not None:
        copied = place / pointer.path
        write_atomic(copied, content)
    write_record(path, entry)
    return Submitted(path, entry, copied, notes)


def next_steps(found: Submitted, weights_to: Path | None) -> list[str]:
    """Return what a submitter does next, in lines."""
    record = found.path
    files = [str(path) for path in (record, found.copied) if path is not None]
    lines = [f"note: {note}" for note in found.notes]
    lines.append(f"next: ilubench leaderboard check {record}")
    lines.append(f"then, in a fork of ilubench: git add {' '.join(files)}; commit; pull request")
    if found.entry.run.method_name in REFERENCES:
        return lines
    if not found.entry.weights:
        lines.append("for the tier verified-weights: again with --weights-to FOLDER --replace")
    elif any(not one.url for one in found.entry.weights):
        where = f"the folders in {weights_to}" if weights_to is not None else "the weights"
        lines.append(f"for the tier verified-weights: publish {where}, each seed's under its name,")
        lines.append("and submit again with --weights-to FOLDER --weights https://... --replace")
    return lines


def read_citation(path: Path | None) -> str:
    """Return a citation file's text; empty where there is no file.

    Raises:
        DataError: it cannot be read, or is longer than a citation may be.
    """
    return "" if path is None else read_text(path, 5000).strip()


def read_package(word: str) -> Package | None:
    """Return the package that a word names: an archive of it, `FILE` or `FILE=https://...`.

    Args:
        word: a wheel or sdist, and where it can be had; empty: none.

    Raises:
        DataError: there is no such file.
        UsageError: its name is no package's, or the address is none.
    """
    if not word:
        return None
    file, _, url = word.partition("=https:")
    path = Path(file)
    found = re.fullmatch(ARCHIVE, path.name)
    if found is None:
        raise UsageError(
            f"--package {path.name}: give a wheel or sdist under the name it was built"
        )
    check_plain_file(path, MAX_PACKAGE)
    try:
        name, version = found[1].replace("_", "-"), found[2]
        address = f"https:{url}" if url else ""
        return Package(name=name, version=version, sha256=file_sha256(path), url=address)
    except ValidationError as error:
        raise UsageError(f"--package {word}: {error.errors()[0]['msg']}") from error


# --- inside ---


def _read(folder: Path) -> FinishedRun:
    """The run, with every figure computed again."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give a finished run's")
    record, _ = read_record(folder / RECORD)
    problem = incomplete(record)
    if problem:
        raise DataError(f"{folder}: {problem}")
    if (folder / SAMPLES).is_file():
        check_samples(folder / SAMPLES)
    run = read_run(folder)
    if run.samples is None:
        raise DataError(f"{folder}: {run.unread}; without samples nothing can be checked")
    for label in run.rows:  # raises where a figure does not follow
        run.bar(label)
    return run


def _of_another(path: Path, record: RunRecord) -> str:
    """What an entry of the same name was measured on, where that is something else."""
    there = read_entry(path).run
    for what in ("suite_version", "engine", "dtype"):
        one, other = getattr(there, what), getattr(record, what)
        if one != other:
            return f", of {what.replace('_', ' ')} {one} where the run's is {other}"
    return ""


def _config(folder: Path) -> dict[str, JsonValue]:
    path = folder / "config.yaml"
    if not path.is_file():
        raise DataError(f"{folder}: no config.yaml; give the whole folder of a run")
    return load_yaml(path)


def _environment(folder: Path) -> dict[str, JsonValue]:
    path = folder / "env.json"
    if not path.is_file():
        raise DataError(f"{folder}: no env.json; give the whole folder of a run")
    found = read_json(path)
    if not isinstance(found, dict):
        raise DataError(f"{path}: must be an object with fields")
    return found


def _label(run: FinishedRun, config: Mapping[str, JsonValue]) -> str:
    """What the method was asked for as: a suite's label for a variant says more than the method."""
    asked = config.get("run")
    method = asked.get("method") if isinstance(asked, dict) else None
    use = method.get("use") if isinstance(method, dict) else None
    text = use if isinstance(use, str) else run.record.method_name
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.rpartition(":")[2].lower()).strip("-_")
    if not plain:
        raise UsageError(f"{text!r} makes no name; give --label")
    return plain


def _samples(folder: Path, place: Path, name: str) -> tuple[Pointer, bytes | None]:
    """The pointer to the samples, and what must be written; None where they lie in the suite's."""
    file = folder / SAMPLES
    check_plain_file(file, MAX_SAMPLES)
    here, there = file.absolute(), place.absolute()
    if ".." not in here.parts and here.is_relative_to(there):
        return point_to_samples(there, here.relative_to(there).as_posix()), None
    found = point_to_samples(folder, SAMPLES)
    return found.model_copy(update={"path": name}), file.read_bytes()


def _entry(
    run: FinishedRun,
    told: tuple[dict[str, JsonValue], dict[str, JsonValue]],
    names: tuple[str, str],
    about: About,
    files: tuple[Pointer, tuple[Weights, ...]],
) -> Entry:
    suite = run.suite
    assert suite is not None
    roles = tuple(dict.fromkeys((*trained_roles(run.record, suite), *about.trains_on)))
    # a method that says itself what it trained on, and one of which it is said, are marked alike
    record = run.record.model_copy(update={"seen": seen_by(run.record, suite, roles)})
    try:
        return Entry(
            entry=names[0],
            title=about.title or names[1],
            run=record,
            config=told[0],
            environment=told[1],
            samples=files[0],
            weights=files[1],
            trains_on=roles,
            package=about.package,
            submission=about.submission(),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        raise UsageError(f"{field}: {message}, not {str(first['input'])!r:.80}") from error


def _notes(entry: Entry) -> list[str]:
    found = []
    git = entry.environment.get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    if commit is None:
        found.append("its origin is unknown: the run was not made in a git checkout of ilubench")
    elif isinstance(git, dict) and git.get("dirty"):
        found.append(f"made with changes on top of commit {commit}: say in --remarks which")
    if not entry.run.data:
        found.append(
            "the hashes of its rows are not in the record: it was made by an older version"
        )
    use = entry.run.method_name
    if ":" in use and entry.package is None:
        found.append(f"the method is a file ({use}): a package could be verified as a method")
    return found
