"""Every error that ilubench raises on purpose, as one tree.

::

    IlubenchError                 5  (a defect of ours, unless a subclass says otherwise)
    ├── UsageError                2  what was typed, or a spec file, is wrong
    │   ├── SpecError             2  a spec file or override: names file, field and remedy
    │   ├── PluginError           2  a plugin that was asked for is missing or broken
    │   └── CannotApplyError      2  a scorer cannot ask its items as a prompt attack rewrites them
    ├── DataError                 3  data are missing, empty, or not what the spec says
    │   ├── AccessError           3  a hub refused, or cannot be reached
    │   ├── ItemError             3  one evaluation item cannot be scored: names it
    │   └── ModelError            3  a checkpoint cannot be loaded, or does not fit the suite
    ├── JobError                  4  a job failed; the others go on
    │   └── DivergedError         4  a loss or gradient is not finite
    └── StoreError                5  an artifact is damaged or cannot be written

The number is the process's exit code. Interrupted runs leave with 130.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "AccessError",
    "CannotApplyError",
    "DataError",
    "DivergedError",
    "IlubenchError",
    "ItemError",
    "JobError",
    "ModelError",
    "PluginError",
    "SpecError",
    "StoreError",
    "UsageError",
    "did_you_mean",
]


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
    """A hub refused the data or model, or cannot be reached."""


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
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    if not choices:
        return "there is none to choose from"
    shown = ", ".join(choices[:12]) + (", ..." if len(choices) > 12 else "")
    return f"choose from: {shown}"
