"""A finished run's files, read and checked: they may be a stranger's, made by anything.

What is returned has the shapes that tables, sweeps and gates rely on; everything else is a
DataError that names the file and the field.
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import JsonValue, TypeAdapter, ValidationError

from ilubench.errors import DataError, SpecError, StoreError
from ilubench.records.bounded_parquet import MAX_NAME, MAX_NAMES, check_bounds
from ilubench.records.results import RunRecord, rows_of
from ilubench.records.scores import SCHEMA, TEXTS
from ilubench.records.verified import MANIFEST, check_files, read_sealed
from ilubench.specs import MemorySpec
from ilubench.specs.untrusted import read_json, shorten
from ilubench.specs.yaml_files import load_yaml
from ilubench.statistics.intervals import Figure
from ilubench.statistics.row import RobustnessRow

__all__ = [
    "LEFT",
    "RunConfig",
    "check_intervals",
    "check_left",
    "check_named",
    "libraries_of",
    "list_leaves",
    "memory_of",
    "read_config",
    "read_libraries",
    "read_record",
    "read_run_samples",
]

LEFT = (
    *("results.json", "samples.parquet", "texts.parquet", "metrics.parquet"),
    *("config.yaml", "env.json", "plan.json"),
)
"""Files of a finished run that its manifest names."""

MAX_LEFT = 2_000_000_000
"""Bytes that one of them may have to be read for its hash."""

ROUNDING = 1e-6

ADDED_LATER = ("group", "label", "level")
"""Columns that samples of the first records lack; empty where there are none."""


class RunConfig(NamedTuple):
    """What a `config.yaml` tells of a run.

    Attributes:
        suite: as it stands there, unchecked.
        attacks: attack -> its settings with all changes.
        memory: what training kept in memory.
    """

    suite: JsonValue
    attacks: dict[str, JsonValue]
    memory: MemorySpec


def list_leaves(value: object, name: str = "", *, version: int) -> Iterator[tuple[str, object]]:
    """Yield dotted names and values of what lies in nested mappings, sequences and dataclasses.

    Args:
        value: a row, say.
        name: before the first dot.
        version: of the record that it is of; fields that came later are left out.
    """
    parts: Iterable[tuple[object, object]]
    if dataclasses.is_dataclass(value):
        own = dataclasses.fields(value)
        known = [one.name for one in own if one.metadata.get("since", 1) <= version]
        parts = [(field, getattr(value, field)) for field in known]
    elif isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list | tuple):
        parts = enumerate(value)
        yield (f"{name}.length" if name else "length"), len(value)
    else:
        yield name, value
        return
    for key, below in parts:
        yield from list_leaves(below, f"{name}.{key}" if name else str(key), version=version)


def read_record(file: Path) -> tuple[RunRecord, dict[str, RobustnessRow]]:
    """Return a run's record, and primary metric -> its row.

    Raises:
        DataError: no record, or one whose fields are not what they must be.
    """
    wrong = f"{file} is no run's record"
    if not file.exists():
        raise DataError(f"{file}: no such file; give a run's folder")
    try:
        record = RunRecord.model_validate(read_json(file))
        rows = rows_of(record)
        problem = next(_record_problems(record, rows), None)
    except ValidationError as error:
        raise DataError(f"{wrong}: {_first(error)}") from error
    except StoreError as error:
        raise DataError(f"{wrong}: {error}") from error
    if problem is not None:
        raise DataError(f"{wrong}: {problem}")
    return record, rows


def check_left(folder: Path) -> None:
    """Compare a finished run's files with its manifest; older runs have none.

    Raises:
        DataError: one is missing or not as the run left it; it is named.
    """
    if not os.path.lexists(folder / MANIFEST):
        return
    try:
        told = read_sealed(folder / MANIFEST).get("files")
        hashes = {name: told.get(name) for name in LEFT} if isinstance(told, dict) else {}
        for name in hashes:
            if (folder / name).is_file() and (folder / name).stat().st_size > MAX_LEFT:
                raise DataError(f"{folder / name}: more than {MAX_LEFT} bytes")
        check_files(folder, {name: str(told) for name, told in hashes.items() if told is not None})
    except StoreError as error:
        raise DataError(f"{error}; the run's command makes it anew from the store") from error


def check_intervals(file: Path, rows: Mapping[str, RobustnessRow]) -> None:
    """Refuse figures outside their own intervals, where nothing else can be compared with them.

    Raises:
        DataError: names the figure.
    """
    for label, row in rows.items():
        for field, figure in _figures(row, f"rows.{label}"):
            value, low, high = figure.value, figure.low, figure.high
            if value is None:
                continue
            slack = ROUNDING * max(1.0, abs(value))
            if (low is not None and value < low - slack) or (
                high is not None and value > high + slack
            ):
                problem = f"{value:g} lies outside its own interval, [{low}, {high}]"
                raise DataError(f"{file}: {field}: {problem}; the record was edited")


def check_named(file: Path, samples: pa.Table, record: RunRecord) -> None:
    """Refuse samples of attacks or seeds that the record leaves out: its figures would be of fewer.

    Raises:
        DataError: names one.
    """
    for column, own in (("attack", {"", *record.attacks}), ("seed", set(record.seeds))):
        more = sorted(set(pc.unique(samples[column]).to_pylist()) - own)
        if more:
            first = shorten(", ".join(map(str, more[:3])))[1:-1]
            raise DataError(f"{file}: {column}: {first}, which the record does not name")


def memory_of(config: Mapping[str, JsonValue], where: str) -> MemorySpec:
    """Return what training kept in memory, by a run's configuration.

    Args:
        config: the whole; older ones do not speak of it, and had the defaults.
        where: it stands, for messages.

    Raises:
        DataError: no such settings; names the field.
    """
    run = config.get("run")
    told = run.get("memory") if isinstance(run, Mapping) else None
    try:
        return MemorySpec() if told is None else MemorySpec.model_validate(told)
    except ValidationError as error:
        raise DataError(f"{where}: run.memory.{_first(error)}") from error


def read_config(file: Path) -> RunConfig:
    """Return what a `config.yaml` tells of a run.

    Raises:
        DataError: it is no YAML, the attacks are no mapping of settings, or the memory settings
            are none.
    """
    try:
        raw = load_yaml(file)
        attacks = TypeAdapter(dict[str, dict[str, JsonValue]]).validate_python(
            {} if raw.get("attacks") is None else raw["attacks"]
        )
        suite: JsonValue = TypeAdapter(JsonValue).validate_python(raw.get("suite"))
    except SpecError as error:
        raise DataError(str(error)) from error
    except ValidationError as error:
        raise DataError(f"{file}: attacks or suite: {_first(error)}") from error
    return RunConfig(suite, dict(attacks), memory_of(raw, str(file)))


def libraries_of(environment: object) -> dict[str, str]:
    """Return library -> version as an environment tells them; nothing where it does not."""
    told = environment.get("libraries") if isinstance(environment, Mapping) else None
    plain = told.items() if isinstance(told, Mapping) else ()
    return {str(n): v for n, v in plain if isinstance(v, str) and v != "absent"}


def read_libraries(file: Path) -> dict[str, str]:
    """Return library -> version by a run's `env.json`; nothing where there is none.

    Raises:
        DataError: it cannot be read.
    """
    return libraries_of(read_json(file)) if file.exists() else {}


def read_run_samples(file: Path) -> pa.Table:
    """Return a `samples.parquet` with the columns of :data:`ilubench.records.scores.SCHEMA`.

    Texts are dictionaries (`ilubench.records.scores.plain_samples` spells them out).

    Raises:
        DataError: no Parquet file, a column is missing, of another type, or has empty values, a
            score is not finite, or a step is impossible.
    """
    if not file.exists():
        raise DataError(f"{file}: no such file; give a finished run's folder")
    check_bounds(file, MAX_NAME, names=MAX_NAMES)
    try:
        with pq.ParquetFile(file) as opened:
            found = opened.schema_arrow
        _check_columns(file, found)
        texts = [name for name in TEXTS if name in found.names]
        with pq.ParquetFile(file, read_dictionary=texts) as opened:
            table = opened.read(columns=[name for name in SCHEMA.names if name in found.names])
    except (OSError, pa.ArrowException, MemoryError):  # a damaged one asks for any size
        raise DataError(f"{file}: it is no Parquet file, or cut short; copy it again") from None
    for name in SCHEMA.names:
        if name not in table.column_names:
            none = pa.DictionaryArray.from_arrays(np.zeros(len(table), np.int32), [""])
            table = table.append_column(name, none)
        if table[name].null_count:
            raise DataError(f"{file}: {name}: {table[name].null_count} values are missing")
    table = table.select(SCHEMA.names).unify_dictionaries()
    before = pc.equal(table["attack"], "")
    for name, bad, problem in (
        ("value", pc.invert(pc.is_finite(table["value"])), "a score is not finite"),
        ("step", pc.less(table["step"], 0), "a step is below 0"),
        ("step", pc.and_(before, pc.not_equal(table["step"], 0)), "a step without an attack"),
    ):
        if pc.any(bad).as_py():
            raise DataError(f"{file}: {name}: {problem}")
    return table


# --- inside ---


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _check_columns(file: Path, found: pa.Schema) -> None:
    for field in SCHEMA:
        times = found.names.count(field.name)
        if times == 0 and field.name in ADDED_LATER:
            continue
        if times != 1:
            raise DataError(f"{file}: {field.name}: there are {times} columns of that name, not 1")
        kind = found.field(field.name).type
        if kind != field.type:
            raise DataError(f"{file}: {field.name}: its values are {kind}, not {field.type}")


def _record_problems(record: RunRecord, rows: dict[str, RobustnessRow]) -> Iterator[str]:
    """What would break a reader, first things first."""
    use, settings = record.method.get("use"), record.method.get("settings")
    if not record.method and not rows and not record.attacks:
        use, settings = "a model that was only scored", {}
    if not isinstance(use, str) or not use:
        yield f"method.use: a method's name, not {use!r}"
    if not isinstance(settings, dict):
        yield f"method.settings: a mapping, not {settings!r}"
    for name, values in (("seeds", record.seeds), ("attacks", record.attacks)):
        if len(set(values)) != len(values):
            yield f"{name}: one is named twice"
    for label, row in rows.items():
        for field, problem in _row_problems(row, record):
            yield f"rows.{label}.{field}: {problem}"
        for field, value in list_leaves(row, f"rows.{label}", version=record.schema_version):
            if isinstance(value, float) and not math.isfinite(value):
                yield f"{field}: {value} is no figure"


def _figures(value: object, name: str) -> Iterator[tuple[str, Figure]]:
    """Yield the names and the figures of a row."""
    if isinstance(value, Figure):
        yield name, value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _figures(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, tuple):
        for place, part in enumerate(value):
            yield from _figures(part, f"{name}.{place}")


def _row_problems(row: RobustnessRow, record: RunRecord) -> Iterator[tuple[str, str]]:
    utility, attacks = row.utility, record.attacks
    n, names = len(utility.original), tuple(part.attack for part in row.attacks)
    if not n == len(utility.unlearned) == len(utility.kept) or not n:
        yield "utility", "original, unlearned and kept need one figure a metric, at least one"
    if utility.worst is not None and not 0 <= utility.worst < n:
        yield "utility.worst", f"{utility.worst} is the place of none of {n} metrics"
    if not names or len(set(names)) != len(names) or not set(names) <= set(attacks):
        yield "attacks", f"{', '.join(names) or 'none'}, of a run of {', '.join(attacks) or 'none'}"
    if row.ra_attacks != tuple(name for name in names if name not in record.further):
        yield "ra_attacks", "RA is over the attacks of the row that are no further ones"
    if not set(row.ra_core_attacks) <= set(attacks):
        yield "ra_core_attacks", "one is none of the run's attacks"
    if bool(row.ra_core_attacks) != (row.ra_core is not None):
        yield "ra_core", "stands with its attacks, and only with them"
    for part in row.attacks:
        steps = [point.step for point in part.steps]
        if len(steps) <= 1 or steps[0] != 0 or steps != sorted(set(steps)):
            yield f"attacks.{part.attack}.steps", "must ascend from 0 and go beyond it"
        if any(len(point.utility) != n for point in part.steps):
            yield f"attacks.{part.attack}.steps", f"need {n} utility figures each"
