"""Finished runs, read back: the record, its rows, and the scores that the rows follow from.

No plugin is loaded: a stranger's run is read without its method, its attacks or its scorers.
"""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from pydantic import JsonValue

from ilubench.errors import DataError, SpecError, did_you_mean
from ilubench.records.chance import sampled_chances
from ilubench.records.composites import composite_scores
from ilubench.records.likeness import suite_conditions
from ilubench.records.ranges import Ranges, check_ranges
from ilubench.records.results import BOUNDED, REFERENCE, RETRAIN, CompositeScore, RunRecord
from ilubench.records.rows import Compared, chance_levels, method_runs, robustness_row
from ilubench.records.run_files import (
    check_intervals,
    check_left,
    check_named,
    list_leaves,
    read_config,
    read_libraries,
    read_record,
    read_run_samples,
)
from ilubench.records.scores import MethodSamples, method_samples
from ilubench.records.summaries import score_problems
from ilubench.records.training_data import environment_roles, seen_by
from ilubench.specs import MemorySpec, MetricSpec, SuiteSpec
from ilubench.specs.suite_files import load_suite
from ilubench.specs.yaml_files import validate_spec
from ilubench.statistics.aggregate import aggregate
from ilubench.statistics.bounds import RowRanges, bounded_row
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import MethodRuns, RobustnessRow

__all__ = ["REFERENCES", "FinishedRun", "read_run"]

REFERENCES = (REFERENCE, RETRAIN)
"""Methods that others are measured against: the model that knows, and the one that never knew."""

RECORD = "results.json"

SAME_FIGURE = 1e-6


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """A finished run.

    Attributes:
        path: where it was read from.
        record: what it left.
        recorded: primary metric -> its row as the record has it; empty where nothing was attacked
            or too much failed. `rows` are the rows to show.
        suite: what was measured; None where the samples cannot be read.
        samples: every score; None where they cannot be read.
        unread: why there are no samples; empty where there are.
        settings: attack -> its settings with all changes; empty where no `config.yaml` tells.
        configured: whether `suite` is from the run's own `config.yaml`, with its changes.
        memory: what training kept in memory, where `configured`.
        checked: whether the recorded rows were compared with the samples; they are not again.
        libraries: versions of the libraries that it was made with; empty where nothing tells.
    """

    path: Path
    record: RunRecord
    recorded: Mapping[str, RobustnessRow]
    suite: SuiteSpec | None
    samples: pa.Table | None
    unread: str
    settings: Mapping[str, JsonValue]
    configured: bool = False
    memory: MemorySpec = dataclasses.field(default_factory=MemorySpec)
    checked: bool = False
    libraries: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @cached_property
    def rows(self) -> Mapping[str, RobustnessRow]:
        """Primary metric -> its row, computed again where there are samples.

        A record can be edited, or lie beside another run's samples; what is shown and ranked
        follows from the samples. Where there are none, the rows are the record's. Intervals of
        bounded quantities lie within their bounds, also where an older record's do not.

        Raises:
            DataError: the record says otherwise than the samples; names metric and figure.
        """
        if self.samples is None:
            return self.recorded
        if self.checked:
            return {label: self._bounded(label, row) for label, row in self.recorded.items()}
        return {label: self._row(label, stored) for label, stored in self.recorded.items()}

    def check_scores(self) -> None:
        """Refuse scores before any attack that do not follow from the samples, where there are any.

        Raises:
            DataError: names the score.
        """
        if self.samples is None or not self.record.scores:
            return
        problem = next(score_problems(self.record, self.samples), None)
        if problem is not None:
            raise DataError(f"{self.path}: {problem}; the record was edited")

    @cached_property
    def composites(self) -> tuple[CompositeScore, ...]:
        """The suite's composites, computed again where there are samples.

        Raises:
            DataError: seeds were scored on other items.
        """
        if self.samples is None or self.suite is None:
            return self.record.composites
        return composite_scores(
            self.suite, self.samples, self.metric_ranges, self.record.method_name
        )

    @cached_property
    def conditions(self) -> Mapping[str, str | int]:
        """What the scores depend on besides suite and method: by the record, else by the suite."""
        known = suite_conditions(self.suite) if self.configured and self.suite is not None else {}
        return {**known, **self.record.conditions}

    @cached_property
    def metric_ranges(self) -> Ranges:
        """What an item can score in each metric."""
        return Ranges() if self.suite is None else Ranges.of_suite(self.suite, self.record.ranges)

    def ranges(self, label: str) -> RowRanges:
        """Return what the scores of a primary metric's row lie between."""
        return self.metric_ranges.of_row(*self._metric(label))

    @property
    def kept_within(self) -> Ranges | None:
        """What the intervals of the record's rows are kept within; None: its version does not."""
        return None if self.record.schema_version < BOUNDED else self.metric_ranges

    def _bounded(self, label: str, row: RobustnessRow) -> RobustnessRow:
        """A row that is as the record's version has it, as it is shown."""
        return bounded_row(row, self.ranges(label)) if self.kept_within is None else row

    def bar(self, label: str) -> Note | None:
        """Return why the run is listed but has no rank in a metric; None where it may have one."""
        row = self.rows[label]
        if self.record.method_name in REFERENCES:
            return Note(NoteKind.REFERENCE)
        if row.status == "collapsed":
            return self._collapsed(row)
        if row.status != "ok":
            return Note(NoteKind(row.status))
        if self.samples is None:
            return Note(NoteKind.NO_SAMPLES)
        trained_on = tuple(name for name in row.ra_core_attacks if name in self.record.seen)
        if trained_on:
            return Note(NoteKind.TRAINED_ON, trained_on)
        return None if row.ra_core_attacks else Note(NoteKind.NO_CORE)

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
        suite, metric = self._metric(label)
        row = aggregate(
            replace(mine, courses=courses), self.original(label), chance_levels(suite, metric)
        )
        return bounded_row(row, self.ranges(label))

    def attacked(self, label: str, reference: str) -> RobustnessRow | None:
        """Return a reference's row under the run's attacks; None where there is none beside it.

        Args:
            label: of a primary metric.
            reference: `none`, the original model, or `retrain`, the one that never knew.

        Raises:
            DataError: the samples do not have the metric.
        """
        if self.samples is None or self.record.method_name in ("", reference):
            return None
        found = self._reference if reference == REFERENCE else self._never
        if not any(found.attacks.get(name) for name in self.record.attacks):
            return None
        suite, metric = self._metric(label)
        mine, original = self._scores(label, found), self.original(label)
        row = aggregate(mine, original, chance_levels(suite, metric))
        return bounded_row(row, self.ranges(label))

    def _collapsed(self, row: RobustnessRow) -> Note:
        """Why a collapsed row has no rank: which utility is gone, and how much of it is left."""
        worst = row.utility.worst
        if self.suite is None or worst is None:
            return Note(NoteKind.COLLAPSED)
        left = row.utility.kept[worst].value
        label = self.suite.utility[worst].label
        return Note(NoteKind.COLLAPSED, (label,), () if left is None else (left,))

    def _row(self, label: str, stored: RobustnessRow) -> RobustnessRow:
        """The row as the run made it, from the samples."""
        suite, metric = self._metric(label)
        attacks, seeds = self.record.attacks, self.record.seeds
        found = Compared(self._mine, self._reference, self._never)
        with self._reading(label):
            row = robustness_row(suite, metric, attacks, seeds, found, self.kept_within)
        if row.status == "incomplete" and stored.status == "diverged":
            # what diverged is missing in the samples; only the record knows why
            row = replace(row, status="diverged")
        self._check_same(label, stored, row)
        return self._bounded(label, row)

    def _check_same(self, label: str, stored: RobustnessRow, found: RobustnessRow) -> None:
        """Refuse a row that does not follow from the samples."""
        if stored == found:
            return
        version = self.record.schema_version
        one, other = (dict(list_leaves(row, version=version)) for row in (stored, found))
        for name in dict.fromkeys((*other, *one)):
            a, b = one.get(name), other.get(name)
            if a == b or (version == 1 and ".note" in name):
                continue
            if isinstance(a, float) and isinstance(b, float):
                if math.isclose(a, b, rel_tol=SAME_FIGURE, abs_tol=SAME_FIGURE):
                    continue
                a, b = f"{a:.8g}", f"{b:.8g}"  # one may be 1e300
            raise DataError(
                f"{self.path}: {name} of {label} is {a} by its record and {b} by its samples; the "
                "record was edited, or one of the two files is another run's"
            )

    @cached_property
    def _reference(self) -> MethodSamples:
        return self._samples_of("reference")

    @cached_property
    def _never(self) -> MethodSamples:
        return self._samples_of("retrain")

    @cached_property
    def _mine(self) -> MethodSamples:
        if self.record.method_name in ("", REFERENCE):
            return self._reference
        return self._samples_of("method")

    def _samples_of(self, who: str) -> MethodSamples:
        if self.samples is None:
            raise DataError(f"{self.path}: {self.unread}")
        try:
            # a method without randomness has one unlearned model, which was scored once
            return method_samples(self.samples, who)
        except DataError as error:
            raise DataError(f"{self.path}: samples.parquet: {error}") from error

    @cached_property
    def measured_suite(self) -> SuiteSpec:
        """The suite, with the chance levels that were measured.

        Raises:
            DataError: the samples cannot be read.
        """
        if self.suite is None:
            raise DataError(f"{self.path}: {self.unread}")
        return self.suite if self.samples is None else sampled_chances(self.suite, self.samples)

    def _metric(self, label: str) -> tuple[SuiteSpec, MetricSpec]:
        suite = self.measured_suite
        metrics = {metric.label: metric for metric in suite.primary_forget}
        if label not in metrics:
            remedy = did_you_mean(label, metrics)
            raise DataError(f"{self.path}: its suite has no forget metric {label!r}; {remedy}")
        return suite, metrics[label]

    def _scores(self, label: str, found: MethodSamples) -> MethodRuns:
        suite, metric = self._metric(label)
        with self._reading(label):
            return method_runs(suite, self.record.attacks, found, metric)

    @contextlib.contextmanager
    def _reading(self, label: str) -> Iterator[None]:
        """Say of what is missing or wrong in the samples where it is."""
        try:
            yield
        except KeyError as error:
            raise DataError(f"{self.path}: samples.parquet lacks {error} of {label}") from error
        except DataError as error:
            raise DataError(f"{self.path}: samples.parquet: {error}") from error


def read_run(path: Path) -> FinishedRun:
    """Return a finished run.

    Args:
        path: its folder, or its `results.json`; what lies beside that file is read too.

    Raises:
        DataError: no record, or a file that is not what a run leaves; names file and field.
    """
    file = path / RECORD if path.is_dir() else path
    # a record under another name may lie beside anything
    folder = file.parent if file.name == RECORD else None
    if folder is not None:
        check_left(folder)
    record, rows = read_record(file)
    if folder is None or not (folder / "samples.parquet").is_file():
        check_intervals(file, rows)
        return FinishedRun(path, record, rows, None, None, "no samples.parquet beside it", {})
    given = read_config(folder / "config.yaml") if (folder / "config.yaml").is_file() else None
    samples = read_run_samples(folder / "samples.parquet")
    check_named(folder / "samples.parquet", samples, record)
    try:
        suite = _suite(folder, record, None if given is None else given.suite)
    except (SpecError, DataError) as error:
        if given is not None:  # a letter of the configuration would hide that figures were edited
            raise DataError(f"{folder}: nothing can be recomputed: {error}") from error
        check_intervals(file, rows)
        return FinishedRun(path, record, rows, None, None, str(error), {})
    check_ranges(path, samples, Ranges.of_suite(suite, record.ranges))
    seen = seen_by(record, suite, environment_roles(record, suite))
    if not set(seen) <= set(record.seen):
        left_out = ", ".join(sorted(set(seen) - set(record.seen)))
        raise DataError(f"{file}: seen: {left_out} is missing, on whose data the method trained")
    libraries = record.libraries or read_libraries(folder / "env.json")
    if given is None:
        return FinishedRun(path, record, rows, suite, samples, "", {}, libraries=libraries)
    return FinishedRun(
        path,
        record,
        rows,
        suite,
        samples,
        "",
        given.attacks,
        configured=True,
        memory=given.memory,
        libraries=libraries,
    )


# --- inside ---


def _suite(folder: Path, record: RunRecord, given: JsonValue) -> SuiteSpec:
    """The suite as it was run, else the shipped one of that version."""
    if given is not None:
        suite = validate_spec(SuiteSpec, given, source=f"{folder / 'config.yaml'}: suite")
    else:
        values, source = load_suite(record.suite)
        suite = validate_spec(SuiteSpec, values, source=source)
    if (suite.name, suite.version) != (record.suite, record.suite_version):
        measured = f"{record.suite} version {record.suite_version}"
        problem = f"measured on {measured}, and what is at hand is {suite.name} {suite.version}"
        raise DataError(f"{problem}: the samples cannot be read")
    if record.rows and suite.lacking:
        raise DataError(f"the suite in its configuration has no {', '.join(suite.lacking)}")
    unknown = sorted(set(record.attacks) - set(suite.attacks))
    if unknown:
        raise DataError(f"suite {suite.name} has no attack {', '.join(unknown)}")
    return suite
