"""Where a plan's jobs run: in this process, in workers of this machine, or on a cluster."""

import math
from collections import Counter
from collections.abc import Sequence

import torch

from ilubench.data.hub.models import model_folder, needed_files
from ilubench.experiments.experiment import Experiment
from ilubench.runs.carry_out import carry_out
from ilubench.runs.executors.base import Slots, Watcher, longest_first
from ilubench.runs.executors.child import import_ahead
from ilubench.runs.executors.processes import ThisMachine
from ilubench.runs.executors.serial import ThisProcess
from ilubench.runs.executors.share import WORTH, share_machine, worker_memory
from ilubench.runs.executors.workers import Workers
from ilubench.runs.folder import run_config, write_inputs
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.remaining import RemainingTime
from ilubench.runs.stages.devices import pick_device

__all__ = ["lone_jobs", "place_jobs", "prepare_places"]


def prepare_places(experiment: Experiment) -> None:
    """Begin what the start of workers on CPUs will need, beside the planning."""
    asked, source = experiment.run, experiment.suite.target.model
    if asked.executor != "local" or asked.workers == 1 or pick_device(asked) != "cpu":
        return
    if asked.workers == "auto":
        if source is None or source.hub is not None:
            return  # how large it is, the plan finds out
        folder = model_folder(source, "suite.target.model", needed_files)
        if sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 2 * WORTH:
            return
    import_ahead()


def place_jobs(plan: Plan, watcher: Watcher) -> tuple[Sequence[Job], Slots]:
    """Return the jobs in the order of their start, and where they run."""
    asked, bench = plan.experiment.run, plan.bench
    left = sum(not plan.is_done(job) for job in plan.jobs)
    named = all(row.experiment.is_named for row in plan.rows)
    slots: Slots | None = None
    if asked.executor == "ray" and left and named:
        slots = _on_ray(plan, left, watcher)
    if asked.executor == "slurm" and left and named:
        slots = _on_slurm(plan, watcher)
    most = max(Counter(job.stage for job in plan.jobs).values())
    each = asked.devices_per_job if asked.executor == "local" else 1  # a cluster's are elsewhere
    share = share_machine(asked.workers, bench.device, bench.target_config, most, each)
    count = 1 if plan.experiment.scores_only else min(share.workers, left)
    lone = lone_jobs(plan.jobs)

    def threads(job: Job) -> int:
        return share.lone_threads if job.key in lone else share.threads

    if asked.executor == "local" and count > 1 and named:
        environments = [share.environment(number) for number in range(count)]
        config, logs = run_config(plan.experiment), plan.folder / "workers"
        here = ThisMachine(config, environments, logs, threads, bench.device)
        slots = Workers(here, count, watcher, asked.job_timeout)
    if slots is not None:
        return longest_first(plan.jobs, RemainingTime(plan).expected), slots

    def do(job: Job) -> None:
        if threads(job):  # as many as in a worker: a resumed run computes the same sums
            torch.set_num_threads(threads(job))
        carry_out(bench, job, watcher.started(job))

    return plan.jobs, ThisProcess(do)


def lone_jobs(jobs: Sequence[Job]) -> frozenset[str]:
    """Return the keys of jobs beside which none can run: each other one comes before or after."""
    before: dict[str, set[str]] = {}
    for job in jobs:
        before[job.key] = set(job.needs).union(*(before.get(need, set()) for need in job.needs))
    related = Counter(key for behind in before.values() for key in behind)  # that come after
    return frozenset(key for key in before if related[key] + len(before[key]) == len(jobs) - 1)


def _on_ray(plan: Plan, left: int, watcher: Watcher) -> Slots:
    from ilubench.runs.executors.ray_actors import ray_workers
    from ilubench.runs.executors.ray_cluster import Need

    asked, device = plan.experiment.run, plan.bench.device
    memory = worker_memory(plan.bench.target_config) if device == "cpu" else 0
    if asked.ray.memory is not None:
        memory = round(asked.ray.memory * 1e9)
    need = Need(asked.ray.cpus, gpus=asked.devices_per_job * (device == "cuda"), memory=memory)
    config = run_config(plan.experiment)
    config["run"] = {**asked.model_dump(mode="json"), "device": device}  # not what a node picks
    return ray_workers(asked, need, left, config, plan.folder / "workers", watcher)


def _on_slurm(plan: Plan, watcher: Watcher) -> Slots:
    from ilubench.runs.executors.slurm import SlurmArrays

    asked, memory = plan.experiment.run, None
    if plan.bench.device == "cpu":
        memory = math.ceil(worker_memory(plan.bench.target_config) / 1e9)
    write_inputs(plan)  # a tuning's, which no job could read otherwise
    return SlurmArrays(asked.slurm, plan.folder, memory, watcher, asked.job_timeout)
