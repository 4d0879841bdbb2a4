"""Seconds by arithmetic: a forward pass takes 2 operations a parameter and token, a backward 4."""

from ilubench.forecast.amounts import CHECKPOINTS, Amount
from ilubench.forecast.devices import Card
from ilubench.forecast.memory import Shape, uses_checkpointing
from ilubench.forecast.took import Took
from ilubench.specs import MemorySpec
from ilubench.specs.memory import memory_per_parameter

__all__ = ["load_seconds", "took_assumed"]

_SHARE = 0.4
"""Of a card's peak that is reached: an assumption."""

_BANDWIDTH = 0.6
"""Of a card's bandwidth that writing text reaches: an assumption."""

_WRITE = 25e-3
"""Seconds that a token takes at least to write, with the transformers engine: an assumption."""

_DISK = 1e9
"""Bytes of weights that are read, hashed or written a second: an assumption."""

_HOST = 20e9
"""Bytes a second between a card and the machine's memory: an assumption."""


def took_assumed(
    amount: Amount, shape: Shape, card: Card, memory: MemorySpec, devices: int = 1
) -> Took:
    """Return the seconds of a job on a card: one pass forwards and backwards over each batch.

    Args:
        amount: of the job.
        shape: of the model.
        card: from the table.
        memory: how it trains.
        devices: that share the training; what they send each other is not counted.
    """
    each = memory_per_parameter(memory, shape.dtype)
    half = "bfloat16" in (shape.dtype, amount.precision)
    rate = _SHARE * (card.bfloat16 if half else card.float32)
    # layers that are computed again on the way back take 2 operations more
    operations = 8.0 if uses_checkpointing(shape, memory) else 6.0
    if amount.lora is not None:  # weights that stay need no gradient of their own
        operations -= 2.0
    step = operations * shape.parameters * amount.step_tokens / (rate * devices)
    if amount.lora is None:
        step += 2 * shape.parameters * each.host / _HOST
    rate = _SHARE * (card.bfloat16 if shape.scored == "bfloat16" else card.float32)
    write = max(_WRITE, shape.parameters * shape.scored_width / (_BANDWIDTH * card.bandwidth))
    checkpoint = 2.0 * shape.parameters * amount.read / rate + amount.written * write
    scored = (amount.checkpoints or CHECKPOINTS) if amount.read else 0
    seconds = amount.steps * step + scored * checkpoint + load_seconds(shape)
    return Took.within(seconds, (2.0, 3.0), "assumed")


def load_seconds(shape: Shape) -> float:
    """Return what a job takes to load its weights and to store them, besides its work."""
    return 2.0 * shape.parameters * shape.width / _DISK
