"""Recovery along an attack: the figure of a row's last checkpoint, at every checkpoint. Pure."""

from collections.abc import Sequence

import numpy as np

from ilubench.statistics.aggregate import why_undefined
from ilubench.statistics.intervals import (
    Array,
    Figure,
    Samples,
    ScoreArrays,
    all_items,
    jackknife_figure,
    no_figure,
    pick_items,
    shared_seeds,
    stack_tables,
)
from ilubench.statistics.row import Course, MethodRuns

__all__ = ["recovery_curve"]


def recovery_curve(method: MethodRuns, original: MethodRuns, course: Course) -> tuple[Figure, ...]:
    """Return (f_u - f_t) / (f_u - f_0) at each checkpoint after the start, with its interval.

    The last is the attack's `recovery` of :class:`ilubench.statistics.row.AttackFigures`, bit for
    bit.

    Args:
        method: the unlearned model's scores.
        original: those of the model that knows.
        course: one of the method's attacks.

    Raises:
        DataError: no seed is shared, or a single item.
    """
    once = (original.unlearned_forget, method.unlearned_forget)
    seeds = shared_seeds(course.forget, once)
    items = all_items(course.forget[:1])
    before, after = (Samples(pick_items(table, seeds, items), seeds, items) for table in once)
    note = why_undefined(before.values, after.values)
    if note:
        return tuple(no_figure(note, len(seeds), len(items)) for _ in course.steps[1:])
    cells = stack_tables([before, after, *course.forget], seeds, items)
    return tuple(_at(cells, k) for k in range(1, len(course.steps)))


def _at(cells: Array, checkpoint: int) -> Figure:
    """Recovery at one checkpoint from the cells [f_0, f_u, f_t...]."""

    def statistic(means: Array, _: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            recovery: Array = (means[:, 1] - means[:, 2]) / (means[:, 1] - means[:, 0])
        return recovery

    chosen: Sequence[int] = (0, 1, 2 + checkpoint)
    return jackknife_figure(ScoreArrays(cells[list(chosen)]), statistic)
