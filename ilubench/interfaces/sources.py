"""Plugins read without importing them: what they are, and their settings, from their source.

A shell asks for completions at every press of a key; importing a method would import torch.
"""

import ast
import functools
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

__all__ = ["Setting", "describe_target", "list_settings"]

DEEPEST = 3
"""Levels of settings: `base.train.lr`."""


class Setting(NamedTuple):
    """A field of a plugin: its dotted name, and the text of its type."""

    name: str
    type: str


class _Class(NamedTuple):
    module: str
    node: ast.ClassDef


@functools.cache
def _parsed(module: str) -> ast.Module:
    top, *parts = module.split(".")
    spec = importlib.util.find_spec(top)  # of a module within a package it would import the package
    places = [
        Path(folder).joinpath(*parts) for folder in (spec and spec.submodule_search_locations) or ()
    ]
    files = [file for place in places for file in (place.with_suffix(".py"), place / "__init__.py")]
    if spec is not None and spec.origin and not parts:
        files.append(Path(spec.origin))
    for file in files:
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    raise LookupError(f"no module {module!r}")


def _find(module: str, name: str) -> _Class | None:
    """Return a class by its name in a module, followed through imports from its own package."""
    for node in _parsed(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _Class(module, node)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                own = node.module.split(".")[0] in ("ilubench", module.split(".", maxsplit=1)[0])
                if own and (alias.asname or alias.name) == name:
                    return _find(node.module, alias.name)
    return None


def describe_target(target: str) -> str:
    """Return the first docstring line of a `module:Class`.

    A plugin whose source cannot be found or parsed is described by the reason.
    """
    module, _, name = target.partition(":")
    try:
        found = next((n for n in _parsed(module).body if _is_class(n, name)), None)
    except LookupError as error:
        return f"broken: {error}"
    except Exception as error:  # noqa: BLE001 - a plugin's package may raise anything at import
        return f"broken: {type(error).__name__}: {error}"
    if not isinstance(found, ast.ClassDef):
        return f"broken: {module} has no class {name!r}"
    return (ast.get_docstring(found) or "").split("\n", 1)[0]


def _is_class(node: ast.stmt, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name


def list_settings(target: str) -> tuple[Setting, ...]:
    """Return the settings of a `module:Class` and of those within them; none where it is broken.

    Settings of a base plugin (`base.beta`) are not among them: which they are, its name says.
    """
    module, _, name = target.partition(":")
    try:
        found = _find(module, name)
        return () if found is None else tuple(_settings(found, DEEPEST))
    except Exception:  # noqa: BLE001 - a plugin's package may raise anything at import
        return ()


def _settings(found: _Class, depth: int) -> Iterator[Setting]:
    fields: dict[str, tuple[str, str]] = {}
    for owner in reversed(list(_lineage(found))):
        for node in owner.node.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                kind = ast.unparse(node.annotation).strip("'\"")
                if not kind.startswith("ClassVar") and not node.target.id.startswith("_"):
                    fields[node.target.id] = (kind, owner.module)
    for name, (kind, module) in fields.items():
        yield Setting(name, kind)
        within = _find(module, kind.split(" | ", maxsplit=1)[0]) if depth > 1 else None
        if within is not None:
            for below in _settings(within, depth - 1):
                yield Setting(f"{name}.{below.name}", below.type)


def _lineage(found: _Class) -> Iterator[_Class]:
    """Yield a class and those that it inherits from, as far as they are found."""
    yield found
    for base in found.node.bases:
        named = base.value if isinstance(base, ast.Subscript) else base
        parent = _find(found.module, named.id) if isinstance(named, ast.Name) else None
        if parent is not None:
            yield from _lineage(parent)
