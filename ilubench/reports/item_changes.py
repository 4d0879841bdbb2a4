"""Which items unlearning took away, and which an attack brought back."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ilubench.errors import DataError
from ilubench.records.bounded_parquet import MAX_TEXTS, check_bounds
from ilubench.records.finished import FinishedRun
from ilubench.statistics.intervals import Samples
from ilubench.statistics.row import trial_level

__all__ = ["Changes", "ItemChange", "changes_of", "strongest_steps"]

HALF = 0.5
TEXTS = "texts.parquet"


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item; the forget metric, higher = better forgotten, means over the seeds.

    Attributes:
        item: its id.
        original: of the model that knows.
        unlearned: before the attack.
        attacked: at the attack's end.
        texts: what the three wrote, with the first seed; empty where it is not kept.
    """

    item: str
    original: float
    unlearned: float
    attacked: float
    texts: tuple[str, str, str] = ("", "", "")


@dataclass(frozen=True, slots=True)
class Changes:
    """What an attack brought back.

    An item was taken away where unlearning moved it by half of the metric's scale or more, and is
    back where the attack undid half of that move or more.

    Attributes:
        attack: which.
        items: that it scores.
        taken: number of items that unlearning took away.
        back: those of them that are back, the furthest first.
    """

    attack: str
    items: int
    taken: int
    back: tuple[ItemChange, ...]


def changes_of(run: FinishedRun, label: str) -> tuple[Changes, ...]:
    """Return what each attack brought back, in a primary metric.

    Raises:
        DataError: no samples, or they do not have the metric.
    """
    mine, original = run.scores(label), _means(run.original(label).unlearned_forget)
    unlearned = _means(mine.unlearned_forget)
    texts = _texts(run, label)
    found = []
    for course in mine.courses:
        ends = _means(course.forget[-1])
        taken = [one for one in ends if unlearned[one] - original[one] >= HALF]
        back = [
            one
            for one in taken
            if unlearned[one] - ends[one] >= HALF * (unlearned[one] - original[one])
        ]
        back.sort(key=lambda one: (ends[one] - unlearned[one], one))
        items = (
            ItemChange(
                one,
                original[one],
                unlearned[one],
                ends[one],
                (
                    texts.get(("reference", "", one), ""),
                    texts.get(("method", "", one), ""),
                    texts.get(("method", course.attack, one), ""),
                ),
            )
            for one in back
        )
        found.append(Changes(course.attack, len(ends), len(taken), tuple(items)))
    return tuple(found)


def strongest_steps(run: FinishedRun, label: str) -> dict[str, set[tuple[int, int]]]:
    """Attack that tunes -> the seed and step of each seed's strongest trial."""
    parts = {a.attack: a.trials for a in run.rows[label].attacks if a.trials is not None}
    if not parts or run.samples is None:
        return {}
    table = run.samples.filter(pc.equal(run.samples["who"], "method"))
    points = table.group_by(["attack", "seed", "step", "level"]).aggregate([]).to_pylist()
    return {
        attack: {
            (point["seed"], point["step"])
            for seed, number in zip(trials.seeds, trials.strongest, strict=True)
            for point in points
            if (point["attack"], point["seed"], point["level"])
            == (attack, seed, trial_level(number))
        }
        for attack, trials in parts.items()
    }


# --- inside ---


def _means(table: Samples) -> dict[str, float]:
    values = np.asarray(table.values).mean(axis=0)
    return dict(zip(table.items, map(float, values), strict=True))


def _texts(run: FinishedRun, label: str) -> Mapping[tuple[str, str, str], str]:
    """What models wrote: (who, attack, item) -> the text at the last step, with the first seed.

    Of trials it is the strongest's, as the numbers are.
    """
    file = (run.path if run.path.is_dir() else run.path.parent) / TEXTS
    if not file.is_file() or run.suite is None:
        return {}
    spec = next(metric for metric in run.suite.primary_forget if metric.label == label)
    try:
        check_bounds(file, MAX_TEXTS)
        table = pq.read_table(file)
        mine = pc.and_(
            pc.equal(table["scorer"], spec.scorer), pc.equal(table["metric"], spec.metric)
        )
        chosen = strongest_steps(run, label)
        lines = [
            line
            for line in table.filter(mine).to_pylist()
            if line["attack"] not in chosen
            or (line["seed"], line["step"]) in chosen[line["attack"]]
        ]
        lines.sort(key=lambda line: (line["step"], -line["seed"]))  # the last one counts
        return {(line["who"], line["attack"], line["item"]): str(line["text"]) for line in lines}
    except (OSError, MemoryError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: is no table of texts; delete it, or run again") from error
