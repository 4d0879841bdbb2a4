"""What a job is given, kept in memory: state, progress, a log of steps, a context."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from ilubench.interfaces import Context, Metrics

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

__all__ = ["MemoryState", "SilentProgress", "StepRecorder", "make_context"]


class MemoryState:
    """A StateStore in memory that copies what it is given, as a file would.

    Attributes:
        phases: phase -> its tensors and meta, as last saved.
        saves: how often something was saved.
    """

    def __init__(self) -> None:
        """Begin with nothing saved."""
        self.phases: dict[str, tuple[dict[str, torch.Tensor], dict[str, JsonValue]]] = {}
        self.saves = 0

    def save(
        self, phase: str, tensors: "Mapping[str, torch.Tensor]", meta: Mapping[str, JsonValue]
    ) -> None:
        """Replace a phase's saved state."""
        self.phases[phase] = ({k: v.detach().clone() for k, v in tensors.items()}, dict(meta))
        self.saves += 1

    def load(self, phase: str) -> "tuple[dict[str, torch.Tensor], dict[str, JsonValue]] | None":
        """Return a copy of a phase's saved state, or None when there is none."""
        if phase not in self.phases:
            return None
        tensors, meta = self.phases[phase]
        return {name: tensor.clone() for name, tensor in tensors.items()}, dict(meta)


class SilentProgress:
    """A Progress that shows nothing."""

    def start(self, phase: str, total: int) -> None:
        """Do nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Do nothing."""


class StepRecorder:
    """Keeps what each optimizer step reported.

    Args:
        kill_at: raise KeyboardInterrupt after this step, as Ctrl-C would.
        kill_after: the same after this many calls, whatever the steps are called.
    """

    def __init__(self, kill_at: int | None = None, *, kill_after: int | None = None) -> None:
        """Begin with no step."""
        self.steps: list[tuple[int, dict[str, float]]] = []
        self.kill_at, self.kill_after = kill_at, kill_after

    def __call__(self, step: int, metrics: Metrics) -> None:
        """Keep one step's metrics.

        Raises:
            KeyboardInterrupt: it is the one after which the job is to be killed.
        """
        self.steps.append((step, dict(metrics)))
        if step == self.kill_at or len(self.steps) == self.kill_after:
            raise KeyboardInterrupt

    @property
    def losses(self) -> list[float]:
        """The `loss` of each step."""
        return [metrics["loss"] for _, metrics in self.steps]


def make_context(tokenizer: "PreTrainedTokenizerBase", **changes: Any) -> Context:  # noqa: ANN401
    """Return a context on the CPU with seed 7, state in memory, and nothing shown or logged.

    Args:
        tokenizer: of the model.
        changes: fields of `Context` to replace.
    """
    plain = Context(7, "cpu", tokenizer, MemoryState(), SilentProgress(), lambda _s, _m: None)
    return replace(plain, **changes)
