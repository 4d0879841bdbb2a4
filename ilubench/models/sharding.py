"""A model's weights divided among several processes, the ranks of one job: torch's FSDP2.

Every rank runs the same code on its own part of each batch. A batch's losses are sums over its
parts (see `ilubench.interfaces.Batch`), so gradients and figures are summed over the ranks, never
averaged. In a process that is no rank all of this does nothing.
"""

import contextlib
import copy
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Shard

from ilubench.errors import ModelError
from ilubench.models.forward import model_layers, probe_head

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch.distributed.device_mesh import DeviceMesh
    from transformers import PreTrainedModel

__all__ = [
    "cut_like",
    "from_the_leader",
    "is_shard",
    "join_ranks",
    "joined",
    "leads",
    "local",
    "merge_over_ranks",
    "rank",
    "shard_model",
    "sum_over_ranks",
    "together",
    "whole_model",
    "world_size",
]

_WAIT = datetime.timedelta(days=7)
"""How long a rank waits for the others: while one scores, that is long; a dead one ends them all
(see `ilubench.runs.executors.ranks`)."""

_JOINT: list[int] = []
"""The number of ranks, while they work together."""

T = TypeVar("T")


# --------------------------------------------------------------------------- ranks


def join_ranks(rank: int, count: int, device: str, meeting: Path) -> None:
    """Make this process one of the ranks.

    Args:
        rank: its number, from 0; on GPUs, the number of its own.
        count: how many there are.
        device: `cpu` or `cuda`.
        meeting: a file in which they find each other; new for each set of ranks.
    """
    backend = "gloo"
    if device == "cuda":
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(
        backend, init_method=f"file://{meeting}", rank=rank, world_size=count, timeout=_WAIT
    )


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Work as one of the ranks, which all do the same; outside of this each is on its own."""
    _JOINT.append(dist.get_world_size())
    try:
        yield
    finally:
        _JOINT.pop()


def world_size() -> int:
    """Return how many ranks work together; 1 where this process is on its own."""
    return _JOINT[-1] if _JOINT else 1


def rank() -> int:
    """Return this process's number among them; 0 where it is on its own."""
    return dist.get_rank() if world_size() > 1 else 0


def leads() -> bool:
    """Whether this process writes what there is to write."""
    return rank() == 0


def sum_over_ranks(value: float) -> float:
    """Return the sum of the ranks' values; all of them must ask."""
    if world_size() == 1:
        return value
    total = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(total)
    return float(total)


def from_the_leader(value: T) -> T:
    """Return the first rank's value; all of them must ask."""
    if world_size() == 1:
        return value
    held: list[Any] = [value]
    dist.broadcast_object_list(held, src=0, device=torch.device("cpu"))
    return cast("T", held[0])


def merge_over_ranks(values: torch.Tensor) -> torch.Tensor:
    """Fill what is NaN with what another rank has found; all of them must ask."""
    if world_size() == 1:
        return values
    found = [torch.empty_like(values) for _ in range(world_size())]
    dist.all_gather(found, values.contiguous())
    merged = found[0]
    for other in found[1:]:
        merged = torch.where(merged.isnan(), other, merged)
    return merged


# --------------------------------------------------------------------------- shards


def shard_model(model: "PreTrainedModel", device: str) -> None:
    """Divide a model's weights among the ranks, in place; the first of them keeps a whole copy.

    Each layer is gathered when it runs and let go of behind it; embedding, last norm and head,
    which may be one tensor, likewise with the model. Gradients are summed, in float32.

    Args:
        model: whole, the same on every rank.
        device: `cpu` or `cuda`: where the shards lie.

    Raises:
        ModelError: its layers cannot be found.
    """
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

    layers = model_layers(model)
    if not layers:
        raise ModelError(f"the layers of a {type(model).__name__} cannot be found, nor sharded")
    probe_head(model)  # runs parts of the model, each on its own
    copied = copy.deepcopy(model).requires_grad_(False).eval() if leads() else None
    object.__setattr__(model, "_ilubench_whole", copied)
    mesh = dist.device_mesh.init_device_mesh(device, (world_size(),))
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for part in (*layers, model):
        # also behind the whole model, so that weights may be exchanged between two passes
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


@contextlib.contextmanager
def whole_model(model: "PreTrainedModel") -> "Iterator[PreTrainedModel | None]":
    """Lend the whole model to the first rank; the others are given None, and wait.

    Args:
        model: sharded, then the whole one lies on the CPU; or not, then it is lent itself.
    """
    if not hasattr(model, "_ilubench_whole"):
        yield model
        return
    copied = cast("PreTrainedModel | None", model._ilubench_whole)
    with torch.no_grad():
        into = dict(copied.named_parameters()) if copied is not None else {}
        for name, parameter in model.named_parameters():
            found = cast("DTensor", parameter.detach()).full_tensor()
            if into:
                into[name].copy_(found)
        buffers = dict(copied.named_buffers()) if copied is not None else {}
        for name, value in model.named_buffers():
            if buffers:
                buffers[name].copy_(value)
    yield copied
    from_the_leader(None)


def is_shard(tensor: torch.Tensor) -> bool:
    """Whether the ranks have a part of the tensor each."""
    return isinstance(tensor, DTensor)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def joined(part: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return all ranks' parts of what belongs to a parameter's weights; all of them must ask.

    Args:
        part: as many values as this rank has of the parameter; or any, of a whole parameter.
        parameter: whose.
    """
    if not isinstance(parameter, DTensor) or part.dim() == 0:
        return part
    mine = part.to(parameter.device).view(parameter.to_local().shape)
    shape, stride = parameter.shape, parameter.stride()
    mesh: DeviceMesh = parameter.device_mesh
    made = DTensor.from_local(mine, mesh, [Shard(0)], shape=shape, stride=stride, run_check=False)
    return made.full_tensor().cpu()


def cut_like(values: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return this rank's part of what belongs to a parameter's weights.

    Args:
        values: a number a weight, in the parameter's shape or flat; then the part is flat, too.
        parameter: whose.
    """
    if not isinstance(parameter, DTensor) or values.dim() == 0:
        return values
    rows: Sequence[torch.Tensor] = values.view(parameter.shape).chunk(world_size())
    mine = rows[rank()] if rank() < len(rows) else values.new_empty(0, *parameter.shape[1:])
    return mine.reshape(-1) if values.dim() == 1 and parameter.dim() > 1 else mine
