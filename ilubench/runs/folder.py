"""What a run leaves in its folder: configuration, environment, status, record, samples."""

import dataclasses
import io
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import JsonValue

from ilubench import __version__
from ilubench.errors import IlubenchError
from ilubench.experiments.experiment import Attack, Experiment
from ilubench.experiments.training_text import overlap_warnings
from ilubench.interfaces.discovery import create_plugin
from ilubench.models.checkpoints import model_origin, tokenizer_sha256
from ilubench.models.folder import weight_files
from ilubench.records.keys import digest, file_sha256, library_versions
from ilubench.records.likeness import setting_differences, suite_conditions
from ilubench.records.reader_notes import option_notes, protocol_notes, row_notes
from ilubench.records.results import JobRecord, ModelScore, RunRecord, ScoreRecord, ScoreSummary
from ilubench.records.scores import read_score, scored_checkpoints
from ilubench.records.store import write_atomic, write_json
from ilubench.runs.collect import declared_ranges, gather_texts
from ilubench.runs.executors.base import Outcome
from ilubench.runs.jobs import Job
from ilubench.runs.original import original_notes
from ilubench.runs.plan import Plan
from ilubench.specs import PluginRef, SuiteSpec
from ilubench.statistics.row import RobustnessRow

__all__ = ["run_config", "run_record", "write_inputs", "write_outputs", "write_status"]

_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "lm-eval",
    "vllm",
    "datasets",
    "numpy",
    "scipy",
)

# --------------------------------------------------------------------------- the record


def _plain(value: object) -> JsonValue:
    return cast("JsonValue", json.loads(json.dumps(value, allow_nan=False)))


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
    plan: Plan, rows: Mapping[str, RobustnessRow], outcomes: Sequence[Outcome]
) -> RunRecord:
    """Return a run's record."""
    experiment = plan.experiment
    scores = tuple(
        ModelScore(who=job.who, seed=job.seed, **summary.model_dump())
        for job, _, summary in _summaries(plan)
        if job.stage == "score"
    )
    shared = overlap_warnings(experiment, plan.overlap)
    told = protocol_notes({a.name: a.spec for a in experiment.attacks}, _changed(experiment))
    original = original_notes(plan.bench, plan.jobs)
    notes = (*original, *row_notes(rows), *option_notes(scores), *_left_out(plan), *shared, *told)
    return RunRecord(
        run=plan.run_id,
        suite=experiment.suite.name,
        suite_version=experiment.suite.version,
        method={}
        if experiment.scores_only
        else {
            "use": experiment.method_name,
            "settings": _plain(experiment.method.model_dump(mode="json")),
        },
        method_version=0 if experiment.scores_only else type(experiment.method).version,
        seeds=experiment.seeds,
        attacks=tuple(attack.name for attack in experiment.attacks),
        engine=plan.bench.engine_choice.name,
        dtype=experiment.suite.dtypes,
        seen=experiment.seen,
        scores=scores,
        rows={label: _plain(dataclasses.asdict(row)) for label, row in rows.items()},
        cost=_cost(plan),
        jobs=_job_records(plan, outcomes),
        failures=tuple(o.failure for o in outcomes if o.failure is not None),
        protocol={a.name: _protocol(experiment, a) for a in experiment.attacks},
        data=_row_hashes(plan),
        target=_target_hash(plan),
        ranges=declared_ranges(experiment),
        conditions=suite_conditions(experiment.suite) | _world_size(plan),
        libraries={n: v for n, v in library_versions(_LIBRARIES).items() if v != "absent"},
        overlap=plan.overlap,
        notes=notes,
    )


def _left_out(plan: Plan) -> Iterator[str]:
    """Which scorers could not apply a prompt attack, each once."""
    found: dict[str, None] = {}
    for job in plan.jobs:
        artifact = plan.artifact(job) if job.attack else None
        reasons = artifact.meta().get("left_out") if artifact is not None else None
        if isinstance(reasons, dict):
            for scorer, why in sorted(reasons.items()):
                found[f"{job.attack}: scorer {scorer} was left out: {why}"] = None
    yield from found


def _changed(experiment: Experiment) -> set[str]:
    """Attacks that were run with other settings than the suite's."""
    found = set()
    for attack in experiment.attacks:
        declared = create_plugin(
            "attacks", PluginRef(use=attack.spec.use, settings=attack.spec.settings)
        )
        both = (plugin.model_dump(mode="json") for plugin in (declared, attack.plugin))
        if any(setting_differences(*both)):
            found.add(attack.name)
    return found


def _protocol(experiment: Experiment, attack: Attack) -> dict[str, JsonValue]:
    """What two runs must have alike in an attack, lest they have unequal budgets."""
    tables = experiment.tables
    roles = {role: attack.role(role, experiment.suite) for role in attack.plugin.roles()}
    return {
        "use": attack.spec.use,
        "settings": _plain(attack.plugin.model_dump(mode="json")),
        "data": {
            role: {"examples": len(tables.rows(full)), **tables.fingerprint(full)}
            for role, full in roles.items()
        },
        "max_length": experiment.suite.max_length,
        "fa": _plain(attack.spec.fa.model_dump(mode="json")) if attack.spec.fa else None,
    }


def _row_hashes(plan: Plan) -> dict[str, str]:
    """Hash of the rows of each role that was read."""
    tables = plan.bench.tables
    roles = [role for role in tables.roles if tables.is_loaded(role)]
    return {role: str(tables.fingerprint(role)["rows"]) for role in roles}


def _target_hash(plan: Plan) -> str:
    """One SHA-256 over the target model's weights, and over a tokenizer from elsewhere.

    Empty where they are not at hand.
    """
    try:
        files = weight_files(plan.bench.target_folder)
        words = plan.bench.given_tokenizer
    except IlubenchError:  # its job failed, or the store was tidied up
        return ""
    hashes: dict[str, JsonValue] = {path.name: file_sha256(path) for path in files}
    return digest(hashes if words is None else {**hashes, "tokenizer": tokenizer_sha256(words)})


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
    for part, source, folder in (
        ("model", target.model, bench.given_target),
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
        "libraries": dict(library_versions(_LIBRARIES)),
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(bench.device) if bench.device != "cpu" else "cpu",
        "seeds": list(bench.experiment.seeds),
        "data": dict(_row_hashes(plan)),
        "hub": _hub_origins(plan),
    }


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
    return suite.model_dump(mode="json", exclude=unread)


def write_inputs(plan: Plan) -> None:
    """Write `config.yaml`, `env.json` and `plan.json`."""
    config = run_config(plan.experiment)
    text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
    write_atomic(plan.folder / "config.yaml", text.encode())
    write_json(plan.folder / "env.json", _environment(plan))
    jobs: list[JsonValue] = [job.model_dump(mode="json") for job in plan.jobs]
    # paths in the configuration are relative to where the command was given
    here: dict[str, JsonValue] = {"run": plan.run_id, "folder": str(Path.cwd()), "jobs": jobs}
    write_json(plan.folder / "plan.json", here)


def write_status(plan: Plan, outcomes: Sequence[Outcome]) -> None:
    """Write `status.json`."""
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


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def write_outputs(plan: Plan, record: RunRecord, samples: pa.Table) -> None:
    """Write `cells/`, the tables of samples, metrics and texts, and `results.json` last."""
    for job in plan.jobs:
        artifact = plan.artifact(job)
        if artifact is None:
            continue
        cell = plan.folder / "cells" / job.key
        for path in sorted(artifact.folder.rglob("*")):
            if path.suffix in (".json", ".parquet", ".jsonl") or path.name == "DONE":
                _share(path, cell / path.relative_to(artifact.folder))
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
    if rows:
        write_atomic(plan.folder / "metrics.parquet", _parquet(pa.Table.from_pylist(rows)))
        write_atomic(plan.folder / "samples.parquet", _parquet(samples))
    if rows and plan.experiment.run.texts:
        write_atomic(plan.folder / "texts.parquet", _parquet(gather_texts(plan)))
    write_atomic(plan.folder / "results.json", (record.model_dump_json(indent=1) + "\n").encode())
