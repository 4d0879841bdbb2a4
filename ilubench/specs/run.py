"""A run."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from ilubench.specs.base import PluginRef, Seed, Spec
from ilubench.specs.cluster import RaySpec, SlurmSpec
from ilubench.specs.memory import MemorySpec

__all__ = ["RunSpec"]


class RunSpec(Spec):
    """What `ilubench run` was asked for, before names are resolved.

    Attributes:
        suite: name of a shipped suite, or a YAML file.
        method: name of a method or of a suite's variant, or FILE.py:Class; of several, joined by
            commas, each is a run.
        attacks: names, joined by commas; `none` for no attack; without: the suite's
            benign ones; `all` adds its further ones. A shipped one
            (`ilubench ls attacks`) need not be the suite's; one of your own is FILE.yaml, or
            FILE.py:Class.
        seeds: numbers or a range, such as 0..4; without: the suite's.
        engine: what scores; `auto` is vLLM where it is installed and there is a GPU.
        device: auto, cpu, cuda or cuda:1.
        executor: where jobs run: `local` is this machine, `ray` workers of a Ray cluster, `slurm`
            jobs of Slurm.
        ray: which cluster, and what each worker asks of it (`ilubench describe RaySpec`).
        slurm: what each job asks for (`ilubench describe SlurmSpec`).
        workers: processes that share the jobs; `auto` is one a GPU, or on a CPU as many as cores
            and memory allow.
        devices_per_job: devices among which a model that is trained is divided.
        job_timeout: seconds after which a job is ended; with several workers only.
        keep: `attacked` keeps the attacked models' weights, too.
        never_knew: attack the suite's `retrain` weights too, where it has any.
        references: the attacks on the original and the retrained model: `run` measures them here,
            `shipped` takes those that come with the suite, `auto` those of them that match.
        allow_weak_target: go on where the original model scores as if it had forgotten already.
        texts: keep what models write, beside the samples; never of gated data.
        memory: what training keeps in memory.
        track: what losses and scores are shown in while jobs run, one run a job.
        out: folder of results and cache.
    """

    suite: str = "mini"
    method: PluginRef = PluginRef(use="ilu")
    attacks: tuple[str, ...] | None = None
    seeds: tuple[Seed, ...] | None = None
    engine: Literal["auto", "hf", "vllm"] = "auto"
    device: Annotated[str, StringConstraints(to_lower=True)] = "auto"
    executor: Literal["local", "ray", "slurm"] = "local"
    ray: RaySpec = RaySpec()
    slurm: SlurmSpec = SlurmSpec()
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    devices_per_job: Annotated[int, Field(ge=1)] = 1
    job_timeout: float | None = Field(default=None, gt=0)
    keep: tuple[Literal["attacked"], ...] = ()
    never_knew: bool = True
    references: Literal["auto", "shipped", "run"] = "auto"
    allow_weak_target: bool = False
    texts: bool = False
    memory: MemorySpec = MemorySpec()
    track: Literal["none", "wandb", "mlflow", "trackio", "tensorboard"] = "none"
    out: str = "runs"
