"""Carry out a plan: skip what is done, launch the rest, collect the row."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from ilubench.errors import DataError, DivergedError, UsageError
from ilubench.experiments.experiment import Experiment
from ilubench.interfaces import Progress
from ilubench.interfaces.discovery import find_plugin
from ilubench.records.results import RunRecord
from ilubench.runs.carry_out import carry_out, write_trace
from ilubench.runs.collect import gather_samples, robustness_rows
from ilubench.runs.executors.base import Outcome, Slots, Watcher, execute, longest_first
from ilubench.runs.executors.serial import ThisProcess
from ilubench.runs.executors.share import share_machine
from ilubench.runs.executors.workers import Workers
from ilubench.runs.folder import run_config, run_record, write_inputs, write_outputs, write_status
from ilubench.runs.jobs import Job
from ilubench.runs.loading import collection_paused
from ilubench.runs.original import check_original
from ilubench.runs.plan import Plan, check_inputs, make_plan
from ilubench.runs.remaining import RemainingTime
from ilubench.statistics.row import RobustnessRow

__all__ = ["Reporter", "RunResult", "execute_plan", "run"]


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


def execute_plan(plan: Plan, check: Callable[[], None], reporter: Reporter) -> Iterator[Outcome]:
    """Carry out a plan's jobs and yield their outcomes.

    Args:
        plan: the jobs.
        check: finds what cannot be read or scored; called once the target model is made.
        reporter: told of each job's begin and end.

    Raises:
        ModelError: the original model seems to have forgotten already.
    """
    jobs, slots = _share_jobs(plan, reporter)
    try:
        for outcome in execute(jobs, plan.is_done, slots):
            reporter.finished(outcome)
            write_trace(plan.folder, outcome)
            yield outcome
            job = outcome.job
            if job.stage == "target" and outcome.state == "done":
                check()
            if job.scores_original and job.stage == "score":
                check_original(plan.bench, plan.jobs)
    finally:
        plan.bench.close()


def _share_jobs(plan: Plan, reporter: Reporter) -> tuple[Sequence[Job], Slots]:
    """Return the jobs in the order of their start, and where they run."""
    asked, bench = plan.experiment.run, plan.bench
    share = share_machine(asked.workers, bench.device, bench.target_config, asked.devices_per_job)
    left = sum(not plan.is_done(job) for job in plan.jobs)
    count = 1 if plan.experiment.scores_only else min(share.workers, left)
    method = plan.experiment.method_name
    if count > 1 and type(plan.experiment.method) is find_plugin("methods", method):
        # a worker finds the method by its name, as `ilubench job` does
        environments = [share.environment(number) for number in range(count)]
        workers = Workers(
            run_config(plan.experiment),
            environments,
            plan.folder / "workers",
            reporter,
            asked.job_timeout,
        )
        return longest_first(plan.jobs, RemainingTime(plan).expected), workers
    if share.threads:  # as many as a worker has: a resumed run computes the same sums
        torch.set_num_threads(share.threads)
    return plan.jobs, ThisProcess(lambda job: carry_out(bench, job, reporter.started(job)))


def run(experiment: Experiment, reporter: Reporter) -> RunResult:
    """Carry out a run; killed at any moment, the same call resumes it.

    Raises:
        DataError: data are missing, or no seed could be scored.
        ModelError: the original model seems to have forgotten already.
    """
    with collection_paused():
        plan = make_plan(experiment)
        if plan.is_done(plan.jobs[0]):
            check_inputs(plan)
    reporter.planned(plan)
    fresh = not plan.folder.exists()
    write_inputs(plan)
    outcomes: list[Outcome] = []
    try:
        for outcome in execute_plan(plan, lambda: check_inputs(plan), reporter):
            outcomes.append(outcome)
            write_status(plan, outcomes)
    except (UsageError, DataError):
        done = (outcome.job for outcome in outcomes if outcome.state == "done")
        if fresh and all(job.scores_original for job in done):
            shutil.rmtree(plan.folder, ignore_errors=True)  # nothing of the run was measured
        raise
    samples = gather_samples(plan)
    try:
        rows = robustness_rows(experiment, samples)
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
    record = run_record(plan, rows, outcomes)
    write_outputs(plan, record, samples)
    return RunResult(plan, record, rows)
