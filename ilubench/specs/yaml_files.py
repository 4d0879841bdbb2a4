"""YAML -> spec, with errors that name the file, the line and the field."""

import types
from collections.abc import Hashable, Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, TypeVar, Union, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, JsonValue, ValidationError

from ilubench.errors import DataError, SpecError, did_you_mean
from ilubench.specs.untrusted import read_text
from ilubench.specs.values import problem_in_words
from ilubench.specs.yaml_text import MAX_YAML, YamlLoader, compose_yaml

__all__ = [
    "load_nodes",
    "load_yaml",
    "read_yaml",
    "task_file",
    "task_names",
    "tasks_folder",
    "validate_spec",
]


M = TypeVar("M", bound=BaseModel)


def tasks_folder() -> Path:
    """Return the folder of the shipped suites, attacks and evaluations."""
    package = Path(__file__).parents[1]
    inside = package / "_tasks"
    return inside if inside.is_dir() else package.parent / "tasks"


def task_names(kind: str) -> tuple[str, ...]:
    """Return the names of the shipped `suites` or `attacks`."""
    return tuple(sorted(path.stem for path in (tasks_folder() / kind).glob("*.yaml")))


def task_file(kind: str, name: str) -> Path:
    """Return the YAML file of a shipped task, or the file itself when a path is given.

    Raises:
        SpecError: there is no such file.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise SpecError("no such file", where=name, remedy="check the path")
        return path
    if name not in task_names(kind):
        problem = f"unknown {kind.rstrip('s')} {name!r}"
        raise SpecError(problem, remedy=did_you_mean(name, task_names(kind)))
    return tasks_folder() / kind / f"{name}.yaml"


def read_yaml(path: Path, kind: type[YamlLoader] = YamlLoader) -> tuple[yaml.Node | None, object]:
    """Return the nodes of a YAML file, each with its line, and what it holds.

    Raises:
        SpecError: unreadable, not YAML, or more than such a file may hold.
    """
    try:
        return compose_yaml(read_text(path, MAX_YAML), kind)
    except DataError as error:
        raise SpecError(str(error)) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise SpecError(f"not valid YAML: {error.problem}", where=where) from error
    except yaml.reader.ReaderError as error:
        problem = f"not valid YAML: the character U+{error.character:04X}"
        where = f"{path}, character {error.position + 1}"
        raise SpecError(problem, where=where, remedy="leave it out") from error
    except RecursionError as error:
        raise SpecError("its values are nested too deeply", where=str(path)) from error


def load_yaml(path: Path) -> dict[str, JsonValue]:
    """Read a YAML file whose top level is a mapping.

    Raises:
        SpecError: unreadable, not YAML, or not a mapping.
    """
    _, value = read_yaml(path)
    if not isinstance(value, dict):
        raise SpecError("the top level must be a mapping of fields", where=str(path))
    return value


def load_nodes(path: Path) -> yaml.Node:
    """Read a YAML file whose top level is a mapping, as nodes: each with its text and its line.

    Raises:
        SpecError: unreadable, not YAML, or not a mapping.
    """
    node, value = read_yaml(path)
    if not isinstance(value, dict) or node is None:
        raise SpecError("the top level must be a mapping of fields", where=str(path))
    return node


def _line(path: Path | None, location: Iterable[str | int]) -> str:
    if path is None:
        return ""
    node, _ = read_yaml(path)
    line = node.start_mark.line if node else 0
    for part in location:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    node, line = value, key.start_mark.line
                    break
            else:
                break
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line
        else:
            break
    return f"{path}:{line + 1}"


@cache
def _models_in(annotation: object) -> tuple[type[BaseModel], ...]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return (annotation,)
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, dict, list):
        return tuple(m for inner in get_args(annotation) for m in _models_in(inner))
    return ()


def _fields_at(model: type[BaseModel], location: Iterable[str | int]) -> tuple[str, ...]:
    current: tuple[type[BaseModel], ...] = (model,)
    for part in location:
        inner: list[type[BaseModel]] = []
        for candidate in current:
            field = candidate.model_fields.get(str(part))
            if field is not None:
                inner.extend(_models_in(cast("Hashable", field.annotation)))
            else:
                inner.append(candidate)
        current = tuple(inner)
    return tuple(name for candidate in current for name in candidate.model_fields)


def validate_spec(model: type[M], value: object, *, source: Path | str = "") -> M:
    """Validate ``value``; the first problem becomes one readable error.

    Args:
        model: the spec class.
        value: what YAML or overrides gave.
        source: the file that it came from (its lines are looked up), or any other label.

    Raises:
        SpecError: names the place, the field and the remedy.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        location = [
            part for part in first["loc"] if part not in ("function-after", "function-before")
        ]
        message, remedy = problem_in_words(first), ""
        if first["type"] == "extra_forbidden":
            message = "unknown field"
            remedy = did_you_mean(str(location[-1]), _fields_at(model, location[:-1]))
        elif first["type"] == "missing":
            message, remedy = "is missing", "add it"
        elif "input" in first and not isinstance(first["input"], dict | list):
            remedy = f"given: {first['input']!r}"
        where = _line(source, location) if isinstance(source, Path) else source
        field = ".".join(str(part) for part in location)
        raise SpecError(message, where=where, field=field, remedy=remedy) from error
