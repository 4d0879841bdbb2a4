"""What scores can be: ranges that scorers declare, by the record or known here; samples beyond.

A record says the ranges of its metrics. Those of the scorers that come with ilubench are known
here, so that older records have them, and that none can say other ones. Pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from ilubench.errors import DataError
from ilubench.specs import KNOWN_RANGES, FineTuningAccuracySpec, MetricSpec, Range, SuiteSpec
from ilubench.statistics.bounds import UNBOUNDED, RowRanges, negated
from ilubench.statistics.row import FA

__all__ = ["Ranges", "check_ranges", "fa_scorer", "is_beyond", "range_of", "range_text"]

ROUNDING = 1e-6

MAX_SCORE = 1e60
"""Size of a score whose scorer declares no end: variances of larger ones are beyond a number."""


def range_of(ranges: Mapping[str, Range], metric: str) -> Range:
    """Return a metric's range: its own, or that of the metric whose name, `_` behind it, begins it.

    (`exact_match_flexible` is `exact_match` by another filter.)
    """
    names = sorted((name for name in ranges if f"{metric}_".startswith(f"{name}_")), key=len)
    return ranges[names[-1]] if names else UNBOUNDED


def is_beyond(value: float, bounds: Range) -> bool:
    """Whether a score is none that the range allows; what rounding adds does not count."""
    low, high = _ends(bounds)
    slack = [ROUNDING * max(1.0, abs(end)) for end in (low, high)]
    return not low - slack[0] <= value <= high + slack[1]


def fa_scorer(attack: str) -> str:
    """Return what a record calls the scorer of an attack's fine-tuning accuracy."""
    return f"{attack}/{FA}"


@dataclass(frozen=True)
class Ranges:
    """The ranges of a run's metrics.

    Attributes:
        uses: scorer, as records name it -> the plugin that it is.
        told: `scorer.metric` -> its range, by the run's record.
    """

    uses: Mapping[str, str] = field(default_factory=dict)
    told: Mapping[str, Range] = field(default_factory=dict)

    @classmethod
    def of_suite(cls, suite: SuiteSpec, told: Mapping[str, Range]) -> Self:
        """Return those of a suite's metrics and of its attacks' FA."""
        uses = {name: ref.use for name, ref in suite.scorers.items()}
        tasks = {name: spec.fa for name, spec in suite.attacks.items() if spec.fa is not None}
        return cls(uses | {fa_scorer(name): fa.scorer.use for name, fa in tasks.items()}, told)

    def of(self, scorer: str, metric: str) -> Range:
        """Return what one item can score in a metric."""
        use = self.uses.get(scorer, "")
        if use in KNOWN_RANGES:
            return range_of(KNOWN_RANGES[use], metric)
        return self.told.get(f"{scorer}.{metric}", UNBOUNDED)

    def of_row(self, suite: SuiteSpec, forget: MetricSpec) -> RowRanges:
        """Return those of a row's scores, as they are turned."""
        low, high = self.of(forget.scorer, forget.metric)
        turned = (None if high is None else 1.0 - high, None if low is None else 1.0 - low)
        tasks = {name: spec.fa for name, spec in suite.attacks.items() if spec.fa is not None}
        return RowRanges(
            turned if forget.direction == "higher" else (low, high),
            tuple(self._turned(spec.scorer, spec) for spec in suite.utility),
            {name: self._turned(fa_scorer(name), fa) for name, fa in tasks.items()},
        )

    def _turned(self, scorer: str, spec: MetricSpec | FineTuningAccuracySpec) -> Range:
        found = self.of(scorer, spec.metric)
        return found if spec.direction == "higher" else negated(found)


def check_ranges(where: Path, samples: pa.Table, ranges: Ranges) -> None:
    """Refuse samples with a score that its metric cannot have.

    Args:
        where: of the run, for the message.
        samples: a run's.
        ranges: of its metrics.

    Raises:
        DataError: names run, scorer, metric, item and the score.
    """
    kinds = ["scorer", "metric", "attack"]
    found = samples.group_by(kinds, use_threads=False).aggregate([("value", "min_max")])
    for line in found.to_pylist():
        scorer, metric, attack = (line[name] for name in kinds)
        own = fa_scorer(attack) if scorer == FA and attack else scorer
        bounds = ranges.of(own, metric)
        ends = line["value_min_max"]
        for value in (one for one in (ends["min"], ends["max"]) if is_beyond(one, bounds)):
            item = next(_items(samples, (scorer, metric, attack), value))
            during = f" under {attack}" if attack else ""
            raise DataError(
                f"{where}: samples: item {item!r} of {own}.{metric} scored {value:g}{during}; "
                f"{range_text(bounds)}"
            )


def range_text(bounds: Range) -> str:
    """Return what a range allows, in words."""
    low, high = _ends(bounds)
    return f"it lies between {low:g} and {high:g}"


# --- inside ---


def _ends(bounds: Range) -> tuple[float, float]:
    low, high = bounds
    least = -MAX_SCORE if low is None else max(low, -MAX_SCORE)
    return least, MAX_SCORE if high is None else min(high, MAX_SCORE)


def _items(samples: pa.Table, kind: tuple[str, str, str], value: float) -> Iterator[str]:
    """Items that scored so."""
    found = pc.equal(samples["value"], value)
    for name, own in zip(("scorer", "metric", "attack"), kind, strict=True):
        found = pc.and_(found, pc.equal(samples[name], own))
    yield from samples.filter(found)["item"].to_pylist()
