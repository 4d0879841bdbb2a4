"""Composites: numbers of whole models, from a run's samples. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa

from ilubench.errors import DataError
from ilubench.records.ranges import Ranges
from ilubench.records.results import RETRAIN, CompositeScore, Who
from ilubench.records.scores import Measured, method_samples, scored_courses
from ilubench.records.trials import has_trials
from ilubench.specs import CompositeSpec, SuiteSpec
from ilubench.statistics.bounds import Range, keep_within
from ilubench.statistics.intervals import (
    MIN_ITEMS,
    Array,
    Figure,
    Samples,
    ScoreArrays,
    all_items,
    jackknife_figure,
    pick_items,
    shared_seeds,
    stack_tables,
)

__all__ = ["KS_ITEMS", "composite_scores", "harmonic_mean", "ks_p_value"]

WHO: tuple[Who, ...] = ("reference", "method", "retrain")

KS_ITEMS = 4
"""Items of which two models' scores can differ with a p-value below .05: 2 of 70 orders."""


def composite_scores(
    suite: SuiteSpec, samples: pa.Table, ranges: Ranges, method: str
) -> tuple[CompositeScore, ...]:
    """Return a suite's composites of every model and checkpoint that was scored in its metrics.

    Where no retrained model was scored there is none that compares with it.

    Args:
        suite: what was measured.
        samples: a run's.
        ranges: of its metrics.
        method: the run's; the method `retrain` is itself the model that never knew.

    Raises:
        DataError: seeds, or models that are compared, were scored on other items.
    """
    if not suite.composites:
        return ()
    models = {who: method_samples(samples, who) for who in WHO}
    never = scored_courses(models["method" if method == RETRAIN else "retrain"].scores)
    found: list[CompositeScore] = []
    for who, model in models.items():
        for attack, runs in (("", model.scores), *sorted(model.attacks.items())):
            if has_trials(runs):  # of each seed others
                continue
            for step, tables in _checkpoints(runs):
                places = {"who": who, "attack": attack, "step": step, "level": _level(runs, step)}
                for spec in suite.composites:
                    figure = _figure(suite, spec, tables, never, ranges)
                    if figure is not None and figure.value is not None:
                        named = {"label": spec.label, "kind": spec.kind, "value": figure.value}
                        ends = {"low": figure.low, "high": figure.high, "n_seeds": figure.n_seeds}
                        found.append(CompositeScore(**places, **named, **ends))
    return tuple(found)


def harmonic_mean(tables: Sequence[Samples], bounds: Range) -> Figure:
    """Return the harmonic mean of tables' means, with its interval over seeds and items.

    Args:
        tables: of scores that are not negative; those of one name are of one item.
        bounds: what it lies between.

    Raises:
        DataError: no seed is shared by the tables.
    """
    seeds, items = shared_seeds(tables), all_items(tables)
    cells = stack_tables(tables, seeds, items)

    def statistic(means: Array, _: Array) -> Array:
        with np.errstate(divide="ignore"):  # a mean of 0 makes it 0
            return np.asarray(len(cells) / (1.0 / means).sum(axis=1))

    if min(len(table.items) for table in tables) < MIN_ITEMS:
        means = np.nanmean(cells, axis=(1, 2))[None]
        value = float(statistic(means, means)[0])
        return Figure(value, None, None, len(seeds), len(items), "none")
    return keep_within(jackknife_figure(ScoreArrays(cells), statistic), bounds)


def ks_p_value(mine: Samples, never: Samples) -> Figure:
    """Return the p-value of the two-sided test that two models' scores are alike.

    It is the median over the seeds, of which each has its own; None of fewer than `KS_ITEMS` items,
    of which whatever is compared looks alike.

    Args:
        mine: a model's scores.
        never: of the one that it is compared with, the first seed of which counts; of more items
            where an attack leaves some out.

    Raises:
        DataError: it lacks an item.
    """
    from scipy import stats  # takes a second to import

    lacking = sorted({*mine.items} - {*never.items})
    if lacking:
        raise DataError(f"the retrained model was not asked the item {lacking[0]!r}")
    (theirs,) = pick_items(never, never.seeds[:1], mine.items)
    found = [float(stats.ks_2samp(own, theirs).pvalue) for own in mine.values]
    value = float(np.median(found)) if len(mine.items) >= KS_ITEMS else None
    return Figure(value, None, None, len(found), len(mine.items), "none")


# --- inside ---


def _checkpoints(
    runs: Mapping[int, Measured],
) -> Iterator[tuple[int, dict[tuple[str, str], Samples]]]:
    """Yield each step with the metrics that were scored there."""
    by_step: dict[int, dict[tuple[str, str], Samples]] = {}
    for metric, steps in scored_courses(runs).items():
        for step, table in steps.items():
            by_step.setdefault(step, {})[metric] = table
    yield from sorted(by_step.items())


def _level(runs: Mapping[int, Measured], step: int) -> str:
    return next((run.levels[step] for run in runs.values() if step in run.levels), "")


def _figure(
    suite: SuiteSpec,
    spec: CompositeSpec,
    tables: Mapping[tuple[str, str], Samples],
    never: Mapping[tuple[str, str], Mapping[int, Samples]],
    ranges: Ranges,
) -> Figure | None:
    if not set(spec.metrics) <= tables.keys():
        return None
    if spec.kind == "ks":
        (metric,) = spec.metrics
        return ks_p_value(tables[metric], never[metric][0]) if metric in never else None
    bounds = [ranges.of(*metric) for metric in spec.metrics]
    lows, highs = zip(*bounds, strict=True)
    low = None if None in lows else min(lows)
    high = None if None in highs else max(highs)
    return harmonic_mean([_of_set(suite, m, tables[m]) for m in spec.metrics], (low, high))


def _of_set(suite: SuiteSpec, metric: tuple[str, str], table: Samples) -> Samples:
    """A table whose items are named by the rows that they are of: other sets' may be alike."""
    rows = suite.scorers[metric[0]].settings.get("data", metric[0])
    return replace(table, items=tuple(f"{rows}/{item}" for item in table.items))
