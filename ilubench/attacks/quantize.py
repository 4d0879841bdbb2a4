"""Weights of few bits: what a smaller number format brings back."""

import importlib.util
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias, cast

import torch
from pydantic import Field, JsonValue, model_validator

from ilubench.attacks.levels import Change, LevelAttack
from ilubench.errors import SpecError, UsageError
from ilubench.models.linear import linear_sizes
from ilubench.models.quiet import hushed
from ilubench.records.keys import library_versions

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["Quantize"]

Bits: TypeAlias = Annotated[int, Field(ge=2, le=8)]


class Quantize(LevelAttack):
    """Weights rounded to few bits (Zhang et al. 2024, arXiv 2410.16454): small changes may go.

    The linear layers' weights; embedding, norms, biases and head stay. They are put back as what
    their few bits stand for, in the type that they had, so that every scorer and engine runs as
    before: products are not those of a kernel for few bits.

    Attributes:
        method: `rtn`, each to the nearest of evenly spaced values, symmetric around zero, by
            torchao; or `nf4`, the nearest of 16 quantiles of a normal distribution (Dettmers et al.
            2023, arXiv 2305.14314), by bitsandbytes, the scales not quantised in their turn.
        bits: falling; each level begins with the unlearned weights. Of `nf4`, 4.
        group: neighbouring weights, along a layer's inputs, that share a scale.
    """

    method: Literal["rtn", "nf4"] = "rtn"
    bits: tuple[Bits, ...] = Field(default=(8, 4), min_length=1)
    group: int = Field(default=64, ge=1)

    @model_validator(mode="before")
    @classmethod
    def _of_nf4(cls, values: Any) -> Any:  # noqa: ANN401
        if isinstance(values, Mapping) and values.get("method") == "nf4":
            return {"bits": (4,), **values}
        return values

    @model_validator(mode="after")
    def _weakest_first(self) -> Self:
        if any(later >= earlier for earlier, later in pairwise(self.bits)):
            told = ", ".join(map(str, sorted(set(self.bits), reverse=True)))
            raise ValueError(
                f"bits: levels go from the weakest to the strongest, each once: {told}"
            )
        if self.method == "nf4" and self.bits != (4,):
            raise ValueError("bits: nf4 has 4; write bits: [4], or method: rtn")
        if self.method == "nf4" and self.group not in _BLOCKS:
            raise ValueError(f"group: nf4 has groups of {', '.join(map(str, _BLOCKS))}")
        return self

    def identity(self) -> Mapping[str, JsonValue]:
        """Return the version of the library."""
        return dict(library_versions([self._library]))

    @property
    def _library(self) -> str:
        return "torchao" if self.method == "rtn" else "bitsandbytes"

    def check_model(self, config: "PretrainedConfig") -> None:
        """Refuse groups that do not fit the layers; look for the library.

        Raises:
            SpecError: names the field, and a layer.
            UsageError: the library is not installed.
        """
        super().check_model(config)
        if importlib.util.find_spec(self._library) is None:
            problem = f"quantize with method={self.method} needs {self._library}"
            raise UsageError(f"{problem}: pip install 'ilubench[quantize]'")
        for name, (_, inputs) in linear_sizes(config).items():
            if self.method == "rtn" and inputs % self.group:
                problem = f"{self.group} does not divide the {inputs} inputs of {name}"
                raise SpecError(problem, field="group", remedy=f"give {inputs & -inputs} or less")

    def levels(self, seed: int) -> Mapping[str, Change]:  # noqa: ARG002
        """Return the numbers of bits."""
        return {f"{bits}bit": partial(self._round, bits) for bits in self.bits}

    def _round(self, bits: int, weights: Mapping[str, torch.Tensor]) -> None:
        with hushed():  # the library is imported
            rounded = _nf4(self.group) if self.method == "nf4" else _rtn(self.group)
        for weight in weights.values():
            weight.copy_(rounded(bits, weight.contiguous()))


# --- inside ---

_BLOCKS = (64, 128, 256, 512, 1024, 2048, 4096)
"""Groups that bitsandbytes has on every device."""

_Rounded: TypeAlias = Callable[[int, torch.Tensor], torch.Tensor]
"""(bits, weights [outputs, inputs]) -> what the bits stand for."""


def _rtn(group: int) -> _Rounded:
    from torchao.quantization import IntxWeightOnlyConfig, PerGroup, quantize_

    def rounded(bits: int, weight: torch.Tensor) -> torch.Tensor:
        outputs, inputs = weight.shape
        layer = torch.nn.Linear(inputs, outputs, bias=False, device="meta")
        layer.weight = torch.nn.Parameter(weight, requires_grad=False)
        kind = getattr(torch, f"int{bits}")
        quantize_(layer, IntxWeightOnlyConfig(weight_dtype=kind, granularity=PerGroup(group)))
        return cast("torch.Tensor", cast("Any", layer.weight).dequantize())

    return rounded


def _nf4(group: int) -> _Rounded:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    def rounded(_bits: int, weight: torch.Tensor) -> torch.Tensor:
        packed = quantize_4bit(weight, blocksize=group, quant_type="nf4")
        found: torch.Tensor = dequantize_4bit(*packed)
        return found

    return rounded
