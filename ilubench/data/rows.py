"""Rows of text: from a hub, a local file, or a generator; selected, fingerprinted, rendered."""

import csv
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from ilubench.data.hub import Listing, Repository, fetch, listing, part_files
from ilubench.errors import DamagedError, DataError, SpecError, did_you_mean
from ilubench.interfaces import Generator, Row
from ilubench.records.keys import digest
from ilubench.specs import DataSource, GeneratorSpec

__all__ = ["Tables", "hub_repository", "local_file", "read_file", "read_hub", "render_template"]


def read_file(path: Path, role: str) -> list[Row]:
    """Return the rows of a `.jsonl`, `.json`, `.csv` or `.parquet` file.

    Raises:
        DataError: no such file, not readable as its ending says, or no rows.
    """
    if not path.is_file():
        raise DataError(f"data.{role}: no such file {str(path)!r}; check the path")
    try:
        rows = _parse(path)
    except (ValueError, csv.Error, OSError) as error:
        raise DataError(f"data.{role}: {path} cannot be read: {error}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(f"data.{role}: {path} must hold one object (column -> value) a row")
    return rows


def _parse(path: Path) -> list[Row]:
    if path.suffix == ".jsonl":
        rows: list[Row] = []
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except ValueError as error:
                    raise ValueError(f"line {number}: {error}") from error
        return rows
    if path.suffix == ".json":
        loaded = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(loaded, list):
            raise ValueError("a .json file must hold a list of rows")
        return loaded
    if path.suffix == ".parquet":
        import pyarrow.parquet

        table: list[Row] = pyarrow.parquet.read_table(path).to_pylist()
        return table
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as handle:
            reader = csv.DictReader(handle, strict=True)
            return [_csv_row(row, reader.line_num) for row in reader]
    raise ValueError(f"unknown ending {path.suffix!r}; use .jsonl, .json, .csv or .parquet")


def _csv_row(row: Mapping[str | None, str | None], line: int) -> Row:
    """Return a row with its whole numbers as such; ``007`` stays text."""
    if None in row or None in row.values():
        raise ValueError(f"line {line}: not as many columns as the header")
    return {
        str(key): int(value) if value and re.fullmatch("0|-?[1-9][0-9]*", value) else value
        for key, value in row.items()
    }


def local_file(source: DataSource, role: str) -> Path:
    """Return a source's file; in a folder, the first of `files` that lies there.

    Raises:
        DataError: a folder without one of them.
    """
    assert source.path is not None
    path = Path(source.path)
    if not path.is_dir():
        return path
    for name in source.files:
        if (path / name).is_file():
            return path / name
    lacking = f" without {' or '.join(source.files)}" if source.files else ""
    raise DataError(f"data.{role}: {path} is a folder{lacking}; give a file")


def hub_repository(source: DataSource, role: str) -> Repository:
    """Return the hub's data set that a source names."""
    assert source.hub is not None
    revision = source.revision or "main"
    return Repository("dataset", source.hub, revision, f"data.{role}", f"data.{role}=<file>")


def read_hub(source: DataSource, role: str, found: Listing | None = None) -> list[Row]:
    """Return the rows of a hub data set.

    A revision that is a commit is used as it is; a branch or tag is what it stands for now, or
    stood for when the cache was filled where the hub cannot be asked. No code of a data set is
    run.

    Args:
        source: names the data set, its subset and split.
        role: for errors.
        found: the data set's commit and files, where they are known.

    Raises:
        AccessError: gated, offline and not cached, unreachable, no such data set, revision, subset
            or split; each is a class of its own.
        DataError: a file holds no rows.
    """
    repository = hub_repository(source, role)
    found = found or listing(repository)
    names = part_files(repository, found, source.subset, source.split, source.files)
    folder = fetch(repository, found, names)
    rows: list[Row] = []
    for name in names:
        try:
            rows += read_file(folder / name, role)
        except DataError as error:
            problem = f"{name} cannot be read, it may be damaged ({error.__cause__ or error})"
            remedy = f"remove {folder / name} and fetch it again"
            raise repository.error(DamagedError, problem, remedy) from error
    return rows


def _select(rows: Sequence[Row], source: DataSource, role: str) -> list[Row]:
    kept = [
        row for row in rows if all(row.get(key) == value for key, value in source.where.items())
    ]
    if source.shuffle is not None:
        random.Random(source.shuffle).shuffle(kept)
    stop = None if source.limit is None else source.offset + source.limit
    kept = kept[source.offset : stop]
    if not kept:
        raise DataError(
            f"data.{role}: no rows are left of {len(rows)} "
            f"(where={dict(source.where)}, offset={source.offset}); an empty set measures nothing"
        )
    return kept


def _named(rows: Sequence[Row], hashes: Sequence[str]) -> list[Row]:
    """Give rows without an `id` one: a hash of their content; equal rows are numbered."""
    seen: dict[str, int] = {}
    named: list[Row] = []
    for row, key in zip(rows, hashes, strict=True):
        count = seen[key] = seen.get(key, 0) + 1
        name = key[:16] if count == 1 else f"{key[:16]}-{count}"
        named.append(row if "id" in row else {**row, "id": name})
    return named


def _label(row: Row, column: str, source: DataSource, role: str) -> str:
    index, names = row.get(column), source.labels[column]
    if not isinstance(index, int) or not 0 <= index < len(names):
        shown = f"a {type(index).__name__}" if source.gated else repr(index)
        raise DataError(f"data.{role}: {column}={shown} is not a label of 0..{len(names) - 1}")
    return names[index]


def render_template(template: str, row: Row, source: DataSource, role: str) -> str:
    """Fill a ``str.format`` template from a row's columns (label columns by name).

    Raises:
        DataError: the row has no such column.
    """
    named = {column: _label(row, column, source, role) for column in source.labels}
    try:
        return template.format(**{**row, **named})
    except KeyError as error:
        column = str(error.args[0])
        remedy = did_you_mean(column, row)
        raise DataError(f"data.{role}: there is no column {column!r}; {remedy}") from error
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        remedy = "write {column}, and {{ or }} for a brace"
        raise SpecError(f"{template!r}: {error}", field=f"data.{role}", remedy=remedy) from error


class Tables:
    """Role -> rows, each role read once.

    Args:
        sources: role -> source; an attack's own roles are named `<attack>.<role>`.
        generators: name -> spec.
        create: makes a generator from its spec.
    """

    def __init__(
        self,
        sources: Mapping[str, DataSource],
        generators: Mapping[str, GeneratorSpec],
        create: Callable[[GeneratorSpec], Generator],
    ) -> None:
        """Nothing is read before it is asked for."""
        self._sources, self._generators, self._create = sources, generators, create
        self._rows: dict[str, list[Row]] = {}
        self._listings: dict[tuple[str, str], Listing] = {}
        self._origins: dict[str, dict[str, JsonValue]] = {}
        self._tables: dict[str, Mapping[str, Sequence[Row]]] = {}

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """All roles."""
        return tuple(self._sources)

    def is_loaded(self, role: str) -> bool:
        """Whether a role's rows were read already."""
        return role in self._rows

    def source(self, role: str) -> DataSource:
        """Return a role's source.

        Raises:
            SpecError: no such role.
        """
        if role not in self._sources:
            raise SpecError(f"unknown data role {role!r}", remedy=did_you_mean(role, self.roles))
        return self._sources[role]

    def gated(self, role: str) -> bool:
        """Whether a role's text must not be shown: its source is gated, or what it is made from.

        Raises:
            SpecError: no such role.
        """
        source = self.source(role)
        if source.generated is None:
            return source.gated
        maker = self._generators.get(source.generated.split(".")[0])
        inputs = () if maker is None else maker.inputs.values()
        return source.gated or any(one.gated for one in inputs)

    def rows(self, role: str) -> list[Row]:
        """Return a role's rows, each with an `id`.

        Raises:
            DataError: missing, unreadable or empty.
        """
        if role not in self._rows:
            source = self.source(role)
            rows = _select(self._read(source, role), source, role)
            try:
                hashes = [digest(dict(row)) for row in rows]
            except (TypeError, ValueError) as error:
                raise DataError(f"data.{role}: a row is no plain JSON: {error}") from error
            self._rows[role] = _named(rows, hashes)
        return self._rows[role]

    def fingerprint(self, role: str) -> dict[str, JsonValue]:
        """Return what identifies a role: a hash of its rows, and how they are rendered."""
        source = self.source(role)
        rendering = source.model_dump(
            mode="json", include={"prompt", "completion", "labels", "max_length", "overlong"}
        )
        return {"rows": digest([dict(row) for row in self.rows(role)]), **rendering}

    def places(self) -> dict[str, DataSource]:
        """Return place -> source of all that may be read: roles, and generators' inputs.

        A place is what `data.<place>=FILE` sets.
        """
        inputs = {
            f"{name}.{key}": source
            for name, spec in self._generators.items()
            for key, source in spec.inputs.items()
        }
        return {**inputs, **self._sources}

    def origins(self) -> dict[str, dict[str, JsonValue]]:
        """Return place -> hub, revision and commit, of the hub's data sets that were read."""
        return dict(self._origins)

    def _read(self, source: DataSource, role: str) -> Sequence[Row]:
        if source.path:
            return read_file(local_file(source, role), role)
        if source.hub:
            return self._read_hub(source, role)
        assert source.generated is not None
        name, table = source.generated.split(".")
        tables = self._generate(name)
        if table not in tables:
            problem = f"data.{role}: generator {name!r} makes no table {table!r}"
            raise DataError(f"{problem}; {did_you_mean(table, tables)}")
        return tables[table]

    def _read_hub(self, source: DataSource, role: str) -> Sequence[Row]:
        repository = hub_repository(source, role)
        name = (repository.name, repository.revision)
        if name not in self._listings:  # all roles of a data set are of one commit
            self._listings[name] = listing(repository)
        found = self._listings[name]
        rows = read_hub(source, role, found)
        told = {"hub": source.hub, "revision": source.revision, "commit": found.commit}
        self._origins[role] = dict(told)
        return rows

    def _generate(self, name: str) -> Mapping[str, Sequence[Row]]:
        if name not in self._tables:
            spec = self._generators[name]
            inputs = {}
            for key, source in spec.inputs.items():
                place = f"{name}.{key}"  # what `data.<generator>.<input>=FILE` sets
                inputs[key] = _select(self._read(source, place), source, place)
            self._tables[name] = self._create(spec).tables(inputs)
        return self._tables[name]
