"""A run."""

from typing import Literal

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
    keep: tuple[Literal["attacked"], ...] = ()
    never_knew: bool = Field(
        default=True, description="attack the suite's `retrain` weights too, where it has any"
    )
    allow_weak_target: bool = Field(
        default=False,
        description="go on where the original model scores as if it had forgotten already",
    )
    texts: bool = Field(
        default=False, description="keep what models write, beside the samples; never of gated data"
    )
    memory: MemorySpec = Field(default=MemorySpec(), description="what training keeps in memory")
    out: str = Field(default="runs", description="folder of results and cache")
