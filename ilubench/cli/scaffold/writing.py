"""`ilubench new`: a method's package, or an attack's files; they work as they are."""

import keyword
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ilubench.errors import UsageError
from ilubench.interfaces.discovery import list_entries
from ilubench.specs.yaml_files import task_names

__all__ = ["Names", "names_of", "new_attack", "new_method"]

_NAME = r"[a-z][a-z0-9]*([-_][a-z0-9]+)*"
_LONGEST = 36

_METHOD = {
    "method/pyproject.toml.txt": "pyproject.toml",
    "method/method.py.txt": "@module@.py",
    "method/test_method.py.txt": "test_@module@.py",
    "method/README.md.txt": "README.md",
    "method/gitignore.txt": ".gitignore",
    "method/ci.yml.txt": ".github/workflows/ci.yml",
}
"""Template -> file; templates end in .txt, so that no tool takes them for the project's own."""

_ATTACK = {
    "attack/@kind@.py.txt": "@plugin@.py",
    "attack/@kind@.yaml.txt": "@plugin@.yaml",
    "attack/test_@kind@.py.txt": "test_@plugin@.py",
}


@dataclass(frozen=True)
class Names:
    """What a new plugin is called in each place.

    Attributes:
        plugin: on the command line: `my_method`.
        package: as a distribution, and its folder: `ilubench-my-method`.
        module: as a file: `ilubench_my_method`.
        kind: as a class: `MyMethod`.
    """

    plugin: str
    package: str
    module: str
    kind: str


def names_of(name: str, kind: str = "method") -> Names:
    """Return a new plugin's names.

    Args:
        name: words of lower-case letters and digits, joined by `-` or `_`.
        kind: `method` or `attack`.

    Raises:
        UsageError: it cannot be a package's, a module's and a class's name, or is taken.
    """
    if not re.fullmatch(_NAME, name) or len(name) > _LONGEST:
        proposal = _proposal(name, kind)
        raise UsageError(
            f"{name!r} cannot be {_A[kind]}'s name: lower-case letters and digits, the first a "
            f"letter, words joined by - or _, {_LONGEST} at most; for example {proposal!r}"
        )
    plugin = name.replace("-", "_")
    words = plugin.split("_")
    made = "".join(word.capitalize() for word in words)
    if keyword.iskeyword(made):
        raise UsageError(f"{name!r} would make the class {made}, a word of Python; add a word")
    if plugin in _taken(kind):
        raise UsageError(
            f"there is {_A[kind]} {plugin!r} already (ilubench ls {kind}s); add a word"
        )
    return Names(plugin, f"ilubench-{'-'.join(words)}", f"ilubench_{plugin}", made)


_A = {"method": "a method", "attack": "an attack"}


def _taken(kind: str) -> Collection[str]:
    installed = list_entries(f"{kind}s")
    return {*installed, *task_names("attacks")} if kind == "attack" else installed


def _proposal(name: str, kind: str) -> str:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    joined = "_".join(re.findall(r"[a-z0-9]+", apart)).lstrip("0123456789_")
    return joined[:_LONGEST].rstrip("_") or f"my_{kind}"


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
    return _write_all(names_of(name), folder, _METHOD)


def new_attack(name: str, folder: Path | None = None, *, prompt: bool = False) -> tuple[Path, ...]:
    """Write the files of a new attack: its class, its YAML and its test; all, or nothing.

    Args:
        name: the attack's; see `names_of`.
        folder: where; by default a folder of that name, here.
        prompt: whether it asks differently; else it changes weights.

    Returns:
        The files that were written.

    Raises:
        UsageError: the name cannot be used, the folder exists, or cannot be written.
    """
    kind = "prompts" if prompt else "weights"
    files = {template.replace("@kind@", kind): file for template, file in _ATTACK.items()}
    return _write_all(names_of(name, "attack"), folder, files)


def _write_all(names: Names, folder: Path | None, files: Mapping[str, str]) -> tuple[Path, ...]:
    folder = Path(names.package) if folder is None else folder
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists; give another with --folder, nothing was written")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        aside.mkdir(parents=True)
        written = [_write(aside, template, file, names) for template, file in files.items()]
        aside.rename(folder)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    return tuple(folder / path.relative_to(aside) for path in written)


def _write(folder: Path, template: str, file: str, names: Names) -> Path:
    source = resources.files("ilubench.cli.scaffold") / "templates" / template
    path = folder / _filled(file, names)
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
