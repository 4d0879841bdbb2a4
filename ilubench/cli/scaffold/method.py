"""`ilubench new method`: a package with a method that works, its test, and its CI."""

import keyword
import os
import re
import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ilubench.errors import UsageError
from ilubench.interfaces.discovery import list_entries

__all__ = ["Names", "names_of", "new_method"]

_NAME = r"[a-z][a-z0-9]*([-_][a-z0-9]+)*"
_LONGEST = 36

_FILES = {
    "pyproject.toml.txt": "pyproject.toml",
    "method.py.txt": "@module@.py",
    "test_method.py.txt": "test_@module@.py",
    "README.md.txt": "README.md",
    "gitignore.txt": ".gitignore",
    "ci.yml.txt": ".github/workflows/ci.yml",
}
"""Template -> file; templates end in .txt, so that no tool takes them for the project's own."""


@dataclass(frozen=True)
class Names:
    """What a new method is called in each place.

    Attributes:
        plugin: on the command line: `my_method`.
        package: as a distribution: `ilubench-my-method`.
        module: as a file: `ilubench_my_method`.
        kind: as a class: `MyMethod`.
    """

    plugin: str
    package: str
    module: str
    kind: str


def names_of(name: str) -> Names:
    """Return a new method's names.

    Args:
        name: words of lower-case letters and digits, joined by `-` or `_`.

    Raises:
        UsageError: it cannot be a package's, a module's and a class's name, or is taken.
    """
    if not re.fullmatch(_NAME, name) or len(name) > _LONGEST:
        proposal = _proposal(name)
        raise UsageError(
            f"{name!r} cannot be a method's name: lower-case letters and digits, the first a "
            f"letter, words joined by - or _, {_LONGEST} at most; for example {proposal!r}"
        )
    plugin = name.replace("-", "_")
    words = plugin.split("_")
    kind = "".join(word.capitalize() for word in words)
    if keyword.iskeyword(kind):
        raise UsageError(f"{name!r} would make the class {kind}, a word of Python; add a word")
    if plugin in list_entries("methods"):
        raise UsageError(f"there is a method {plugin!r} already (ilubench ls methods); add a word")
    return Names(plugin, f"ilubench-{'-'.join(words)}", f"ilubench_{plugin}", kind)


def _proposal(name: str) -> str:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    joined = "_".join(re.findall(r"[a-z0-9]+", apart)).lstrip("0123456789_")
    return joined[:_LONGEST].rstrip("_") or "my_method"


def new_method(name: str, folder: Path | None = None) -> tuple[Path, ...]:
    """Write the package of a new method; all of it, or nothing.

    Args:
        name: the method's; see `names_of`.
        folder: where; by default a folder of the package's name, here.

    Returns:
        The files that were written.

    Raises:
        UsageError: the name cannot be used, the folder exists, or cannot be written.
    """
    names = names_of(name)
    folder = Path(names.package) if folder is None else folder
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists; give another with --folder, nothing was written")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        written = [_write(aside, template, names) for template in _FILES]
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return tuple(folder / path.relative_to(aside) for path in written)


def _write(folder: Path, template: str, names: Names) -> Path:
    source = resources.files("ilubench.cli.scaffold") / "templates" / "method" / template
    path = folder / _filled(_FILES[template], names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_filled(source.read_text(encoding="utf-8"), names), encoding="utf-8")
    return path


def _filled(text: str, names: Names) -> str:
    for mark, value in (
        ("@plugin@", names.plugin),
        ("@package@", names.package),
        ("@module@", names.module),
        ("@class@", names.kind),
    ):
        text = text.replace(mark, value)
    return text
