"""Carry out a tuning: unlearn and score every setting, then choose; nothing is attacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import JsonValue

from ilubench.errors import DivergedError, JobError
from ilubench.experiments.experiment import Experiment, suite_method
from ilubench.records.chance import sampled_chances
from ilubench.records.keys import digest, library_versions
from ilubench.records.results import REFERENCE, FailureRecord
from ilubench.records.scores import MethodSamples, chance_levels, method_runs, method_samples
from ilubench.records.store import write_atomic
from ilubench.runs.carry_out import write_trace
from ilubench.runs.collect import gather_samples
from ilubench.runs.executors.base import Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.pipeline import Reporter, execute_plan
from ilubench.runs.plan import (
    Plan,
    check_inputs,
    check_method,
    method_jobs,
    target_job,
    untouched_jobs,
)
from ilubench.runs.stages.workbench import make_bench
from ilubench.runs.tuning.asked import Trial, Tuning, method_words
from ilubench.runs.tuning.choice import (
    Tried,
    choose_setting,
    closest_setting,
    is_eligible,
    least_kept,
    share_forgotten,
)
from ilubench.runs.tuning.records import OriginalFigures, TrialRecord, TuningRecord
from ilubench.runs.tuning.suite_settings import suite_digest, suite_settings
from ilubench.statistics.intervals import Samples

__all__ = ["TuningPlan", "TuningResult", "plan_tuning", "tune"]

_LIBRARIES = ("ilubench", "torch", "transformers", "tokenizers", "lm-eval", "numpy", "scipy")


@dataclass(frozen=True)
class TuningPlan:
    """The jobs of a tuning.

    Attributes:
        plan: all jobs, the target's and the original model's first.
        original: the original model's jobs.
        trials: the jobs of each trial; two settings that mean the same share them.
    """

    plan: Plan
    original: tuple[Job, ...]
    trials: tuple[tuple[Job, ...], ...]


def plan_tuning(tuning: Tuning) -> TuningPlan:
    """Return the jobs of a tuning; data are read, no weights are loaded, no attack is among them.

    Raises:
        DataError: data or the target model are missing or empty.
        SpecError: a setting does not fit the target model.
    """
    first = tuning.trials[0].experiment
    bench = make_bench(first)
    for trial in tuning.trials:
        check_method(bench, trial.experiment.method)
    make = target_job(first.suite, bench.target)
    known = method_jobs(bench, suite_method(first.suite, REFERENCE), "reference")
    original = (*untouched_jobs(bench), *known)
    trials = tuple(
        tuple(
            job.model_copy(update={"label": f"setting {number}: {job.label}"})
            for job in method_jobs(bench, trial.experiment.method_ref, "method")
        )
        for number, trial in enumerate(tuning.trials, start=1)
    )
    ordered: dict[str, Job] = {}
    for job in (make, *original, *(job for jobs in trials for job in jobs)):
        ordered.setdefault(job.key, job)
    identity: list[JsonValue] = [*ordered, tuning.budget, tuning.spec.utility_kept]
    name = f"{first.suite.name}-{tuning.label}-{digest(identity)[:10]}"
    title = f"{tuning.label}, {tuning.budget} settings"
    folder = Path(first.run.out) / "tuning" / name
    plan = Plan(name, folder, first, bench, tuple(ordered.values()), title)
    return TuningPlan(plan, original, trials)


@dataclass(frozen=True)
class TuningResult:
    """A finished tuning, and the file that its record is in."""

    record: TuningRecord
    path: Path


def tune(tuning: Tuning, reporter: Reporter) -> TuningResult:
    """Try every setting and choose one; killed at any moment, the same call resumes it.

    Raises:
        DataError: data are missing, or the original model's utility is not above chance.
        JobError: the original model could not be made or scored.
    """
    planned = plan_tuning(tuning)
    plan = planned.plan
    if plan.is_done(plan.jobs[0]):
        check_inputs(plan)
    reporter.planned(plan)
    outcomes: list[Outcome] = []
    for outcome in execute_plan(plan, lambda: check_inputs(plan), reporter):
        outcomes.append(outcome)
        write_trace(plan.folder, outcome)
        if outcome.job.key == planned.original[-1].key:
            _judge(_original(planned, _failures(outcomes)))
    record = _record(planned, tuning, _failures(outcomes))
    path = plan.folder / "tuning.json"
    write_atomic(path, (record.model_dump_json(indent=1) + "\n").encode())
    return TuningResult(record, path)


def _judge(original: OriginalFigures) -> None:
    """Find out before any setting is tried whether settings can be judged."""
    share_forgotten(original.forget, original.forget_chance)
    least_kept(original.utility, original.utility, original.utility_chance)


def _failures(outcomes: Sequence[Outcome]) -> dict[str, FailureRecord]:
    return {o.job.key: o.failure for o in outcomes if o.failure is not None}


# --------------------------------------------------------------------------- figures


@dataclass(frozen=True)
class _Figures:
    """Means over seeds and items by label; higher = better forgotten, higher = better."""

    forget: dict[str, float]
    utility: dict[str, float]


def _mean(samples: Samples) -> float:
    return float(samples.values.mean())


def _figures(experiment: Experiment, measured: MethodSamples) -> _Figures:
    suite = experiment.suite
    runs = {m.label: method_runs(suite, (), measured, m) for m in suite.primary_forget}
    utility = next(iter(runs.values())).unlearned_utility
    return _Figures(
        {label: _mean(run.unlearned_forget) for label, run in runs.items()},
        {m.label: _mean(table) for m, table in zip(suite.utility, utility, strict=True)},
    )


def _original(planned: TuningPlan, failures: Mapping[str, FailureRecord]) -> OriginalFigures:
    plan = planned.plan
    if not all(plan.is_done(job) for job in planned.original):
        first = next(iter(failures.values()), None)
        reason = f": {first.message}" if first else ""
        raise JobError(f"the original model could not be made or scored{reason}")
    experiment = plan.experiment
    samples = gather_samples(replace(plan, jobs=planned.original))
    found = _figures(experiment, method_samples(samples, "reference", seeded=False))
    suite = sampled_chances(experiment.suite, samples)
    levels = {m.label: chance_levels(suite, m) for m in suite.primary_forget}
    utility = next(iter(levels.values())).utility
    return OriginalFigures(
        forget=found.forget,
        forget_chance={label: level.forget for label, level in levels.items()},
        utility=found.utility,
        utility_chance={m.label: level for m, level in zip(suite.utility, utility, strict=True)},
    )


def _named(tuning: Tuning, settings: Mapping[str, JsonValue]) -> dict[str, dict[str, JsonValue]]:
    """Return what the suite's `methods` should say: of the method, or of a variant by its label."""
    variant: dict[str, JsonValue] = {} if tuning.label == tuning.use else {"use": tuning.use}
    return {tuning.label: {**variant, **settings}}


def _cost(plan: Plan, jobs: Sequence[Job]) -> dict[str, float]:
    """Return the sums over finished jobs; `seconds` are those of scoring too."""
    total = {"steps": 0.0, "tokens": 0.0, "train_seconds": 0.0, "seconds": 0.0}
    for job in {job.key: job for job in jobs}.values():
        artifact = plan.artifact(job)
        if artifact is None:
            continue
        meta = cast("dict[str, Any]", artifact.meta())
        for name in ("steps", "tokens", "train_seconds"):
            total[name] += float(meta.get("cost", {}).get(name, 0.0))
        total["seconds"] += float(meta.get("seconds", 0.0))
    return total


def _trial(
    planned: TuningPlan,
    place: int,
    trial: Trial,
    original: OriginalFigures,
    failures: Mapping[str, FailureRecord],
) -> TrialRecord:
    plan, jobs = planned.plan, planned.trials[place]
    weights = {str(job.seed): job.key for job in jobs if job.stage == "unlearn"}
    mine = tuple(failures[job.key] for job in jobs if job.key in failures)
    record = TrialRecord(
        number=place + 1,
        settings=cast("dict[str, JsonValue]", _plain(trial.settings)),
        method={
            "use": trial.experiment.method_name,
            "settings": trial.experiment.method.model_dump(mode="json"),
        },
        state="done",
        jobs=weights,
        cost=_cost(plan, jobs),
        failures=mine,
    )
    if not all(plan.is_done(job) for job in jobs):
        diverged = bool(mine) and all(failure.kind == DivergedError.__name__ for failure in mine)
        state: Literal["diverged", "failed"] = "diverged" if diverged else "failed"
        return record.model_copy(update={"state": state})
    experiment = trial.experiment
    samples = gather_samples(replace(plan, jobs=jobs))
    seeded = experiment.method.seeded
    found = _figures(experiment, method_samples(samples, "method", seeded=seeded))
    figures = {
        "forget": found.forget,
        "utility": found.utility,
        "forgotten": share_forgotten(found.forget, original.forget_chance),
        "utility_kept": least_kept(found.utility, original.utility, original.utility_chance),
    }
    return record.model_copy(update=figures)


def _plain(settings: Mapping[str, object]) -> dict[str, object]:
    return {p: list(v) if isinstance(v, tuple) else v for p, v in settings.items()}


# --------------------------------------------------------------------------- the record


def _record(
    planned: TuningPlan, tuning: Tuning, failures: Mapping[str, FailureRecord]
) -> TuningRecord:
    plan, needed = planned.plan, tuning.spec.utility_kept
    original = _original(planned, failures)
    trials = [
        _trial(planned, place, trial, original, failures)
        for place, trial in enumerate(tuning.trials)
    ]
    looked_at = [Tried(trial.forgotten, trial.utility_kept) for trial in trials]
    best, near = choose_setting(looked_at, needed), closest_setting(looked_at)
    marked = tuple(
        trial.model_copy(
            update={"eligible": is_eligible(looked_at[place], needed), "chosen": place == best}
        )
        for place, trial in enumerate(trials)
    )
    experiment = plan.experiment
    settings = {} if best is None else {**tuning.search.fixed, **tuning.trials[best].settings}
    method = tuning.trials[best or 0].experiment.method
    words = [f"suite={experiment.run.suite}", f"method={tuning.use}"]
    words += [f"{o.key}={o.text}" for o in method_words(settings)]
    return TuningRecord(
        tuning=plan.run_id,
        suite=experiment.suite.name,
        suite_version=experiment.suite.version,
        label=tuning.label,
        use=tuning.use,
        method_version=type(method).version,
        fixed=cast("dict[str, JsonValue]", _plain(tuning.search.fixed)),
        space=tuning.search.model_dump(mode="json", include={"space"})["space"],
        suite_digest=suite_digest(experiment.suite),
        seeds=experiment.seeds,
        budget=tuning.budget,
        suite_budget=tuning.suite_budget,
        changes=tuning.changes,
        utility_kept_needed=needed,
        original=original,
        trials=marked,
        chosen=None if best is None else best + 1,
        closest=None if near is None else near + 1,
        methods={} if best is None else _named(tuning, suite_settings(method, settings)),
        words=() if best is None else tuple(words),
        cost=_cost(plan, [job for jobs in planned.trials for job in jobs]),
        engine=plan.bench.engine_choice.name,
        device=plan.bench.device,
        dtype=experiment.suite.dtypes,
        libraries=dict(library_versions(_LIBRARIES)),
    )
