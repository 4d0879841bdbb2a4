"""How a machine is shared among workers: devices, cores, memory."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ilubench.errors import UsageError
from ilubench.models.forward import parameter_sizes

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["WORTH", "Share", "share_machine", "worker_memory"]

WORTH = 1_000_000
"""Weights, without embeddings, from which a second worker gains more than its start takes."""

_COPIES = 6
"""Float32 copies of the weights that a job may hold: itself, gradient, Adam's two, a reference."""

_BASE = 2 * 2**30
"""Bytes of a worker without a model: libraries, data, activations."""


@dataclass(frozen=True)
class Share:
    """What each worker gets.

    Attributes:
        workers: how many; with one, jobs run in this process.
        threads: of each on a CPU; 0 leaves it to torch.
        lone_threads: of a job beside which none can run.
        devices: of each: the value of `CUDA_VISIBLE_DEVICES`; none on a CPU.
    """

    workers: int
    threads: int = 0
    lone_threads: int = 0
    devices: tuple[str, ...] = ()

    def environment(self, worker: int) -> dict[str, str]:
        """Return the variables of a worker's process."""
        found: dict[str, str] = {}
        if self.threads:
            found["OMP_NUM_THREADS"] = str(self.threads)
        if self.devices:
            found["CUDA_VISIBLE_DEVICES"] = self.devices[worker % len(self.devices)]
        return found


def share_machine(
    asked: int | str, device: str, config: "PretrainedConfig", most: int, each: int = 1
) -> Share:
    """Return how many workers share the machine, and what each gets.

    `auto` is one a GPU; on a CPU, as many as cores and memory allow and can be busy at once, and
    one for a model of less than a million weights. It depends on the machine and the plan, not on
    what is done already: threads decide the last bits of a sum, and a resumed run must go on with
    as many.

    Args:
        asked: `workers=`.
        device: of the run.
        config: of the target model.
        most: jobs that can run at once.
        each: devices of a worker; on a CPU, processes.

    Raises:
        UsageError: there are not as many devices.
    """
    if device == "cuda":
        gpus = _visible_gpus(os.environ)
        if each > 1 and each * (1 if asked == "auto" else int(asked)) > len(gpus):
            problem = f"devices_per_job={each}: there are {len(gpus)} GPUs for workers={asked}"
            raise UsageError(f"{problem}; give fewer of either")
        whole = len(gpus) - len(gpus) % each
        devices = tuple(",".join(gpus[at : at + each]) for at in range(0, whole, each))
        count = len(devices) if asked == "auto" else int(asked)
        return Share(count, devices=devices if count > 1 else ())
    if device != "cpu":  # one GPU by its number
        return Share(1 if asked == "auto" else int(asked))
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    if asked == "auto":
        text = config.get_text_config()
        embedding = text.vocab_size * text.hidden_size  # a recipe's vocabulary is not known before
        sizes = parameter_sizes(config).values()
        worth = sum(size for size in sizes if size != embedding) >= WORTH
        room = _memory() // (worker_memory(config) + (each - 1) * _BASE)
        count = max(1, min(cores // each, room, most)) if worth else 1
    else:
        count = int(asked)
    given = os.environ.get("OMP_NUM_THREADS", "")
    if count == 1:
        return Share(count)
    if given.isdecimal() and int(given):
        return Share(count, int(given), int(given))
    return Share(count, max(1, cores // count), cores)


def worker_memory(config: "PretrainedConfig") -> int:
    """Return the bytes that a worker on a CPU may take.

    Args:
        config: of the target model.
    """
    return _BASE + _COPIES * 4 * sum(parameter_sizes(config).values())


def _visible_gpus(environment: Mapping[str, str]) -> tuple[str, ...]:
    given = environment.get("CUDA_VISIBLE_DEVICES")
    if given:
        return tuple(one.strip() for one in given.split(","))
    return tuple(str(number) for number in range(torch.cuda.device_count()))


def _memory() -> int:
    """Bytes of the machine's memory; not what is free, which a resumed run would find changed."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
