"""What a run leaves in its folder: configuration, environment, status, record, samples."""

import contextlib
import dataclasses
import io
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from ilubench import __version__
from ilubench.errors import SpecError
from ilubench.experiments.attacks import resolve_attack
from ilubench.experiments.experiment import Experiment
from ilubench.experiments.training_text import expected_overlaps, overlap_warnings
from ilubench.models.checkpoints import model_origin
from ilubench.records.composites import composite_scores
from ilubench.records.keys import file_sha256, library_versions
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
)
from ilubench.records.run_files import LEFT
from ilubench.records.scores import read_score, scored_checkpoints
from ilubench.records.store import write_atomic, write_json
from ilubench.records.verified import MANIFEST, seal
from ilubench.runs.collect import gather_texts
from ilubench.runs.executors.base import Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.original import original_notes
from ilubench.runs.plan import Plan
from ilubench.runs.record_head import LIBRARIES, plain, record_head, row_hashes
from ilubench.runs.references import metric_summaries
from ilubench.specs import SuiteSpec
from ilubench.specs.protocols import TRAINING
from ilubench.specs.yaml_text import MAX_YAML, write_yaml
from ilubench.statistics.row import RobustnessRow, trial_number

__all__ = [
    "is_finished",
    "run_config",
    "run_record",
    "write_inputs",
    "write_outputs",
    "write_status",
]

# --------------------------------------------------------------------------- the record


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


def _summaries(plan: Plan) -> Iterator[tuple[Job, ScoreRecord, ScoreSummary]]:
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
        for job, _, summary in _summaries(plan)
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
    notes += (*plan.references.notes, *_incomparable(plan, composites))
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
    """Say that jobs of one run were not computed alike."""
    for name, values in sorted(arithmetic.items()):
        if "," in values:
            yield f"jobs were computed with other {name} ({values}): figures differ by up to 5e-5"


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


def _incomparable(plan: Plan, composites: Sequence[CompositeScore]) -> Iterator[str]:
    """Say of a composite that nothing could be compared with, and what gives it."""
    suite, given = plan.bench.suite, {one.label for one in composites}
    for spec in suite.composites:
        if spec.kind == "ks" and spec.label not in given:
            remedy = "suite.retrain.model.path=FOLDER names it"
            if not plan.experiment.run.never_knew:
                remedy = "leave never_knew=false out"
            elif any(job.who == "retrain" for job in plan.jobs):
                remedy = "its job failed"
            problem = "compares with the model that never saw the forget set, which was not scored"
            yield f"{spec.label} is not given: it {problem} ({remedy})"


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


# --------------------------------------------------------------------------- the run's folder


def _git() -> dict[str, JsonValue]:
    """Return the source tree's commit and whether it was changed, by git."""
    import subprocess

    root = Path(__file__).parents[2]
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


def _hub_origins(plan: Plan) -> dict[str, JsonValue]:
    """The commits that the run's data sets and target model on a hub are of."""
    found: dict[str, JsonValue] = dict(plan.bench.tables.origins())
    target, bench = plan.bench.suite.target, plan.bench
    recipe = target.recipe if target.model is None else None
    for part, source, folder in (
        ("model", target.model, bench.given_target),
        ("recipe.init", recipe.init if recipe else None, bench.began_with),
        ("tokenizer", target.tokenizer, bench.given_tokenizer),
    ):
        if source is not None and folder is not None and source.hub is not None:
            found[f"suite.target.{part}"] = model_origin(source, folder)
    return found


def _environment(plan: Plan) -> dict[str, JsonValue]:
    import torch

    bench = plan.bench
    return {
        "ilubench": __version__,
        "git": _git(),
        "libraries": dict(library_versions(LIBRARIES)),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": _device_name(bench.device),
        "seeds": list(bench.experiment.seeds),
        "data": dict(row_hashes(plan.experiment, bench)),
        "hub": _hub_origins(plan),
    }


def _device_name(device: str) -> str:
    """Return the card's name, where this machine has it."""
    import torch

    here = device != "cpu" and torch.cuda.is_available()
    return torch.cuda.get_device_name(device) if here else device


def run_config(experiment: Experiment) -> dict[str, JsonValue]:
    """Return what `config.yaml` holds: all that was resolved; `restore_experiment` reads it."""
    if experiment.scores_only:
        asked = experiment.run.model_dump(
            mode="json", include={"suite", "engine", "device", "texts", "out"}
        )
        return {"run": asked, "suite": _scored(experiment.suite)}
    return {
        "run": experiment.run.model_dump(mode="json"),
        "use": experiment.method_name,
        "method": experiment.method.model_dump(mode="json"),
        "seeds": list(experiment.seeds),
        "attacks": {a.name: a.plugin.model_dump(mode="json") for a in experiment.attacks},
        "suite": experiment.suite.model_dump(mode="json"),
    }


def _scored(suite: SuiteSpec) -> JsonValue:
    """A suite's fields that scoring reads; the others are empty, or do not matter to it."""
    unread = {"methods", "attacks", "core_unseen", "environments", "forget", "retain", "retrain"}
    unread |= {"tuning", "tuning_seeds", "seeds", "gates", "max_length"}
    if suite.compares:
        unread -= {"retrain"}
    return suite.model_dump(mode="json", exclude=unread)


def is_finished(plan: Plan) -> bool:
    """Whether all jobs are done, and each run's folder has what it left."""
    left = all((row.folder / MANIFEST).is_file() for row in plan.rows)
    return left and all(map(plan.is_done, plan.jobs))


def _is_kept(plan: Plan) -> bool:
    """Whether nothing is written: the run is finished, and its folder cannot be written to."""
    return not os.access(plan.folder, os.W_OK) and is_finished(plan)


def write_inputs(plan: Plan) -> None:
    """Write `config.yaml`, `env.json` and `plan.json`."""
    if _is_kept(plan):
        return
    config = run_config(plan.experiment)
    text = write_yaml(config).encode()
    if len(text) > MAX_YAML:  # it could not be read again
        problem = f"its settings have {len(text)} bytes as YAML; {MAX_YAML} are allowed"
        raise SpecError(problem, where=plan.experiment.suite.name, remedy="give fewer attacks")
    jobs: list[JsonValue] = [job.model_dump(mode="json") for job in plan.jobs]
    # paths in the configuration are relative to where the command was given
    here: dict[str, JsonValue] = {"run": plan.run_id, "folder": str(Path.cwd()), "jobs": jobs}
    with _replacing(plan.folder):
        write_atomic(plan.folder / "config.yaml", text)
        write_json(plan.folder / "env.json", _environment(plan))
        write_json(plan.folder / "plan.json", here)


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[None]:
    """Replace files of a run that its manifest names: one process at a time, and it is gone."""
    from filelock import FileLock

    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{MANIFEST}.lock"):
        (folder / MANIFEST).unlink(missing_ok=True)
        yield


def write_status(plan: Plan, outcomes: Sequence[Outcome]) -> None:
    """Write `status.json`."""
    if _is_kept(plan):
        return
    states: dict[str, JsonValue] = {o.job.key: o.state for o in outcomes}
    state: dict[str, JsonValue] = {
        "jobs": len(plan.jobs),
        "ended": len(outcomes),
        "states": states,
        "time": time.time(),
    }
    write_json(plan.folder / "status.json", state)


def _copy(source: Path, target: Path) -> None:
    """Put a small file of the store into the run's folder; no link: who edits it edits this one."""
    if target.is_file() and file_sha256(target) == file_sha256(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def write_outputs(plan: Plan, record: RunRecord, samples: pa.Table) -> None:
    """Write `cells/`, the tables of samples, metrics and texts, `results.json`, their hashes."""
    if _is_kept(plan):
        return
    for job in plan.jobs:
        artifact = plan.artifact(job)
        if artifact is None:
            continue
        cell = plan.folder / "cells" / job.key
        for path in sorted(artifact.folder.rglob("*")):
            if path.suffix in (".json", ".parquet", ".jsonl") or path.name == "DONE":
                _copy(path, cell / path.relative_to(artifact.folder))
    rows = [
        {
            "who": job.who,
            "stage": job.stage,
            "attack": job.attack,
            "seed": job.seed,
            "step": record.step,
            "level": record.level,
            **summary.model_dump(),
        }
        for job, record, summary in _summaries(plan)
    ]
    for (who, attack, seed, step, level), taken in metric_summaries(
        plan.experiment, plan.references
    ):
        place = {"attack": attack, "seed": seed, "step": None if level else step, "level": level}
        stage = "attack" if attack else "score"
        rows.append({"who": who, "stage": stage, **place, **taken.model_dump()})
    with _replacing(plan.folder):
        if rows:
            write_atomic(plan.folder / "metrics.parquet", _parquet(pa.Table.from_pylist(rows)))
            write_atomic(plan.folder / "samples.parquet", _parquet(samples))
        if rows and plan.experiment.run.texts:
            write_atomic(plan.folder / "texts.parquet", _parquet(gather_texts(plan)))
        write_atomic(
            plan.folder / "results.json", (record.model_dump_json(indent=1) + "\n").encode()
        )
        left = [name for name in LEFT if (plan.folder / name).is_file()]
        hashes: dict[str, JsonValue] = {name: file_sha256(plan.folder / name) for name in left}
        write_json(plan.folder / MANIFEST, seal({"files": hashes}))
