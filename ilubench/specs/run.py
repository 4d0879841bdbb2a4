"""A run."""

from typing import Annotated, Literal

from pydantic import Field

from ilubench.specs.base import PluginRef, Spec
from ilubench.specs.memory import MemorySpec

__all__ = ["RunSpec"]


class RunSpec(Spec):
    """What `ilubench run` was asked for, before names are resolved."""

    suite: str = "mini"
    method: PluginRef = PluginRef(use="ilu")
    attacks: tuple[str, ...] | None = Field(default=None, description="all of the suite's")
    seeds: tuple[int, ...] | None = Field(default=None, description="the suite's")
    engine: Literal["auto", "hf", "vllm"] = "auto"
    device: str = "auto"
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        default="auto",
        description="processes that share the jobs; one a GPU, or as cores and memory allow",
    )
    job_timeout: float | None = Field(
        default=None, gt=0, description="seconds after which a job is ended; with workers only"
    )
    keep: tuple[Literal["attacked"], ...] = ()
    never_knew: bool = Field(
        default=True, description="attack the suite's `retrain` weights too, where it has any"
    )
    memory: MemorySpec = Field(default=MemorySpec(), description="what training keeps in memory")
    out: str = Field(default="runs", description="folder of results and cache")
