"""Write docs/reference.md: what plugin authors may use, from the modules' `__all__` and docstrings.

Run it after a change of a public signature or docstring: `python docs/reference.py`. Nothing is
imported; the sources are read, so that every Python version writes the same file.
"""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reference.md"

MODULES = (
    "ilubench",
    "ilubench.interfaces",
    "ilubench.training",
    "ilubench.training.losses",
    "ilubench.models.forward",
    "ilubench.models.checkpoints",
    "ilubench.data.batches",
    "ilubench.methods.terms",
    "ilubench.testing",
    "ilubench.interfaces.discovery",
    "ilubench.specs",
    "ilubench.records.results",
    "ilubench.errors",
)
"""The public modules, in the order in which an author meets them."""

HEAD = """# Reference

Written by `python docs/reference.py` from the sources; a test keeps it up to date. Begin with
[Your first method](first-method.md).
"""


@dataclass(frozen=True)
class Found:
    """A public name's definition, and the text behind it where it is a plain value."""

    node: ast.stmt
    text: str = ""


def source_of(module: str) -> Path:
    """Return a module's file."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def parsed(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(source_of(module).read_text(encoding="utf-8"))


def names_in(tree: ast.Module) -> list[str]:
    """Return a module's `__all__`, sorted as it is written.

    Raises:
        ValueError: it has none.
    """
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise ValueError("the module has no __all__")


def defined(module: str, name: str) -> Found:
    """Return the definition of a module's name, followed through its imports.

    Raises:
        ValueError: nothing in the sources defines it.
    """
    body = parsed(module).body
    for at, node in enumerate(body):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return Found(node)
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            return defined(str(node.module), name)
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if name in map(ast.unparse, targets):
                return Found(node, behind(body[at + 1 : at + 2]))
    raise ValueError(f"{module} has {name!r} in __all__ and does not define it")


def behind(following: list[ast.stmt]) -> str:
    """Return the string that stands behind a value, as its documentation."""
    for node in following:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return inspect.cleandoc(str(node.value.value))
    return ""


class _Unquoted(ast.NodeTransformer):
    """Types without the quotes that keep an import lazy; those of `Literal` stay."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Leave the values of `Literal` alone."""
        return node if ast.unparse(node.value) == "Literal" else self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        """Read a quoted type."""
        if not isinstance(node.value, str):
            return node
        return ast.parse(node.value, mode="eval").body


def typed(node: ast.expr) -> ast.expr:
    """Return an annotation without quotes."""
    changed = _Unquoted().visit(node)
    assert isinstance(changed, ast.expr)
    return changed


def signature(node: ast.FunctionDef) -> str:
    """Return a function's signature, without `self`."""
    given = node.args
    everything = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    for argument in everything:
        if argument is not None and argument.annotation is not None:
            argument.annotation = typed(argument.annotation)
    if given.args and given.args[0].arg in ("self", "cls"):
        given.args = given.args[1:]
    returns = f" -> {ast.unparse(typed(node.returns))}" if node.returns else ""
    return f"{node.name}({ast.unparse(given)}){returns}"


def fields(node: ast.ClassDef) -> Iterator[str]:
    """Yield the public fields of a class as they are written."""
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            yield ast.unparse(part)


def methods(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Yield the public methods of a class; a contract's tests are methods too."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
            yield part


def of_class(node: ast.ClassDef) -> Iterator[str]:
    """Yield the lines about a class."""
    bases = ", ".join(map(ast.unparse, [*node.bases]))
    head = f"class {node.name}({bases})" if bases else f"class {node.name}"
    init = [p for p in node.body if isinstance(p, ast.FunctionDef) and p.name == "__init__"]
    made = [signature(part).replace("__init__", node.name).partition(" -> ")[0] for part in init]
    yield from ("```python", head, *(f"    {line}" for line in [*made, *fields(node)]), "```", "")
    yield from text_of(ast.get_docstring(node))
    for part in methods(node):
        decorated = [ast.unparse(decorator) for decorator in part.decorator_list]
        shown = signature(part)
        if "property" in decorated:
            shown = f"property {shown.replace('()', '')}"
        if "abstractmethod" in decorated:
            shown = f"abstract {shown}"
        yield from (f"`{shown}`", "")
        yield from text_of(ast.get_docstring(part))


def text_of(docstring: str | None) -> Iterator[str]:
    """Yield a docstring's lines: prose as it is, sections (`Args:`) and examples verbatim."""
    groups: list[tuple[bool, list[str]]] = []
    for block in (docstring or "").split("\n\n"):
        text = block.removesuffix("::").rstrip()
        inside = block.startswith(" ") or _is_section(block)
        if inside and block.startswith(" ") and groups and groups[-1][0]:
            groups[-1][1].extend(["", *text.splitlines()])
        elif text:
            groups.append((inside, text.splitlines()))
    for verbatim, lines in groups:
        yield from ("```text", *lines, "```", "") if verbatim else (*lines, "")


def _is_section(block: str) -> bool:
    return block.split("\n", 1)[0] in ("Args:", "Attributes:", "Raises:", "Returns:", "Yields:")


def about(module: str, name: str) -> Iterator[str]:
    """Yield the lines about one public name."""
    yield from (f"### {name}", "")
    found = defined(module, name)
    if isinstance(found.node, ast.ClassDef):
        yield from of_class(found.node)
    elif isinstance(found.node, ast.FunctionDef):
        yield from ("```python", signature(found.node), "```", "")
        yield from text_of(ast.get_docstring(found.node))
    else:
        yield from ("```python", ast.unparse(found.node), "```", "")
        yield from text_of(found.text)


def render() -> str:
    """Return the whole reference, as Markdown."""
    lines = [HEAD.rstrip(), ""]
    for module in MODULES:
        tree = parsed(module)
        lines += [f"## {module}", ""]
        lines += text_of(ast.get_docstring(tree))
        for name in names_in(tree):
            lines += about(module, name)
    return "\n".join(line.rstrip() for line in lines).rstrip() + "\n"


if __name__ == "__main__":
    TARGET.write_text(render(), encoding="utf-8")
