"""Every error that ilubench raises on purpose, as one tree.

    IlubenchError                 5  (a defect of ours, unless a subclass says otherwise)
    ├── UsageError                2  what was typed, or a spec file, is wrong
    │   ├── SpecError             2  a spec file or override: names file, field and remedy
    │   ├── PluginError           2  a plugin that was asked for is missing or broken
    │   └── CannotApplyError      2  a scorer cannot ask its items as a prompt attack rewrites them
    ├── DataError                 3  data are missing, empty, or not what the spec says
    │   ├── AccessError           3  a hub refused, or cannot be reached
    │   │   ├── GatedError              its terms were not accepted, or no token says by whom
    │   │   ├── TokenError              the hub does not accept the token, or not for this
    │   │   ├── UnknownRepositoryError  no such data set or model, or a private one
    │   │   ├── UnknownRevisionError    no such branch, tag or commit
    │   │   ├── UnknownPartError        no such subset, split or file in it
    │   │   ├── NotCachedError          offline, and not (wholly) in the cache
    │   │   ├── RateLimitError          too many requests
    │   │   ├── UnreachableError        no connection, no answer in time, or a fault of the hub's
    │   │   └── DamagedError            a download or a cached file is cut short or spoiled
    │   ├── ItemError             3  one evaluation item cannot be scored: names it
    │   ├── OptionError           3  an option to choose from is no token of the model
    │   ├── PathError             3  a file or folder cannot be read or written: names it, and why
    │   └── ModelError            3  a checkpoint cannot be loaded, or does not fit the suite
    ├── JobError                  4  a job failed; the others go on
    │   └── DivergedError         4  a loss or gradient is not finite
    └── StoreError                5  an artifact is damaged or cannot be written

The number is the process's exit code. Interrupted runs leave with 130.
"""

import difflib
import errno
from collections.abc import Iterable

__all__ = [
    "AccessError",
    "CannotApplyError",
    "DamagedError",
    "DataError",
    "DivergedError",
    "GatedError",
    "IlubenchError",
    "ItemError",
    "JobError",
    "ModelError",
    "NotCachedError",
    "OptionError",
    "PathError",
    "PluginError",
    "RateLimitError",
    "SpecError",
    "StoreError",
    "TokenError",
    "UnknownPartError",
    "UnknownRepositoryError",
    "UnknownRevisionError",
    "UnreachableError",
    "UsageError",
    "closest_word",
    "did_you_mean",
    "lacks_memory",
]

_PATH_PROBLEMS = {
    errno.EACCES: "you may not read or write it; give another place, or mend its permissions",
    errno.EPERM: "you may not read or write it; give another place, or mend its permissions",
    errno.EROFS: "its disk is read-only; give another place",
    errno.ENOSPC: "no space is left on its disk; free some, or give another place",
    errno.EDQUOT: "your quota of its disk is used up; free some, or give another place",
    errno.ENAMETOOLONG: "the name is too long; give a shorter one",
    errno.EEXIST: "a file is there, and a folder is needed; give another place",
    errno.ENOTDIR: "a file is there, and a folder is needed; give another place",
    errno.EISDIR: "it is a folder, and a file is needed",
    errno.ENOENT: "there is no such file or folder",
    errno.ELOOP: "its links lead back to it",
    errno.EMFILE: "too many files are open; raise the limit (ulimit -n)",
    errno.EIO: "its disk reports a fault",
}


class IlubenchError(Exception):
    """Base of all errors that ilubench raises on purpose."""

    exit_code = 5


class UsageError(IlubenchError):
    """What the user typed cannot be understood."""

    exit_code = 2


class SpecError(UsageError):
    """A spec is wrong: names the place (file or override), the field and the remedy."""

    def __init__(self, problem: str, *, where: str = "", field: str = "", remedy: str = "") -> None:
        """Compose ``where: field: problem; remedy``, leaving out what is empty."""
        self.problem, self.where, self.field, self.remedy = problem, where, field, remedy
        head = ": ".join(part for part in (where, field, problem) if part)
        super().__init__(f"{head}; {remedy}" if remedy else head)

    def at(self, where: str) -> "SpecError":
        """Return the same error, placed in a file."""
        return SpecError(self.problem, where=where, field=self.field, remedy=self.remedy)


class PluginError(UsageError):
    """A plugin that was asked for is missing or broken."""


class CannotApplyError(UsageError):
    """A scorer cannot ask its items as a prompt attack rewrites them."""


class DataError(IlubenchError):
    """Data are missing, empty, or not what the spec says."""

    exit_code = 3


class AccessError(DataError):
    """A hub refused the data or model, or cannot be reached.

    Attributes:
        reason: repository and problem, without who asked and the remedy; empty where nobody said.
    """

    reason = ""


class GatedError(AccessError):
    """A data set or model is gated: its terms were not accepted, or no token says by whom."""


class TokenError(AccessError):
    """The hub does not accept the token that is set, or not for this data set or model."""


class UnknownRepositoryError(AccessError):
    """The hub has no such data set or model, or a private one."""


class UnknownRevisionError(AccessError):
    """A data set or model has no such branch, tag or commit."""


class UnknownPartError(AccessError):
    """A data set or model has no such subset, split or file."""


class NotCachedError(AccessError):
    """The hub is not asked, and the cache does not hold all of what is needed."""


class RateLimitError(AccessError):
    """The hub was asked too often."""


class UnreachableError(AccessError):
    """The hub cannot be reached, does not answer in time, or has a fault of its own."""


class DamagedError(AccessError):
    """A download or a cached file is cut short or spoiled."""


class ItemError(DataError):
    """An evaluation item that a model cannot take; an engine knows its position, a scorer its name.

    Attributes:
        position: of the item in the list that the engine was given.
        problem: what is wrong with it.
    """

    def __init__(self, position: int, problem: str, *, name: str = "") -> None:
        """Compose ``<name>: <problem>``."""
        self.position, self.problem = position, problem
        super().__init__(f"{name or f'item {position}'}: {problem}")


class OptionError(DataError):
    """A token that a model was to choose and does not know.

    Attributes:
        option: its id.
        problem: what is wrong with it.
    """

    def __init__(self, option: int, problem: str) -> None:
        """Compose ``an answer: <problem>``."""
        self.option, self.problem = option, problem
        super().__init__(f"an answer: {problem}")


class PathError(DataError):
    """A file or folder cannot be read or written."""

    @classmethod
    def of(cls, error: OSError, path: str) -> "PathError | None":
        """Return what a fault of the system says of a path; None where it is about no path."""
        problem = _PATH_PROBLEMS.get(error.errno or 0)
        return None if problem is None else cls(f"{path}: {problem}")


class ModelError(DataError):
    """A checkpoint cannot be loaded, or does not fit what it is used for."""


class JobError(IlubenchError):
    """A job of a run failed; the run's other jobs go on."""

    exit_code = 4


class DivergedError(JobError):
    """A loss or a gradient is not finite."""


class StoreError(IlubenchError):
    """An artifact is damaged or cannot be written."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a remedy that names the closest known word, or all of them.

    Args:
        word: what was given.
        known: what would have been accepted.
    """
    choices = sorted(set(known))
    close = closest_word(word, choices)
    if close:
        return f"did you mean {close!r}?"
    if not choices:
        return "there is none to choose from"
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f"choose from: {shown}"


def closest_word(word: str, known: Iterable[str]) -> str:
    """Return the known word that was probably meant; empty where none is alike."""
    plain = {_letters(choice): choice for choice in sorted(known)}
    close = difflib.get_close_matches(_letters(word), plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else ""


def _letters(word: str) -> str:
    """Return a word without what people mix up: capitals, and the signs that join its parts."""
    return "".join(char for char in word.casefold() if char.isalnum() or char in ".:") or word


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error comes of a lack of memory, which a file or its settings are blamed for."""
    while error is not None and not isinstance(error, MemoryError):
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return error is not None
