"""Runs of an attack on existing entries, read: whose method they attacked, and the attack alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import JsonValue, TypeAdapter

from ilubench.data.hub.models import SINGLE
from ilubench.errors import DataError, UsageError, did_you_mean
from ilubench.leaderboard.records.files import Board, read_entry_run
from ilubench.leaderboard.records.models import Entry
from ilubench.records.finished import FinishedRun, read_run
from ilubench.records.keys import file_sha256
from ilubench.records.likeness import memory_differences, setting_differences, suite_differences
from ilubench.records.reader_notes import row_notes
from ilubench.records.results import RunRecord
from ilubench.records.rows import Compared, is_asked, robustness_row
from ilubench.records.scores import method_samples
from ilubench.statistics.row import RobustnessRow

__all__ = ["Tried", "read_attack_runs"]

CHECKPOINT = "checkpoint"
"""The method under which `ilubench attack MODEL` attacks given weights."""

ROW = TypeAdapter(RobustnessRow)


@dataclass(frozen=True)
class Tried:
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


def read_attack_runs(words: Sequence[str], board: Board, name: str = "") -> tuple[Tried, ...]:
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
    method = run.record.method_name
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
    if run.record.method_name != CHECKPOINT or not isinstance(folder, str):
        return ""
    file = Path(folder) / SINGLE
    return file_sha256(file) if file.is_file() else ""


def _new_attack(run: FinishedRun, entry: Entry, board: Board, asked: str) -> str:
    """The attack that the entry's suite lacks, all else being alike."""
    submitted = read_entry_run(entry, board.folder)
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


def _alone(entry: Entry, name: str, run: FinishedRun) -> Tried:
    """The run as if it had had this attack only, its row computed anew."""
    assert run.samples is not None
    assert run.suite is not None
    if name not in run.settings:
        raise DataError(f"{run.path}: config.yaml: attacks.{name} is missing")
    others = set(run.record.attacks) - {name}
    kept = pc.is_in(run.samples["attack"], value_set=pa.array(["", name]))
    samples = run.samples.filter(kept)
    record, suite = run.record, run.suite
    found = Compared(*(method_samples(samples, who) for who in ("method", "reference", "retrain")))
    rows = {
        metric.label: robustness_row(suite, metric, [name], record.seeds, found, run.kept_within)
        for metric in suite.primary_forget
        if is_asked(metric, [name], found.mine)
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
        "ranges": {
            metric: bounds
            for metric, bounds in record.ranges.items()
            if metric.partition("/")[0] not in others
        },
        "overlap": tuple(one for one in record.overlap if ours(one.role)),
        "references": {
            who: one.model_copy(update={"attacks": (name,)})
            for who, one in record.references.items()
            if name in one.attacks
        },
        "jobs": tuple(job for job in record.jobs if job.attack in ("", name)),
        "notes": tuple(notes),
    }
    if record.method_name == CHECKPOINT:  # the record would name a folder of somebody's disk
        told["method"], told["method_version"] = entry.run.method, entry.run.method_version
    alone = RunRecord.model_validate(record.model_copy(update=told).model_dump(mode="json"))
    return Tried(entry, name, replace(run, record=alone, recorded=rows, samples=samples))
