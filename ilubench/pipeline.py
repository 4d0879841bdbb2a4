"""Plan the jobs of a run, skip what is done, carry out the rest, collect the row."""

import dataclasses
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import JsonValue

from ilubench import __version__
from ilubench.aggregate import RobustnessRow, aggregate
from ilubench.collect import Cells, Measured, chances, measure, method_runs
from ilubench.errors import DataError, UsageError
from ilubench.executors.local import Outcome, execute
from ilubench.experiment import Attack, Experiment, with_method
from ilubench.identity import digest, library_versions
from ilubench.interfaces import Progress
from ilubench.results import JobRecord, ModelScore, RunRecord
from ilubench.stages.attack import run_attack
from ilubench.stages.keys import attack_key, score_key, target_key, unlearn_key
from ilubench.stages.score import read_score, run_score, scored_checkpoints
from ilubench.stages.target import make_target
from ilubench.stages.unlearn import run_unlearn
from ilubench.stages.workbench import Workbench, pick_device
from ilubench.store import Artifact, Store, write_atomic, write_json

__all__ = ["Job", "Plan", "Reporter", "RunResult", "make_plan", "run"]

REFERENCE = "none"
"""The method that every row is compared with."""

Stage = Literal["target", "unlearn", "score", "attack"]


@dataclass(frozen=True)
class Job:
    """One unit of work; `key` names its artifact, `needs` the artifacts it starts from.

    Attributes:
        who: `method`, or `reference` for the original model's jobs.
        weights: key of the unlearned weights that it scores or attacks.
    """

    stage: Stage
    key: str
    label: str
    needs: tuple[str, ...] = ()
    who: Literal["method", "reference"] = "method"
    seed: int = 0
    attack: Attack | None = None
    weights: str = ""


@dataclass(frozen=True)
class Plan:
    """The jobs of a run in the order of their execution."""

    run_id: str
    folder: Path
    bench: Workbench
    target: str
    jobs: tuple[Job, ...]

    def is_done(self, job: Job) -> bool:
        """Whether the job's artifact is there (a given target model needs no job)."""
        if job.stage == "target" and self.bench.given_target is not None:
            return True
        return self.bench.store.get(job.stage, job.key) is not None

    def seconds(self, job: Job) -> float | None:
        """How long a finished job took, None when unknown."""
        artifact = self.bench.store.get(job.stage, job.key)
        value = artifact.meta().get("seconds") if artifact else None
        return float(value) if isinstance(value, int | float) else None


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


def _method_jobs(
    bench: Workbench, experiment: Experiment, target: str, who: Literal["method", "reference"]
) -> list[Job]:
    jobs = []
    name = experiment.method_name if who == "method" else REFERENCE
    for seed in experiment.seeds:
        weights = unlearn_key(bench, experiment, target, seed)
        score = score_key(bench, weights)
        tail = f"seed {seed}"
        shown = f"{name}, {tail}" if experiment.method.seeded else name
        jobs.append(Job("unlearn", weights, f"unlearn {shown}", (target,), who, seed))
        jobs.append(Job("score", score, f"score {shown}", (weights,), who, seed, weights=weights))
        for attack in experiment.attacks:
            key = attack_key(bench, attack, weights, seed)
            label = f"attack {name} with {attack.name}, {tail}"
            jobs.append(Job("attack", key, label, (weights,), who, seed, attack, weights))
    return jobs


def make_plan(experiment: Experiment) -> Plan:
    """Return the jobs of a run; data are read, no weights are loaded.

    Raises:
        DataError: data or the target model are missing or empty.
    """
    device = pick_device(experiment.run.device)
    out = Path(experiment.run.out)
    bench = Workbench(experiment, Store(out / "store"), device)
    target = target_key(bench)
    jobs = [Job("target", target, f"make the target model of {experiment.suite.name}")]
    by_seed = _method_jobs(bench, with_method(experiment, REFERENCE), target, "reference")
    if experiment.method_name != REFERENCE:
        by_seed = _method_jobs(bench, experiment, target, "method") + by_seed
    by_seed.sort(key=lambda job: experiment.seeds.index(job.seed))
    ordered = tuple({job.key: job for job in jobs + by_seed}.values())
    name = experiment.method_name.rpartition(":")[2].lower()
    run_id = f"{experiment.suite.name}-{name}-{digest([job.key for job in ordered])[:10]}"
    return Plan(run_id, out / run_id, bench, target, ordered)


def _carry_out(plan: Plan, job: Job, reporter: Reporter) -> None:
    reporter.started(job)
    bench, progress = plan.bench, reporter.progress
    experiment = bench.experiment
    if job.who == "reference":
        experiment = with_method(experiment, REFERENCE)
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


def _check_inputs(plan: Plan) -> None:
    """Tokenise and bind what the open jobs read, so that a wrong item shows before any training."""
    bench, suite = plan.bench, plan.bench.suite
    open_jobs = [job for job in plan.jobs if not plan.is_done(job)]
    for job in open_jobs:
        if job.stage == "unlearn" and job.who == "method":
            roles = [suite.forget, suite.retain]
            names = bench.experiment.method.environment_names()
            roles += [(bench.experiment.environment_role(name),) for name in names]
            for role in roles:
                bench.examples(role, plan.target)
        elif job.attack is not None:
            for name in job.attack.plugin.roles():
                bench.examples((job.attack.role(name, suite),), plan.target)
            bench.attack_scorers(job.attack, plan.target)
    if any(job.stage in ("score", "attack") for job in open_jobs):
        bench.suite_scorers(plan.target)


def run(experiment: Experiment, reporter: Reporter) -> RunResult:
    """Carry out a run; killed at any moment, the same call resumes it.

    Raises:
        DataError: data are missing, or no seed could be scored.
    """
    plan = make_plan(experiment)
    if plan.is_done(plan.jobs[0]):
        _check_inputs(plan)
    reporter.planned(plan)
    fresh = not plan.folder.exists()
    _write_inputs(plan)
    outcomes: list[Outcome[Job]] = []
    try:
        for outcome in execute(
            plan.jobs, plan.is_done, lambda job: _carry_out(plan, job, reporter)
        ):
            outcomes.append(outcome)
            reporter.finished(outcome)
            if outcome.trace:
                path = plan.folder / "failures" / f"{outcome.job.key}.txt"
                write_atomic(path, outcome.trace.encode())
            _write_status(plan, outcomes)
            if outcome.job.stage == "target" and outcome.state == "done":
                _check_inputs(plan)
    except (UsageError, DataError):
        if fresh and not any(outcome.state == "done" for outcome in outcomes):
            shutil.rmtree(plan.folder)  # nothing was measured
        raise
    try:
        rows = _rows(plan)
    except DataError:
        if not any(outcome.failure for outcome in outcomes):
            raise
        rows = {}  # too much failed for a row; the record says what
    record = _record(plan, rows, outcomes)
    _write_outputs(plan, record)
    return RunResult(plan, record, rows)


# --------------------------------------------------------------------------- collecting


def _artifact(plan: Plan, job: Job) -> Artifact | None:
    return plan.bench.store.get(job.stage, job.key)


def _cells(plan: Plan, experiment: Experiment, who: Literal["method", "reference"]) -> Cells:
    scores: dict[int, Measured] = {}
    attacks: dict[str, dict[int, Measured]] = {attack.name: {} for attack in experiment.attacks}
    for job in plan.jobs:
        artifact = _artifact(plan, job) if job.who == who else None
        if artifact is None:
            continue
        if job.stage == "score":
            scores[job.seed] = measure(artifact)
        elif job.stage == "attack":
            assert job.attack is not None
            attacks[job.attack.name][job.seed] = measure(artifact)
    if experiment.method.seeded:  # a course starts at its own seed's score
        attacks = {
            name: {seed: run for seed, run in runs.items() if seed in scores}
            for name, runs in attacks.items()
        }
    return Cells(scores, attacks)


def _rows(plan: Plan) -> dict[str, RobustnessRow]:
    experiment = plan.bench.experiment
    reference = with_method(experiment, REFERENCE)
    original = _cells(plan, reference, "reference")
    is_reference = experiment.method_name == REFERENCE
    mine = original if is_reference else _cells(plan, experiment, "method")
    if not experiment.attacks or not mine.scores or not original.scores:
        return {}
    rows = {}
    for metric in experiment.suite.primary_forget:
        core = tuple(a.name for a in experiment.attacks if a.name in experiment.suite.core_unseen)
        rows[metric.label] = aggregate(
            method_runs(experiment, mine, metric),
            method_runs(reference, original, metric),
            chances(experiment, metric),
            core=core if len(core) == len(experiment.suite.core_unseen) else (),
        )
    return rows


def _plain(value: object) -> JsonValue:
    return cast("JsonValue", json.loads(json.dumps(value, allow_nan=False)))


def _cost(plan: Plan) -> dict[str, float]:
    """Mean cost of one unlearning job of the method."""
    found: dict[str, list[float]] = {}
    for job in plan.jobs:
        artifact = _artifact(plan, job)
        if job.stage == "unlearn" and job.who == "method" and artifact is not None:
            cost = artifact.meta().get("cost")
            assert isinstance(cost, dict)
            for name, value in cost.items():
                found.setdefault(name, []).append(float(cast("float", value)))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _scores(plan: Plan) -> Iterator[ModelScore]:
    for job in plan.jobs:
        artifact = _artifact(plan, job) if job.stage == "score" else None
        if artifact is not None:
            for path in scored_checkpoints(artifact.folder / "scores"):
                for summary in read_score(path).summaries:
                    yield ModelScore(who=job.who, seed=job.seed, **summary.model_dump())


def _record(
    plan: Plan, rows: Mapping[str, RobustnessRow], outcomes: list[Outcome[Job]]
) -> RunRecord:
    experiment = plan.bench.experiment
    return RunRecord(
        run=plan.run_id,
        suite=experiment.suite.name,
        suite_version=experiment.suite.version,
        method={
            "use": experiment.method_name,
            "settings": _plain(experiment.method.model_dump(mode="json")),
        },
        method_version=type(experiment.method).version,
        seeds=experiment.seeds,
        attacks=tuple(attack.name for attack in experiment.attacks),
        engine="hf",
        dtype=experiment.suite.dtype,
        seen=experiment.seen,
        scores=tuple(_scores(plan)),
        rows={label: _plain(dataclasses.asdict(row)) for label, row in rows.items()},
        cost=_cost(plan),
        jobs=_job_records(plan, outcomes),
        failures=tuple(o.failure for o in outcomes if o.failure is not None),
    )


def _job_records(plan: Plan, outcomes: list[Outcome[Job]]) -> tuple[JobRecord, ...]:
    return tuple(
        JobRecord(
            stage=o.job.stage,
            key=o.job.key,
            label=o.job.label,
            state=o.state,
            seconds=o.seconds if o.state in ("done", "failed") else plan.seconds(o.job),
        )
        for o in outcomes
    )


# --------------------------------------------------------------------------- the run's folder


def _git() -> dict[str, JsonValue]:
    """Return the source tree's commit and whether it was changed, without calling git."""
    import subprocess

    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(root), *words],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
        )
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(status)}


def _environment(plan: Plan) -> dict[str, JsonValue]:
    import torch

    libraries = ("torch", "transformers", "tokenizers", "lm-eval", "datasets", "numpy", "scipy")
    bench = plan.bench
    roles = [r for r in bench.tables.roles if bench.tables.is_loaded(r)]
    return {
        "ilubench": __version__,
        "git": _git(),
        "libraries": dict(library_versions(libraries)),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(bench.device) if bench.device != "cpu" else "cpu",
        "seeds": list(bench.experiment.seeds),
        "data": {role: bench.tables.fingerprint(role)["rows"] for role in roles},
    }


def _write_inputs(plan: Plan) -> None:
    experiment = plan.bench.experiment
    config = {
        "run": experiment.run.model_dump(mode="json"),
        "method": experiment.method.model_dump(mode="json"),
        "seeds": list(experiment.seeds),
        "attacks": {a.name: a.plugin.model_dump(mode="json") for a in experiment.attacks},
        "suite": experiment.suite.model_dump(mode="json"),
    }
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    write_atomic(plan.folder / "config.yaml", text.encode())
    write_json(plan.folder / "env.json", _environment(plan))
    jobs: list[JsonValue] = [
        {"stage": j.stage, "key": j.key, "label": j.label, "needs": list(j.needs)}
        for j in plan.jobs
    ]
    write_json(plan.folder / "plan.json", {"run": plan.run_id, "jobs": jobs})


def _write_status(plan: Plan, outcomes: list[Outcome[Job]]) -> None:
    states: dict[str, JsonValue] = {o.job.key: o.state for o in outcomes}
    state: dict[str, JsonValue] = {
        "jobs": len(plan.jobs),
        "ended": len(outcomes),
        "states": states,
        "time": time.time(),
    }
    write_json(plan.folder / "status.json", state)


def _share(source: Path, target: Path) -> None:
    """Put a file of the store into the run's folder without copying it where that is possible."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:  # a second process with the same run was faster
        return
    except OSError:
        shutil.copyfile(source, target)


def _write_outputs(plan: Plan, record: RunRecord) -> None:
    rows: list[dict[str, object]] = []
    for job in plan.jobs:
        artifact = _artifact(plan, job)
        if artifact is None:
            continue
        cell = plan.folder / "cells" / job.key
        for path in sorted(artifact.folder.rglob("*")):
            if path.suffix in (".json", ".parquet", ".jsonl") or path.name == "DONE":
                _share(path, cell / path.relative_to(artifact.folder))
        for path in scored_checkpoints(artifact.folder / "scores"):
            scored = read_score(path)
            name = job.attack.name if job.attack else ""
            rows.extend(
                {
                    "who": job.who,
                    "stage": job.stage,
                    "attack": name,
                    "seed": job.seed,
                    "step": scored.step,
                    **summary.model_dump(),
                }
                for summary in scored.summaries
            )
    if rows:
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), buffer)
        write_atomic(plan.folder / "metrics.parquet", buffer.getvalue())
    write_atomic(plan.folder / "results.json", (record.model_dump_json(indent=1) + "\n").encode())
