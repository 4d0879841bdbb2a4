"""On which devices a run's jobs are done, and what does not go with several of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from pydantic import JsonValue

from ilubench.errors import ModelError, SpecError, UsageError
from ilubench.experiments.experiment import Experiment
from ilubench.interfaces import WeightAttack
from ilubench.models.forward import architecture_name, has_layers
from ilubench.specs import RunSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["arithmetic", "check_sharding", "pick_device", "refuse_launchers"]

_WORLD_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE")
"""Variables in which torchrun, accelerate and mpirun tell a process how many of it there are."""


def pick_device(run: RunSpec) -> str:
    """Return the device of a run's jobs; on a cluster, what they ask for, not what is here.

    Raises:
        UsageError: CUDA was asked for and is not there.
    """
    asked, slurm, ray = run.device, run.executor == "slurm", run.executor == "ray"
    if ray and asked.startswith("cuda:"):
        raise UsageError(f"device={asked}: Ray gives each worker its GPU; write device=cuda")
    gpus = torch.cuda.is_available() or (ray and asked == "cuda")
    gpus = run.slurm.gpus > 0 if slurm else gpus
    if asked == "auto":
        return "cuda" if gpus else "cpu"
    if asked.startswith("cuda") and not gpus:
        if slurm:
            raise UsageError(f"device={asked}: jobs get no GPU; add slurm.gpus=1")
        raise UsageError(f"device={asked}: this torch sees no GPU; use device=cpu")
    try:
        kind = torch.device(asked).type
    except RuntimeError:
        kind = ""
    if kind not in ("cpu", "cuda"):
        raise UsageError(f"device={asked}: no device that can be used; use auto, cpu or cuda")
    return asked


def arithmetic(device: str) -> dict[str, JsonValue]:
    """Return what sums on a CPU depend on, and no key: threads and kernels; empty on a GPU."""
    if device != "cpu":
        return {}
    kernels = torch.backends.cpu.get_cpu_capability()
    return {"arithmetic": {"threads": str(torch.get_num_threads()), "kernels": kernels}}


def check_sharding(experiment: Experiment, device: str, config: "PretrainedConfig") -> None:
    """Find what does not go with several devices a job, before any job.

    Args:
        experiment: what was asked for.
        device: of the run.
        config: of the target model.

    Raises:
        UsageError: there are not as many, or the method cannot be found by its name.
        SpecError: a method, an attack or a setting does not go with them.
        ModelError: the model's layers cannot be found.
    """
    run = experiment.run
    count = run.devices_per_job
    asked = f"devices_per_job={count}"
    if device not in ("cpu", "cuda"):
        raise UsageError(f"{asked}: device={device} is one; use device=cuda")
    here = {"local": torch.cuda.device_count(), "slurm": run.slurm.gpus, "ray": count}
    if device == "cuda" and count > here[run.executor]:
        raise UsageError(f"{asked}: a job gets {here[run.executor]} GPUs")
    if run.memory.moments == "float8":
        problem = "float8 is kept in blocks, which the division among devices would cut"
        raise SpecError(problem, field="memory.moments", remedy="use bfloat16 or float32")
    if not experiment.is_named:
        raise UsageError(f"{asked} finds methods by their names, and this one was made in Python")
    experiment.method.check_sharding()
    for attack in (one for top in experiment.attacks for one in (*top.links.values(), top)):
        if isinstance(attack.plugin, WeightAttack):
            with attack.naming():
                attack.plugin.check_sharding()
    if not has_layers(config):
        name = architecture_name(config)
        raise ModelError(f"{asked}: the layers of a {name} cannot be found, nor divided")


def refuse_launchers(environment: Mapping[str, str]) -> None:
    """Refuse to be one of several processes of a distributed launch.

    Each would do the same jobs in the same store. A step's batch comes from the settings alone,
    and must not grow with the number of processes.

    Args:
        environment: of the process.

    Raises:
        UsageError: a launcher started more than one.
    """
    for name in _WORLD_SIZES:
        value = environment.get(name, "")
        if value.isdecimal() and int(value) > 1:
            raise UsageError(
                f"{name}={value}: a run is one process, and a launcher started {value} of them, "
                "which would all do the same; start `ilubench run` without torchrun, accelerate or "
                "mpirun. Batches are set by batch_size; run other seeds or methods at the same time"
            )
