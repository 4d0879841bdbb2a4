"""Where a run's jobs are carried out beyond this machine."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from ilubench.specs.base import Spec

__all__ = ["SlurmSpec"]


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
