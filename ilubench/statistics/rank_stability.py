"""Would the methods stand in the same order with other seeds? Rank correlation of halves. Pure.

The seeds that all methods share are split into two disjoint halves, in every way; each half orders
the methods by their mean RA, and Kendall's tau-b (Kendall 1945, *Biometrika* 33:239) compares the
two orders: 1 the same, 0 unrelated, -1 reversed; ties count as such.

The items are the same in both halves, so that this says nothing about other items; and a half has
fewer seeds than the table, whose order is the more stable one. The splits overlap: their spread is
no interval. A tau of 1 with three methods is weak evidence: two random orders agree in one of six
cases.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ilubench.errors import DataError
from ilubench.statistics.intervals import Samples, all_items, pick_items

__all__ = ["Stability", "rank_stability", "split_seeds"]

METHODS = 3
SEEDS = 2


@dataclass(frozen=True, slots=True)
class Stability:
    """How alike the orders are in which two halves of the seeds put the methods.

    Attributes:
        methods: names, in the order given.
        seeds: those that all methods share.
        halves: how many seeds a half has, the smaller first.
        splits: how many ways there are to split the seeds.
        undefined: splits without a tau, because all methods tie in a half.
        mean: of tau-b over the other splits; None where there is none.
        least: the smallest of them.
    """

    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    halves: tuple[int, int]
    splits: int
    undefined: int
    mean: float | None
    least: float | None


def split_seeds(seeds: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Yield every way to split seeds into two disjoint halves, once; the smaller half first.

    Args:
        seeds: at least two; of an odd number one half has one more.
    """
    half, even = len(seeds) // 2, len(seeds) % 2 == 0
    for one in combinations(seeds, half):
        if not even or seeds[0] in one:  # else the same split comes twice
            yield one, tuple(seed for seed in seeds if seed not in one)


def rank_stability(tables: Mapping[str, Samples]) -> Stability:
    """Return how stable the methods' order by RA is over halves of the seeds that they share.

    Args:
        tables: name of the method -> what each seed and item contributes to its RA.

    Raises:
        DataError: fewer than three methods, fewer than two shared seeds, or other items.
    """
    from scipy.stats import kendalltau  # type: ignore[import-untyped, unused-ignore]

    names = tuple(tables)
    if len(names) < METHODS:
        found = ", ".join(names) or "none"
        raise DataError(f"an order of methods needs {METHODS} of them, not {len(names)} ({found})")
    seeds = tuple(sorted(set.intersection(*(set(table.seeds) for table in tables.values()))))
    if len(seeds) < SEEDS:
        problem = f"{', '.join(names)} share {len(seeds)} seed, and halves need {SEEDS}"
        raise DataError(f"{problem}; add seeds to those that have few")
    items = all_items(tables.values())
    other = [name for name, table in tables.items() if set(table.items) != set(items)]
    if other:
        raise DataError(f"{other[0]}: the methods were not asked the same items")
    means = np.stack([pick_items(table, seeds, items).mean(axis=1) for table in tables.values()])
    place = {seed: column for column, seed in enumerate(seeds)}
    taus = []
    for halves in split_seeds(seeds):
        one, two = (means[:, [place[seed] for seed in half]].mean(axis=1) for half in halves)
        taus.append(float(kendalltau(one, two, variant="b").statistic))
    defined = [tau for tau in taus if not math.isnan(tau)]
    return Stability(
        methods=names,
        seeds=seeds,
        halves=(len(seeds) // 2, len(seeds) - len(seeds) // 2),
        splits=len(taus),
        undefined=len(taus) - len(defined),
        mean=math.fsum(defined) / len(defined) if defined else None,
        least=min(defined) if defined else None,
    )
