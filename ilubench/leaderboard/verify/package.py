"""The package of a method that does not come with ilubench: the pinned one, whole and unchanged."""

import base64
import hashlib
import importlib.metadata
import json
from pathlib import Path

from ilubench.errors import PluginError
from ilubench.interfaces.discovery import list_claims
from ilubench.leaderboard.records.models import Package
from ilubench.records.code_hash import source_file

__all__ = ["check_provided"]

OWN = "ilubench"
UNHASHED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files of a `.dist-info` that pip writes itself."""


def check_provided(use: str, package: Package | None) -> Path | None:
    """Refuse a method that is not installed as the record pins it.

    The files are compared with the hashes in the package's RECORD; the archive's hash with the one
    that pip noted, where it was installed from an archive (`direct_url.json`).

    Args:
        use: the method's name.
        package: of the record; None for a method of ilubench itself.

    Returns:
        The folder that the package was installed into; None for ilubench's own.

    Raises:
        PluginError: the method is given by a file, not installed, another package's, of another
            version, or one of the package's files is changed, missing or was added.
    """
    if ".py:" in use:
        problem = f"method {use!r} is a file; only an installed package can be pinned and reviewed"
        raise PluginError(f"{problem}; see `ilubench new method`")
    named = OWN if package is None else package.name
    who = list_claims("methods").get(use, ())
    provided = [claim for claim in who if _plain(claim.package.split(" ")[0]) == _plain(named)]
    if len(who) != 1 or not provided:
        where = " and ".join(claim.package for claim in who) or "no installed package"
        problem = f"method {use!r} is to come from {named}, and comes from {where}"
        raise PluginError(f"{problem}; install {_wanted(package)}")
    if package is None:
        return None
    found = importlib.metadata.distribution(package.name)
    if found.version != package.version:
        problem = f"{package.name} {found.version} is installed"
        raise PluginError(
            f"{problem}; the record pins {package.version}: install {_wanted(package)}"
        )
    _check_files(found, provided[0].target.partition(":")[0])
    _check_archive(found, package)
    return Path(str(found.locate_file("")))


# --- inside ---


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


def _wanted(package: Package | None) -> str:
    if package is None:
        return "no package that claims the name of a method of ilubench"
    return f"{package.name}=={package.version} after reviewing it"


def _check_files(found: importlib.metadata.Distribution, module: str) -> None:
    """Compare the installed files with RECORD; the method's module must be one of them."""
    name = found.metadata["Name"]
    listed = found.files
    if not listed:
        raise PluginError(f"{name} has no RECORD of its files; install it with pip")
    files: set[Path] = set()
    for entry in listed:
        path = Path(str(found.locate_file(entry)))
        if entry.hash is None:
            if entry.suffix == ".pyc" or entry.name in UNHASHED:
                continue
            raise PluginError(f"{name}: {entry} has no hash in RECORD; install it anew")
        if not path.is_file() or _hash(path, entry.hash.mode) != entry.hash.value:
            raise PluginError(f"{name}: {entry} is not as it was installed; install it anew")
        files.add(path.resolve())
    source = source_file(module)
    if source is None or source.resolve() not in files:
        problem = f"its module {module} is not among the installed files"
        raise PluginError(f"{name}: {problem}; an editable installation cannot be verified")
    for path in Path(str(found.locate_file(module.split(".", maxsplit=1)[0]))).rglob("*.py"):
        if path.resolve() not in files:
            raise PluginError(f"{name}: {path} was added to the package; install it anew")


def _hash(path: Path, mode: str) -> str:
    if mode not in ("sha256", "sha384", "sha512"):
        return f"no {mode}"
    digest = hashlib.new(mode, path.read_bytes()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _check_archive(found: importlib.metadata.Distribution, package: Package) -> None:
    text = found.read_text("direct_url.json")
    if text is None:
        return  # from an index: version and RECORD are what there is
    archive = json.loads(text).get("archive_info", {})
    hashes = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").removeprefix(
        "sha256="
    )
    if hashes != package.sha256:
        raise PluginError(
            f"{package.name} was installed from an archive with SHA-256 {hashes or 'unknown'}; the "
            f"record pins {package.sha256}: install {_wanted(package)}"
        )
