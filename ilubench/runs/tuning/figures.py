"""What a tuning's jobs measured: figures of the original model and of settings, and their cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ilubench.errors import JobError
from ilubench.experiments.experiment import Experiment
from ilubench.records.chance import sampled_chances
from ilubench.records.results import FailureRecord
from ilubench.records.rows import chance_levels, method_runs
from ilubench.records.scores import MethodSamples, method_samples
from ilubench.runs.collect import gather_samples
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.tuning.records import OriginalFigures
from ilubench.statistics.intervals import Samples

__all__ = ["Figures", "original_figures", "trial_figures"]


@dataclass(frozen=True)
class Figures:
    """Means over seeds and items by label; higher = better forgotten, higher = better."""

    forget: dict[str, float]
    utility: dict[str, float]


def _mean(samples: Samples) -> float:
    return float(samples.values.mean())


def _figures(experiment: Experiment, measured: MethodSamples) -> Figures:
    suite = experiment.suite
    runs = {m.label: method_runs(suite, (), measured, m) for m in suite.primary_forget}
    utility = next(iter(runs.values())).unlearned_utility
    return Figures(
        {label: _mean(run.unlearned_forget) for label, run in runs.items()},
        {m.label: _mean(table) for m, table in zip(suite.utility, utility, strict=True)},
    )


def trial_figures(plan: Plan, experiment: Experiment, jobs: Sequence[Job]) -> Figures:
    """Return a setting's figures.

    Args:
        plan: the tuning's.
        experiment: the setting's.
        jobs: its own, all done: of one seed or of several.
    """
    samples = gather_samples(replace(plan, jobs=tuple(jobs)))
    seeded = experiment.method.seeded
    return _figures(experiment, method_samples(samples, "method", seeded=seeded))


def original_figures(
    plan: Plan, jobs: Sequence[Job], failures: Mapping[str, FailureRecord]
) -> OriginalFigures:
    """Return the original model's figures, and the chance levels.

    Args:
        plan: the tuning's.
        jobs: the original's.
        failures: by the keys of the jobs.

    Raises:
        JobError: it could not be made or scored.
    """
    if not all(plan.is_done(job) for job in jobs):
        first = next(iter(failures.values()), None)
        reason = f": {first.message}" if first else ""
        raise JobError(f"the original model could not be made or scored{reason}")
    samples = gather_samples(replace(plan, jobs=tuple(jobs)))
    found = _figures(plan.experiment, method_samples(samples, "reference", seeded=False))
    suite = sampled_chances(plan.experiment.suite, samples)
    levels = {m.label: chance_levels(suite, m) for m in suite.primary_forget}
    utility = next(iter(levels.values())).utility
    return OriginalFigures(
        forget=found.forget,
        forget_chance={label: level.forget for label, level in levels.items()},
        utility=found.utility,
        utility_chance={m.label: level for m, level in zip(suite.utility, utility, strict=True)},
    )
