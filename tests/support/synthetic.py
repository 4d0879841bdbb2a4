"""Synthetic scores with known population means: crossed seed and item effects on 0-1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq  # type: ignore[import-untyped, unused-ignore]
from scipy.stats import norm  # type: ignore[import-untyped, unused-ignore]

from ilubench.statistics.intervals import Array, Samples
from ilubench.statistics.row import Course, MethodRuns, quartile_steps

CHUNK = 100


@dataclass(frozen=True)
class World:
    """How scores vary: standard deviations of normal effects on a latent scale.

    ``binary`` scores are 1 where the latent score is positive (multiple choice); ``clipped`` ones
    are .3 times the latent score, cut to 0-1 (ROUGE, with many zeros and ones).
    """

    kind: Literal["binary", "clipped"] = "binary"
    n_seeds: int = 5
    n_items: int = 80
    seed: float = 0.15
    seed_layer: float = 0.15
    item: float = 0.7
    item_layer: float = 0.5
    cell: float = 1.0

    def latent(self, mean: float, *, trained: bool = True) -> float:
        """The latent mean of scores with this mean; a model without training has no seeds."""
        parts = [self.item, self.item_layer]
        parts += [self.seed, self.seed_layer, self.cell] if trained else []
        sd = float(np.sqrt(np.square(parts).sum()))
        if self.kind == "binary":
            return float(sd * norm.ppf(mean))
        scaled = 0.3 * sd

        def excess(centre: float) -> float:
            low, high = -centre / scaled, (1 - centre) / scaled
            inside = centre * (norm.cdf(high) - norm.cdf(low))
            inside += scaled * (norm.pdf(low) - norm.pdf(high))
            return float(inside + norm.sf(high) - mean)

        return float(brentq(excess, -20, 20)) / 0.3

    def scores(self, latent: Array) -> Array:
        """Latent scores as they are measured."""
        if self.kind == "binary":
            return (latent > 0).astype(np.float64)
        return np.clip(0.3 * latent, 0.0, 1.0)

    def items(self, rng: np.random.Generator, count: int) -> Array:
        """Effects of the items that all models meet, [count, 1, 1, I]."""
        return self.item * rng.standard_normal((count, 1, 1, self.n_items))

    def tables(self, rng: np.random.Generator, means: Sequence[float], items: Array) -> Array:
        """Score tables with those population means, [count, len(means), S, I].

        Seeds and items are the same in every layer, and act a little differently in each.
        """
        count, layers = len(items), len(means)
        z = self.cell * rng.standard_normal((count, layers, self.n_seeds, self.n_items))
        z += items + np.array([self.latent(mean) for mean in means])[:, None, None]
        z += self.seed * rng.standard_normal((count, 1, self.n_seeds, 1))
        z += self.seed_layer * rng.standard_normal((count, layers, self.n_seeds, 1))
        z += self.item_layer * rng.standard_normal((count, layers, 1, self.n_items))
        return self.scores(z)

    def untrained(self, rng: np.random.Generator, mean: float, items: Array) -> Array:
        """Scores of a model without randomness, [count, 1, I]."""
        z = items[:, 0] + self.item_layer * rng.standard_normal((len(items), 1, self.n_items))
        return self.scores(z + self.latent(mean, trained=False))

    def table(self, values: Array) -> Samples:
        """A table [S, I] with names."""
        return Samples(values, tuple(range(len(values))), tuple(map(str, range(self.n_items))))

    def runs(
        self, rng: np.random.Generator, before: float, means: Sequence[float], count: int
    ) -> Iterator[tuple[MethodRuns, MethodRuns]]:
        """A method (f_u, then checkpoints every 25 steps) and the original model, ``count`` times.

        Utility is kept everywhere.
        """
        for start in range(0, count, CHUNK):
            items = self.items(rng, min(CHUNK, count - start))
            layers = self.tables(rng, means, items)
            for scores, first in zip(layers, self.untrained(rng, before, items), strict=True):
                tables = tuple(self.table(values) for values in scores)
                yield course_runs(tables), MethodRuns(self.table(first), (UTILITY,), ())


UTILITY = Samples(np.array([[0.6, 0.7]]), (0,), ("u", "v"))


def course_runs(forget: Sequence[Samples], attack: str = "a") -> MethodRuns:
    """A method whose forget metric is the first table before the attack, the others along it."""
    steps = tuple(25 * k for k in range(len(forget)))
    shape = (len(forget[0].seeds), 1)
    utility = (Samples(np.tile(UTILITY.values, shape), forget[0].seeds, UTILITY.items),)
    utilities = (utility,) * len(steps)
    course = Course(attack, steps, tuple(forget), utilities, None, quartile_steps(steps), steps[-1])
    return MethodRuns(forget[0], utility, (course,))
