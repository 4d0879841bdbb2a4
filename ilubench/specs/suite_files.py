"""A suite's YAML, `extends` resolved; the paths in it are relative to the file that has them."""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from ilubench.errors import SpecError
from ilubench.specs.merging import merge_mappings
from ilubench.specs.protocols import with_own_protocol, with_own_protocols
from ilubench.specs.yaml_files import load_yaml, task_file, task_names

__all__ = ["attack_name", "load_suite", "suite_files"]

_FREE = ("config", "where", "labels", "environments")
"""Mappings whose keys are not ilubench's: of transformers, columns, names."""

_NAME = r"[a-z0-9][a-z0-9_-]{0,63}"

_CODE = re.compile(r"\S+\.py:[^\W\d]\w*")
"""A plugin by its file."""


def load_suite(name: str, attacks: Sequence[str] = ()) -> tuple[dict[str, JsonValue], Path]:
    """Return a suite's raw fields, `extends` resolved, and the file that they came from.

    Args:
        name: of the suite, or its file.
        attacks: names, or files (`attack_name`); a shipped one that the suite has not, and one in a
            file, is added to its own, as a further one, and so are its links.

    Raises:
        SpecError: no such suite or attack, or not YAML.
    """
    path = task_file("suites", name)
    values = _extended("suites", _read(path))
    own = values.get("attacks") or {}
    if isinstance(own, Mapping) and (own or attacks):
        values["attacks"] = found = {
            key: _extended("attacks", attack) if isinstance(attack, Mapping) else attack
            for key, attack in own.items()
        }
        shipped, wanted = task_names("attacks"), [*attacks]
        for word in wanted:
            key = attack_name(word)
            if key != word:
                _refuse_taken(word, key, (*found, *shipped))
                head = "use" if ".py:" in word else "extends"
                found[key] = _extended("attacks", {head: word, "further": True})
            elif key in shipped and key not in found:
                found[key] = _extended("attacks", {"extends": key, "further": True})
            links = _links(found.get(key))
            wanted += [link for link in links if link not in wanted]
    return values, path


def attack_name(word: str) -> str:
    """Return what an attack is called that is given as FILE.yaml or FILE.py:Class; a name as it is.

    FILE.yaml is called FILE, and FILE.py:MyClass my_class.

    Raises:
        SpecError: the file's name cannot be an attack's.
    """
    if ".py:" in word:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", word.rpartition(":")[2]).lower()
    elif word.endswith((".yaml", ".yml")):
        name = Path(word).stem
    elif word.endswith(".py"):
        problem = f"{word} names no class"
        raise SpecError(problem, field="attacks", remedy=f"write {word}:ClassName")
    else:
        return word
    if not re.fullmatch(_NAME, name):
        problem = f"{name!r}, after {word}, cannot be an attack's name"
        remedy = "use lower-case letters, digits, - and _ for the file"
        raise SpecError(problem, field="attacks", remedy=remedy)
    return name


def suite_files(name: str) -> tuple[Path, ...]:
    """Return a suite's own file and those that it extends.

    Raises:
        SpecError: no such suite, or not YAML.
    """
    path = task_file("suites", name)
    below = _read(path).get("extends")
    return (path, *suite_files(below)) if isinstance(below, str) else (path,)


# --- inside ---


def _links(attack: JsonValue) -> list[str]:
    """Return the attacks that an attack is made of."""
    settings = attack.get("settings") if isinstance(attack, dict) else None
    links = settings.get("links") if isinstance(settings, dict) else None
    return [link for link in links if isinstance(link, str)] if isinstance(links, list) else []


def _refuse_taken(word: str, key: str, known: Collection[str]) -> None:
    if key in known:
        problem = f"there is an attack {key!r} besides {word}"
        raise SpecError(problem, field="attacks", remedy="give the file, or class, another name")


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
