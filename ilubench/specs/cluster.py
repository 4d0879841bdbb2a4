"""How a run uses a cluster."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from ilubench.specs.base import Spec

__all__ = ["RaySpec", "SlurmSpec"]

_ADDRESS = re.compile(r"auto|local|(ray://)?(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}")


class RaySpec(Spec):
    """What `executor=ray` asks of Ray.

    Attributes:
        address: `auto` is the cluster that this machine belongs to, and where there is none a Ray
            of its own; `local` is always the latter; else HOST:PORT or ray://HOST:PORT.
        cpus: cores of each worker; as many threads.
        memory: GB of the node's memory set aside for each worker; without: by the model's size on
            a CPU, none on GPUs.
        wait: seconds in which a cluster that grows on demand must have room for a worker.
    """

    address: str = "auto"
    cpus: int = Field(default=1, ge=1)
    memory: float | None = Field(default=None, gt=0)
    wait: float = Field(default=30.0, ge=0)

    @field_validator("address")
    @classmethod
    def _known_form(cls, value: str) -> str:
        if not _ADDRESS.fullmatch(value):
            raise ValueError(f"{value!r}: write auto, local, HOST:PORT or ray://HOST:PORT")
        return value


class SlurmSpec(Spec):
    """What each job of a run asks of Slurm (`executor=slurm`).

    Attributes:
        partition: where jobs are queued; without: the cluster's default.
        account: that is charged; without: yours.
        time: minutes; a job that needs longer is stopped, queued again, and goes on.
        memory: gigabytes; without: on a CPU, what the target model's size asks for; with GPUs, the
            cluster's default.
        cpus: cores.
        gpus: GPUs; with 0 the run is on CPUs.
        parallel: how many jobs of an array run at once; without: 256, or one with cluster=local.
        options: further options of sbatch, e.g. slurm.options.qos=high.
        cluster: `local` tries it without Slurm, with processes of this machine.
    """

    partition: str | None = Field(default=None, min_length=1)
    account: str | None = Field(default=None, min_length=1)
    time: int = Field(default=60, ge=2)
    memory: int | None = Field(default=None, ge=1)
    cpus: int = Field(default=1, ge=1)
    gpus: int = Field(default=0, ge=0)
    parallel: int | None = Field(default=None, ge=1)
    options: Mapping[str, str] = Field(default_factory=dict)
    cluster: Literal["slurm", "local"] = "slurm"
