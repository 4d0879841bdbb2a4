"""Samples of a run, and the aggregator's input made of them: by seed, item, attack and step."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ilubench.errors import DataError, StoreError
from ilubench.records.ranges import Ranges
from ilubench.records.results import ScoreRecord
from ilubench.records.trials import TrialScores, has_trials, stack_trials, strongest_course
from ilubench.specs import FineTuningAccuracySpec, MetricSpec, SuiteSpec
from ilubench.statistics.aggregate import aggregate
from ilubench.statistics.bounds import bounded_row
from ilubench.statistics.intervals import Array, Samples
from ilubench.statistics.row import (
    FA,
    Chances,
    Course,
    MethodRuns,
    RobustnessRow,
    quartile_steps,
)

__all__ = [
    "SAMPLES",
    "SCHEMA",
    "WHERE",
    "Compared",
    "Measured",
    "Scored",
    "chance_levels",
    "is_asked",
    "lines_by",
    "method_runs",
    "method_samples",
    "own_samples",
    "read_samples",
    "read_score",
    "robustness_row",
    "scored_checkpoints",
    "scored_courses",
]

SAMPLES = pa.schema(
    [
        ("scorer", pa.string()),
        ("metric", pa.string()),
        ("item", pa.string()),
        ("value", pa.float64()),
        ("group", pa.string()),
        ("label", pa.string()),
    ]
)
"""What figures are computed from."""

WHERE = pa.schema(
    [("who", pa.string()), ("attack", pa.string()), ("seed", pa.int64()), ("step", pa.int64())]
)
SCHEMA = pa.schema([*WHERE, *SAMPLES, ("level", pa.string())])
"""A run's samples; `who` is `method`, `reference`, `retrain` (the model that never knew) or
`untouched` (before it was taught), `attack` is empty before any attack. `level` names the
checkpoint of an attack that takes no steps, whose `step` counts from 1; it is empty, or not there,
where an attack takes steps."""


Line: TypeAlias = tuple[str | int, ...]
Value = TypeVar("Value", float, Array)


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric at one checkpoint: the items in order, and what each scored."""

    items: tuple[str, ...]
    values: Array


@dataclass(frozen=True)
class Measured:
    """One job's samples: step -> (scorer, metric) -> items and values.

    ``levels`` has the names of the checkpoints of an attack that takes no steps.
    """

    steps: dict[int, dict[tuple[str, str], Scored]]
    levels: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodSamples:
    """All that was measured for one method.

    Attributes:
        scores: seed -> the unlearned model; a single seed for a method that has no randomness.
        attacks: attack -> seed -> its course.
    """

    scores: Mapping[int, Measured]
    attacks: Mapping[str, Mapping[int, Measured]]


@dataclass(frozen=True)
class Compared:
    """The samples that a row is made of.

    Attributes:
        mine: the method's.
        original: the original model's; for the method `none` these are its own.
        never: of the model that never knew; empty where there is none.
    """

    mine: MethodSamples
    original: MethodSamples
    never: MethodSamples


def lines_by(samples: pa.Table, names: Sequence[str]) -> Iterator[tuple[Line, NDArray[np.intp]]]:
    """Yield the values that lines have in these columns, and the places of those lines, ascending.

    Args:
        samples: not empty values.
        names: columns.
    """
    if not len(samples):
        return
    codes, values = zip(*(_encoded(samples[name]) for name in names), strict=True)
    key = np.ravel_multi_index(codes, tuple(map(len, values)))
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    for lines in np.split(order, starts[1:]):
        yield tuple(known[code[lines[0]]] for code, known in zip(codes, values, strict=True)), lines


def _encoded(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], list[str | int]]:
    """Each value's place among the column's values in their order, and these."""
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    order = pc.array_sort_indices(encoded.dictionary)
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(order).to_pylist()


def method_samples(samples: pa.Table, who: str, *, seeded: bool | None = None) -> MethodSamples:
    """Return what the samples say of the method, or of a model that it is compared with.

    Args:
        samples: a run's.
        who: whose, as in `SCHEMA`.
        seeded: whether each seed has its own unlearned model; a course starts at its score. None:
            where more than one was scored.

    Raises:
        DataError: an item was scored twice by one metric at one checkpoint, or a checkpoint has
            two levels.
    """
    scores: dict[int, Measured] = {}
    attacks: dict[str, dict[int, Measured]] = {}
    own = samples.filter(pc.equal(samples["who"], who))
    if "level" not in own.column_names:
        own = own.append_column("level", pa.array([""] * len(own), pa.string()))
    values = own["value"].to_numpy()
    place, names = _encoded(own["item"]) if len(own) else (np.empty(0, np.int64), [])
    known: dict[bytes, tuple[str, ...]] = {}  # most checkpoints have the same items
    for line, lines in lines_by(own, ("attack", "seed", "step", "level", "scorer", "metric")):
        attack, seed, step, level, scorer, metric = cast(
            "tuple[str, int, int, str, str, str]", line
        )
        run = (attacks.setdefault(attack, {}) if attack else scores).setdefault(seed, Measured({}))
        where = f"{who}, {attack or 'no attack'}, seed {seed}, step {step}"
        if run.levels.setdefault(step, level) != level:
            raise DataError(f"{where}: has the levels {run.levels[step]!r} and {level!r}")
        rows = lines[np.argsort(place[lines])]
        items = place[rows]
        twice = np.flatnonzero(items[1:] == items[:-1])
        if len(twice):
            item = names[items[twice[0]]]
            raise DataError(f"{where}, {scorer}.{metric}: item {item!r} stands there twice")
        key = items.tobytes()
        if key not in known:
            known[key] = tuple(str(names[one]) for one in items)
        run.steps.setdefault(step, {})[scorer, metric] = Scored(known[key], values[rows])
    if seeded or (seeded is None and len(scores) > 1):
        attacks = {
            name: {seed: run for seed, run in runs.items() if seed in scores}
            for name, runs in attacks.items()
        }
    return MethodSamples(scores, attacks)


def own_samples(samples: pa.Table) -> MethodSamples:
    """Return what the samples say of the method, or of the original in a run of it alone."""
    method = pc.any(pc.equal(samples["who"], "method")).as_py()
    return method_samples(samples, "method" if method else "reference", seeded=False)


def scored_courses(runs: Mapping[int, Measured]) -> dict[tuple[str, str], dict[int, Samples]]:
    """Return the tables of one attack, or of the unlearned model.

    Args:
        runs: seed -> what was measured.

    Returns:
        (scorer, metric) -> step -> the scores on their own scale, of the seeds that have them.

    Raises:
        DataError: seeds were scored on other items.
    """
    found: dict[tuple[str, str], dict[int, dict[int, Scored]]] = {}
    for seed in sorted(runs):
        for step, metrics in runs[seed].steps.items():
            for metric, scored in metrics.items():
                found.setdefault(metric, {}).setdefault(step, {})[seed] = scored
    return {
        metric: {
            step: Samples(values, tuple(by_seed), items)
            for step, by_seed in sorted(steps.items())
            for values, items in [_stacked(by_seed, ".".join(metric))]
        }
        for metric, steps in sorted(found.items())
    }


def robustness_row(
    suite: SuiteSpec,
    forget: MetricSpec,
    attacks: Sequence[str],
    seeds: Sequence[int],
    found: Compared,
    ranges: Ranges | None = None,
) -> RobustnessRow:
    """Return a method's row in one primary forget metric, `incomplete` where a course is missing.

    Args:
        suite: what was measured.
        forget: the metric.
        attacks: names of those that were to be run, with each seed.
        seeds: of the run.
        found: what was measured.
        ranges: in which the intervals of bounded quantities are kept; None: they are not.

    Raises:
        DataError: nothing was measured, or seeds were scored on other items.
    """
    core, never = suite.core_unseen, found.never
    row = aggregate(
        method_runs(suite, attacks, found.mine, forget),
        method_runs(suite, attacks, found.original, forget),
        chance_levels(suite, forget),
        core=core if set(core) <= set(attacks) else (),
        control=next((name for name in attacks if suite.attacks[name].control), None),
        retrain=method_runs(suite, attacks, never, forget) if never.scores else None,
    )
    # not of the retrained model: only the never-knew difference uses it, and has its own n_seeds
    missing = any(
        seed not in runs.attacks.get(attack, {})
        for runs in (found.mine, found.original)
        for attack in attacks
        for seed in seeds
    )
    if ranges is not None:
        row = bounded_row(row, ranges.of_row(suite, forget))
    return replace(row, status="incomplete") if missing else row


def _adjusted(
    value: Value, spec: MetricSpec | FineTuningAccuracySpec, kind: Literal["forget", "other"]
) -> Value:
    """Forget metrics: higher = better forgotten, on 0-1. Others: higher = better."""
    if kind == "forget":
        return 1.0 - value if spec.direction == "higher" else value
    return value if spec.direction == "higher" else -value


def _at(
    measured: Mapping[int, Measured],
    step: int,
    metric: tuple[str, str],
    spec: MetricSpec | FineTuningAccuracySpec,
    kind: Literal["forget", "other"],
) -> Samples:
    by_seed = {seed: measured[seed].steps[step][metric] for seed in sorted(measured)}
    values, items = _stacked(by_seed, spec.label)
    return Samples(_adjusted(values, spec, kind), tuple(by_seed), items)


def _stacked(by_seed: Mapping[int, Scored], what: str) -> tuple[Array, tuple[str, ...]]:
    """The seeds' values of the items that all of them must have."""
    first, *others = by_seed
    items = by_seed[first].items
    for seed in others:
        if by_seed[seed].items != items:
            raise DataError(f"{what}: seeds {first} and {seed} were scored on other items")
    return np.stack([scored.values for scored in by_seed.values()]), items


def _spread(scores: Mapping[int, Measured], seeds: tuple[int, ...]) -> dict[int, Measured]:
    """Step 0 of a course: the unlearned model's own score, for each of the course's seeds."""
    only = next(iter(scores.values()))
    return {seed: scores.get(seed, only) if len(scores) > 1 else only for seed in seeds}


def _course(suite: SuiteSpec, attack: str, measured: MethodSamples, forget: MetricSpec) -> Course:
    runs = measured.attacks[attack]
    seeds = tuple(sorted(runs))
    if has_trials(runs):
        return _strongest_trials(suite, attack, measured, forget)
    later = sorted({step for run in runs.values() for step in run.steps if step > 0})
    start = _spread(measured.scores, seeds)

    def column(spec: MetricSpec, kind: Literal["forget", "other"]) -> list[Samples]:
        metric = (spec.scorer, spec.metric)
        if not _has(runs, metric):  # a prompt attack that it cannot apply: no weight has changed
            return [_at(start, 0, metric, spec, kind)] * (1 + len(later))
        during = [_at(runs, step, metric, spec, kind) for step in later]
        return [_only(_at(start, 0, metric, spec, kind), during[0].items), *during]

    fa, task = None, suite.attacks[attack].fa
    if task is not None:
        metric = (FA, task.metric)
        fa = tuple(_at(runs, step, metric, task, "other") for step in (0, *later))
    columns = [column(spec, "other") for spec in suite.utility]
    levels = _levels(attack, runs, later)
    return Course(
        attack=attack,
        steps=(0, *later),
        forget=tuple(column(forget, "forget")),
        utility=tuple(zip(*columns, strict=True)),
        fa=fa,
        quartile_steps=tuple(later) if levels else quartile_steps(later),
        total_steps=later[-1],
        levels=levels,
        further=suite.attacks[attack].further,
    )


def _strongest_trials(
    suite: SuiteSpec, attack: str, measured: MethodSamples, forget: MetricSpec
) -> Course:
    """The course of an attack that tunes: each seed's strongest trial, which may be another's."""
    runs = measured.attacks[attack]
    start = _spread(measured.scores, tuple(sorted(runs)))

    def scored(spec: MetricSpec, kind: Literal["forget", "other"]) -> TrialScores:
        found = stack_trials(runs, (spec.scorer, spec.metric), f"{attack}: {spec.label}")
        before = _only(_at(start, 0, (spec.scorer, spec.metric), spec, kind), found.items)
        return replace(found, before=before, values=_adjusted(found.values, spec, kind))

    utility = [scored(spec, "other") for spec in suite.utility]
    chances = chance_levels(suite, forget).utility
    return strongest_course(attack, scored(forget, "forget"), utility, chances)


def _has(runs: Mapping[int, Measured], metric: tuple[str, str]) -> bool:
    return any(metric in scored for run in runs.values() for scored in run.steps.values())


def _only(table: Samples, items: Sequence[str]) -> Samples:
    """The items that an attack's course has; all of them, unless it scores a part."""
    if items == table.items or set(items) >= set(table.items):
        return table
    column = {item: place for place, item in enumerate(table.items)}
    kept = sorted(set(items) & column.keys())
    return Samples(table.values[:, [column[item] for item in kept]], table.seeds, tuple(kept))


def _levels(attack: str, runs: Mapping[int, Measured], later: Sequence[int]) -> tuple[str, ...]:
    """Names of the checkpoints of an attack that takes no steps; none where it does."""
    named = [
        {run.levels.get(step, "") for run in runs.values() if step in run.steps} for step in later
    ]
    if any(len(names) > 1 for names in named):
        raise DataError(f"attack {attack!r}: its seeds have other levels")
    levels = tuple(name for (name,) in named)
    if any(levels) and not all(levels):
        raise DataError(f"attack {attack!r}: its checkpoints have steps and levels")
    return levels if any(levels) else ()


def method_runs(
    suite: SuiteSpec, attacks: Sequence[str], measured: MethodSamples, forget: MetricSpec
) -> MethodRuns:
    """Return the aggregator's input for one primary forget metric.

    Args:
        suite: what was measured.
        attacks: names of the attacks, in the order of the courses; one without samples of the
            metric has none.
        measured: the model's samples.
        forget: the metric.

    Raises:
        DataError: nothing was measured, or seeds were scored on other items.
    """
    if not measured.scores:
        raise DataError("no seed of the unlearned model was scored; see the failed jobs")

    def unlearned(spec: MetricSpec, kind: Literal["forget", "other"]) -> Samples:
        return _at(measured.scores, 0, (spec.scorer, spec.metric), spec, kind)

    return MethodRuns(
        unlearned_forget=unlearned(forget, "forget"),
        unlearned_utility=tuple(unlearned(spec, "other") for spec in suite.utility),
        courses=tuple(
            _course(suite, attack, measured, forget)
            for attack in attacks
            if _has(measured.attacks.get(attack, {}), (forget.scorer, forget.metric))
        ),
    )


def is_asked(metric: MetricSpec, attacks: Sequence[str], measured: MethodSamples) -> bool:
    """Whether any of the attacks scored a metric: prompt attacks are not applied by every scorer.

    True where none has been scored at all.
    """
    runs = [found for name in attacks if (found := measured.attacks.get(name))]
    return not runs or any(_has(found, (metric.scorer, metric.metric)) for found in runs)


def chance_levels(suite: SuiteSpec, forget: MetricSpec) -> Chances:
    """Return the chance levels on the adjusted scales."""
    return Chances(
        forget=_adjusted(forget.chance_level, forget, "forget"),
        utility=tuple(_adjusted(s.chance_level, s, "other") for s in suite.utility),
    )


def scored_checkpoints(folder: Path) -> list[Path]:
    """Return the records of the scored checkpoints, in the order of their steps; levels by name."""
    return sorted(folder.glob("*.json"))


def read_score(path: Path) -> ScoreRecord:
    """Read one checkpoint's record.

    Raises:
        StoreError: damaged, or written by a newer ilubench.
    """
    try:
        return ScoreRecord.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete its folder and run again") from error


def read_samples(path: Path) -> pa.Table:
    """Return one checkpoint's samples; the columns are those of SAMPLES.

    Raises:
        StoreError: damaged, or an item is there twice.
    """
    try:
        table = pq.read_table(path, columns=SAMPLES.names)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} is damaged ({error}); delete its folder and run again") from error
    names = ["scorer", "metric", "item"]
    counted = table.group_by(names, use_threads=False).aggregate([([], "count_all")])
    for line in counted.filter(pc.greater(counted["count_all"], 1)).slice(0, 1).to_pylist():
        where = f"{line['scorer']}/{line['metric']}"
        raise StoreError(f"{path}: item {line['item']!r} of {where} is there twice")
    return table
