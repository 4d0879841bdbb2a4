"""What training keeps in memory."""

from dataclasses import dataclass
from typing import Literal

from ilubench.specs.base import Spec

__all__ = ["BLOCK", "BytesPerParameter", "MemorySpec", "memory_per_parameter"]

BLOCK = 256
"""Numbers that share a scale in float8."""

WeightType = Literal["float32", "bfloat16"]

_MOMENTS = {"float32": 8.0, "bfloat16": 4.0, "float8": 2.0 + 2 * 4.0 / BLOCK}
_WEIGHTS = {"float32": 4.0, "bfloat16": 2.0}


class MemorySpec(Spec):
    """What training keeps in memory besides activations, how exactly, and where.

    Bytes for each trained weight in bfloat16 (gradients are kept in the weights' type), and
    gigabytes (1e9 bytes) for the 7.24e9 weights of Mistral-7B or Zephyr-7B when all are trained:

    | update, moments        | weights | gradients | master | moments | sum   | 7.24e9 | fits |
    |------------------------|---------|-----------|--------|---------|-------|--------|------|
    | master, float32        | 2       | 2         | 4      | 8       | 16    | 116    | 141  |
    | master, bfloat16       | 2       | 2         | 4      | 4       | 12    | 87     | 141  |
    | master, float8         | 2       | 2         | 4      | 2.03    | 10.03 | 73     | 141  |
    | stochastic, float32    | 2       | 2         | 0      | 8       | 12    | 87     | 141  |
    | stochastic, bfloat16   | 2       | 2         | 0      | 4       | 8     | 58     | 80   |
    | stochastic, float8     | 2       | 2         | 0      | 2.03    | 6.03  | 44     | 80   |
    | any, with `offload`    | 2       | 2         | 0      | 0       | 4     | 29     | 80   |

    With `offload` the master copies and moments (12 bytes of the first line: 87 GB) lie in the
    machine's memory. Weights that are not trained have no gradient, master or moments. A method
    that keeps the original weights, or a second buffer of gradients (several environments), needs
    2 bytes more for each. float32 weights take 4 + 4 + 8 bytes and need no master copy.

    What `update` and `moments` keep is in how a result came about, so in its key; `offload` and
    `checkpointing` change no bit.

    Attributes:
        update: how weights below float32 take updates smaller than their last digit (5e-6 is
            nothing beside a bfloat16 weight of 0.01). `master`: a float32 copy takes them, the
            weights are its rounding. `stochastic`: they are rounded up or down at random, by the
            job's seed, with the true value as the mean (Gupta et al. 2015, arXiv 1502.02551;
            Zamirai et al. 2020, arXiv 2010.06192). `plain`: rounded to the nearest, which loses
            them. `auto`: `master`. float32 weights take every update as it is.
        moments: how Adam's two moments are stored between steps; the step itself is float32.
            `bfloat16` and `float8` round at random too, by the job's seed: at beta2 = 0.999 a
            second moment changes by a thousandth a step, which the nearest value would never show.
            `float8` is e4m3, in blocks of 256 numbers with a scale each (block-wise: Dettmers et
            al. 2022, arXiv 2110.02861); of the second moment it stores the square root, whose
            range is half as wide, and what is not 0 never becomes 0: the step divides by it.
        offload: master copies and moments lie in the machine's memory (page-locked where there is
            a GPU) and visit the device piece by piece: some seconds a step for 7e9 weights.
        checkpointing: layers are computed again on the way back instead of keeping what they
            computed on the way there: a third more time, a fraction of the activations. Not given:
            for models of more than 1e9 weights.
    """

    update: Literal["auto", "plain", "master", "stochastic"] = "auto"
    moments: Literal["float32", "bfloat16", "float8"] = "float32"
    offload: bool = False
    checkpointing: bool | None = None

    def update_of(self, dtype: WeightType) -> Literal["plain", "master", "stochastic"]:
        """Return how weights of a type take updates, `auto` decided."""
        if dtype == "float32":
            return "plain"
        return "master" if self.update == "auto" else self.update

    def determines(self, dtype: WeightType) -> dict[str, str]:
        """Return what changes the result of training weights of a type, as a key has it."""
        return {"update": self.update_of(dtype), "moments": self.moments}


@dataclass(frozen=True)
class BytesPerParameter:
    """Bytes for each weight of a model, those that are not trained counted in.

    Attributes:
        weights: the model itself.
        gradients: one buffer.
        master: float32 copies.
        moments: Adam's two.
        offloaded: whether `master` and `moments` are in the machine's memory, not the device's.
    """

    weights: float
    gradients: float
    master: float
    moments: float
    offloaded: bool

    @property
    def device(self) -> float:
        """What lies on the device all the time."""
        kept = 0.0 if self.offloaded else self.master + self.moments
        return self.weights + self.gradients + kept

    @property
    def host(self) -> float:
        """What lies in the machine's memory."""
        return self.master + self.moments if self.offloaded else 0.0


def memory_per_parameter(
    memory: MemorySpec, dtype: WeightType, trained: float = 1.0
) -> BytesPerParameter:
    """Return what training keeps for each weight of a model, activations aside.

    What comes on top: activations; a method's copies of the trained weights; some tens of
    megabytes while a step is applied.

    Args:
        memory: what is kept, and where.
        dtype: of the weights.
        trained: share of the weights that are trained, from 0 to 1.

    Raises:
        ValueError: the share is none.
    """
    if not 0.0 <= trained <= 1.0:
        raise ValueError(f"trained={trained}: a share is between 0 and 1")
    master = 4.0 if memory.update_of(dtype) == "master" else 0.0
    return BytesPerParameter(
        _WEIGHTS[dtype],
        trained * _WEIGHTS[dtype],
        trained * master,
        trained * _MOMENTS[memory.moments],
        memory.offload,
    )
