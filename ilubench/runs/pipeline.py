"""Carry out a plan: skip what is done, launch the rest, collect the row."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from ilubench.errors import DataError, UsageError
from ilubench.experiments.experiment import Experiment
from ilubench.interfaces import Progress
from ilubench.records.results import RunRecord
from ilubench.records.store import write_atomic
from ilubench.runs.collect import gather, robustness_rows
from ilubench.runs.executors.base import Outcome
from ilubench.runs.executors.serial import execute, one_process
from ilubench.runs.folder import run_record, write_inputs, write_outputs, write_status
from ilubench.runs.plan import Job, Plan, check_inputs, make_plan, whose
from ilubench.runs.stages.attack import run_attack
from ilubench.runs.stages.score import run_score
from ilubench.runs.stages.target import make_target
from ilubench.runs.stages.unlearn import run_unlearn
from ilubench.statistics.row import RobustnessRow

__all__ = ["Reporter", "RunResult", "carry_out", "run"]


class Reporter(Protocol):
    """Shows how a run goes."""

    @property
    def progress(self) -> Progress:
        """Progress within the current job."""

    def planned(self, plan: Plan) -> None:
        """Called once, before the first job."""

    def started(self, job: Job) -> None:
        """A job that is not cached begins."""

    def finished(self, outcome: Outcome[Job]) -> None:
        """A job ended, was cached, or was skipped."""


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    plan: Plan
    record: RunRecord
    rows: Mapping[str, RobustnessRow]


def carry_out(plan: Plan, job: Job, experiment: Experiment, reporter: Reporter) -> None:
    """Do one job; ``experiment`` has the method whose weights it makes."""
    reporter.started(job)
    bench, progress = plan.bench, reporter.progress
    if job.stage == "target":
        make_target(bench, job.key, progress)
    elif job.stage == "unlearn":
        run_unlearn(bench, experiment, (plan.target, job.key), job.seed, progress)
    elif job.stage == "score":
        run_score(bench, (plan.target, job.weights, job.key), progress)
    else:
        assert job.attack is not None
        keys = (plan.target, job.weights, job.key)
        run_attack(bench, job.attack, keys, job.seed, progress)


def run(experiment: Experiment, reporter: Reporter) -> RunResult:
    """Carry out a run; killed at any moment, the same call resumes it.

    Raises:
        DataError: data are missing, or no seed could be scored.
    """
    one_process(os.environ)
    plan = make_plan(experiment)
    if plan.is_done(plan.jobs[0]):
        check_inputs(plan)
    reporter.planned(plan)
    fresh = not plan.folder.exists()
    write_inputs(plan)
    outcomes: list[Outcome[Job]] = []
    try:
        for outcome in execute(
            plan.jobs,
            plan.is_done,
            lambda job: carry_out(plan, job, whose(experiment, job.who), reporter),
        ):
            outcomes.append(outcome)
            reporter.finished(outcome)
            if outcome.trace:
                path = plan.folder / "failures" / f"{outcome.job.key}.txt"
                write_atomic(path, outcome.trace.encode())
            write_status(plan, outcomes)
            if outcome.job.stage == "target" and outcome.state == "done":
                check_inputs(plan)
    except (UsageError, DataError):
        if fresh and not any(outcome.state == "done" for outcome in outcomes):
            shutil.rmtree(plan.folder)  # nothing was measured
        raise
    finally:
        plan.bench.close()
    samples = gather(plan)
    try:
        rows = robustness_rows(experiment, samples)
    except DataError:
        if not any(outcome.failure for outcome in outcomes):
            raise
        rows = {}  # too much failed for a row; the record says what
    if any(
        outcome.failure and outcome.failure.kind == "DivergedError" and outcome.job.who != "retrain"
        for outcome in outcomes
    ):
        rows = {label: replace(row, status="diverged") for label, row in rows.items()}
    record = run_record(plan, rows, outcomes)
    write_outputs(plan, record, samples)
    return RunResult(plan, record, rows)
