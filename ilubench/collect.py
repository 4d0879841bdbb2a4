"""Artifacts -> the aggregator's input: per-sample tables by seed, item, attack and step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from ilubench.aggregate import Chances, Course, MethodRuns, Samples
from ilubench.errors import DataError
from ilubench.experiment import Attack, Experiment
from ilubench.specs import FineTuningAccuracySpec, MetricSpec
from ilubench.stages.score import read_samples, read_score, scored_checkpoints
from ilubench.stages.workbench import FA
from ilubench.store import Artifact

__all__ = ["Cells", "Measured", "chances", "measure", "method_runs"]

Items: TypeAlias = Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """One artifact's samples: step -> (scorer, metric) -> item -> value."""

    steps: Mapping[int, Mapping[tuple[str, str], Items]]


@dataclass(frozen=True)
class Cells:
    """All that was measured for one method.

    Attributes:
        scores: seed -> the unlearned model; a single seed for a method that has no randomness.
        attacks: attack -> seed -> its course.
    """

    scores: Mapping[int, Measured]
    attacks: Mapping[str, Mapping[int, Measured]]


def measure(artifact: Artifact) -> Measured:
    """Read an artifact's samples."""
    steps = {}
    for path in scored_checkpoints(artifact.folder / "scores"):
        record = read_score(path)
        if record.step is None:
            raise DataError(f"{path}: a checkpoint without a step cannot be part of a course")
        steps[record.step] = read_samples(path.with_suffix(".parquet"))
    return Measured(steps)


def _adjusted(
    value: float, spec: MetricSpec | FineTuningAccuracySpec, kind: Literal["forget", "other"]
) -> float:
    """Forget metrics: higher = better forgotten, on 0-1. Others: higher = better."""
    if kind == "forget":
        return 1.0 - value if spec.direction == "higher" else value
    return value if spec.direction == "higher" else -value


def _table(
    by_seed: Mapping[int, Items],
    spec: MetricSpec | FineTuningAccuracySpec,
    kind: Literal["forget", "other"],
) -> Samples:
    seeds = tuple(sorted(by_seed))
    items = tuple(sorted(by_seed[seeds[0]]))
    for seed in seeds:
        if tuple(sorted(by_seed[seed])) != items:
            raise DataError(f"{spec.label}: seeds {seeds[0]} and {seed} were scored on other items")
    values = [[_adjusted(by_seed[seed][item], spec, kind) for item in items] for seed in seeds]
    return Samples(np.array(values, dtype=np.float64), seeds, items)


def _at(
    measured: Mapping[int, Measured],
    step: int,
    metric: tuple[str, str],
    spec: MetricSpec | FineTuningAccuracySpec,
    kind: Literal["forget", "other"],
) -> Samples:
    return _table({seed: m.steps[step][metric] for seed, m in measured.items()}, spec, kind)


def _spread(scores: Mapping[int, Measured], seeds: tuple[int, ...]) -> dict[int, Measured]:
    """Step 0 of a course: the unlearned model's own score, for each of the course's seeds."""
    only = next(iter(scores.values()))
    return {seed: scores.get(seed, only) if len(scores) > 1 else only for seed in seeds}


def _course(
    attack: Attack, cells: Cells, forget: MetricSpec, utility: tuple[MetricSpec, ...]
) -> Course:
    runs = cells.attacks[attack.name]
    seeds = tuple(sorted(runs))
    later = sorted({step for run in runs.values() for step in run.steps if step > 0})
    start = _spread(cells.scores, seeds)

    def column(spec: MetricSpec, kind: Literal["forget", "other"]) -> list[Samples]:
        metric = (spec.scorer, spec.metric)
        return [
            _at(start, 0, metric, spec, kind),
            *(_at(runs, step, metric, spec, kind) for step in later),
        ]

    fa = None
    if attack.spec.fa is not None:
        metric = (FA, attack.spec.fa.metric)
        fa = tuple(_at(runs, step, metric, attack.spec.fa, "other") for step in (0, *later))
    total = later[-1]
    quarters = tuple(
        min(later, key=lambda step, share=share: abs(step - share * total))  # type: ignore[misc]
        for share in (0.25, 0.5, 1.0)
    )
    columns = [column(spec, "other") for spec in utility]
    return Course(
        attack=attack.name,
        steps=(0, *later),
        forget=tuple(column(forget, "forget")),
        utility=tuple(zip(*columns, strict=True)),
        fa=fa,
        quartile_steps=quarters,
        total_steps=total,
    )


def method_runs(experiment: Experiment, cells: Cells, forget: MetricSpec) -> MethodRuns:
    """Return the aggregator's input for one primary forget metric.

    Raises:
        DataError: nothing was measured, or seeds were scored on other items.
    """
    if not cells.scores:
        raise DataError("no seed of the unlearned model was scored; see the failed jobs")
    utility = experiment.suite.utility

    def unlearned(spec: MetricSpec, kind: Literal["forget", "other"]) -> Samples:
        return _at(cells.scores, 0, (spec.scorer, spec.metric), spec, kind)

    return MethodRuns(
        unlearned_forget=unlearned(forget, "forget"),
        unlearned_utility=tuple(unlearned(spec, "other") for spec in utility),
        courses=tuple(
            _course(attack, cells, forget, utility)
            for attack in experiment.attacks
            if cells.attacks.get(attack.name)
        ),
    )


def chances(experiment: Experiment, forget: MetricSpec) -> Chances:
    """Return the chance levels on the adjusted scales."""
    return Chances(
        forget=_adjusted(forget.chance, forget, "forget"),
        utility=tuple(_adjusted(s.chance, s, "other") for s in experiment.suite.utility),
    )
