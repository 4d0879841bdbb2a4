"""Roles and their rows: from a hub, a file or a generator; selected, fingerprinted, rendered."""

import random
import re
import string
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from ilubench.data.files import read_file
from ilubench.data.hub import Listing, Repository, fetch, listing, part_files
from ilubench.data.values import describe_value, list_in, number_in, text_in
from ilubench.errors import DamagedError, DataError, SpecError, did_you_mean
from ilubench.interfaces import Chat, Generator, Row
from ilubench.records.keys import digest
from ilubench.specs import DataSource, GeneratorSpec

__all__ = [
    "Tables",
    "hub_repository",
    "local_file",
    "read_hub",
    "render_pair",
    "render_template",
]


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
    first = _first(source)
    for name in names:
        try:
            rows += read_file(folder / name, role, None if first is None else first - len(rows))
        except DataError as error:
            problem = f"{name} cannot be read ({error.__cause__ or error})"
            remedy = f"where it is damaged, remove {folder / name} and fetch it again"
            raise repository.error(DamagedError, problem, remedy) from error
        if first is not None and len(rows) >= first:
            break
    return rows


def _first(source: DataSource) -> int | None:
    """How many of a source's first rows are all that is looked at; None: all rows are."""
    if source.limit is None or source.where or source.blank == "leave_out":
        return None
    return None if source.shuffle is not None else source.offset + source.limit


def _select(rows: Sequence[Row], source: DataSource, role: str) -> list[Row]:
    if not rows:
        name = source.path or source.hub or source.generated
        raise DataError(f"data.{role}: {name} has no rows; an empty set measures nothing")
    for column in source.where:
        if not any(column in row for row in rows):
            remedy = did_you_mean(column, rows[0])
            raise DataError(f"data.{role}: where: there is no column {column!r}; {remedy}")
    kept = [
        row for row in rows if all(_is(row.get(key), value) for key, value in source.where.items())
    ]
    if source.blank == "leave_out":
        texts = (render_template(source.completion, row, source, role) for row in kept)
        kept = [row for row, text in zip(kept, texts, strict=True) if text.strip()]
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


def _is(found: JsonValue, wanted: str | int) -> bool:
    """Whether a column has the value that is wanted, in whatever way its file writes it."""
    if isinstance(found, bool):
        return str(wanted).lower() in (str(found).lower(), str(int(found)))
    return text_in(found) == str(wanted)


def _named(rows: Sequence[Row]) -> list[Row]:
    """Give each row its `id` as text; where it has none, its number in the source."""
    named: list[Row] = []
    for number, row in enumerate(rows, start=1):
        name = text_in(row.get("id"))
        named.append({**row, "id": str(name or number)})
    return named


def render_template(template: str, row: Row, source: DataSource, role: str) -> str:
    """Fill a ``str.format`` template from a row's columns (label columns by name).

    Raises:
        DataError: the row has no such column, or neither text nor a number in it.
    """
    try:
        return _Filling(row, source, role).vformat(template, (), row)
    except (ValueError, IndexError, AttributeError, TypeError) as error:
        problem, remedy = (
            f"{template!r} cannot be filled",
            "write {column}, and {{ or }} for a brace",
        )
        raise SpecError(problem, field=f"data.{role}", remedy=remedy) from error


def render_pair(row: Row, source: DataSource, role: str) -> tuple[str, str]:
    """Return a row's prompt and completion.

    Raises:
        DataError: as `render_template` does, or the completion is blank: nothing could be learned.
    """
    prompt = render_template(source.prompt, row, source, role)
    completion = render_template(source.completion, row, source, role)
    if not completion.strip():
        raise DataError(
            f"data.{role}: item {row['id']!r} has no token to learn: its completion is blank; "
            f"give text, or leave such rows out (data.{role}.blank=leave_out)"
        )
    return prompt, completion


_RENDERING = {
    *("prompt", "completion", "labels", "max_length", "overlong"),
    *("chat", "system", "today"),
}
"""A source's fields that say how its rows become text."""


class _Filling(string.Formatter):
    """``str.format`` of one row, in which only text and numbers are printed."""

    def __init__(self, row: Row, source: DataSource, role: str) -> None:
        self._source, self._role = source, role
        file = f"{source.path}: " if source.path not in (None, role) else ""
        item = f"item {row['id']!r}: " if "id" in row else ""
        self._where = f"data.{role}: {file}{item}"

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        name = re.split(r"[.\[]", field_name)[0]
        if name in self._source.labels and name in kwargs:
            kwargs = {name: self._label(name, kwargs[name])}
        elif field_name.startswith(f"{name}[") and isinstance(kwargs.get(name), str):
            kwargs = {name: list_in(kwargs[name])}
            if kwargs[name] is None:
                raise DataError(f"{self._where}column {name!r} is text, and a list is wanted")
        if name and not name.isdecimal() and name not in kwargs:
            remedy = did_you_mean(name, kwargs)
            item = f" in item {row_id!r}" if (row_id := kwargs.get("id")) else ""
            raise DataError(f"data.{self._role}: there is no column {name!r}{item}; {remedy}")
        try:
            value, used = super().get_field(field_name, args, kwargs)
        except (LookupError, TypeError) as error:
            if name.isdecimal() or not name:
                raise
            has = describe_value(kwargs[name])
            raise DataError(
                f"{self._where}column {name!r} ({has}) has no {field_name!r}"
            ) from error
        if text_in(value) is None:
            problem = f"column {field_name!r} is {describe_value(value)}, not text"
            raise DataError(f"{self._where}{problem}; give text, or leave the row out")
        return value, used

    def _label(self, column: str, value: JsonValue) -> str:
        index, names = number_in(value), self._source.labels[column]
        if index is None or not 0 <= index < len(names):
            shown = describe_value(value) if self._source.gated else repr(value)
            problem = f"{column}={shown} is not a label of 0..{len(names) - 1}"
            raise DataError(f"{self._where}{problem}")
        return names[index]


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

    def chat(self, role: str) -> Chat | None:
        """Return how a role is asked as a chat; None where it is not.

        Raises:
            SpecError: no such role.
        """
        return Chat.of(self.source(role), role)

    def rows(self, role: str) -> list[Row]:
        """Return a role's rows, each with an `id`.

        Raises:
            DataError: missing, unreadable or empty.
        """
        if role not in self._rows:
            source = self.source(role)
            self._rows[role] = _select(self._read(source, role), source, role)
        return self._rows[role]

    def fingerprint(self, role: str) -> dict[str, JsonValue]:
        """Return what identifies a role: a hash of its rows, and how they are rendered.

        All columns count, read or not: nobody can say what the code of a task or plugin reads.

        Raises:
            DataError: as `rows` does, or a row is no plain JSON.
        """
        source = self.source(role)
        rendering = source.model_dump(mode="json", include=_RENDERING)
        try:
            rows = digest([dict(row) for row in self.rows(role)])
        except (RecursionError, TypeError, ValueError) as error:
            problem = "a row is nested too deeply, or holds what JSON cannot"
            raise DataError(f"data.{role}: {problem}; leave that out") from error
        return {"rows": rows, **rendering}

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

    def _read(self, source: DataSource, role: str) -> list[Row]:
        if source.path:
            return _named(read_file(local_file(source, role), role, _first(source)))
        if source.hub:
            return _named(self._read_hub(source, role))
        assert source.generated is not None
        name, table = source.generated.split(".")
        tables = self._generate(name)
        if table not in tables:
            problem = f"data.{role}: generator {name!r} makes no table {table!r}"
            raise DataError(f"{problem}; {did_you_mean(table, tables)}")
        return _named(tables[table])

    def _read_hub(self, source: DataSource, role: str) -> list[Row]:
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
