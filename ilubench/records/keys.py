"""Keys: a hash of everything that determines a result.

A changed setting, plugin, data file, line of code (comments and docstrings aside) or library
version gives another key, so that no stale result is ever reused.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from pydantic import JsonValue

__all__ = [
    "canonical",
    "code_closure",
    "digest",
    "file_sha256",
    "library_versions",
    "seed_for",
    "source_file",
]


def canonical(value: JsonValue | Mapping[str, JsonValue]) -> bytes:
    """Return JSON with sorted keys and no spaces; NaN and infinities are refused.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(
        value, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False
    )
    return text.encode()


def digest(value: JsonValue | Mapping[str, JsonValue]) -> str:
    """Return the key of a value: 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(canonical(value)).hexdigest()[:32]


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256, 64 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def seed_for(user_seed: int, role: str, name: str = "") -> int:
    """Return the seed of a random stream, in [0, 2^31).

    Depends on (user seed, role, attack name) alone, so that two methods meet the same data order.
    """
    return int(digest(["seed", user_seed, role, name])[:8], 16) >> 1


def library_versions(names: Iterable[str]) -> dict[str, str]:
    """Return installed versions, read from metadata without importing; absent ones are named so."""
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


def source_file(module: str) -> Path | None:
    """Return a module's source file without importing the module itself."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:]
    return tree


def _imports(tree: ast.Module, package: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, base] if base else parts)
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
    return names


@cache
def _read(path: Path, package: str, stamp: tuple[int, int]) -> tuple[str, tuple[str, ...]]:
    """Return (hash of the code, imported names); ``stamp`` makes an edited file a new entry."""
    del stamp
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = tuple(sorted(_imports(tree, package)))
    code = ast.dump(_without_docstrings(tree), include_attributes=False)
    return hashlib.sha256(code.encode()).hexdigest()[:16], names


def _stamp(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_mtime_ns, stat.st_size


def code_closure(roots: Iterable[str | Path]) -> dict[str, str]:
    """Return module -> hash of its code, for the roots and all they import of the same packages.

    Args:
        roots: module names, or files of plugins given by path. Imports are followed within
            `ilubench` and within each root's own top-level package; other libraries count by
            their version.
    """
    start = list(roots)
    packages = {"ilubench"} | {name.split(".")[0] for name in start if isinstance(name, str)}
    found: dict[str, str] = {}
    queue: list[str | Path] = start
    while queue:
        root = queue.pop()
        label = root.name if isinstance(root, Path) else root
        path = root if isinstance(root, Path) else source_file(root)
        if label in found or path is None:
            continue
        package = label if path.name == "__init__.py" else label.rpartition(".")[0]
        found[label], names = _read(path, package, _stamp(path))
        queue.extend(name for name in names if name.split(".")[0] in packages)
    return dict(sorted(found.items()))
