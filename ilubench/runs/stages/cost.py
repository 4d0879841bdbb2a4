"""What a job costs: optimizer steps, passes through the model, tokens, seconds, memory."""

import contextlib
import json
import resource
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import JsonValue

from ilubench.interfaces import Metrics
from ilubench.models.forward import model_layers
from ilubench.models.sharding import sum_over_ranks
from ilubench.records.verified import Ledger

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Passes", "StepLog"]


class Passes:
    """Counts what goes forwards and backwards through a model.

    Counted at its layers: a pass through 8 of 32 layers is a quarter of one, whoever stops it
    there. Tokens are positions, padding included: what the hardware computes. A backward pass is
    counted where a gradient reaches a layer's output, so that one that ends above the lowest
    layers, or a second one for a gradient's gradient, counts as what it is. What gradient
    checkpointing computes again is not counted: whether it does is the machine's memory, and the
    same training has the same cost.
    """

    def __init__(self) -> None:
        """Begin at zero."""
        self._count: dict[str, float] = {
            "forward_passes": 0.0,
            "backward_passes": 0.0,
            "forward_tokens": 0.0,
            "backward_tokens": 0.0,
        }

    def take(self) -> Mapping[str, float]:
        """Return what was counted since the last call, by all ranks of a job."""
        taken = {name: sum_over_ranks(value) for name, value in self._count.items()}
        self._count = dict.fromkeys(taken, 0.0)
        return taken

    @contextlib.contextmanager
    def counting(self, model: "PreTrainedModel") -> Iterator[None]:
        """Count while the context lasts.

        A model whose layers cannot be told is counted as one layer.
        """
        layers = model_layers(model) or [model.base_model]

        def passed(direction: str, tokens: int) -> None:
            self._count[f"{direction}_passes"] += 1 / len(layers)
            self._count[f"{direction}_tokens"] += tokens / len(layers)

        def forwards(_layer: object, _inputs: object, output: Any) -> None:  # noqa: ANN401
            hidden = _hidden(output)
            tokens = hidden.shape[:2].numel()
            passed("forward", tokens)
            if hidden.requires_grad:
                hidden.register_hook(lambda _gradient: passed("backward", tokens))

        with contextlib.ExitStack() as hooks:
            for layer in layers:
                hooks.callback(layer.register_forward_hook(forwards).remove)
            yield


def _hidden(output: Any) -> torch.Tensor:  # noqa: ANN401
    """Return a layer's hidden states [B, T, H], also where it returns more beside them."""
    if isinstance(output, torch.Tensor):
        return output
    found: torch.Tensor = output[0]
    return found


class _Memory:
    """The most memory a job has held, and how much more than when it began, in bytes."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            # Linux forgets a process's peak when told so; elsewhere the peak is the process's.
            with contextlib.suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
            self._before = _status("VmRSS") or 0

    def __call__(self) -> dict[str, JsonValue]:
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated()
        else:
            peak = _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"peak_bytes": peak, "grown_bytes": max(0, peak - self._before)}


def _status(field: str) -> int | None:
    """Return a size of this process in bytes, None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith(f"{field}:")), None)
    return int(found.split()[1]) * 1024 if found else None


class StepLog:
    """A job's optimizer steps as lines of JSON; survives a kill, and adds up to its cost.

    Args:
        path: of the log.
        passes: counted until the next step is logged, if given.
    """

    def __init__(self, path: Path, passes: Passes | None = None) -> None:
        """Read what an earlier try of the job wrote, up to the state that the job goes on from.

        Raises:
            StoreError: it is not what was written.
        """
        self._path, self._passes, self._memory = path, passes, _Memory()
        self._steps: dict[int, dict[str, float]] = {}
        if path.is_file():
            told = Ledger(path.parent).beginning(path)
            for line in told.splitlines():
                entry = json.loads(line)
                self._steps[int(entry["step"])] = entry
            path.write_bytes(told)
        self._last = time.monotonic()

    def __call__(self, step: int, metrics: Metrics) -> None:
        """Append one step."""
        now = time.monotonic()
        entry = {"step": step, **metrics, "seconds": now - self._last}
        if self._passes is not None:
            entry.update(self._passes.take())
        self._last = now
        self._steps[step] = entry
        with self._path.open("a") as handle:
            handle.write(json.dumps(entry) + "\n")

    def skip_time(self) -> None:
        """Do not count the time since the last step (it went into scoring)."""
        self._last = time.monotonic()

    def cost(self) -> dict[str, JsonValue]:
        """Return what the job took, the tries before a kill included.

        `steps` of optimizers, `tokens` of the batches, `train_seconds`, `peak_bytes` of memory and
        `grown_bytes`, how much of it was not there when the job began; with `passes`, also
        `forward_passes`, `backward_passes` (a micro-batch through the whole model is one),
        `forward_tokens` and `backward_tokens` (positions that went through the whole model).
        """
        entries = self._steps.values()
        found: dict[str, JsonValue] = {
            "steps": len(self._steps),
            "tokens": int(sum(entry.get("tokens", 0.0) for entry in entries)),
            "train_seconds": sum(entry.get("seconds", 0.0) for entry in entries),
            **self._memory(),
        }
        if self._passes is not None:
            for name, rest in self._passes.take().items():
                found[name] = rest + sum(entry.get(name, 0.0) for entry in entries)
        return found
