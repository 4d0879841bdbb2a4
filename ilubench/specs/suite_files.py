"""A suite's YAML, `extends` resolved."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from ilubench.errors import SpecError
from ilubench.specs.yaml_files import load_yaml, merge_mappings, task_file

__all__ = ["load_suite"]


def load_suite(name: str) -> tuple[dict[str, JsonValue], Path]:
    """Return a suite's raw fields, `extends` resolved, and the file that they came from.

    Raises:
        SpecError: no such suite or attack, or not YAML.
    """
    path = task_file("suites", name)
    values = _extended("suites", load_yaml(path))
    attacks = values.get("attacks")
    if isinstance(attacks, Mapping):
        values["attacks"] = {
            key: _extended("attacks", attack) if isinstance(attack, Mapping) else attack
            for key, attack in attacks.items()
        }
    return values, path


def _extended(
    kind: str, values: Mapping[str, JsonValue], below_of: tuple[Path, ...] = ()
) -> dict[str, JsonValue]:
    below = values.get("extends")
    own = {key: value for key, value in values.items() if key != "extends"}
    if below is None:
        return own
    path = task_file(kind, str(below)).resolve()
    if path in below_of:
        raise SpecError("extends itself", where=str(path), field="extends", remedy="name another")
    return merge_mappings(_extended(kind, load_yaml(path), (*below_of, path)), own)
