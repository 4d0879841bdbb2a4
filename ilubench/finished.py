"""Finished runs, read back: the record, its rows, and the scores that the rows follow from.

No plugin is loaded: a stranger's run is read without its method, its attacks or its scorers.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue, TypeAdapter, ValidationError

from ilubench.aggregate import aggregate
from ilubench.collect import Cells, cells, chances, method_runs
from ilubench.errors import DataError, SpecError, UsageError, did_you_mean
from ilubench.experiment import Attack, Experiment, load_suite
from ilubench.figures import MethodRuns, RobustnessRow
from ilubench.interfaces import Checkpoint, WeightAttack
from ilubench.loading import load_yaml, validate
from ilubench.methods.none import NoUnlearning
from ilubench.planning import REFERENCE, RETRAIN
from ilubench.results import RunRecord
from ilubench.specs import MetricSpec, RunSpec, SuiteSpec
from ilubench.tables import Tables

__all__ = ["REFERENCES", "FinishedRun", "check_alike", "read_run"]

REFERENCES = (REFERENCE, RETRAIN)
"""Methods that others are measured against: the model that knows, and the one that never knew."""

RECORD = "results.json"
SAME_ORIGINAL = 0.02
OF_THE_MACHINE = ("micro_batch", "save_every_s")


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run.

    Attributes:
        path: where it was read from.
        record: what it left.
        rows: primary metric -> its row; empty where nothing was attacked or too much failed.
        suite: what was measured; None where the samples cannot be read.
        samples: every score; None where they cannot be read.
        unread: why there are no samples; empty where there are.
        settings: attack -> its settings with all changes; empty where no `config.yaml` tells.
    """

    path: Path
    record: RunRecord
    rows: Mapping[str, RobustnessRow]
    suite: SuiteSpec | None
    samples: pa.Table | None
    unread: str
    settings: Mapping[str, JsonValue]

    def bar(self, label: str) -> str:
        """Return why the run is listed but has no rank in a metric; empty where it may have one."""
        row = self.rows[label]
        if self.record.method["use"] in REFERENCES:
            return "reference"
        if row.status != "ok":
            return "unknown utility" if row.status == "unknown" else row.status
        trained_on = [name for name in row.ra_core_attacks if name in self.record.seen]
        if trained_on:
            return f"trained on {', '.join(trained_on)}"
        if not row.ra_core_attacks:
            return "no RA_core"
        return "no samples" if self.samples is None else ""

    def scores(self, label: str) -> MethodRuns:
        """Return the method's scores in a primary metric.

        Raises:
            DataError: no samples, or they do not have the metric.
        """
        return self._scores(label, self._mine)

    def original(self, label: str) -> MethodRuns:
        """Return the original model's scores in a primary metric.

        Raises:
            DataError: no samples, or they do not have the metric.
        """
        return self._scores(label, self._reference)

    def over(self, label: str, attacks: Sequence[str]) -> RobustnessRow:
        """Return the row of some of the attacks that were run.

        Raises:
            DataError: no samples, or an attack that was not run.
        """
        mine = self.scores(label)
        courses = tuple(course for course in mine.courses if course.attack in attacks)
        if len(courses) != len(set(attacks)):
            raise DataError(f"{self.path}: not all of {', '.join(attacks)} were run")
        experiment, metric = self._metric(label)
        return aggregate(
            replace(mine, courses=courses), self.original(label), chances(experiment, metric)
        )

    @cached_property
    def _reference(self) -> Cells:
        return cells(self._samples(), "reference", seeded=False)

    @cached_property
    def _mine(self) -> Cells:
        if self.record.method["use"] == REFERENCE:
            return self._reference
        # a method without randomness has one unlearned model, which was scored once
        found = cells(self._samples(), "method", seeded=False)
        several = len(found.scores) > 1
        return cells(self._samples(), "method", seeded=True) if several else found

    def _samples(self) -> pa.Table:
        if self.samples is None:
            raise DataError(f"{self.path}: {self.unread}")
        return self.samples

    def _metric(self, label: str) -> tuple[Experiment, MetricSpec]:
        if self.suite is None:
            raise DataError(f"{self.path}: {self.unread}")
        metrics = {metric.label: metric for metric in self.suite.primary_forget}
        if label not in metrics:
            remedy = did_you_mean(label, metrics)
            raise DataError(f"{self.path}: its suite has no forget metric {label!r}; {remedy}")
        return _experiment(self.suite, self.record), metrics[label]

    def _scores(self, label: str, found: Cells) -> MethodRuns:
        experiment, metric = self._metric(label)
        try:
            return method_runs(experiment, found, metric)
        except KeyError as error:
            raise DataError(f"{self.path}: samples.parquet lacks {error} of {label}") from error


def read_run(path: Path) -> FinishedRun:
    """Return a finished run.

    Args:
        path: its folder, or its `results.json`; what lies beside that file is read too.

    Raises:
        DataError: no record, or one that cannot be read.
    """
    file = path / RECORD if path.is_dir() else path
    try:
        record = RunRecord.model_validate(json.loads(file.read_text(encoding="utf-8")))
        rows = TypeAdapter(dict[str, RobustnessRow]).validate_python(record.rows)
    except OSError as error:
        raise DataError(f"{file}: {error.strerror}; give a run's folder") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"{file} is no run's record: {where}: {first['msg']}") from error
    except ValueError as error:
        raise DataError(f"{file} is no run's record: {error}") from error
    # a record under another name may lie beside anything
    folder = file.parent if file.name == RECORD else None
    suite, samples, unread = None, None, "no samples.parquet beside it"
    settings: Mapping[str, JsonValue] = {}
    if folder is not None and (folder / "samples.parquet").is_file():
        try:
            suite, settings = _configuration(folder, record)
            samples, unread = pq.read_table(folder / "samples.parquet"), ""
        except (SpecError, DataError, OSError, pa.ArrowException) as error:
            suite, unread = None, str(error)
    return FinishedRun(path, record, rows, suite, samples, unread, settings)


def check_alike(runs: Sequence[FinishedRun]) -> None:
    """Refuse runs that cannot be compared.

    Raises:
        UsageError: names two runs and what they differ in: suite, version, engine, dtype, attacks,
            their settings or steps, the original model. Or a run is given twice.
    """
    first = runs[0]
    seen: dict[str, Path] = {}
    for run in runs:
        if run.record.run in seen:
            both = f"{seen[run.record.run]} and {run.path}"
            raise UsageError(f"{both} are the same run ({run.record.run}); give it once")
        seen[run.record.run] = run.path
    for run in runs[1:]:
        for what, one, other in _differences(first, run):
            raise UsageError(
                f"{first.path} and {run.path} differ in {what} ({one} and {other}); "
                "only like runs can be compared"
            )


# --- inside ---


class _Recorded(WeightAttack):
    """An attack that was carried out: reading its scores needs its name, not its code."""

    def tamper(self, model: Any, data: Any, context: Any) -> Iterator[Checkpoint]:  # noqa: ANN401
        raise NotImplementedError


def _experiment(suite: SuiteSpec, record: RunRecord) -> Experiment:
    """What the samples' reader asks an experiment for: the suite, and the attacks' names."""
    return Experiment(
        run=RunSpec(suite=suite.name),
        suite=suite,
        method_name=REFERENCE,
        method=NoUnlearning(),
        attacks=tuple(
            Attack(name, suite.attacks[name], _Recorded(), None) for name in record.attacks
        ),
        scorers={},
        seeds=record.seeds,
        tables=Tables({}, {}, _no_generator),
    )


def _no_generator(spec: object) -> Any:  # noqa: ANN401
    raise NotImplementedError(spec)


def _configuration(folder: Path, record: RunRecord) -> tuple[SuiteSpec, Mapping[str, JsonValue]]:
    """The suite as it was run, else the shipped one of that version; the attacks' settings."""
    path = folder / "config.yaml"
    if path.is_file():
        raw = load_yaml(path)
        attacks = raw.get("attacks")
        suite = validate(SuiteSpec, raw.get("suite"), source=f"{path}: suite")
        settings: Mapping[str, JsonValue] = attacks if isinstance(attacks, dict) else {}
    else:
        values, source = load_suite(record.suite)
        suite, settings = validate(SuiteSpec, values, source=source), {}
    if (suite.name, suite.version) != (record.suite, record.suite_version):
        measured = f"{record.suite} version {record.suite_version}"
        problem = f"measured on {measured}, and what is at hand is {suite.name} {suite.version}"
        raise DataError(f"{problem}: the samples cannot be read")
    unknown = sorted(set(record.attacks) - set(suite.attacks))
    if unknown:
        raise DataError(f"suite {suite.name} has no attack {', '.join(unknown)}")
    return suite, settings


def _differences(a: FinishedRun, b: FinishedRun) -> Iterator[tuple[str, object, object]]:
    """(what, of a, of b) for all that must agree and does not."""
    for what in ("suite", "suite_version", "engine", "dtype"):
        one, other = getattr(a.record, what), getattr(b.record, what)
        if one != other:
            yield what.replace("_", " "), one, other
    one, other = sorted(a.record.attacks), sorted(b.record.attacks)
    if one != other:
        yield "attacks", ", ".join(one), ", ".join(other)
    both = ((a.settings, b.settings), (a.record.protocol, b.record.protocol))
    for attack, mine, theirs in (
        (name, dict(_leaves("", x[name])), dict(_leaves("", y[name])))
        for x, y in both
        for name in x.keys() & y.keys()
    ):
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                yield f"{key} of {attack}", mine.get(key), theirs.get(key)
    for label in a.rows.keys() & b.rows.keys():
        yield from _row_differences(label, a.rows[label], b.rows[label])


def _leaves(name: str, value: JsonValue) -> Iterator[tuple[str, JsonValue]]:
    """Dotted names and values of what can change a result."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, below in value.items():
        if key not in OF_THE_MACHINE:
            yield from _leaves(f"{name}.{key}" if name else key, below)


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
