"""A record's figures, computed again from the samples that it points to."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow.compute as pc

from ilubench.errors import DataError
from ilubench.leaderboard.check.suite import suite_problems
from ilubench.leaderboard.records.consistency import entry_problems, run_problems
from ilubench.leaderboard.records.files import finished_run
from ilubench.leaderboard.records.models import (
    AttackEntry,
    AttackResult,
    Comparison,
    Entry,
    Reported,
    Verification,
)
from ilubench.leaderboard.records.prediction import compare_runs
from ilubench.leaderboard.records.safe_json import named
from ilubench.records.finished import FinishedRun
from ilubench.records.likeness import memory_differences
from ilubench.records.reference_sets import find_set, read_set, reference_rows, rows_taken
from ilubench.records.results import COMPOSED, CompositeScore, RunRecord
from ilubench.records.run_files import memory_of
from ilubench.records.scores import SCHEMA
from ilubench.records.summaries import SAME, is_close, score_problems
from ilubench.specs import SuiteSpec
from ilubench.specs.untrusted import shorten

__all__ = [
    "attack_problems",
    "measured_problems",
    "reported_problems",
    "verification_problems",
    "without_samples",
]


def without_samples(run: FinishedRun) -> FinishedRun:
    """Return a run with its recomputed rows alone: a board's samples together would fill memory."""
    return replace(run, samples=None, unread="", recorded=dict(run.rows))


def measured_problems(entry: Entry, run: FinishedRun) -> Iterator[str]:
    """Yield what is wrong with an entry: what it says twice, its suite, its figures.

    Raises:
        DataError: a row does not follow from the samples; names metric and figure.
    """
    suite = _suite(run)
    yield from entry_problems(entry, suite)
    yield from suite_problems(entry.run, suite, run.settings)
    yield from figure_problems(run, "run.")


def figure_problems(run: FinishedRun, prefix: str = "") -> Iterator[str]:
    """Yield what does not follow from a run's samples.

    Raises:
        DataError: a row does not follow from the samples; names metric and figure.
    """
    for label in run.rows:
        run.scores(label)
    problems = (_seed_problems, _score_problems, _composite_problems, _reference_problems)
    for problem in (problem for found in problems for problem in found(run)):
        yield f"{prefix}{problem}"


def verification_problems(
    entry: Entry, run: FinishedRun, one: Verification, folder: Path
) -> Iterator[str]:
    """Yield what is wrong with a verification.

    Raises:
        IlubenchError: its samples are not what it points to, its rows do not follow from them, or
            it did not measure the same.
    """
    suite = _suite(run)
    if one.seeds != one.run.seeds:
        yield "seeds: are not those of its run"
    if set(one.seeds) & set(entry.run.seeds):
        yield "seeds: are not fresh; the entry has some of them"
    if one.run.run == entry.run.run:
        yield "run.run: is the entry's own run"
    if one.kind == "weights" and not entry.weights:
        yield "kind: the entry has no weights that could be verified"
    yield from _method_problems(one.run, entry.run)
    verified = finished_run(run.path, one.run, entry.config, folder, one.samples)
    for problem in run_problems(one.run, suite):
        yield f"run.{problem}"
    yield from figure_problems(verified, "run.")
    # the comparison of the two runs, as `ilubench leaderboard verify` writes it
    expected = compare_runs(run, verified)
    yield from _comparison_problems(one.comparisons, expected)


def attack_problems(
    attack: AttackEntry, one: AttackResult, entry: Entry, folder: Path
) -> Iterator[str]:
    """Yield what is wrong with what an attack did to an entry.

    Raises:
        DataError: its samples are not what it points to, or its rows do not follow from them.
    """
    version = attack.suite_version
    if not version == one.run.suite_version == entry.run.suite_version:
        yield f"run.suite_version: the attack is on version {version}; all three must agree"
    if len(one.run.attacks) != 1:
        yield "run.attacks: must be the attack alone"
    yield from _method_problems(one.run, entry.run)
    for role in sorted(one.run.data.keys() & entry.run.data.keys()):
        if one.run.data[role] != entry.run.data[role]:
            yield f"run.data.{named(role)}: other rows than the entry's"
    path = folder / "attacks" / f"{attack.entry}.json"
    run = finished_run(path, one.run, attack.config, folder, one.samples)
    suite = _suite(run)
    for problem in run_problems(one.run, suite):
        yield f"run.{problem}"
    yield from suite_problems(one.run, suite, run.settings, whole=False)
    kept = memory_of(entry.config, f"{entry.entry}: config")
    for field, mine, theirs in memory_differences(run.memory, kept, suite):
        yield f"config.run.{field}: is {mine}, and {theirs} in the entry"
    yield from figure_problems(run, "run.")


def reported_problems(record: Reported) -> Iterator[str]:
    """Yield what is wrong with a row of a paper; its numbers follow from nothing at hand."""
    if not record.citation.strip():
        yield "citation: is empty; say where the numbers are from"
    seen = set()
    for place, one in enumerate(record.figures):
        key = (one.metric, one.state)
        if key in seen:
            what = f"{shorten(one.metric)} of {shorten(one.state)}"
            yield f"figures.{place}: {what} stands there twice"
        seen.add(key)


# --- inside ---


def _suite(run: FinishedRun) -> SuiteSpec:
    if run.suite is None:
        raise DataError(f"{run.path}: {run.unread}")
    return run.suite


def _method_problems(mine: RunRecord, entry: RunRecord) -> Iterator[str]:
    """The same method with the same settings, also where its weights were given."""
    for field in ("method", "method_version"):
        if getattr(mine, field) != getattr(entry, field):
            yield f"run.{field}: is not the entry's"


def _comparison_problems(
    told: Sequence[Comparison], expected: Sequence[Comparison]
) -> Iterator[str]:
    names = [[(one.metric, one.figure) for one in side] for side in (told, expected)]
    if names[0] != names[1]:
        yield f"comparisons: must be of {', '.join(one.figure for one in expected)}"
        return
    for place, (one, other) in enumerate(zip(told, expected, strict=True)):
        for field in ("submitted", "verified", "low", "high"):
            a, b = getattr(one, field), getattr(other, field)
            if not is_close(a, b):
                yield f"comparisons.{place}.{field}: is {a:.8g}, and {b:.8g} by the samples"


def _seed_problems(run: FinishedRun) -> Iterator[str]:
    """A seed that the record names and the samples lack; one more of theirs is never read."""
    if run.samples is None:
        raise DataError(f"{run.path}: {run.unread}")
    found = sorted(pc.unique(run.samples["seed"]).to_pylist())
    if found != sorted(run.record.seeds):
        yield f"seeds: are {list(run.record.seeds)!r:.80}, and {found!r:.80} in the samples"


def _score_problems(run: FinishedRun) -> Iterator[str]:
    assert run.samples is not None  # `_seed_problems` looked at them
    yield from score_problems(run.record, run.samples)


def _composite_problems(run: FinishedRun) -> Iterator[str]:
    """The composites against the samples: there is one of each, and it is so."""
    if run.record.schema_version < COMPOSED:
        return
    expected = {_composite_key(one): one for one in run.composites}
    told: dict[tuple[object, ...], int] = {}
    for place, one in enumerate(run.record.composites):
        key, where = _composite_key(one), f"composites.{place}"
        if told.setdefault(key, place) != place:
            yield f"{where}: of the same as composites.{told[key]}"
        elif key not in expected:
            yield f"{where}: no samples of {shorten(one.label)}"
        else:
            for field in ("value", "low", "high", "n_seeds"):
                a, b = getattr(one, field), getattr(expected[key], field)
                # p-values of 1e-20 are told from 1e-10, too
                if not (a is b or (None not in (a, b) and math.isclose(a, b, rel_tol=SAME))):
                    yield f"{where}.{field}: is {a}, and {b} by the samples"
    for key in sorted(expected.keys() - told.keys(), key=str):
        yield f"composites: {', '.join(str(part) for part in key if part != '')} is missing"


def _composite_key(one: CompositeScore) -> tuple[object, ...]:
    return (one.label, one.kind, one.who, one.attack, one.step, one.level)


def _reference_problems(run: FinishedRun) -> Iterator[str]:
    """Samples that are said to be of a shipped set must be its, where it is at hand."""
    assert run.samples is not None  # `_seed_problems` looked at them
    for who, told in run.record.references.items():
        folder = find_set(run.record.suite, who)
        shipped = read_set(folder, who) if folder is not None else None
        if shipped is None or shipped.run.record.run != told.run:
            continue  # of another version of the suite
        order = [(name, "ascending") for name in SCHEMA.names]
        own, theirs = rows_taken(run.samples, who, told), reference_rows(shipped, told)
        if len(own) != len(theirs) or not own.sort_by(order).equals(theirs.sort_by(order)):
            yield f"references.{who}: other samples than those of {shorten(told.run)}"
