"""A suite's YAML, `extends` resolved; the paths in it are relative to the file that has them."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from ilubench.errors import SpecError
from ilubench.specs.merging import merge_mappings
from ilubench.specs.protocols import with_own_protocol, with_own_protocols
from ilubench.specs.yaml_files import load_yaml, task_file, task_names

__all__ = ["load_suite", "suite_files"]

_FREE = ("config", "where", "labels", "environments")
"""Mappings whose keys are not ilubench's: of transformers, columns, names."""

_CODE = re.compile(r"\S+\.py:[^\W\d]\w*")
"""A plugin by its file."""


def load_suite(name: str, attacks: Sequence[str] = ()) -> tuple[dict[str, JsonValue], Path]:
    """Return a suite's raw fields, `extends` resolved, and the file that they came from.

    Args:
        name: of the suite, or its file.
        attacks: names; a shipped one that the suite has not is added to its own, as a further one.

    Raises:
        SpecError: no such suite or attack, or not YAML.
    """
    path = task_file("suites", name)
    values = _extended("suites", _read(path))
    own = values.get("attacks") or {}
    if isinstance(own, Mapping):
        shipped = set(task_names("attacks")).difference(own).intersection(attacks)
        added: dict[str, JsonValue] = {
            key: {"extends": key, "further": True} for key in attacks if key in shipped
        }
        values["attacks"] = {
            key: _extended("attacks", attack) if isinstance(attack, Mapping) else attack
            for key, attack in {**own, **added}.items()
        }
    return values, path


def suite_files(name: str) -> tuple[Path, ...]:
    """Return a suite's own file and those that it extends.

    Raises:
        SpecError: no such suite, or not YAML.
    """
    path = task_file("suites", name)
    below = _read(path).get("extends")
    return (path, *suite_files(below)) if isinstance(below, str) else (path,)


# --- inside ---


def _extended(
    kind: str, values: Mapping[str, JsonValue], below_of: tuple[Path, ...] = ()
) -> dict[str, JsonValue]:
    below = values.get("extends")
    own = {key: value for key, value in values.items() if key != "extends"}
    if below is None:
        return own
    path = task_file(kind, str(below))
    if path.resolve() in below_of:
        raise SpecError("extends itself", where=str(path), field="extends", remedy="name another")
    base = _extended(kind, _read(path), (*below_of, path.resolve()))
    checked = with_own_protocol if kind == "attacks" else with_own_protocols
    return checked(base, merge_mappings(base, own))


def _read(path: Path) -> dict[str, JsonValue]:
    return cast("dict[str, JsonValue]", _placed(load_yaml(path), path.parent))


def _placed(value: JsonValue, folder: Path, key: str = "") -> JsonValue:
    """A copy in which paths are relative to the working directory, as the words' are.

    What an anchor stands for in several places is copied for each: words change one of them.
    """
    if isinstance(value, dict):
        if key in _FREE:
            return dict(value)
        placed = {name: _placed(below, folder, name) for name, below in value.items()}
        return {_beside(folder, n) if _names_code(n) else n: below for n, below in placed.items()}
    if isinstance(value, list):
        return [_placed(below, folder) for below in value]
    if isinstance(value, str):
        listed = key in ("extends", "task") and value.endswith((".yaml", ".yml"))
        if key == "path" or listed or _names_code(value) or (key == "use" and ".py:" in value):
            return _beside(folder, value)
    return value


def _names_code(text: object) -> bool:
    return isinstance(text, str) and _CODE.fullmatch(text) is not None


def _beside(folder: Path, text: str) -> str:
    if text.startswith("~/"):
        return str(Path(text).expanduser())
    return text if folder == Path() else str(folder / text)
