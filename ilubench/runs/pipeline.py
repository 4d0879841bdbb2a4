"""Carry out a plan: skip what is done, launch the rest, collect the row."""

import shutil
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ilubench.errors import DataError, DivergedError, UsageError
from ilubench.experiments.experiment import Experiment
from ilubench.interfaces import Progress
from ilubench.records.results import RunRecord
from ilubench.runs.carry_out import write_trace
from ilubench.runs.check_inputs import check_inputs
from ilubench.runs.collect import gather_samples, robustness_rows
from ilubench.runs.executors.base import Outcome, Watcher, execute
from ilubench.runs.folder import write_inputs, write_outputs, write_status
from ilubench.runs.jobs import Job
from ilubench.runs.loading import collection_paused
from ilubench.runs.original import check_original
from ilubench.runs.placing import place_jobs, prepare_places
from ilubench.runs.plan import Plan, make_plan
from ilubench.runs.references import is_same_original
from ilubench.runs.run_record import run_record
from ilubench.runs.trackers import check_tracker
from ilubench.runs.tracking import tracking
from ilubench.statistics.row import RobustnessRow

__all__ = ["Reporter", "RunResult", "drop_damaged", "execute_plan", "run", "run_grid"]


class Reporter(Watcher, Protocol):
    """Shows how a run goes."""

    def planned(self, plan: Plan) -> None:
        """Called once, before the first job."""

    def finished(self, outcome: Outcome) -> None:
        """A job ended, was cached, or was skipped."""

    def show(self, label: str) -> Progress:
        """Return where work reports that is no job of the plan."""


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    plan: Plan
    record: RunRecord
    rows: Mapping[str, RobustnessRow]


def drop_damaged(plan: Plan, reporter: Reporter) -> None:
    """Delete what is damaged of a plan's jobs in the store, and say so: they are done again.

    Weights are looked at where an open job will load them.
    """
    loaded: set[str] = set()
    for job in reversed(plan.jobs):
        if job.stage == "target" and plan.bench.given_target is not None:
            continue
        damage = plan.bench.store.drop_damaged(job.stage, job.key, loads=job.key in loaded)
        if damage:
            reporter.tell(f"{damage}; done again: {job.label}")
        if not plan.is_done(job):
            loaded.update(job.needs)


def execute_plan(
    plan: Plan,
    check: Callable[[], None],
    reporter: Reporter,
    batches: Iterable[Sequence[Job]] | None = None,
) -> Generator[Outcome, None, None]:
    """Carry out a plan's jobs and yield their outcomes.

    Args:
        plan: the jobs.
        check: finds what cannot be read or scored; called once the target model is made.
        reporter: told of each job's begin and end.
        batches: the plan's jobs, or those of them that turn out to be wanted: a batch is asked for
            when all before it have ended. None: all jobs, each as soon as it can.

    Raises:
        ModelError: the original model seems to have forgotten already.
    """
    try:
        with tracking(plan, reporter):
            jobs, slots = place_jobs(plan, reporter)
            for outcome in execute(batches or [jobs], plan.is_done, slots):
                reporter.finished(outcome)
                yield outcome
                job = outcome.job
                if job.stage == "target" and outcome.state == "done":
                    check()
                if job.scores_original and job.stage == "score":
                    check_original(plan.bench, plan.jobs)
    finally:
        plan.bench.close()


def run(experiment: Experiment, reporter: Reporter) -> RunResult:
    """Carry out a run; killed at any moment, the same call resumes it.

    Raises:
        DataError: data are missing, or no seed could be scored.
        ModelError: the original model seems to have forgotten already.
    """
    return run_grid((experiment,), reporter)[0]


def run_grid(experiments: Sequence[Experiment], reporter: Reporter) -> tuple[RunResult, ...]:
    """Carry out runs that differ in their method alone; the jobs that they share are done once.

    A run's record is written as soon as its own jobs have ended. Killed at any moment, the same
    call resumes it.

    Raises:
        DataError: data are missing, or no seed could be scored.
        ModelError: the original model seems to have forgotten already.
    """
    check_tracker(experiments[0].run.track)
    prepare_places(experiments[0])
    with collection_paused():
        plan = make_plan(*experiments)
        drop_damaged(plan, reporter)
        if plan.bench.began_with is not None or plan.is_done(plan.jobs[0]):
            check_inputs(plan)
    reporter.planned(plan)
    fresh = [one for one in (*plan.grid, plan) if not one.folder.exists()]
    for one in (*plan.grid, plan):
        write_inputs(one)
    outcomes: dict[str, Outcome] = {}
    results: dict[str, RunResult] = {}
    wrong: list[str] = []
    try:
        ended = execute_plan(plan, lambda: check_inputs(plan), reporter)
        for outcome in ended:
            if outcome.job.scores_original and not all(map(_has_its_original, plan.rows)):
                ended.close()
                for one in fresh:
                    shutil.rmtree(one.folder, ignore_errors=True)
                # planned again, now that the original's score is known
                return run_grid(experiments, reporter)
            outcomes[outcome.job.key] = outcome
            for row in (row for row in plan.rows if outcome.job.key in row.keys):
                mine = _outcomes_of(row, outcomes)
                write_trace(row.folder, outcome)
                write_status(row, mine)
                if len(mine) == len(row.jobs):
                    try:
                        results[row.run_id] = _collected(row, mine)
                    except DataError as error:  # the other rows' are not its fault
                        wrong.append(f"{row.run_id}: {error}")
    except (UsageError, DataError):
        for one in fresh:
            done = (o.job for o in _outcomes_of(one, outcomes) if o.state == "done")
            if one.run_id not in results and all(job.looks_first for job in done):
                shutil.rmtree(one.folder, ignore_errors=True)  # nothing of the run was measured
        raise
    if wrong:
        raise DataError("; ".join(wrong))
    return tuple(results[row.run_id] for row in plan.rows)


def _has_its_original(row: Plan) -> bool:
    return is_same_original(row.bench, row.jobs, row.references)


def _outcomes_of(row: Plan, outcomes: Mapping[str, Outcome]) -> list[Outcome]:
    """Return what became of a run's jobs, in its order; they may have other labels in a grid."""
    found = []
    for job in row.jobs:
        outcome = outcomes.get(job.key)
        if outcome is not None:
            failure = outcome.failure and outcome.failure.model_copy(update={"label": job.label})
            found.append(replace(outcome, job=job, failure=failure))
    return found


def _collected(plan: Plan, outcomes: Sequence[Outcome]) -> RunResult:
    """Write the record of a run whose jobs have ended, and return it.

    Raises:
        DataError: no job failed, and there still is no row.
    """
    samples = gather_samples(plan)
    try:
        rows = robustness_rows(plan.experiment, samples)
    except DataError:
        if not any(outcome.failure for outcome in outcomes):
            raise
        rows = {}  # too much failed for a row; the record says what
    if any(
        outcome.failure
        and outcome.failure.kind == DivergedError.__name__
        and outcome.job.who != "retrain"
        for outcome in outcomes
    ):
        rows = {label: replace(row, status="diverged") for label, row in rows.items()}
    record = run_record(plan, rows, outcomes, samples)
    write_outputs(plan, record, samples)
    return RunResult(plan, record, rows)
