"""Seconds of work: a few rates, taken from finished jobs, a probe, or a card's data sheet.

training = a f + b g + c p + d u, and scoring = e f + k i + s t + w,

with f and g the floating-point operations of forward and backward passes, p passes, u updated
parameters; i items, t decoding steps, w checkpoints. Nothing finer can be told apart from the times
of whole jobs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ilubench.forecast.anatomy import Anatomy
from ilubench.forecast.devices import Card
from ilubench.forecast.work import Asking, Work

__all__ = ["Rates", "Sample", "assumed", "fitted", "scoring_features", "training_features"]

_SHARE = 0.4
"""Of a card's peak that training and reading prompts reach: an assumption."""

_BANDWIDTH = 0.6
"""Of a card's bandwidth that updates and decoding reach: an assumption."""

_LAUNCH = 0.4e-3
"""Seconds that a layer's pass takes at least, forwards: an assumption."""

_DECODE = 0.8e-3
"""Seconds that a layer takes at least to decode a token: an assumption."""

_ITEM, _CHECKPOINT = 0.3e-3, 3.0
"""Seconds on the processor for a request, and for a checkpoint: assumptions."""

_FEW = 3
"""Finished jobs below which their own scatter says nothing."""


@dataclass(frozen=True)
class Rates:
    """What training or scoring takes.

    Attributes:
        values: seconds for each feature.
        low: what a time may be divided by.
        high: what it may be multiplied by.
        origin: where the rates are from, for people.
        kind: `measured`, `probed` or `assumed`.
    """

    values: tuple[float, ...]
    low: float
    high: float
    origin: str
    kind: Literal["measured", "probed", "assumed"]

    def seconds(self, features: Sequence[float]) -> float:
        """Return the seconds of a job's features."""
        return float(sum(v * x for v, x in zip(self.values, features, strict=True)))


@dataclass(frozen=True)
class Sample:
    """A finished job: its features, and what it took."""

    features: tuple[float, ...]
    seconds: float
    name: str = field(default="", compare=False)


def training_features(work: Work, anatomy: Anatomy) -> tuple[float, ...]:
    """Return a job's training features: operations forwards and backwards, passes, updates."""
    forward = anatomy.flops(work.forward_tokens, work.forward_squares, work.forward_answers)
    backward = anatomy.flops(work.backward_tokens, work.backward_squares, work.backward_answers)
    passes = work.forward_passes + 2 * work.backward_passes
    return forward, 2.0 * backward, passes, work.updated


def scoring_features(asking: Asking, checkpoints: float, anatomy: Anatomy) -> tuple[float, ...]:
    """Return a job's scoring features: operations, items, decoding steps, checkpoints."""
    read = anatomy.flops(asking.tokens + asking.written, asking.squares, asking.answers)
    return read, asking.items, asking.steps, checkpoints


def fitted(
    samples: Sequence[Sample], operations: int, origin: str, kind: Literal["measured", "probed"]
) -> Rates | None:
    """Return the rates that explain finished jobs best; None where there are none.

    Least squares of the relative errors, reweighted so that a job that something else held up does
    not count much, with rates of 0 or more. Each rate is drawn, as by one more job, towards what
    its operations alone would make of the median job: so a single job gives a rate, and jobs that
    are all alike do not give a wrong one.

    Args:
        samples: finished jobs.
        operations: how many features, the first ones, are floating-point operations.
        origin: for people.
        kind: of the origin.
    """
    from scipy.optimize import nnls

    usable = [s for s in samples if s.seconds > 0 and s.features[0] > 0]
    if not usable:
        return None
    table = np.array([s.features for s in usable])
    took = np.array([s.seconds for s in usable])
    plain = np.zeros(table.shape[1])
    plain[:operations] = float(np.median(took / table[:, :operations].sum(1)))
    relative = table / took[:, None]
    size = relative.mean(0)
    weights = np.ones(len(usable))
    values = plain
    for _ in range(6):
        left = np.vstack([relative * weights[:, None], np.diag(size)])
        right = np.concatenate([weights, size * plain])
        values, _ = nnls(left, right)
        off = np.abs(relative @ values - 1.0)
        weights = np.sqrt(1.0 / np.maximum(off, 0.05))
        weights /= weights.mean()
    ratios = took / np.maximum(table @ values, 1e-12)
    low, high = (float(q) for q in np.quantile(ratios, (0.1, 0.9)))
    if len(usable) < _FEW:
        low, high = min(low, 0.7), max(high, 1.5)
    return Rates(tuple(map(float, values)), 1 / min(low, 0.85), max(high, 1.15), origin, kind)


def assumed(card: Card, dtype: str, anatomy: Anatomy, update_bytes: float) -> tuple[Rates, Rates]:
    """Return a card's rates of training and scoring: its data sheet, and assumed shares of it.

    Args:
        card: from the table.
        dtype: that products are computed in.
        anatomy: of the model.
        update_bytes: read and written for each updated parameter.
    """
    peak = card.bfloat16 if dtype == "bfloat16" else card.float32
    flop = 1.0 / (peak * _SHARE)
    width = 2.0 if dtype == "bfloat16" else 4.0
    update = update_bytes / (card.bandwidth * _BANDWIDTH)
    text = f"data sheet of {card.name}, {_SHARE:.0%} of its peak ASSUMED; nothing was measured"
    training = Rates((flop, flop, _LAUNCH * anatomy.layers, update), 1.6, 2.0, text, "assumed")
    step = anatomy.layers * _DECODE
    step += anatomy.parameters * width / (card.bandwidth * _BANDWIDTH)
    scoring = Rates((flop, _ITEM, step, _CHECKPOINT), 3.0, 2.0, text, "assumed")
    return training, scoring
