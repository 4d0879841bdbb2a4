"""A run's scores by subset of the items: what was shown while unlearning against what was not.

Scorers name an item's subset (`group`): `given` and `held_out` facts in the mini suite, subjects of
MMLU. A method that forgets only what it was shown looks well forgotten on the mean.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.errors import DataError
from ilubench.records.figure_text import figure_text
from ilubench.records.markdown import cell, table
from ilubench.records.ranges import Ranges
from ilubench.records.scores import own_samples, scored_courses
from ilubench.statistics.aggregate import weighted_samples
from ilubench.statistics.bounds import keep_within
from ilubench.statistics.intervals import Figure, table_mean
from ilubench.statistics.row import FA

__all__ = ["Subset", "subsets_of", "subsets_text"]


@dataclass(frozen=True, slots=True)
class Subset:
    """One metric over one subset of its items; figures are on the metric's own scale.

    Attributes:
        metric: `scorer.metric`.
        group: the subset.
        items: how many.
        unlearned: of the unlearned model (the original, in a run of it alone), before any attack.
        attacked: mean over the benign attacks of their last checkpoints, each over the items that
            it scores; None without an attack that scores any of them.
    """

    metric: str
    group: str
    items: int
    unlearned: Figure
    attacked: Figure | None


def subsets_of(
    samples: pa.Table, ranges: Ranges | None = None, further: Collection[str] = ()
) -> tuple[Subset, ...]:
    """Return every metric by subset, where items have one.

    Args:
        samples: of a run.
        ranges: of its metrics, which the intervals do not leave; None: none is known.
        further: attacks that means over attacks leave out.

    Raises:
        DataError: no item has a subset, or seeds were scored on other items.
    """
    grouped = pc.and_(pc.not_equal(samples["group"], ""), pc.not_equal(samples["scorer"], FA))
    chosen = samples.filter(grouped)
    found = [
        subset
        for group in pc.unique(chosen["group"]).to_pylist()
        for subset in _subsets(
            chosen.filter(pc.equal(chosen["group"], group)), group, ranges or Ranges(), further
        )
    ]
    if not found:
        raise DataError("no item of this run belongs to a subset; set group_by of a scorer")
    return tuple(sorted(found, key=lambda one: (one.metric, one.group)))


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


def _subsets(
    samples: pa.Table, group: str, ranges: Ranges, further: Collection[str]
) -> Iterator[Subset]:
    found = own_samples(samples)
    before = scored_courses(found.scores)
    benign = (runs for attack, runs in found.attacks.items() if attack not in further)
    courses = [scored_courses(runs) for runs in benign]
    for metric in {metric for tables in (before, *courses) for metric in tables}:
        name = ".".join(metric)
        if metric not in before:
            raise DataError(f"{name}: the unlearned model was not scored")
        unlearned = before[metric][0]
        ends = [course[metric][max(course[metric])] for course in courses if metric in course]
        bounds, attacked = ranges.of(*metric), None
        if ends:
            mean = table_mean(weighted_samples(ends, [1 / len(ends)] * len(ends)))
            attacked = keep_within(mean, bounds)
        before_any = keep_within(table_mean(unlearned), bounds)
        yield Subset(name, group, len(unlearned.items), before_any, attacked)
