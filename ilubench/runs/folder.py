"""What a run leaves in its folder: configuration, environment, status, record, samples."""

import contextlib
import io
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import JsonValue

from ilubench import __version__
from ilubench.errors import SpecError
from ilubench.experiments.experiment import Experiment
from ilubench.models.checkpoints import model_origin
from ilubench.records.keys import file_sha256
from ilubench.records.results import RunRecord
from ilubench.records.run_files import LEFT
from ilubench.records.store import write_atomic, write_json
from ilubench.records.verified import MANIFEST, seal
from ilubench.runs.collect import gather_texts
from ilubench.runs.executors.base import Outcome
from ilubench.runs.plan import Plan
from ilubench.runs.record_head import row_hashes, used_libraries
from ilubench.runs.references import metric_summaries
from ilubench.runs.run_record import job_summaries
from ilubench.specs import SuiteSpec
from ilubench.specs.yaml_text import MAX_YAML, write_yaml

__all__ = [
    "is_finished",
    "run_config",
    "write_inputs",
    "write_outputs",
    "write_status",
]


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
        "libraries": dict(used_libraries()),
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
        for job, record, summary in job_summaries(plan)
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
