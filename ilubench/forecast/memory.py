"""Peak memory of a job on its device, and the words that make it smaller."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from ilubench.forecast.anatomy import Anatomy
from ilubench.models.forward import LOGITS
from ilubench.specs import MemorySpec
from ilubench.specs.memory import memory_per_parameter
from ilubench.training.checkpointing import LARGE

__all__ = ["Load", "Peak", "leaner", "peak"]

_READ = {"cpu": 256, "cuda": 2048}
"""Tokens of prompts that the transformers engine reads at once."""

_CONTEXT = 0.6e9
"""Bytes of a GPU that the driver and kernels take: about."""

DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Load:
    """What a job keeps on its device.

    Attributes:
        trained: parameters that change.
        copies: of these that the method keeps besides.
        tokens: positions of the micro-batches whose activations are held at once.
        answers: positions through the head in them.
        dtype: of the weights.
        precision: of the products.
        batch: sequences scored at once.
        prompt: tokens of a scored sequence, what is written included.
        simulated: parameters that a second optimizer changes, of attacks within a step.
    """

    trained: int
    copies: float
    tokens: int
    answers: int
    dtype: str
    precision: str
    batch: int
    prompt: float
    simulated: int = 0


@dataclass(frozen=True)
class Peak:
    """Bytes on the device at a job's peak.

    Attributes:
        weights: the model, and the method's copies.
        gradients: one buffer.
        optimizer: master copies and moments.
        activations: kept for the way back.
        logits: at the head, and what the loss makes of them.
        scoring: keys, values and logits of the engine.
        context: of the driver.
        host: master copies and moments in the machine's memory.
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    scoring: float
    context: float
    host: float

    @property
    def total(self) -> float:
        """The larger of training and of scoring, when no gradients are kept."""
        kept = self.weights + self.optimizer + self.context
        return kept + max(self.gradients + self.activations + self.logits, self.scoring)


def peak(load: Load, memory: MemorySpec, anatomy: Anatomy, device: str) -> Peak:
    """Return what a job takes at its peak.

    Args:
        load: of the job.
        memory: how it trains.
        anatomy: of the model.
        device: `cpu` or `cuda`.
    """
    share = load.trained / anatomy.parameters
    per = memory_per_parameter(memory, cast("DType", load.dtype), share)
    attack = memory_per_parameter(
        memory, cast("DType", load.dtype), load.simulated / anatomy.parameters
    )
    optimizers = (per, attack) if load.tokens else ()
    width = 4.0 if load.dtype == "float32" else 2.0
    narrow = 2.0 if load.precision == "bfloat16" else width
    checkpointed = memory.checkpointing
    if checkpointed is None:
        checkpointed = anatomy.parameters > LARGE
    # of a layer, a position: norms, projections, rotated, attention's output, the MLP's; narrower
    # types have the norms' inputs in float32 besides
    layer = narrow * (8 * anatomy.hidden + 3 * anatomy.keys + 4 * anatomy.inner)
    layer += 4.0 * 2 * anatomy.hidden if narrow < 4.0 else 0.0
    states = narrow * anatomy.hidden
    kept = anatomy.layers * states + layer if checkpointed else anatomy.layers * layer
    together = min(load.answers, LOGITS // anatomy.vocabulary)
    logits = together * anatomy.vocabulary * (narrow + 3 * 4.0)
    cast_weights = share * 2.0 * anatomy.body if narrow < width else 0.0
    written = 2.0 * anatomy.keys * anatomy.layers * narrow * load.prompt * load.batch
    read = _READ[device] * (layer + 2 * states)
    engine = written + read + min(LOGITS, load.batch * anatomy.vocabulary) * 8.0
    return Peak(
        anatomy.parameters * per.weights + load.copies * load.trained * width,
        anatomy.parameters * max(per.gradients, attack.gradients) if load.tokens else 0.0,
        sum(anatomy.parameters * (one.device - one.weights - one.gradients) for one in optimizers),
        load.tokens * kept + cast_weights,
        logits,
        engine,
        _CONTEXT if device == "cuda" else 0.0,
        sum(anatomy.parameters * one.host for one in optimizers),
    )


def leaner(memory: MemorySpec, dtype: str) -> Iterator[tuple[str, MemorySpec]]:
    """Yield words that take less memory, the mildest first, and what they make of the settings."""
    steps: list[tuple[str, dict[str, object]]] = [
        ("memory.checkpointing=true", {"checkpointing": True})
    ]
    if dtype != "float32":
        steps += [
            ("memory.moments=bfloat16", {"moments": "bfloat16"}),
            (
                "memory.update=stochastic memory.moments=bfloat16",
                {"update": "stochastic", "moments": "bfloat16"},
            ),
            (
                "memory.update=stochastic memory.moments=float8",
                {"update": "stochastic", "moments": "float8"},
            ),
        ]
    steps.append(("memory.offload=true", {"offload": True}))
    for words, changes in steps:
        made = memory.model_copy(update={"checkpointing": True, **changes})
        if made != memory:
            yield words, made
