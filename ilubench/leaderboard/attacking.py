"""An attack on existing entries: runs in which it was tried, packaged; and a maintainer's own.

The attack is one that the suite lacks: a suite file that extends the suite by it. Each run belongs
to an entry: it ran the entry's method with its settings, or attacked its published weights. What is
kept of a run is that attack alone, with the samples from which its row follows.

A result counts once a maintainer has run the same attack with fresh seeds. Then the maintainer's
figures stand in the place of the submitted ones, and the entry's worst case is the lowest that any
verified attack reaches (:mod:`ilubench.leaderboard.best`), with the submitter's name beside it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue, TypeAdapter

from ilubench.collect import Compared, cells, robustness_row
from ilubench.errors import DataError, UsageError, did_you_mean
from ilubench.figures import RobustnessRow
from ilubench.finished import FinishedRun, read_run
from ilubench.identity import file_sha256
from ilubench.leaderboard.files import ATTACKS, Board, finished, finished_run, write_record
from ilubench.leaderboard.prediction import compare_runs, comparison_table
from ilubench.leaderboard.records import (
    AttackEntry,
    AttackResult,
    Comparison,
    Entry,
    Pointer,
    Submission,
)
from ilubench.leaderboard.samples import point
from ilubench.likeness import memory_differences, setting_differences, suite_differences
from ilubench.markdown import cell, table
from ilubench.notes import row_notes
from ilubench.results import RunRecord
from ilubench.run_files import memory_of
from ilubench.store import write_atomic

__all__ = ["AboutAttack", "Packed", "attack_text", "read_attack_runs", "submit_attack"]

CHECKPOINT = "checkpoint"
"""The method under which `ilubench attack MODEL` attacks given weights."""


ID = r"[a-z0-9][a-z0-9_-]{0,63}"

ROW = TypeAdapter(RobustnessRow)


@dataclass(frozen=True)
class AboutAttack:
    """What a submitter says of an attack.

    Attributes:
        by: who sends it in.
        label: the record's name; the attack's if empty.
        title: what tables show; the label if empty.
        code: https address of its code.
        paper: https address of its paper.
        citation: BibTeX, or words.
        remarks: what a reader must know.
    """

    by: str = ""
    label: str = ""
    title: str = ""
    code: str = ""
    paper: str = ""
    citation: str = ""
    remarks: str = ""


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        path: the record.
        attack: what it holds.
        comparisons: entry -> the submitted result against the maintainer's; empty for a submission.
    """

    path: Path
    attack: AttackEntry
    comparisons: Mapping[str, tuple[Comparison, ...]]


@dataclass(frozen=True)
class _Tried:
    """An attack alone, tried on an entry."""

    entry: Entry
    name: str
    run: FinishedRun

    @property
    def config(self) -> dict[str, JsonValue]:
        """What the attack's record keeps of the run's configuration."""
        assert self.run.suite is not None  # `_checked` refuses runs without samples
        suite = cast("JsonValue", self.run.suite.model_dump(mode="json"))
        memory = cast("JsonValue", self.run.memory.model_dump(mode="json"))
        attacks = {self.name: self.run.settings[self.name]}
        return {"run": {"memory": memory}, "suite": suite, "attacks": attacks}


def read_attack_runs(words: Sequence[str], board: Board, name: str = "") -> tuple[_Tried, ...]:
    """Return what each run says of one attack on one entry.

    Args:
        words: folders of finished runs, or `ENTRY=FOLDER` where the entry is to be named.
        board: the suite's records.
        name: of the attack; the one that the entries' suite lacks if empty.

    Raises:
        UsageError: a run of another suite, without a new attack, or of no entry's method.
        DataError: a folder that holds no run with samples and configuration.
    """
    found = []
    for word in words:
        asked, _, path = word.rpartition("=")
        run = _checked(read_run(Path(path)), board)
        entry = board.entry(asked) if asked else _entry_of(run, board)
        found.append(_alone(entry, _new_attack(run, entry, board, name), run))
    names = sorted({one.name for one in found})
    if len(names) > 1:
        raise UsageError(f"the runs are of several attacks, {', '.join(names)}; send in one a time")
    twice = [one.entry.entry for one in found]
    if len(set(twice)) != len(twice):
        raise UsageError(
            f"two runs attack the same entry: {', '.join(sorted(twice))}; give one each"
        )
    return tuple(found)


def submit_attack(
    tried: Sequence[_Tried], board: Board, about: AboutAttack, *, verified: bool = False
) -> Packed:
    """Write what an attack did to entries into `<suite>/attacks/`, and return it.

    Args:
        tried: of one attack, from :func:`read_attack_runs`.
        board: the suite's records.
        about: what the submitter says; a verification leaves the submitter's words.
        verified: whether these are a maintainer's runs, with fresh seeds, of a submitted attack.

    Raises:
        UsageError: a record of that name is there with another attack, a verified result would be
            replaced, or there is nothing submitted that could be verified.
        DataError: a result cannot be compared with the submitted one.
    """
    label = about.label or tried[0].name
    if not verified and not about.by.strip():
        raise UsageError("--by: who sends the attack in is missing; it is credited by that name")
    if not re.fullmatch(ID, label):
        raise UsageError(f"--label {label!r}: use lower case letters, digits, - and _, at most 64")
    path = board.folder / ATTACKS / f"{label}.json"
    there = next((one for one in board.attacks if one.entry == label), None)
    if verified and there is None:
        names = [one.entry for one in board.attacks]
        raise UsageError(f"no attack {label!r} was submitted; {did_you_mean(label, names)}")
    if there is not None:
        _check_same_attack(path, there, tried)
    compared: dict[str, tuple[Comparison, ...]] = {}
    results = {one.entry: one for one in there.results} if there is not None else {}
    for one in tried:
        old = results.get(one.entry.entry)
        if verified:
            compared[one.entry.entry] = _compared(path, board.folder, there, old, one)
        elif old is not None and old.verified:
            raise UsageError(f"{path}: the result on {one.entry.entry} is verified; it stays")
    for one in tried:
        name = one.entry.entry
        pointer = _write_samples(board.folder, f"{ATTACKS}/{label}/{name}.parquet", one.run)
        results[name] = AttackResult(
            entry=name, run=one.run.record, samples=pointer, verified=verified
        )
    record = AttackEntry(
        entry=label,
        title=about.title or label,
        suite=board.suite,
        suite_version=tried[0].run.record.suite_version,
        config=tried[0].config,
        results=tuple(results[name] for name in sorted(results)),
        submission=_submission(about),
    )
    if there is not None:
        kept = {"title": there.title, "submission": there.submission, "package": there.package}
        record = record.model_copy(update=kept)
    write_record(path, record)
    return Packed(path, record, compared)


def attack_text(packed: Packed, board: Board) -> str:
    """Return what an attack's record says, as Markdown: its worst case beside each entry's own."""
    head = ("entry", "metric", "worst case", "of the suite's attacks", "")
    rows = []
    for one in packed.attack.results:
        own = board.entry(one.entry).run.rows
        for label, row in one.run.rows.items():
            figures = [_worst(each) for each in (row, own.get(label))]
            state = "verified" if one.verified else "not verified: changes no score"
            rows.append((cell(one.entry), cell(label), *figures, state))
    lines = [str(packed.path), "", table(head, rows)]
    for name, comparisons in packed.comparisons.items():
        lines += ["", f"{name}, submitted and verified:", "", comparison_table(comparisons)]
    return "\n".join(lines)


def _worst(row: JsonValue) -> str:
    worst = ROW.validate_python(row).worst_case.value
    return "n/a" if worst is None else f"{worst:.3f}"


# --- which entry, which attack ---


def _checked(run: FinishedRun, board: Board) -> FinishedRun:
    """Refuse a run that has nothing to say about this leaderboard's entries."""
    if run.samples is None or not run.configured or run.suite is None:
        why = run.unread or "there is no config.yaml"
        raise DataError(f"{run.path}: an attack's run needs its samples and its config.yaml: {why}")
    if run.record.suite != board.suite:
        raise UsageError(
            f"{run.path} is of suite {run.record.suite!r}, and {board.folder} of {board.suite!r}; "
            "extend the suite in a file, and keep its name"
        )
    if run.record.failures:
        first = run.record.failures[0]
        raise DataError(f"{run.path}: {first.label} failed: {first.message}; run it again")
    return run


def _entry_of(run: FinishedRun, board: Board) -> Entry:
    """The entry whose method, with its settings, or whose weights the run attacked."""
    weights = _weights_of(run)
    for entry in board.entries:
        own, mine = entry.run, run.record
        alike = own.method_version == mine.method_version
        if weights and weights in {one.sha256 for one in entry.weights}:
            return entry
        if alike and not next(setting_differences(own.method, mine.method), None):
            return entry
    method = run.record.method["use"]
    names = ", ".join(entry.entry for entry in board.entries) or "none"
    raise UsageError(
        f"{run.path}: method {method} with these settings is no entry of {board.folder}; there are "
        f"{names}. Run an entry's method with its settings, or attack its published weights"
    )


def _weights_of(run: FinishedRun) -> str:
    """SHA-256 of the weights that a run attacked, where they still lie there; empty if not."""
    settings = run.record.method["settings"]
    model = settings.get("model") if isinstance(settings, dict) else None
    folder = model.get("path") if isinstance(model, dict) else None
    if run.record.method["use"] != CHECKPOINT or not isinstance(folder, str):
        return ""
    file = Path(folder) / "model.safetensors"
    return file_sha256(file) if file.is_file() else ""


def _new_attack(run: FinishedRun, entry: Entry, board: Board, asked: str) -> str:
    """The attack that the entry's suite lacks, all else being alike."""
    submitted = finished(entry, board.folder)
    assert run.suite is not None
    assert submitted.suite is not None
    known = submitted.suite.attacks
    new = [name for name in run.record.attacks if name not in known]
    if asked:
        if asked not in new:
            raise UsageError(
                f"--attack: no new one {asked!r} in {run.path}; {did_you_mean(asked, new)}"
            )
        new = [asked]
    if len(new) != 1:
        what = f"has {', '.join(new)}: name one by --attack" if new else "has none that is new"
        raise UsageError(
            f"{run.path} {what}; an attack is added to the suite by a file that extends it"
        )
    if (run.record.suite_version, run.record.engine, run.record.dtype) != (
        entry.run.suite_version,
        entry.run.engine,
        entry.run.dtype,
    ):
        raise UsageError(f"{run.path} and {entry.entry} differ in suite version, engine or dtype")
    roles = sorted(run.record.data.keys() & entry.run.data.keys())
    for role in roles:
        if run.record.data[role] != entry.run.data[role]:
            raise UsageError(f"{run.path}: the rows of {role} are not those of {entry.entry}")
    both = {*roles, *(("target",) if run.record.target and entry.run.target else ())}
    for field, one, other in suite_differences(run.suite, submitted.suite, (), both):
        raise UsageError(
            f"{run.path}: suite.{field} is {one!r}, and {other!r} in {entry.entry}; an attack adds "
            "to the suite and changes nothing else in it"
        )
    for field, one, other in memory_differences(run.memory, submitted.memory, run.suite):
        raise UsageError(f"{run.path}: {field} is {one!r}, and {other!r} in {entry.entry}")
    return new[0]


# --- the attack alone ---


def _alone(entry: Entry, name: str, run: FinishedRun) -> _Tried:
    """The run as if it had had this attack only, its row computed anew."""
    assert run.samples is not None
    assert run.suite is not None
    if name not in run.settings:
        raise DataError(f"{run.path}: config.yaml: attacks.{name} is missing")
    others = set(run.record.attacks) - {name}
    kept = pc.is_in(run.samples["attack"], value_set=pa.array(["", name]))
    samples = run.samples.filter(kept)
    record, suite = run.record, run.suite
    mine = cells(samples, "method", seeded=False)
    if len(mine.scores) > 1:  # each seed has an unlearned model of its own
        mine = cells(samples, "method", seeded=True)
    found = Compared(
        mine, cells(samples, "reference", seeded=False), cells(samples, "retrain", seeded=False)
    )
    rows = {
        metric.label: robustness_row(suite, metric, [name], record.seeds, found)
        for metric in suite.primary_forget
    }

    def ours(role: str) -> bool:
        return role.partition(".")[0] not in others

    notes = row_notes(rows)
    told: dict[str, object] = {
        "attacks": (name,),
        "rows": {label: ROW.dump_python(row, mode="json") for label, row in rows.items()},
        "protocol": {key: value for key, value in record.protocol.items() if key == name},
        "seen": tuple(one for one in record.seen if one == name),
        "data": {role: value for role, value in record.data.items() if ours(role)},
        "overlap": tuple(one for one in record.overlap if ours(one.role)),
        "jobs": tuple(
            job for job in record.jobs if job.stage != "attack" or f" with {name}," in job.label
        ),
        "notes": tuple(notes),
    }
    if record.method["use"] == CHECKPOINT:  # the record would name a folder of somebody's disk
        told["method"], told["method_version"] = entry.run.method, entry.run.method_version
    alone = RunRecord.model_validate(record.model_copy(update=told).model_dump(mode="json"))
    return _Tried(entry, name, replace(run, record=alone, recorded=rows, samples=samples))


def _write_samples(folder: Path, name: str, run: FinishedRun) -> Pointer:
    assert run.samples is not None
    buffer = pa.BufferOutputStream()
    pq.write_table(run.samples, buffer, compression="zstd")
    write_atomic(folder / name, buffer.getvalue().to_pybytes())
    return point(folder, name)


def _submission(about: AboutAttack) -> Submission:
    return Submission(
        by=about.by,
        day=datetime.now(UTC).date(),
        code=about.code,
        paper=about.paper,
        citation=about.citation,
        remarks=about.remarks,
    )


# --- a maintainer's run ---


def _check_same_attack(path: Path, there: AttackEntry, tried: Sequence[_Tried]) -> None:
    for one in tried:
        for field, mine, theirs in setting_differences(_attack(one.config), _attack(there.config)):
            raise UsageError(
                f"{one.run.path}: {field} is {mine!r}, and {theirs!r} in {path}; another attack "
                "needs a name of its own: --label"
            )
        kept = memory_of(there.config, f"{path}: config")
        assert one.run.suite is not None
        for field, mine, theirs in memory_differences(one.run.memory, kept, one.run.suite):
            raise UsageError(f"{one.run.path}: {field} is {mine!r}, and {theirs!r} in {path}")


def _attack(config: Mapping[str, JsonValue]) -> JsonValue:
    """Name and resolved settings of the attack, and its part of the suite."""
    settings, suite = config.get("attacks"), config.get("suite")
    attacks = suite.get("attacks") if isinstance(suite, dict) else None
    names = list(settings) if isinstance(settings, dict) else []
    spec = {name: attacks.get(name) for name in names} if isinstance(attacks, dict) else None
    return {"attacks": settings, "suite": {"attacks": cast("JsonValue", spec)}}


def _compared(
    path: Path,
    folder: Path,
    there: AttackEntry | None,
    old: AttackResult | None,
    one: _Tried,
) -> tuple[Comparison, ...]:
    """The submitted result against the maintainer's."""
    if there is None or old is None:
        raise UsageError(
            f"{path}: no result on {one.entry.entry} was submitted; leave out --verified"
        )
    submitted = finished_run(path, old.run, there.config, folder, old.samples)
    return compare_runs(submitted, one.run)
