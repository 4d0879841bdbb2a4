"""Plugins: name -> class, by entry point (`npo`) or by file (`./my.py:MyMethod`).

Nothing registers itself by being imported. Names are read from package metadata; the class is
imported when it is asked for, so that one broken plugin harms nobody else.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import GetCoreSchemaHandler, JsonValue
from pydantic_core import core_schema

from ilubench.errors import PluginError, did_you_mean
from ilubench.specs import PluginRef, Spec
from ilubench.specs.yaml_files import validate_spec

__all__ = [
    "GROUPS",
    "Claim",
    "PluginField",
    "SuiteAttacks",
    "create_plugin",
    "describe_dispute",
    "find_plugin",
    "list_claims",
    "list_entries",
    "name_plugin",
]

GROUPS = ("methods", "attacks", "scorers", "generators")


@dataclass(frozen=True)
class Claim:
    """An installed package's entry point.

    Attributes:
        target: `module:Class`.
        package: the distribution's name and version; of several on the path the first counts.
    """

    target: str
    package: str


def list_claims(group: str) -> dict[str, tuple[Claim, ...]]:
    """Return name -> who provides a plugin of that name, by package; nothing is imported."""
    found: dict[str, list[Claim]] = {}
    for point in _points(group):
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unnamed package"
        found.setdefault(point.name, []).append(Claim(point.value, package))
    ordered = sorted(found.items())
    return {n: tuple(sorted(who, key=lambda claim: claim.package)) for n, who in ordered}


def describe_dispute(who: Sequence[Claim]) -> str:
    """Return what is wrong with a name that several packages claim for unlike classes, else ""."""
    if len({claim.target for claim in who}) < 2:
        return ""
    named = " and ".join(f"{claim.package} ({claim.target})" for claim in who)
    return f"claimed by {named}; uninstall all but one"


def list_entries(group: str) -> dict[str, str]:
    """Return name -> `module:Class` of the installed plugins of a group, without importing."""
    return {p.name: p.value for p in sorted(_points(group), key=lambda point: point.name)}


def _points(group: str) -> importlib.metadata.EntryPoints:
    """Return the entry points of a group; one run asks dozens of times."""
    folders = tuple((folder, _changed(folder)) for folder in sys.path)
    return _scanned(f"ilubench.{group}", folders)


@functools.lru_cache(maxsize=16)
def _scanned(
    group: str,
    folders: tuple[tuple[str, int], ...],  # noqa: ARG001 - a package that comes or goes shows there
) -> importlib.metadata.EntryPoints:
    return importlib.metadata.entry_points(group=group)


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or ".").st_mtime_ns  # noqa: PTH116 - sys.path has strings
    except OSError:
        return 0


def _from_file(use: str) -> type[Spec]:
    path_text, _, name = use.rpartition(":")
    path = Path(path_text)
    if not path.is_file():
        raise PluginError(f"{use}: no such file {path_text!r}; check the path")
    resolved = path.resolve()
    digest = hashlib.sha256(str(resolved).encode()).hexdigest()[:12]
    module_name = f"ilubench_plugin_{path.stem}_{digest}"
    module = sys.modules.get(module_name)
    if module is None:
        spec = importlib.util.spec_from_file_location(module_name, resolved)
        if spec is None or spec.loader is None:
            raise PluginError(f"{use}: {path_text!r} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[module_name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            del sys.modules[module_name]
            if isinstance(error, Exception | SystemExit):
                raise PluginError(
                    f"{use}: importing {path_text} raised {_reason(error)}"
                ) from error
            raise
    found = getattr(module, name, None)
    if not isinstance(found, type):
        classes = [n for n, v in vars(module).items() if isinstance(v, type)]
        raise PluginError(
            f"{use}: {path_text} has no class {name!r}; {did_you_mean(name, classes)}"
        )
    return found


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]


def find_plugin(group: str, use: str) -> type[Any]:
    """Return a plugin's class.

    Args:
        group: one of ``GROUPS``.
        use: an entry point's name, or `path/to/file.py:Class`.

    Raises:
        PluginError: unknown, claimed by two packages, or importing it raised; the message says
            which and why.
    """
    if ".py:" in use:
        found: object = _from_file(use)
    else:
        installed = _points(group)
        points = {point.name: point for point in installed}
        kind = group.rstrip("s")
        if use.endswith(".py"):
            raise PluginError(f"{use}: which class of the file? write {use}:ClassName")
        if use not in points:
            raise PluginError(f"unknown {kind} {use!r}; {did_you_mean(use, points)}")
        if len({point.value for point in installed.select(name=use)}) > 1:
            raise PluginError(f"{kind} {use!r} is {describe_dispute(list_claims(group)[use])}")
        try:
            found = points[use].load()
        except (Exception, SystemExit) as error:
            raise PluginError(f"{kind} {use!r} is broken: {_reason(error)}") from error
    if not (isinstance(found, type) and issubclass(found, Spec)):
        raise PluginError(f"{use!r} is not an ilubench plugin class (a subclass of Spec)")
    return found


def create_plugin(group: str, ref: PluginRef, *, source: Path | str = "") -> Any:  # noqa: ANN401
    """Return the plugin that ``ref`` names, its settings validated.

    Raises:
        PluginError: unknown or broken.
        SpecError: a setting is wrong.
    """
    found = find_plugin(group, ref.use)
    if getattr(found, "__abstractmethods__", None):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise PluginError(f"{ref.use!r} cannot be used: it does not define {missing}")
    label = source or f"{group.rstrip('s')} {ref.use}"
    return validate_spec(found, dict(ref.settings), source=label)


def name_plugin(group: str, plugin: Spec) -> PluginRef:
    """Return how a plugin object is named in records: entry point name, or `file.py:Class`."""
    target = f"{type(plugin).__module__}:{type(plugin).__qualname__}"
    for name, value in list_entries(group).items():
        if value == target:
            return PluginRef(use=name, settings=plugin.model_dump(mode="json"))
    module = sys.modules.get(type(plugin).__module__)
    file = Path(getattr(module, "__file__", None) or "unknown.py").name
    use = f"{file}:{type(plugin).__qualname__}"
    return PluginRef(use=use, settings=plugin.model_dump(mode="json"))


@dataclass(frozen=True)
class PluginField:
    """Marks a field that holds another plugin: ``base: Annotated[LossMethod, PluginField(...)]``.

    Given as a name, as `{use, settings}`, or as an object; serialised as `{use, settings}`.

    Attributes:
        group: of the plugin.
        lends: fields that the holder takes from the plugin unless it is given its own; a suite's
            shared method settings go to the plugin only.
    """

    group: str
    lends: tuple[str, ...] = ()

    def __get_pydantic_core_schema__(
        self,
        source: Any,  # noqa: ANN401
        handler: GetCoreSchemaHandler,
    ) -> core_schema.CoreSchema:
        """Build the field's validator and serialiser."""
        del handler

        def build(value: object) -> object:
            if isinstance(value, str | Mapping):
                value = create_plugin(self.group, PluginRef.model_validate(value))
            expected = source if isinstance(source, type) else Spec
            if not isinstance(value, expected):
                raise ValueError(  # noqa: TRY004 - pydantic reports ValueErrors
                    f"{type(value).__name__} is not a {expected.__name__}"
                )
            return value

        def dump(value: Spec) -> dict[str, JsonValue]:
            return name_plugin(self.group, value).model_dump(mode="json")

        return core_schema.no_info_plain_validator_function(
            build, serialization=core_schema.plain_serializer_function_ser_schema(dump)
        )


@dataclass(frozen=True)
class SuiteAttacks:
    """Marks a field of attacks, name -> plugin, that a suite gives by their names there alone."""
