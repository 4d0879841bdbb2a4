"""Seconds of work: a few rates, taken from finished jobs, a probe, or a card's data sheet.

training = a f + b g + c p + d u + l j + m s, and scoring = e f + k i + n t + w c + l' j + m' s,

with f and g the floating-point operations of forward and backward passes, p passes, u updated
parameters; i items, t decoding steps, c checkpoints; j jobs, each of which loads and saves weights,
and s starts: what the first job of a process loads and sets up for all that follow. Nothing finer
can be told apart from the times of whole jobs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from ilubench.forecast.anatomy import Anatomy
from ilubench.forecast.devices import Card
from ilubench.forecast.work import Asking, Work

__all__ = [
    "DISK",
    "FIXED",
    "IMPORTS",
    "Rates",
    "Sample",
    "assumed",
    "fitted",
    "load_seconds",
    "scoring_features",
    "training_features",
]

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

DISK = 1e9
"""Bytes of weights read, hashed or written a second: an assumption."""

FIXED = (0.05, 0.05)
"""Seconds that a job takes besides its work, and the first of a process more: assumptions."""

IMPORTS = 1.5
"""Seconds that the first job of a process takes to import what trains a model: an assumption."""

_FEW = 3
"""Finished jobs below which their own scatter says nothing."""

_DRAWN = 0.15
"""Of a job's weight: how much a rate is drawn towards what operations alone would say."""

_FAR = 20.0
"""Times that a prediction may be off before it counts as if it were only so far."""

_SCATTER = 0.25
"""Of equal jobs, as a logarithm: what is further off was held up by something else."""

_ROUNDS = 12
"""Of reweighting."""


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


def training_features(
    work: Work, anatomy: Anatomy, *, jobs: float = 1.0, starts: float = 0.0
) -> tuple[float, ...]:
    """Return a job's training features.

    Args:
        work: of the job.
        anatomy: of the model.
        jobs: 0 for an attack: what it loads is counted with its scoring.
        starts: 1 for the first job of a process that trains.
    """
    forward = anatomy.flops(work.forward_tokens, work.forward_squares, work.forward_answers)
    backward = anatomy.flops(work.backward_tokens, work.backward_squares, work.backward_answers)
    passes = work.forward_passes + 2 * work.backward_passes
    return forward, 2.0 * backward, passes, work.updated, jobs, starts


def scoring_features(
    asking: Asking, checkpoints: float, anatomy: Anatomy, *, starts: float = 0.0
) -> tuple[float, ...]:
    """Return a job's scoring features; ``starts`` is 1 for the first of a process that scores."""
    read = anatomy.flops(asking.tokens + asking.written, asking.squares, asking.answers)
    return read, asking.items, asking.steps, checkpoints, 1.0, starts


def load_seconds(moved: float) -> float:
    """Return what a job may take besides its work, as far as nothing tells.

    Args:
        moved: bytes of weights that it reads and writes.
    """
    return FIXED[0] + moved / DISK


def fitted(
    samples: Sequence[Sample],
    operations: int,
    origin: str,
    kind: Literal["measured", "probed"],
    fixed: tuple[float, float] = FIXED,
) -> Rates | None:
    """Return the rates that explain finished jobs best; None where there are none.

    Least squares of log(predicted / took), so that twice and half are equally wrong, with rates of
    0 or more; reweighted so that a job that something else held up does not count much. Each rate
    is drawn, as by a part of one more job, towards what its operations alone would make of the
    median job: so a single job gives a rate, and jobs that are all alike do not give a wrong one.
    What a job and a start take is drawn towards seconds that are assumed: they are what short jobs
    are made of, and nothing beside long ones.

    Args:
        samples: finished jobs.
        operations: how many features, the first ones, are floating-point operations.
        origin: for people.
        kind: of the origin.
        fixed: seconds of the last two features, a job and a start, as far as nothing else tells.
    """
    from scipy.optimize import nnls

    usable = [s for s in samples if s.seconds > 0 and s.features[0] > 0]
    if not usable:
        return None
    table = np.array([s.features for s in usable])
    took = np.array([s.seconds for s in usable])
    plain = np.zeros(table.shape[1])
    left = np.maximum(took - table[:, -2:] @ fixed, 0.1 * took)
    plain[:operations] = float(np.median(left / table[:, :operations].sum(1)))
    size = (table / took[:, None]).mean(0)  # unknowns are shares of a job: rates times this
    told = size > 0
    size[~told] = 1.0
    draw = np.full(len(size), _DRAWN)
    plain[-2:] = fixed
    draw[-2:] /= size[-2:] * fixed
    draws = np.diag(draw)
    weights, values = np.ones(len(usable)), plain
    predicted = table @ values
    for _ in range(_ROUNDS):
        # squares of (predicted - took) / scale have the slope of squares of log(predicted / took)
        ahead = np.clip(predicted / took, 1 / _FAR, _FAR)
        ahead = np.where(np.abs(ahead - 1.0) < 1e-6, 1.0 + 1e-6, ahead)
        scale = took * np.sqrt(ahead * (ahead - 1.0) / np.log(ahead))
        rows = table / size / scale[:, None] * weights[:, None]
        wanted = np.concatenate([took / scale * weights, draws @ (size * plain)])
        found, _ = nnls(np.vstack([rows, draws]), wanted)
        values = np.where(told, found / size, plain)
        predicted = table @ values
        off = np.abs(np.log(np.clip(predicted / took, 1 / _FAR, _FAR)))
        weights = np.sqrt(np.minimum(1.0, _SCATTER / np.maximum(off, 1e-9)))
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
    each = (flop, flop, _LAUNCH * anatomy.layers, update, 0.0, IMPORTS)
    training = Rates(each, 1.6, 2.0, text, "assumed")
    step = anatomy.layers * _DECODE
    step += anatomy.parameters * width / (card.bandwidth * _BANDWIDTH)
    scoring = Rates((flop, _ITEM, step, _CHECKPOINT, 0.0, 0.0), 3.0, 2.0, text, "assumed")
    return training, scoring
