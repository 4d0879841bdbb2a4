"""AdamW with its state in less memory, and the choice between it and torch's own."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.adamw import adamw

from ilubench.data.seeds import seed_for
from ilubench.errors import SpecError
from ilubench.specs import MemorySpec, TrainSpec
from ilubench.training.moments import MOMENTS, State
from ilubench.training.rounding import stochastic_bfloat16

__all__ = ["LeanAdamW", "make_optimizer"]

_PIECE = 2**24
"""Weights that are worked on at once, a multiple of float8's blocks: 64 MB in float32."""


def make_optimizer(
    parameters: Sequence[torch.nn.Parameter], spec: TrainSpec, memory: MemorySpec, seed: int
) -> torch.optim.Optimizer:
    """Return AdamW: torch's own where all is float32 on the device, else one that needs less.

    Args:
        parameters: what is trained.
        spec: learning rate, betas, eps, weight decay.
        memory: what is kept, and where.
        seed: of what is rounded at random.

    Raises:
        SpecError: the weights' type cannot be rounded at random.
    """
    exact = all(parameter.dtype == torch.float32 for parameter in parameters)
    if exact and memory.moments == "float32" and not memory.offload:
        return torch.optim.AdamW(
            parameters,
            lr=spec.lr,
            betas=spec.betas,
            eps=spec.eps,
            weight_decay=spec.weight_decay,
            fused=True,
        )
    return LeanAdamW(parameters, spec, memory, seed)


class LeanAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) whose state takes less room.

    Each step is the fused float32 step of torch's own AdamW, piece by piece: weights (or their
    master copies), gradients and moments become float32 on the device, and are put back as
    `MemorySpec` says. What that takes besides is some float32 copies of one piece.

    The state of a parameter is flat: `step`, `master` where there is one, `exp_avg` and
    `exp_avg_sq`; in float8 `exp_avg`, `exp_avg_root` (square roots) and a `_scale` of each.

    Args:
        parameters: float32 or bfloat16.
        spec: learning rate, betas, eps, weight decay.
        memory: what is kept, and where.
        seed: of what is rounded at random; with the number of the step and the parameter's place it
            determines each draw, so that a resumed job draws the same.

    Raises:
        SpecError: weights of another type are to be rounded at random.
    """

    def __init__(
        self,
        parameters: Sequence[torch.nn.Parameter],
        spec: TrainSpec,
        memory: MemorySpec,
        seed: int,
    ) -> None:
        """Nothing is allocated before the first step."""
        for parameter in parameters:
            if memory.update == "stochastic" and parameter.dtype == torch.float16:
                problem = "float16 weights are not rounded at random"
                raise SpecError(problem, field="memory.update", remedy="use master")
        group: dict[str, Any] = {
            "lr": spec.lr,
            "betas": spec.betas,
            "eps": spec.eps,
            "weight_decay": spec.weight_decay,
        }
        super().__init__(parameters, group)
        self._memory, self._seed = memory, seed
        self._moments = MOMENTS[memory.moments]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Apply the gradients; parameters without one stay as they are, and get no state."""
        del closure
        for group in self.param_groups:
            for place, parameter in enumerate(group["params"]):
                if parameter.grad is not None:
                    self._update(parameter, place, group)
        if self._memory.offload and torch.cuda.is_available():
            torch.cuda.synchronize()  # what was sent to the machine's memory has arrived

    def take(self, parameter: torch.nn.Parameter, state: State) -> None:
        """Go on from a parameter's saved state."""
        for name, saved in state.items():
            if name == "step":
                self.state[parameter][name] = saved.cpu()
                continue
            kept = self._zeros(parameter, saved.numel(), saved.dtype)
            kept.copy_(saved.reshape(-1))
            self.state[parameter][name] = kept

    def _zeros(self, parameter: torch.nn.Parameter, count: int, dtype: torch.dtype) -> torch.Tensor:
        """Return zeros where the state of a parameter lies."""
        if self._memory.offload:
            return torch.zeros(count, dtype=dtype, pin_memory=parameter.is_cuda)
        return torch.zeros(count, dtype=dtype, device=parameter.device)

    def _update_of(self, parameter: torch.nn.Parameter) -> str:
        exact = parameter.dtype == torch.float32
        return self._memory.update_of("float32" if exact else "bfloat16")

    def _fresh(self, parameter: torch.nn.Parameter) -> State:
        count = parameter.numel()
        state = {"step": torch.zeros(())}
        if self._update_of(parameter) == "master":
            state["master"] = self._zeros(parameter, count, torch.float32)
            state["master"].copy_(parameter.detach().reshape(-1))
        state |= self._moments.fresh(
            count, lambda length, dtype: self._zeros(parameter, length, dtype)
        )
        return state

    def _update(self, parameter: torch.nn.Parameter, place: int, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(self._fresh(parameter))
        state["step"] += 1
        drawn = seed_for(self._seed, "round", f"{place}/{int(state['step'])}")
        noise = torch.Generator(parameter.device).manual_seed(drawn)
        # a view, except of the rare parameter that is not laid out in one piece
        weights = parameter.detach().reshape(-1)
        for start in range(0, len(weights), _PIECE):
            cut = slice(start, min(start + _PIECE, len(weights)))
            self._update_piece(parameter, weights, cut, group, noise)
        if weights.data_ptr() != parameter.data_ptr():
            parameter.copy_(weights.view(parameter.shape))

    def _update_piece(
        self,
        parameter: torch.nn.Parameter,
        weights: torch.Tensor,
        cut: slice,
        group: dict[str, Any],
        noise: torch.Generator,
    ) -> None:
        state, device = self.state[parameter], parameter.device
        master = state["master"][cut] if "master" in state else None
        gradient = parameter.grad.reshape(-1)[cut].float()  # type: ignore[union-attr]
        exact = weights[cut].float() if master is None else master.to(device, non_blocking=True)
        first, second = self._moments.read(state, cut, device)
        adamw(
            [exact],
            [gradient],
            [first],
            [second],
            [],
            [state["step"].to(device) - 1],  # the fused kernel counts on by itself
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        self._moments.write(state, cut, (first, second), noise)
        if master is not None and master.data_ptr() != exact.data_ptr():
            master.copy_(exact, non_blocking=True)
        if self._update_of(parameter) == "stochastic":
            exact = stochastic_bfloat16(exact, noise)
        if weights[cut].data_ptr() != exact.data_ptr():
            weights[cut].copy_(exact)
