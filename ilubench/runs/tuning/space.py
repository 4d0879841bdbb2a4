"""Which settings are tried: the points of a search space, the same ones at every call. Pure."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np
from scipy.stats import qmc

from ilubench.data.seeds import seed_for
from ilubench.errors import SpecError
from ilubench.specs import Candidates, Plain, RangeSpec, SearchSpec

__all__ = ["Setting", "draw_settings", "list_ends"]

Setting: TypeAlias = Mapping[str, Plain | tuple[Plain, ...]]
"""Path of a field -> its value."""

_DRAWS = 1000
"""Points drawn for each setting asked for, before a space counts as too small."""


def draw_settings(
    search: SearchSpec, budget: int, *, where: str = "", field: str = ""
) -> list[Setting]:
    """Return the ``budget`` distinct settings of a search that are tried.

    Lists whose grid has exactly ``budget`` points give the grid, the last field fastest. Any other
    space gives the first distinct points of a scrambled Halton sequence (Owen 2017, arXiv
    1706.02808): for the dozen points in two to four dimensions of a usual search they lie
    about as evenly as Sobol's, for any number of points. The scrambling is the same for every
    search, so that a method and its control with the same space are tried at the same points.
    Numbers from a range have three significant digits: what a suite file says later is what was
    tried.

    Args:
        search: the space.
        budget: how many.
        where: the suite file, for messages.
        field: of the search in it, likewise.

    Raises:
        SpecError: the space has fewer points than the budget.
    """
    sizes = [_size(candidates) for candidates in search.space.values()]
    points = math.prod(sizes)
    lists = all(isinstance(candidates, tuple) for candidates in search.space.values())
    if points < budget:
        raise _too_small(int(points), budget, where, field)
    if lists and points == budget:
        grids = itertools.product(*(_listed(c) for c in search.space.values()))
        return [dict(zip(search.space, values, strict=True)) for values in grids]
    found: dict[str, Setting] = {}
    for point in itertools.islice(_halton(len(sizes)), _DRAWS * budget):
        setting = {
            path: _at(candidates, float(place))
            for (path, candidates), place in zip(search.space.items(), point, strict=True)
        }
        found.setdefault(repr(setting), setting)
        if len(found) == budget:
            return list(found.values())
    raise _too_small(len(found), budget, where, field)


def list_ends(search: SearchSpec, setting: Setting) -> list[Setting]:
    """Return a setting with each end of each range, and each candidate, in its place.

    Args:
        search: the space.
        setting: one of its points.
    """
    found: list[Setting] = []
    for path, candidates in search.space.items():
        ends: tuple[Plain | tuple[Plain, ...], ...]
        if isinstance(candidates, RangeSpec):
            ends = (candidates.low, candidates.high)
            ends = (int(candidates.low), int(candidates.high)) if candidates.whole else ends
        else:
            ends = candidates
        found += [{**setting, path: end} for end in ends]
    return found


def _too_small(points: int, budget: int, where: str, field: str) -> SpecError:
    return SpecError(
        f"settings in the space: {points}, fewer than every method's budget of {budget}",
        where=where,
        field=field,
        remedy="add candidates or widen a range",
    )


def _listed(candidates: Candidates) -> tuple[Plain | tuple[Plain, ...], ...]:
    assert isinstance(candidates, tuple)
    return candidates


def _size(candidates: Candidates) -> float:
    if isinstance(candidates, RangeSpec):
        return candidates.high - candidates.low + 1 if candidates.whole else math.inf
    return len(candidates)


def _halton(dimensions: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Yield points in [0, 1)^d without an end."""
    rng = np.random.default_rng(seed_for(0, "tuning"))
    sequence = qmc.Halton(dimensions, scramble=True, seed=rng)
    while True:
        yield sequence.random(1)[0]


def _at(candidates: Candidates, place: float) -> Plain | tuple[Plain, ...]:
    """Return the value at a place in [0, 1)."""
    if isinstance(candidates, tuple):
        return candidates[int(place * len(candidates))]
    low, high = candidates.low, candidates.high
    if candidates.whole:  # each whole number owns the half on either side of it
        low, high = low - 0.5, high + 0.5
    value = low * (high / low) ** place if candidates.log else low + (high - low) * place
    value = round(value) if candidates.whole else float(f"{value:.3g}")
    limited = min(max(value, candidates.low), candidates.high)
    return int(limited) if candidates.whole else limited
