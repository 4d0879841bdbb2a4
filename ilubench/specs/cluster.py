"""How a run uses a cluster."""

import re

from pydantic import Field, field_validator

from ilubench.specs.base import Spec

__all__ = ["RaySpec"]

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
