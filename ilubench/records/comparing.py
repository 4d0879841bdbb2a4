"""Whether finished runs can stand side by side, and in what they differ."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ilubench.errors import DataError, UsageError
from ilubench.records.finished import FinishedRun
from ilubench.records.likeness import (
    condition_differences,
    memory_differences,
    setting_differences,
    suite_differences,
)
from ilubench.statistics.row import RobustnessRow

__all__ = ["SAME_ORIGINAL", "check_alike", "common_labels", "run_differences"]

SAME_ORIGINAL = 0.02
"""How far two measurements of one original model may lie apart, on a metric's scale."""


def check_alike(runs: Sequence[FinishedRun]) -> None:
    """Refuse runs that cannot be compared.

    Raises:
        UsageError: names two runs and what they differ in: suite, version, engine, dtype, size of
            the scoring batches, world size, attacks, their settings or steps, data, metrics or any
            other field of the suites that can change a figure, what training kept in memory, the
            original model. Or a run is given twice.
    """
    first = runs[0]
    seen: dict[str, Path] = {}
    for run in runs:
        if run.record.run in seen:
            both = f"{seen[run.record.run]} and {run.path}"
            raise UsageError(f"{both} are the same run ({run.record.run}); give it once")
        seen[run.record.run] = run.path
    for run in runs[1:]:
        for what, one, other in run_differences(first, run):
            raise UsageError(
                f"{first.path} and {run.path} differ in {what} ({one} and {other}); "
                "only like runs can be compared"
            )


def run_differences(a: FinishedRun, b: FinishedRun) -> Iterator[tuple[str, object, object]]:
    """Yield (what, of a, of b) for all that must agree between runs that are compared."""
    for what in ("suite", "suite_version", "engine", "dtype"):
        one, other = getattr(a.record, what), getattr(b.record, what)
        if one != other:
            yield what.replace("_", " "), one, other
    yield from condition_differences(a.conditions, b.conditions)
    one, other = sorted(a.record.attacks), sorted(b.record.attacks)
    if one != other:
        yield "attacks", ", ".join(one), ", ".join(other)
    yield from _input_differences(a, b)
    both = ((a.settings, b.settings), (a.record.protocol, b.record.protocol))
    for attack, own, others in (
        (name, x[name], y[name]) for x, y in both for name in x.keys() & y.keys()
    ):
        for key, one, other in setting_differences(own, others):
            yield f"{key} of {attack}", one, other
    for label in a.rows.keys() & b.rows.keys():
        yield from _row_differences(label, a.rows[label], b.rows[label])


def common_labels(runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    """Return the primary metrics of runs that are to stand side by side.

    Raises:
        UsageError: the runs are not alike; names two of them.
        DataError: no run was attacked.
    """
    check_alike(runs)
    labels = tuple(dict.fromkeys(label for run in runs for label in run.rows))
    if not labels:
        raise DataError(f"{runs[0].path}: no robustness row; attack the model first")
    return labels


# --- inside ---


def _input_differences(a: FinishedRun, b: FinishedRun) -> Iterator[tuple[str, object, object]]:
    """The suites' fields; then what they stand for, where both records have its hash."""
    roles = sorted(a.record.data.keys() & b.record.data.keys())
    weights = [run.record.target for run in (a, b)]
    if a.configured and b.configured and a.suite is not None and b.suite is not None:
        known = {*roles, "target"} if all(weights) else set(roles)
        for name, one, other in suite_differences(a.suite, b.suite, a.record.attacks, known):
            yield name, _words(one), _words(other)
        yield from memory_differences(a.memory, b.memory, a.suite)
    for role in roles:
        if a.record.data[role] != b.record.data[role]:
            yield f"the rows of {role}", a.record.data[role], b.record.data[role]
    if all(weights) and weights[0] != weights[1]:
        yield "the target model's weights", weights[0], weights[1]


def _words(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _row_differences(
    label: str, a: RobustnessRow, b: RobustnessRow
) -> Iterator[tuple[str, object, object]]:
    both = {"ok", "collapsed"}
    if {a.status, b.status} <= both and a.ra_core_attacks != b.ra_core_attacks:
        yield "core_unseen", ", ".join(a.ra_core_attacks), ", ".join(b.ra_core_attacks)
    steps = [{part.attack: [s.step for s in part.steps] for part in row.attacks} for row in (a, b)]
    for attack in steps[0].keys() & steps[1].keys():
        if steps[0][attack] != steps[1][attack]:
            yield f"the scored steps of {attack}", steps[0][attack], steps[1][attack]
    one, other = a.forget_original.value, b.forget_original.value
    if one is not None and other is not None and abs(one - other) > SAME_ORIGINAL:
        yield f"the original model's {label}", f"{one:.3f}", f"{other:.3f}"
