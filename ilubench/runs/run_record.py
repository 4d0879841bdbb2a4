"""The record of a run: rows, scores, costs, notes and what they rest on."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.experiments.attacks import resolve_attack
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.training_text import expected_overlaps, overlap_warnings
from ilubench.records.composites import KS_ITEMS, composite_scores
from ilubench.records.likeness import setting_differences
from ilubench.records.ranges import Ranges
from ilubench.records.reader_notes import option_notes, protocol_notes, row_notes
from ilubench.records.results import (
    CompositeScore,
    JobRecord,
    ModelScore,
    RunRecord,
    ScoreRecord,
    ScoreSummary,
    TrialRecord,
    Who,
)
from ilubench.records.scores import read_score, scored_checkpoints
from ilubench.runs.executors.base import Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.original import original_notes
from ilubench.runs.plan import Plan
from ilubench.runs.record_head import plain, record_head
from ilubench.runs.stages.compared import lacks_compared
from ilubench.specs import CompositeSpec
from ilubench.specs.protocols import TRAINING
from ilubench.statistics.row import RobustnessRow, trial_number

__all__ = ["job_summaries", "run_record"]


def _cost(plan: Plan) -> dict[str, float]:
    """Mean cost of one unlearning job of the method."""
    found: dict[str, list[float]] = {}
    for job in plan.jobs:
        artifact = plan.artifact(job)
        if job.stage == "unlearn" and job.who == "method" and artifact is not None:
            cost = artifact.meta().get("cost")
            assert isinstance(cost, dict)
            for name, value in cost.items():
                found.setdefault(name, []).append(float(cast("float", value)))
    return {name: sum(values) / len(values) for name, values in found.items()}


def _world_size(plan: Plan) -> dict[str, str | int]:
    """Return among how many devices the row's models were divided; each number that there was."""
    trained = (job for job in plan.jobs if job.stage != "target" and plan.bench.trains(job))
    made = [artifact for job in trained if (artifact := plan.artifact(job)) is not None]
    found = sorted({int(cast("int", one.meta().get("world_size", 1))) for one in made})
    if len(found) > 1:
        return {"world_size": ", ".join(map(str, found))}
    return {"world_size": found[0]} if found else {}


def _arithmetic(plan: Plan) -> dict[str, str]:
    """Return what the jobs' sums on a CPU were computed with; each that there was."""
    found: dict[str, set[str]] = {}
    for job in plan.jobs:
        artifact = plan.artifact(job)
        told = artifact.meta().get("arithmetic") if artifact is not None else None
        for name, value in told.items() if isinstance(told, dict) else ():
            found.setdefault(name, set()).add(str(value))
    return {name: ", ".join(sorted(values)) for name, values in found.items()}


def job_summaries(plan: Plan) -> Iterator[tuple[Job, ScoreRecord, ScoreSummary]]:
    """Yield what the jobs that are done have scored, with the checkpoint of each."""
    for job in plan.jobs:
        artifact = plan.artifact(job)
        if artifact is None:
            continue
        for path in scored_checkpoints(artifact.folder / "scores"):
            record = read_score(path)
            for summary in record.summaries:
                yield job, record, summary


def run_record(
    plan: Plan,
    rows: Mapping[str, RobustnessRow],
    outcomes: Sequence[Outcome],
    samples: pa.Table,
) -> RunRecord:
    """Return a run's record."""
    experiment = plan.experiment
    head = record_head(experiment, plan.bench, plan.run_id)
    scores = tuple(
        ModelScore(who=job.who, seed=job.seed, **summary.model_dump())
        for job, _, summary in job_summaries(plan)
        if job.stage == "score"
    )
    scores += tuple(score for one in plan.references.taken for score in one.scores)
    shared = overlap_warnings(experiment, plan.overlap)
    shared += expected_overlaps(experiment, plan.overlap)
    told = protocol_notes({a.name: a.spec for a in experiment.attacks}, _changed(experiment))
    original = original_notes(plan)
    ranges = Ranges.of_suite(experiment.suite, head.ranges)
    composites = composite_scores(experiment.suite, samples, ranges, experiment.method_name)
    notes = (*original, *row_notes(rows), *option_notes(scores), *_left_out(plan), *shared, *told)
    notes += (*plan.references.notes, *_incomparable(plan, samples, composites))
    arithmetic = _arithmetic(plan)
    notes += (*_mixed(arithmetic),)
    found = {
        "scores": scores,
        "composites": composites,
        "trials": tuple(_trials(plan)),
        "rows": {label: plain(dataclasses.asdict(row)) for label, row in rows.items()},
        "cost": _cost(plan),
        "conditions": head.conditions | _world_size(plan),
        "arithmetic": arithmetic,
        "jobs": _job_records(plan, outcomes),
        "failures": tuple(o.failure for o in outcomes if o.failure is not None),
        "overlap": plan.overlap,
        "references": plan.references.records,
        "notes": notes,
    }
    return RunRecord(**(dict(head) | found))


def _mixed(arithmetic: Mapping[str, str]) -> Iterator[str]:
    """Say that jobs of one run were computed on machines that compute otherwise.

    That their threads differ is usual: a job beside which none can run has those of all.
    """
    kernels = arithmetic.get("kernels", "")
    if "," in kernels:
        yield f"jobs were computed with other kernels ({kernels}): figures differ by up to 5e-5"


def _trials(plan: Plan) -> Iterator[TrialRecord]:
    """What attacks that tune chose, trial by trial; those that failed left nothing."""
    for job in plan.jobs:
        artifact = plan.artifact(job) if job.told_by else None
        for path in scored_checkpoints(artifact.folder / "scores") if artifact else ():
            told = read_score(path)
            trial = trial_number(told.level or "")
            if trial is not None:
                where = {"who": job.who, "attack": job.attack, "seed": job.seed, "trial": trial}
                yield TrialRecord(**where, settings=told.settings)


def _incomparable(
    plan: Plan, samples: pa.Table, composites: Sequence[CompositeScore]
) -> Iterator[str]:
    """Say of a composite that nothing could be compared with, and what gives it."""
    suite, given = plan.bench.suite, {one.label for one in composites}
    for spec in suite.composites:
        if spec.kind != "ks":
            continue
        never, mine = (_scored(samples, spec, who) for who in ("retrain", "reference"))
        if spec.label in given:
            if mine and mine == never:
                problem = "the model that is scored has, item by item, the retrained model's scores"
                yield f"{spec.label} says nothing here: {problem} (it may be that model)"
            continue
        remedy = "suite.retrain.model.path=FOLDER names it"
        problem = "compares with the model that never saw the forget set, which"
        if never:
            problem, was = "compares two models, which", f"share {len(never)} items only"
            remedy = f"{KS_ITEMS} can tell them apart"
        elif not plan.experiment.run.never_knew:
            was, remedy = "was not scored", "leave never_knew=false out"
        elif any(job.who == "retrain" for job in plan.jobs):
            was, remedy = "was not scored", "its job failed"
        else:
            lack = lacks_compared(plan.bench)
            was = f"cannot be had ({lack})" if lack else "was not scored"
        yield f"{spec.label} is not given: it {problem} {was} ({remedy})"


def _scored(samples: pa.Table, spec: CompositeSpec, who: Who) -> dict[str, float]:
    """Item -> a model's score in a composite's first metric, before any attack."""
    ((scorer, metric), *_) = spec.metrics
    wanted = {"who": who, "attack": "", "scorer": scorer, "metric": metric}
    for name, value in wanted.items():
        samples = samples.filter(pc.equal(samples[name], value))
    return dict(zip(samples["item"].to_pylist(), samples["value"].to_pylist(), strict=True))


def _left_out(plan: Plan) -> Iterator[str]:
    """Which scorers could not apply a prompt attack, each once."""
    kept = {metric.scorer for metric in plan.bench.suite.utility}
    found: dict[str, None] = {}
    for job in plan.jobs:
        artifact = plan.artifact(job) if job.attack else None
        reasons = artifact.meta().get("left_out") if artifact is not None else None
        if isinstance(reasons, dict):
            for scorer, why in sorted(reasons.items()):
                then = "; its utility stays the unlearned model's" if scorer in kept else ""
                found[f"{job.attack}: scorer {scorer} was left out: {why}{then}"] = None
    yield from found


def _changed(experiment: Experiment) -> dict[str, bool]:
    """Attacks run with other settings than the suite's; whether a protocol speaks of these."""
    found = {}
    for attack in experiment.attacks:
        declared = resolve_attack(experiment.suite, attack.name)
        both = (one.plugin.model_dump(mode="json") for one in (declared, attack))
        others = {name for name, *_ in setting_differences(*both)}
        if others:
            found[attack.name] = not others.isdisjoint(f"train.{name}" for name in TRAINING)
    return found


def _job_records(plan: Plan, outcomes: Sequence[Outcome]) -> tuple[JobRecord, ...]:
    return tuple(
        JobRecord(
            stage=o.job.stage,
            key=o.job.key,
            label=o.job.label,
            attack=o.job.attack,
            state=o.state,
            seconds=o.seconds if o.state in ("done", "failed") else plan.seconds(o.job),
        )
        for o in outcomes
    )
