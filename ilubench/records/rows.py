"""The aggregator's input, made of a run's samples: courses, chance levels, a method's row."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ilubench.errors import DataError
from ilubench.records.ranges import Ranges
from ilubench.records.scores import Measured, MethodSamples, stack_seeds
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

__all__ = ["Compared", "chance_levels", "is_asked", "method_runs", "robustness_row"]

Value = TypeVar("Value", float, Array)


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
    values, items = stack_seeds(by_seed, spec.label)
    return Samples(_adjusted(values, spec, kind), tuple(by_seed), items)


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
