"""The code that determines a result, hashed module by module."""

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

__all__ = ["COUNTED", "code_closure", "source_file"]

COUNTED = (
    "ilubench.attacks",
    "ilubench.data",
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
    "ilubench.runs.stages.cost",
    "ilubench.runs.stages.keys",
    "ilubench.runs.stages.target_key",
)


def code_closure(roots: Iterable[str | Path]) -> dict[str, str]:
    """Return module -> hash of its code, for the roots and all they import that counts.

    Args:
        roots: module names, or files of plugins given by path. Imports are followed within what
            counts of `ilubench` and within each root's own top-level package; other libraries
            count by their version.
    """
    queue: list[str | Path] = list(roots)
    own = {name.split(".")[0] for name in queue if isinstance(name, str)} - {"ilubench"}
    start = set(queue)
    found: dict[str, str] = {}
    while queue:
        root = queue.pop()
        label = root.name if isinstance(root, Path) else root
        path = root if isinstance(root, Path) else source_file(root)
        if label in found or path is None:
            continue
        inside = path.name == "__init__.py"
        package = label if inside else label.rpartition(".")[0]
        stat = path.stat()
        code, names = _read(path, package, (stat.st_mtime_ns, stat.st_size))
        counts = root in start or label.split(".")[0] in own or _counts(label)
        # a package that does not count may hand on names of modules that do
        if counts or inside:
            found[label] = code if counts else ""
            queue.extend(name for name in names if name.split(".")[0] in {"ilubench", *own})
    return {label: code for label, code in sorted(found.items()) if code}


def source_file(module: str) -> Path | None:
    """Return a module's source file; nothing is imported, its parent packages neither."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    if not rest:
        return Path(spec.origin)
    below = Path(spec.origin).parent.joinpath(*rest)
    places = (below / "__init__.py", below.with_name(f"{below.name}.py"))
    return next((place for place in places if place.is_file()), None)


def _counts(module: str) -> bool:
    def below(roots: Iterable[str]) -> bool:
        return any(module == root or module.startswith(f"{root}.") for root in roots)

    return below(COUNTED) and not below(_NOT_COUNTED)


@cache
def _read(path: Path, package: str, stamp: tuple[int, int]) -> tuple[str, tuple[str, ...]]:
    """Return (hash of the code, imported names); ``stamp`` makes an edited file a new entry."""
    del stamp
    tree = _NumbersOnly().visit(ast.parse(path.read_text(encoding="utf-8")))
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

    def visit(self, node: ast.AST) -> ast.AST | None:
        """Drop a docstring, then what else the node's kind allows."""
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:]
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_messages(node)
        if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
            return None
        if isinstance(node, ast.Call):
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
    """Drop the arguments of errors, and the names that nothing but these arguments reads."""
    worded: set[str] = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and _name(node.func).endswith("Error"):
            worded |= _reads([*node.args, *node.keywords])
            node.args, node.keywords = [], []
    while True:
        idle = worded - _reads([function])
        dropped = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and {_name(one) for one in node.targets} <= idle
        ]
        if not dropped:
            return
        _DropAssigned(idle).visit(function)
        worded |= _reads(dropped)


class _DropAssigned(ast.NodeTransformer):
    def __init__(self, names: set[str]) -> None:
        self._names = names

    def visit_Assign(self, node: ast.Assign) -> ast.AST | None:
        return None if {_name(one) for one in node.targets} <= self._names else node
