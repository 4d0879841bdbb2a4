"""A record's scores before any attack, computed again from the samples. Pure."""

import math
from collections.abc import Iterator
from typing import TypeAlias, cast

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.records.estimators import Texts, estimate
from ilubench.records.results import RunRecord
from ilubench.records.scores import lines_by
from ilubench.specs.untrusted import shorten
from ilubench.statistics.intervals import Array

__all__ = ["SAME", "is_close", "score_problems"]

SAME = 1e-6
"""How far a figure may lie from what is computed again, absolutely and relatively."""

Key: TypeAlias = tuple[str, int, str, str]


def score_problems(record: RunRecord, samples: pa.Table) -> Iterator[str]:
    """Yield how a record's scores differ from the samples: there is one of each, and it is so."""
    found = _before(samples)
    told: dict[Key, int] = {}
    for place, score in enumerate(record.scores):
        key = (score.who, score.seed, score.scorer, score.metric)
        where = f"scores.{place}"
        if told.setdefault(key, place) != place:
            yield f"{where}: of the same as scores.{told[key]}"
        elif key not in found:
            yield f"{where}: no samples of {shorten(score.scorer)}.{shorten(score.metric)}"
        else:
            value, se = estimate(score.estimator, *found[key])
            again = {"n": len(found[key][0]), "value": value, "se": se}
            for field, other in again.items():
                if not is_close(getattr(score, field), other):
                    yield f"{where}.{field}: is {getattr(score, field)}, and {other} by the samples"
    for who, seed, scorer, metric in found.keys() - told.keys():
        yield f"scores: {who}, seed {seed}, {shorten(scorer)}.{shorten(metric)} is missing"


def is_close(told: float | None, found: float | None) -> bool:
    """Whether a figure is what is computed again."""
    if told is None or found is None:
        return told is found
    return math.isclose(told, found, rel_tol=SAME, abs_tol=SAME)


def _before(samples: pa.Table) -> dict[Key, tuple[Array, Texts, Texts]]:
    """(who, seed, scorer, metric) -> value, group and label of each item, before any attack."""
    own = samples.filter(pc.equal(samples["attack"], ""))
    values, groups, labels = (own[name].to_numpy() for name in ("value", "group", "label"))
    return {
        cast("Key", key): (values[places], groups[places], labels[places])
        for key, places in lines_by(own, ("who", "seed", "scorer", "metric"))
    }
