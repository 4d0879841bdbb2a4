"""How Adam's two moments are kept between steps."""

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias

import torch
from torch.nn import functional

from ilubench.specs.memory import BLOCK
from ilubench.training.rounding import stochastic_bfloat16, to_float8, to_float8_root

__all__ = ["MOMENTS", "State"]

State: TypeAlias = dict[str, torch.Tensor]
"""What an optimizer keeps of one parameter, flat."""

Zeros: TypeAlias = Callable[[int, torch.dtype], torch.Tensor]
"""(length, type) -> zeros, where the state lies."""

Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]


class Moments(Protocol):
    """A way to keep moments; `cut` is a piece of the parameter whose ends are whole blocks'."""

    def fresh(self, count: int, zeros: Zeros) -> State:
        """Return the state of ``count`` moments that are 0."""

    def read(self, state: State, cut: slice, device: torch.device) -> Pair:
        """Return both moments of a piece, float32 on the device: the state's own if possible."""

    def write(self, state: State, cut: slice, moments: Pair, noise: torch.Generator) -> None:
        """Keep both moments of a piece."""


class _Plain:
    """Both moments as they are, in one type."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._dtype = dtype

    def fresh(self, count: int, zeros: Zeros) -> State:
        return {name: zeros(count, self._dtype) for name in ("exp_avg", "exp_avg_sq")}

    def read(self, state: State, cut: slice, device: torch.device) -> Pair:
        first, second = (
            state[name][cut].to(device, non_blocking=True).float()
            for name in ("exp_avg", "exp_avg_sq")
        )
        return first, second

    def write(self, state: State, cut: slice, moments: Pair, noise: torch.Generator) -> None:
        for name, value in zip(("exp_avg", "exp_avg_sq"), moments, strict=True):
            kept = state[name][cut]
            rounded = stochastic_bfloat16(value, noise) if kept.dtype != value.dtype else value
            if kept.data_ptr() != rounded.data_ptr():
                kept.copy_(rounded, non_blocking=True)


class _Float8:
    def fresh(self, count: int, zeros: Zeros) -> State:
        state: State = {}
        for name in ("exp_avg", "exp_avg_root"):
            state[name] = zeros(count, torch.float8_e4m3fn)
            state[f"{name}_scale"] = zeros(-(-count // BLOCK), torch.float32)
        return state

    def read(self, state: State, cut: slice, device: torch.device) -> Pair:
        first, root = (self._read(state, name, cut, device) for name in ("exp_avg", "exp_avg_root"))
        return first, root.square_()

    def write(self, state: State, cut: slice, moments: Pair, noise: torch.Generator) -> None:
        first, second = moments
        self._write(state, "exp_avg", cut, to_float8(_blocks(first), noise))
        self._write(state, "exp_avg_root", cut, to_float8_root(_blocks(second), noise))

    def _read(self, state: State, name: str, cut: slice, device: torch.device) -> torch.Tensor:
        codes = state[name][cut].to(device, non_blocking=True).float()
        scales = state[f"{name}_scale"][_of_blocks(cut)].to(device, non_blocking=True)
        return codes.mul_(scales.repeat_interleave(BLOCK)[: len(codes)])

    def _write(self, state: State, name: str, cut: slice, made: Pair) -> None:
        codes, scales = made
        kept = state[name][cut]
        kept.copy_(codes.flatten()[: len(kept)], non_blocking=True)
        state[f"{name}_scale"][_of_blocks(cut)].copy_(scales.flatten(), non_blocking=True)


def _of_blocks(cut: slice) -> slice:
    return slice(cut.start // BLOCK, -(-cut.stop // BLOCK))


def _blocks(values: torch.Tensor) -> torch.Tensor:
    """Return [n] as [blocks, BLOCK], the last one filled up with zeros."""
    return functional.pad(values, (0, -len(values) % BLOCK)).view(-1, BLOCK)


MOMENTS: dict[Literal["float32", "bfloat16", "float8"], Moments] = {
    "float32": _Plain(torch.float32),
    "bfloat16": _Plain(torch.bfloat16),
    "float8": _Float8(),
}
"""By their name in `MemorySpec`."""
