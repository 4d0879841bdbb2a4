"""One job carried out: within a run, or on its own from the run's folder."""

import contextlib
import os
import platform
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from pydantic import ValidationError

from ilubench.errors import DataError, UsageError
from ilubench.experiments.experiment import restore_experiment
from ilubench.interfaces import Progress
from ilubench.records.store import Artifact, write_atomic
from ilubench.runs.executors.base import Outcome, failure_of
from ilubench.runs.executors.ranks import Ranks
from ilubench.runs.folder import run_config
from ilubench.runs.jobs import Job
from ilubench.runs.original import check_original
from ilubench.runs.stages.keys import attack_key, score_key, scoring_identity, unlearn_key
from ilubench.runs.stages.stage import do
from ilubench.runs.stages.workbench import Workbench, make_bench
from ilubench.specs.untrusted import read_json
from ilubench.specs.yaml_files import load_yaml

__all__ = ["carry_out", "carry_out_planned", "open_planned", "write_trace"]


def carry_out(bench: Workbench, job: Job, progress: Progress) -> Artifact:
    """Do one job, in several processes where it asks for several devices; its needs are done."""
    run = bench.experiment.run
    if run.devices_per_job == 1:
        return do(bench, job, progress)
    if bench.beside is None:
        config, logs = run_config(bench.experiment), Path(run.out) / "ranks"
        bench.beside = Ranks(config, run.devices_per_job, bench.device, logs)
    bench.beside.carry_out(job, progress)
    made = bench.store.get(job.stage, job.key)
    assert made is not None
    return made


def write_trace(folder: Path, outcome: Outcome) -> None:
    """Keep a failed job's traceback in the run's folder."""
    if outcome.trace:
        write_atomic(folder / "failures" / f"{outcome.job.key}.txt", outcome.trace.encode())


def carry_out_planned(folder: Path, key: str, progress: Progress) -> Outcome:
    """Do one job of a planned run, in any process; a run of the same words finds it cached.

    Args:
        folder: the run's, with `config.yaml` and `plan.json`.
        key: the job's, or as much of its beginning as no other job's has.
        progress: display.

    Raises:
        UsageError: no such run or job; what the job needs is not done; or code, data, settings or
            libraries are no longer those that the run was planned with.
        ModelError: the original model seems to have forgotten already.
    """
    folder = folder.resolve()
    planned = _read_plan(folder)
    fitting = [job for name, job in planned.jobs.items() if key and name.startswith(key)]
    if len(fitting) != 1:
        problem = f"{folder} has {len(fitting) or 'no'} jobs whose keys begin with {key!r}"
        known = "; ".join(f"{name[:10]} {job.label}" for name, job in planned.jobs.items())
        raise UsageError(f"{problem}; there are: {known}")
    (job,) = fitting
    with open_planned(folder) as (bench, _):
        _check_key(bench, job)
        if bench.device != "cpu" and not torch.cuda.is_available():
            raise UsageError(f"{job.label}: {platform.node()} gives this job no GPU")
        if bench.is_done(job):
            return Outcome(job, "cached", 0.0)
        for need in job.needs:
            before = planned.jobs.get(need)
            if before is None:
                raise UsageError(f"{folder / 'plan.json'}: lacks job {need}, which {key} needs")
            if not bench.is_done(before):
                remedy = f"first: ilubench job {folder} {need}"
                raise UsageError(f"{job.label} needs {before.label!r}; {remedy}")
        check_original(bench, [*map(planned.jobs.__getitem__, job.needs), job])
        try:
            seconds = carry_out(bench, job, progress).meta()["seconds"]
        except UsageError:
            raise
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            outcome = Outcome(job, "failed", 0.0, failure_of(job, error), traceback.format_exc())
            write_trace(folder, outcome)
            return outcome
    return Outcome(job, "done", cast("float", seconds))


@contextlib.contextmanager
def open_planned(folder: Path) -> "Iterator[tuple[Workbench, tuple[Job, ...]]]":
    """Work with a run's artifacts: yield its bench and jobs.

    Args:
        folder: the run's, with `config.yaml` and `plan.json`.

    Raises:
        UsageError: no such run.
    """
    folder = folder.resolve()
    planned = _read_plan(folder)
    with _inside(planned.folder):
        config = folder / "config.yaml"
        bench = make_bench(restore_experiment(load_yaml(config), config))
        try:
            yield bench, tuple(planned.jobs.values())
        finally:
            bench.close()


class _Planned(NamedTuple):
    folder: Path
    jobs: dict[str, Job]


def _read_plan(folder: Path) -> _Planned:
    path = folder / "plan.json"
    remedy = "`ilubench plan --write` with the run's words makes it"
    if not path.is_file():
        raise UsageError(f"{folder} is no planned run: it has no plan.json; {remedy}")
    try:
        raw: Any = read_json(path)
        jobs = [Job.model_validate(one) for one in raw["jobs"]]
        return _Planned(Path(raw["folder"]), {job.key: job for job in jobs})
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UsageError(f"{path}: jobs: {problem}; {remedy}") from error
    except (DataError, LookupError, TypeError) as error:
        raise UsageError(f"{path} is no plan of this ilubench; {remedy}") from error


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work where the run was planned: paths in its configuration are relative to there."""
    before = Path.cwd()
    try:
        os.chdir(folder)
    except (OSError, ValueError) as error:
        problem = f"the run was planned in {str(folder)!r}, which is not there ({error})"
        raise UsageError(f"{problem}; every node must see that folder") from error
    try:
        yield
    finally:
        os.chdir(before)


def _check_key(bench: Workbench, job: Job) -> None:
    """Refuse a plan that is out of date: its results would be filed under another's key."""
    key = ""
    if job.stage == "target":
        key = bench.target
    elif job.stage == "unlearn" and job.method is not None:
        key = unlearn_key(bench, bench.method(job.method), job.seed)
    elif job.stage == "score":
        key = score_key(scoring_identity(bench), job.weights)
    elif job.attack in {attack.name for attack in bench.experiment.attacks}:
        shared = scoring_identity(bench)
        key = attack_key(bench, shared, bench.attack(job.attack), job.weights, job.seed)
    if key != job.key:
        problem = (
            f"{job.label}: code, data, settings, device or libraries are not those of the plan"
        )
        raise UsageError(f"{problem}; plan the run again, with the same words")
