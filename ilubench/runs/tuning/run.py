"""Carry out a tuning: unlearn and score every setting, then choose; nothing is attacked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import JsonValue

from ilubench.errors import DivergedError, SpecError
from ilubench.experiments.experiment import suite_method
from ilubench.records.keys import digest, library_versions
from ilubench.records.results import REFERENCE, FailureRecord
from ilubench.records.store import write_atomic
from ilubench.runs.carry_out import write_trace
from ilubench.runs.check_inputs import check_inputs
from ilubench.runs.executors.base import Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.pipeline import Reporter, drop_damaged, execute_plan
from ilubench.runs.plan import (
    Plan,
    check_method,
    method_jobs,
    target_job,
    untouched_jobs,
)
from ilubench.runs.stages.workbench import make_bench
from ilubench.runs.tuning.asked import Trial, Tuning, method_words
from ilubench.runs.tuning.choice import choose_setting, closest_setting, is_eligible
from ilubench.runs.tuning.proposed import search_text
from ilubench.runs.tuning.records import TrialRecord, TuningRecord
from ilubench.runs.tuning.search import Search, TuningPlan
from ilubench.runs.tuning.suite_settings import suite_digest, suite_settings

__all__ = ["TuningResult", "plan_tuning", "tune"]

_LIBRARIES = ("ilubench", "torch", "transformers", "tokenizers", "lm-eval", "numpy", "scipy")


def plan_tuning(tuning: Tuning) -> TuningPlan:
    """Return the jobs of a tuning; data are read, no weights are loaded, no attack is among them.

    Raises:
        DataError: data or the target model are missing or empty.
        SpecError: a setting does not fit the target model.
    """
    first = tuning.trials[0].experiment
    bench = make_bench(first)
    for trial in (*tuning.ends, *tuning.trials):
        try:
            check_method(bench, trial.experiment.method)
        except SpecError as error:
            field = f"tuning.searches.{tuning.label}: {error.field}"
            raise SpecError(error.problem, field=field, remedy=error.remedy) from error
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
    spec = tuning.spec
    identity: list[JsonValue] = [*ordered, tuning.budget, spec.utility_kept, spec.patience]
    name = f"{first.suite.name}-{tuning.label}-{digest(identity)[:10]}"
    title = f"{tuning.label}, {tuning.budget} settings"
    folder = Path(first.run.out) / "tuning" / name
    # a setting's weights are not kept once they are scored
    scored = {job.weights for job in ordered.values() if job.weights and bench.is_done(job)}
    left = {key: job for key, job in ordered.items() if key not in scored or bench.is_done(job)}
    plan = Plan(name, folder, first, bench, tuple(left.values()), title)
    kept = tuple(tuple(job for job in jobs if job.key in left) for jobs in trials)
    return TuningPlan(plan, original, kept)


@dataclass(frozen=True)
class TuningResult:
    """A finished tuning, and the file that its record is in."""

    record: TuningRecord
    path: Path


def tune(tuning: Tuning, reporter: Reporter) -> TuningResult:
    """Try settings and choose one; killed at any moment, the same call resumes it.

    Raises:
        DataError: data are missing, or the original model's utility is not above chance.
        JobError: the original model could not be made or scored.
    """
    planned = plan_tuning(tuning)
    plan = planned.plan
    drop_damaged(plan, reporter)
    if plan.bench.began_with is not None or plan.is_done(plan.jobs[0]):
        check_inputs(plan)
    reporter.planned(plan)
    if tuning.proposed:
        reporter.tell(f"proposed for this model:\n{search_text({tuning.label: tuning.search})}")
    failures: dict[str, FailureRecord] = {}

    def drop(job: Job) -> None:
        reporter.finished(Outcome(job, "skipped", 0.0))

    search = Search(tuning, planned, failures, drop)
    for outcome in execute_plan(plan, lambda: check_inputs(plan), reporter, search.batches()):
        write_trace(plan.folder, outcome)
        job = outcome.job
        if outcome.failure is not None:
            failures[job.key] = outcome.failure
        elif job.stage == "score" and job.who == "method" and outcome.state != "skipped":
            plan.bench.store.remove("unlearn", job.weights)
    record = _record(planned, tuning, search, failures)
    path = plan.folder / "tuning.json"
    write_atomic(path, (record.model_dump_json(indent=1) + "\n").encode())
    return TuningResult(record, path)


def _named(tuning: Tuning, settings: Mapping[str, JsonValue]) -> dict[str, dict[str, JsonValue]]:
    """Return what the suite's `methods` should say: of the method, or of a variant by its label."""
    variant: dict[str, JsonValue] = {} if tuning.label == tuning.use else {"use": tuning.use}
    return {tuning.label: {**variant, **settings}}


def _cost(plan: Plan, jobs: Sequence[Job]) -> dict[str, float]:
    """Return the sums over finished jobs; `seconds` are those of scoring too."""
    total = {"steps": 0.0, "tokens": 0.0, "train_seconds": 0.0, "seconds": 0.0}
    found: dict[str, dict[str, Any]] = {}
    for job in jobs:
        artifact = plan.artifact(job)
        if artifact is None:
            continue
        meta = cast("dict[str, Any]", artifact.meta())
        found[job.key] = meta
        if job.stage == "score":  # its weights may be gone
            found[job.weights] = meta["unlearned"]
    for meta in found.values():
        for name in ("steps", "tokens", "train_seconds"):
            total[name] += float(meta.get("cost", {}).get(name, 0.0))
        total["seconds"] += float(meta.get("seconds", 0.0))
    return total


def _trial(
    search: Search, plan: Plan, place: int, trial: Trial, failures: Mapping[str, FailureRecord]
) -> TrialRecord:
    jobs = search.jobs(place)
    mine = tuple(failures[job.key] for job in jobs if job.key in failures)
    record = TrialRecord(
        number=place + 1,
        settings=cast("dict[str, JsonValue]", _plain(trial.settings)),
        method={
            "use": trial.experiment.method_name,
            "settings": trial.experiment.method.model_dump(mode="json"),
        },
        state="done",
        jobs={str(job.seed): job.weights for job in jobs if job.stage == "score"},
        cost=_cost(plan, jobs),
        failures=mine,
    )
    found, tried = search.figures(place), search.tried(place)
    if found is None:
        diverged = bool(mine) and all(failure.kind == DivergedError.__name__ for failure in mine)
        state: Literal["diverged", "failed"] = "diverged" if diverged else "failed"
        return record.model_copy(update={"state": state})
    figures = {
        "state": "done" if tried.whole else "cut",
        "forget": found.forget,
        "utility": found.utility,
        "forgotten": tried.forgotten,
        "utility_kept": tried.kept,
    }
    return record.model_copy(update=figures)


def _plain(settings: Mapping[str, object]) -> dict[str, object]:
    return {p: list(v) if isinstance(v, tuple) else v for p, v in settings.items()}


# --------------------------------------------------------------------------- the record


def _record(
    planned: TuningPlan, tuning: Tuning, search: Search, failures: Mapping[str, FailureRecord]
) -> TuningRecord:
    plan, needed = planned.plan, tuning.spec.utility_kept
    begun = [place for place, seeds in enumerate(search.carried) if seeds]
    trials = [_trial(search, plan, place, tuning.trials[place], failures) for place in begun]
    looked_at = [search.tried(place) for place in begun]
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
        suite_digest=suite_digest(tuning.suite),
        seeds=experiment.seeds,
        budget=tuning.budget,
        suite_budget=tuning.suite_budget,
        changes=tuning.changes,
        proposed=tuning.proposed,
        patience=tuning.spec.patience,
        cut=sum(trial.state == "cut" for trial in marked),
        ended=search.ended,
        utility_kept_needed=needed,
        original=search.original,
        trials=marked,
        chosen=None if best is None else best + 1,
        closest=None if near is None else near + 1,
        methods={} if best is None else _named(tuning, suite_settings(method, settings)),
        words=() if best is None else tuple(words),
        cost=_cost(plan, [job for place in begun for job in search.jobs(place)]),
        engine=plan.bench.engine_choice.name,
        device=plan.bench.device,
        dtype=experiment.suite.dtypes,
        libraries=dict(library_versions(_LIBRARIES)),
    )
