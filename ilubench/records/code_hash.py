"""The code that determines a result, hashed module by module."""

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from ilubench import errors
from ilubench.errors import PluginError

__all__ = ["COUNTED", "code_closure", "source_file"]

COUNTED = (
    "ilubench.attacks",
    "ilubench.data",
    "ilubench.experiments.scored_items",
    "ilubench.interfaces",
    "ilubench.methods",
    "ilubench.models",
    "ilubench.records.estimators",
    "ilubench.runs.stages",
    "ilubench.scoring",
    "ilubench.specs.memory",
    "ilubench.specs.training",
    "ilubench.training",
)
"""What of ilubench can change a number. Settings count by their values, not by their classes."""

_NOT_COUNTED = (
    "ilubench.data.hub",  # rows and weights count by their hashes
    "ilubench.interfaces.discovery",
    "ilubench.runs.stages.devices",  # the device is in the keys
    "ilubench.runs.stages.keys",
    "ilubench.runs.stages.target_key",
)


_ERRORS = {name for name in vars(errors) if name.endswith("Error")} | {
    "AssertionError",
    "NotImplementedError",
    "RuntimeError",
    "TypeError",
    "ValueError",
}
"""What an error of these says is for people. Any other may carry a value to where it is caught."""

_WORDING = {"did_you_mean", "join", "len", "list", "repr", "round", "sorted", "str", "type"}
"""Calls that make words and change nothing else."""


def code_closure(roots: Iterable[str | Path]) -> dict[str, str]:
    """Return module -> hash of its code, for the roots and all they import that counts.

    Args:
        roots: module names, or files of plugins given by path. Imports are followed within what
            counts of `ilubench`, within each root's own top-level package, and to any module that
            is not installed (a helper beside a plugin's file). Installed libraries are not read.

    Raises:
        PluginError: a root has no source, so that its code could not be a part of a key.
    """
    queue: list[str | Path] = list(roots)
    own = {name.split(".")[0] for name in queue if isinstance(name, str)} - {"ilubench"}
    start = set(queue)
    found: dict[str, str] = {}
    while queue:
        root = queue.pop()
        label = root.name if isinstance(root, Path) else root
        path = root if isinstance(root, Path) else source_file(root)
        if path is None and root in start:
            raise PluginError(f"{label} has no Python source, so no result of it could be keyed")
        if label in found or path is None:
            continue
        inside = path.name == "__init__.py"
        package = label if inside else label.rpartition(".")[0]
        stat = path.stat()
        code, names = _read(path, package, (stat.st_mtime_ns, stat.st_size))
        counts = label.split(".")[0] != "ilubench" or root in start or _counts(label)
        # a package that does not count may hand on names of modules that do
        if counts or inside:
            found[label] = code if counts else ""
            tops = {name.split(".")[0] for name in names}
            followed = {top for top in tops if top in own or top == "ilubench"}
            followed |= {top for top in tops - followed if _is_loose(top, tuple(sys.path))}
            queue.extend(name for name in names if name.split(".")[0] in followed)
            if label.split(".")[0] in own and "." in label:
                queue.append(label.rpartition(".")[0])  # importing it runs its package first
    return {label: code for label, code in sorted(found.items()) if code}


def source_file(module: str) -> Path | None:
    """Return a module's source file; nothing is imported, its parent packages neither."""
    # most names are of this package, which gets no new files while it runs
    return _find_own(module) if module.startswith("ilubench.") else _find_source(module)


def _find_source(module: str) -> Path | None:
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        origin = spec.origin or ""
        return Path(origin) if origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():  # several, or one without `__init__.py`
        below = Path(folder).joinpath(*rest)
        for place in (below / "__init__.py", below.with_name(f"{below.name}.py")):
            if place.is_file():
                return place
    return None


_find_own = cache(_find_source)


@cache
def _installed_below() -> tuple[Path, ...]:
    return tuple({Path(path).resolve() for path in sysconfig.get_paths().values()})


@cache
def _is_loose(top: str, search: tuple[str, ...]) -> bool:
    """Whether a top-level module lies neither with Python nor with the installed packages.

    ``search`` is `sys.path`: another one is asked anew.
    """
    del search
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None:
        return False
    origin = spec.origin or ""
    found = [origin] if origin.endswith(".py") else list(spec.submodule_search_locations or ())
    return bool(found) and not any(
        {"site-packages", "dist-packages"} & set(path.parts)
        or any(path.is_relative_to(place) for place in _installed_below())
        for path in (Path(one).resolve() for one in found)
    )


@cache
def _counts(module: str) -> bool:
    def below(roots: Iterable[str]) -> bool:
        return any(module == root or module.startswith(f"{root}.") for root in roots)

    return below(COUNTED) and not below(_NOT_COUNTED)


@cache
def _read(path: Path, package: str, stamp: tuple[int, int]) -> tuple[str, tuple[str, ...]]:
    """Return (hash of the code, imported names); ``stamp`` makes an edited file a new entry."""
    del stamp
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    _NumbersOnly(docstrings="__doc__" in source).visit(tree)  # in place
    code = ast.dump(tree, include_attributes=False)
    names = tuple(sorted(set(_imports(tree, package))))
    return hashlib.sha256(code.encode()).hexdigest()[:16], names


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


class _NumbersOnly(ast.NodeTransformer):
    """Drops what changes no number: docstrings, what errors say, imports for types."""

    def __init__(self, *, docstrings: bool) -> None:
        """Keep docstrings where the code may read them."""
        self._docstrings = docstrings

    def visit(self, node: ast.AST) -> ast.AST | list[ast.stmt] | None:
        """Drop a docstring, then what else the node's kind allows."""
        if not self._docstrings and isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_messages(node)
        if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
            return [self.generic_visit(one) for one in node.orelse]  # type: ignore[misc]
        if isinstance(node, ast.Call) and _name(node.func) == "Field":
            node.keywords = [word for word in node.keywords if word.arg != "description"]
        return self.generic_visit(node)


def _name(node: ast.AST) -> str:
    return getattr(node, "id", "") or getattr(node, "attr", "")


def _reads(nodes: Iterable[ast.AST]) -> set[str]:
    return {
        one.id
        for node in nodes
        for one in ast.walk(node)
        if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load)
    }


def _drop_messages(function: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
    """Drop what errors are told, and words that nothing else reads."""
    worded: set[str] = set()
    shared: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Global | ast.Nonlocal):
            shared |= set(node.names)
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _ERRORS:
            worded |= _reads([*node.args, *node.keywords])
            node.args, node.keywords = [], []
    while worded:
        drop = _DropWords(worded - shared - _reads([function]))
        drop.visit(function)
        if not drop.dropped:
            return
        worded |= _reads(drop.dropped)


class _DropWords(ast.NodeTransformer):
    """Drops assignments of words to these names; a value that calls anything else stays."""

    def __init__(self, names: set[str]) -> None:
        self._names = names
        self.dropped: list[ast.AST] = []

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        calls = {_name(one.func) for one in ast.walk(node.value) if isinstance(one, ast.Call)}
        named = all(isinstance(one, ast.Name) and one.id in self._names for one in node.targets)
        if not named or calls - _WORDING:
            return node
        self.dropped.append(node.value)
        return None
