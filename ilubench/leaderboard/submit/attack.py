"""An attack on existing entries: runs in which it was tried, packaged; and a maintainer's own.

The attack is one that the suite lacks: a suite file that extends the suite by it. Each run belongs
to an entry: it ran the entry's method with its settings, or attacked its published weights. What is
kept of a run is that attack alone, with the samples from which its row follows.

A result counts once a maintainer has run the same attack with fresh seeds. Then the maintainer's
figures stand in the place of the submitted ones, and the entry's worst case is the lowest that any
verified attack reaches (:mod:`ilubench.leaderboard.site.best_attack`), with the submitter's name
beside it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, TypeAdapter

from ilubench.errors import UsageError, did_you_mean
from ilubench.leaderboard.records.files import ATTACKS, Board, finished_run, write_record
from ilubench.leaderboard.records.models import AttackEntry, AttackResult, Comparison, Pointer
from ilubench.leaderboard.records.prediction import compare_runs, comparison_table
from ilubench.leaderboard.records.samples import point_to_samples
from ilubench.leaderboard.submit.attack_runs import Tried
from ilubench.leaderboard.submit.entry import About
from ilubench.records.finished import FinishedRun
from ilubench.records.labels import WORST_CASE
from ilubench.records.likeness import memory_differences, setting_differences
from ilubench.records.markdown import cell, table
from ilubench.records.run_files import memory_of
from ilubench.records.scores import plain_samples
from ilubench.records.store import write_atomic
from ilubench.statistics.row import RobustnessRow

__all__ = ["Packed", "attack_text", "submit_attack"]

ID = r"[a-z0-9][a-z0-9_-]{0,63}"

ROW = TypeAdapter(RobustnessRow)


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


def submit_attack(
    tried: Sequence[Tried], board: Board, about: About, *, verified: bool = False
) -> Packed:
    """Write what an attack did to entries into `<suite>/attacks/`, and return it.

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
        submission=about.submission(),
    )
    if there is not None:
        kept = {"title": there.title, "submission": there.submission, "package": there.package}
        record = record.model_copy(update=kept)
    write_record(path, record)
    return Packed(path, record, compared)


def attack_text(packed: Packed, board: Board) -> str:
    """Return what an attack's record says, as Markdown: its worst case beside each entry's own."""
    head = ("entry", "metric", WORST_CASE, "of the suite's attacks", "")
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


def _write_samples(folder: Path, name: str, run: FinishedRun) -> Pointer:
    assert run.samples is not None
    buffer = pa.BufferOutputStream()
    pq.write_table(plain_samples(run.samples), buffer, compression="zstd")
    write_atomic(folder / name, buffer.getvalue().to_pybytes())
    return point_to_samples(folder, name)


# --- a maintainer's run ---


def _check_same_attack(path: Path, there: AttackEntry, tried: Sequence[Tried]) -> None:
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
    path: Path, folder: Path, there: AttackEntry | None, old: AttackResult | None, one: Tried
) -> tuple[Comparison, ...]:
    """The submitted result against the maintainer's."""
    if there is None or old is None:
        raise UsageError(
            f"{path}: no result on {one.entry.entry} was submitted; leave out --verified"
        )
    submitted = finished_run(path, old.run, there.config, folder, old.samples)
    return compare_runs(submitted, one.run)
