"""A run's scores by subset of the items: what was shown while unlearning against what was not.

Scorers name an item's subset (`group`): `given` and `held_out` facts in the mini suite, subjects of
MMLU. A method that forgets only what it was shown looks well forgotten on the mean.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.errors import DataError
from ilubench.records.figure_text import figure_text
from ilubench.records.markdown import cell, table
from ilubench.statistics.aggregate import weighted_samples
from ilubench.statistics.intervals import Figure, score_table, table_mean
from ilubench.statistics.row import FA

__all__ = ["Subset", "subsets_of", "subsets_text"]

COLUMNS = ("who", "attack", "seed", "step", "scorer", "metric", "item", "group", "value")

Scores: TypeAlias = dict[tuple[str, int], dict[int, dict[str, float]]]
"""(attack, step) -> seed -> item -> value; the attack is empty before any."""


@dataclass(frozen=True, slots=True)
class Subset:
    """One metric over one subset of its items; figures are on the metric's own scale.

    Attributes:
        metric: `scorer.metric`.
        group: the subset.
        items: how many.
        unlearned: of the unlearned model (the original, in a run of it alone), before any attack.
        attacked: mean over the attacks of their last checkpoints, each over the items that it
            scores; None without an attack that scores any of them.
    """

    metric: str
    group: str
    items: int
    unlearned: Figure
    attacked: Figure | None


def subsets_of(samples: pa.Table) -> tuple[Subset, ...]:
    """Return every metric by subset, where items have one.

    Args:
        samples: a run's `samples.parquet`.

    Raises:
        DataError: no item has a subset, or a seed lacks items.
    """
    missing = [name for name in COLUMNS if name not in samples.column_names]
    if missing:
        raise DataError(f"the samples have no column {', '.join(missing)}")
    found = tuple(
        _subset(f"{scorer}.{metric}", group, scores)
        for (scorer, metric, group), scores in sorted(_read(samples).items())
    )
    if not found:
        raise DataError("no item of this run belongs to a subset; set group_by of a scorer")
    return found


def subsets_text(subsets: tuple[Subset, ...]) -> str:
    """Return the subsets as a Markdown table."""
    head = ["metric", "subset", "items", "unlearned", "after the attacks"]
    return table(
        head,
        [
            [
                cell(s.metric),
                cell(s.group),
                str(s.items),
                figure_text(s.unlearned),
                figure_text(s.attacked),
            ]
            for s in subsets
        ],
    )


def _read(samples: pa.Table) -> dict[tuple[str, str, str], Scores]:
    who = "method" if pc.any(pc.equal(samples["who"], "method")).as_py() else "reference"
    chosen = samples.select(COLUMNS).filter(
        pc.and_(
            pc.equal(samples["who"], who),
            pc.and_(pc.not_equal(samples["group"], ""), pc.not_equal(samples["scorer"], FA)),
        )
    )
    found: dict[tuple[str, str, str], Scores] = {}
    columns = (chosen[name].to_pylist() for name in COLUMNS[1:])
    for attack, seed, step, scorer, metric, item, group, value in zip(*columns, strict=True):
        scores = found.setdefault((scorer, metric, group), {})
        scores.setdefault((attack, step), {}).setdefault(seed, {})[item] = value
    return found


def _subset(metric: str, group: str, scores: Scores) -> Subset:
    before = [tables for (attack, _), tables in scores.items() if not attack]
    if not before:
        raise DataError(f"{metric}: the unlearned model was not scored")
    unlearned = score_table(before[0], metric)
    ends = [score_table(tables, metric) for tables in _last(scores)]
    attacked = None
    if ends:
        attacked = table_mean(weighted_samples(ends, [1 / len(ends)] * len(ends)))
    return Subset(metric, group, len(unlearned.items), table_mean(unlearned), attacked)


def _last(scores: Scores) -> Iterator[Mapping[int, Mapping[str, float]]]:
    """The last checkpoint of each attack."""
    for attack in dict.fromkeys(attack for attack, _ in scores if attack):
        step = max(step for name, step in scores if name == attack)
        yield scores[attack, step]
