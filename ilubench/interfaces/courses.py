"""What makes a course of an attack's checkpoints."""

import re
from collections.abc import Sequence

from ilubench.errors import JobError
from ilubench.interfaces.attacks import Checkpoint
from ilubench.statistics.row import trial_number

__all__ = ["Course"]

_LEVEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Course:
    """The checkpoints so far; refuses one that makes no course, before anything more is done.

    Args:
        attack: whose.
        utility: scorers that measure utility.
        has_fa: whether the attack has an FA task.
        tunes: whether its checkpoints are trials.
    """

    def __init__(
        self,
        attack: str,
        utility: Sequence[str] = (),
        *,
        has_fa: bool = False,
        tunes: bool = False,
    ) -> None:
        """Begin with no checkpoint."""
        self._attack, self._utility, self._has_fa = attack, utility, has_fa
        self._tunes = tunes
        self._names: dict[str, None] = {}
        self._kinds: set[str] = set()
        self._step = 0

    def add(self, checkpoint: Checkpoint) -> None:
        """Take the next checkpoint.

        Raises:
            JobError: it does not go with those before.
        """
        step, level = checkpoint.step, checkpoint.level
        if checkpoint.name in self._names:
            raise self._wrong(
                f"two checkpoints are {checkpoint.name}; give each its own step or level"
            )
        if step is not None and level is not None:
            raise self._wrong(
                f"a checkpoint has step {step} and level {level!r}; give it one of them"
            )
        if level is not None and not _LEVEL.fullmatch(level):
            allowed = "lower-case letters, digits, `.`, `_` and `-`"
            raise self._wrong(f"level {level!r}: a level is part of a file's name; use {allowed}")
        if self._tunes != (trial_number(level or "") is not None):
            wanted = "a level of trial_level(number)" if self._tunes else "another level"
            raise self._wrong(f"{checkpoint.name}: an attack that tunes has trials; give {wanted}")
        if step is not None and (step < self._step or (step == 0 and self._names)):
            before = list(self._names)[-1]
            raise self._wrong(f"{checkpoint.name} comes after {before}; yield them in order")
        if step != 0:
            self._kinds.add("steps" if step is not None else "levels" if level else "neither")
            if len(self._kinds) > 1:
                both = " and ".join(sorted(self._kinds))
                raise self._wrong(f"its checkpoints have {both}; a course has steps or levels")
            if step is None and self._has_fa and "step-000000" not in self._names:
                remedy = "yield Checkpoint(model, 0) first"
                raise self._wrong(
                    f"it has an FA task and no checkpoint before the attack; {remedy}"
                )
        for name in self._utility:
            if name in checkpoint.items:
                remedy = "score all of its items"
                raise self._wrong(f"{name!r} measures utility and loses items; {remedy}")
        self._names[checkpoint.name] = None
        self._step = self._step if step is None else step

    def _wrong(self, problem: str) -> JobError:
        return JobError(f"attack {self._attack}: {problem}")
