"""Samples of a run: by seed, item, attack and step."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ilubench.errors import DataError, StoreError
from ilubench.records.results import ScoreRecord
from ilubench.statistics.intervals import Array, Samples

__all__ = [
    "SAMPLES",
    "SCHEMA",
    "TEXTS",
    "WHERE",
    "Measured",
    "Scored",
    "lines_by",
    "method_samples",
    "own_samples",
    "plain_samples",
    "read_samples",
    "read_score",
    "scored_checkpoints",
    "scored_courses",
    "stack_seeds",
]

SAMPLES = pa.schema(
    [
        ("scorer", pa.string()),
        ("metric", pa.string()),
        ("item", pa.string()),
        ("value", pa.float64()),
        ("group", pa.string()),
        ("label", pa.string()),
    ]
)
"""What figures are computed from."""

WHERE = pa.schema(
    [("who", pa.string()), ("attack", pa.string()), ("seed", pa.int64()), ("step", pa.int64())]
)
SCHEMA = pa.schema([*WHERE, *SAMPLES, ("level", pa.string())])
"""A run's samples; `who` is `method`, `reference`, `retrain` (the model that never knew) or
`untouched` (before it was taught), `attack` is empty before any attack. `level` names the
checkpoint of an attack that takes no steps, whose `step` counts from 1; it is empty, or not there,
where an attack takes steps."""
TEXTS = tuple(column.name for column in SCHEMA if column.type == pa.string())
"""Columns that are read as dictionaries: what millions of lines share is in memory once."""

MAX_CELLS = 1_000_000
"""Metrics at checkpoints that are told apart; a large run has half a million."""


Line: TypeAlias = tuple[str | int, ...]
Places: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Scored:
    """One metric at one checkpoint: the items in order, and what each scored."""

    items: tuple[str, ...]
    values: Array


@dataclass(frozen=True)
class Measured:
    """One job's samples: step -> (scorer, metric) -> items and values.

    ``levels`` has the names of the checkpoints of an attack that takes no steps.
    """

    steps: dict[int, dict[tuple[str, str], Scored]]
    levels: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodSamples:
    """All that was measured for one method.

    Attributes:
        scores: seed -> the unlearned model; a single seed for a method that has no randomness.
        attacks: attack -> seed -> its course.
    """

    scores: Mapping[int, Measured]
    attacks: Mapping[str, Mapping[int, Measured]]


def lines_by(
    samples: pa.Table, names: Sequence[str], among: Places | None = None
) -> Iterator[tuple[Line, Places]]:
    """Yield the values that lines have in these columns, and the places of those lines, ascending.

    Args:
        samples: not empty values.
        names: columns.
        among: places of the lines that are looked at; None: all.

    Raises:
        DataError: more of them than any run has.
    """
    lines = np.arange(len(samples), dtype=np.int32) if among is None else among
    if not len(lines):
        return
    key, size = np.zeros(len(lines), np.int64), 1
    for name in names:
        code, values = _encoded(samples, name)
        code = code if among is None else code[among]
        if size * len(values) >= np.iinfo(np.int64).max:
            found, key = np.unique(key, return_inverse=True)
            size = len(found)
        key *= len(values)
        key += code
        del code  # of millions of lines, each array counts
        size *= len(values)
    order = np.argsort(key, kind="stable").astype(np.int32)
    key = key[order]
    starts = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
    del key
    lines = lines[order]
    del order
    if len(starts) > MAX_CELLS:
        problem = f"{len(starts)} combinations of {', '.join(names)}"
        raise DataError(f"{problem}; {MAX_CELLS} are allowed")
    heads = samples.select(names).take(pa.array(lines[starts])).to_pydict()
    yield from zip(zip(*heads.values(), strict=True), np.split(lines, starts[1:]), strict=True)


def plain_samples(samples: pa.Table) -> pa.Table:
    """Return samples with their texts as files have them, no longer as dictionaries."""
    return samples.cast(pa.schema([SCHEMA.field(name) for name in samples.column_names]))


def _encoded(samples: pa.Table, name: str) -> tuple[NDArray[np.int32], list[str | int]]:
    """Each value's place among the column's values in their order, and these."""
    column = samples[name]
    if pa.types.is_integer(column.type):
        different = 1 + np.count_nonzero(np.diff(np.sort(column.to_numpy())))
        if different > MAX_CELLS:  # a dictionary of them would fill memory
            raise DataError(f"{name}: {different} different values; {MAX_CELLS} are allowed")
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    order = pc.array_sort_indices(encoded.dictionary)
    rank = np.empty(len(order), np.int32)
    rank[order.to_numpy()] = np.arange(len(order), dtype=np.int32)
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(order).to_pylist()


def method_samples(samples: pa.Table, who: str, *, seeded: bool | None = None) -> MethodSamples:
    """Return what the samples say of the method, or of a model that it is compared with.

    Args:
        samples: a run's.
        who: whose, as in `SCHEMA`.
        seeded: whether each seed has its own unlearned model; a course starts at its score. None:
            where more than one was scored.

    Raises:
        DataError: an item was scored twice by one metric at one checkpoint, or a checkpoint has
            two levels.
    """
    scores: dict[int, Measured] = {}
    attacks: dict[str, dict[int, Measured]] = {}
    own = np.flatnonzero(pc.equal(samples["who"], who).to_numpy()).astype(np.int32)
    if "level" not in samples.column_names:
        none = pa.DictionaryArray.from_arrays(np.zeros(len(samples), np.int32), [""])
        samples = samples.append_column("level", none)
    values = samples["value"].to_numpy()
    place, names = _encoded(samples, "item") if len(own) else (np.empty(0, np.int32), [])
    known: dict[bytes, tuple[str, ...]] = {}  # most checkpoints have the same items
    by = ("attack", "seed", "step", "level", "scorer", "metric")
    for line, lines in lines_by(samples, by, own):
        attack, seed, step, level, scorer, metric = cast(
            "tuple[str, int, int, str, str, str]", line
        )
        run = (attacks.setdefault(attack, {}) if attack else scores).setdefault(seed, Measured({}))
        where = f"{who}, {attack or 'no attack'}, seed {seed}, step {step}"
        if run.levels.setdefault(step, level) != level:
            raise DataError(f"{where}: has the levels {run.levels[step]!r} and {level!r}")
        rows = lines[np.argsort(place[lines])]
        items = place[rows]
        twice = np.flatnonzero(items[1:] == items[:-1])
        if len(twice):
            item = names[items[twice[0]]]
            raise DataError(f"{where}, {scorer}.{metric}: item {item!r} stands there twice")
        key = items.tobytes()
        if key not in known:
            known[key] = tuple(str(names[one]) for one in items)
        run.steps.setdefault(step, {})[scorer, metric] = Scored(known[key], values[rows])
    if seeded or (seeded is None and len(scores) > 1):
        attacks = {
            name: {seed: run for seed, run in runs.items() if seed in scores}
            for name, runs in attacks.items()
        }
    return MethodSamples(scores, attacks)


def own_samples(samples: pa.Table) -> MethodSamples:
    """Return what the samples say of the method, or of the original in a run of it alone."""
    method = pc.any(pc.equal(samples["who"], "method")).as_py()
    return method_samples(samples, "method" if method else "reference", seeded=False)


def scored_courses(runs: Mapping[int, Measured]) -> dict[tuple[str, str], dict[int, Samples]]:
    """Return the tables of one attack, or of the unlearned model.

    Args:
        runs: seed -> what was measured.

    Returns:
        (scorer, metric) -> step -> the scores on their own scale, of the seeds that have them.

    Raises:
        DataError: seeds were scored on other items.
    """
    found: dict[tuple[str, str], dict[int, dict[int, Scored]]] = {}
    for seed in sorted(runs):
        for step, metrics in runs[seed].steps.items():
            for metric, scored in metrics.items():
                found.setdefault(metric, {}).setdefault(step, {})[seed] = scored
    return {
        metric: {
            step: Samples(values, tuple(by_seed), items)
            for step, by_seed in sorted(steps.items())
            for values, items in [stack_seeds(by_seed, ".".join(metric))]
        }
        for metric, steps in sorted(found.items())
    }


def stack_seeds(by_seed: Mapping[int, Scored], what: str) -> tuple[Array, tuple[str, ...]]:
    """The seeds' values of the items that all of them must have."""
    first, *others = by_seed
    items = by_seed[first].items
    for seed in others:
        if by_seed[seed].items != items:
            raise DataError(f"{what}: seeds {first} and {seed} were scored on other items")
    return np.stack([scored.values for scored in by_seed.values()]), items


def scored_checkpoints(folder: Path) -> list[Path]:
    """Return the records of the scored checkpoints, in the order of their steps; levels by name."""
    return sorted(folder.glob("*.json"))


def read_score(path: Path) -> ScoreRecord:
    """Read one checkpoint's record.

    Raises:
        StoreError: damaged, or written by a newer ilubench.
    """
    try:
        return ScoreRecord.model_validate(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged ({error}); delete its folder and run again") from error


def read_samples(path: Path) -> pa.Table:
    """Return one checkpoint's samples; the columns are those of SAMPLES.

    Raises:
        StoreError: damaged, or an item is there twice.
    """
    try:
        table = pq.read_table(path, columns=SAMPLES.names)
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{path} is damaged ({error}); delete its folder and run again") from error
    names = ["scorer", "metric", "item"]
    counted = table.group_by(names, use_threads=False).aggregate([([], "count_all")])
    for line in counted.filter(pc.greater(counted["count_all"], 1)).slice(0, 1).to_pylist():
        where = f"{line['scorer']}/{line['metric']}"
        raise StoreError(f"{path}: item {line['item']!r} of {where} is there twice")
    return table
