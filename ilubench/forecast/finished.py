"""Finished jobs of the same suite on the same device: what they took, and what others will."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ilubench.errors import DataError, IlubenchError, StoreError
from ilubench.forecast.amounts import Amount
from ilubench.forecast.took import Took
from ilubench.records.verified import read_sealed
from ilubench.specs.untrusted import read_json
from ilubench.specs.yaml_files import load_yaml

__all__ = ["Finished", "finished_jobs", "took_finished"]

_FEW = 3
"""Finished jobs below which their own scatter says little."""


@dataclass(frozen=True)
class Finished:
    """A finished job.

    Attributes:
        stage: `target`, `unlearn`, `score` or `attack`.
        name: of the method or attack; empty for others.
        seconds: in all.
        training: of these, in steps.
        steps: of the optimizer.
        tokens: of the steps' batches.
        batch: sequences a step; 0 where its run does not say.
        checkpoints: that it scored.
    """

    stage: str
    name: str
    seconds: float
    training: float = 0.0
    steps: float = 0.0
    tokens: float = 0.0
    batch: int = 0
    checkpoints: int = 0

    def scaled(self, amount: Amount, *, same: bool) -> float:
        """Return what a job would take that takes as long a sequence and checkpoint as this one.

        Args:
            amount: of the other job.
            same: it is of the same method or attack: sequences are as long, else tokens tell.
        """
        training, rest = self.training, self.seconds - self.training
        if same and self.steps:
            training *= amount.steps / self.steps
            training *= amount.batch / self.batch if self.batch else 1.0
        elif self.tokens:
            training *= amount.steps * amount.step_tokens / self.tokens
        if self.checkpoints and amount.checkpoints:
            rest *= amount.checkpoints / self.checkpoints
        return training + rest


def took_finished(
    finished: Sequence[Finished], stage: str, name: str, amount: Amount
) -> Took | None:
    """Return the median of finished jobs of the same kind, else of the same stage, else of parts.

    The parts are training, as fast a token as any finished job trained, and scores of checkpoints.

    Args:
        finished: jobs of the suite on the device.
        stage: of the job.
        name: of its method or attack; empty for others.
        amount: of the job.
    """
    same = [one for one in finished if (one.stage, one.name) == (stage, name)]
    like = [one for one in finished if one.stage == stage and bool(one.steps) == bool(amount.steps)]
    told = [one.scaled(amount, same=bool(same)) for one in same or like]
    if not told:
        return _took_by_parts(finished, amount)
    middle = statistics.median(told)
    few = len(told) < _FEW
    low, high = (0.7, 1.5) if few else (0.85, 1.15)
    if not same:
        return Took.within(middle, (2.0, 2.0), "like")
    return Took(middle, min(*told, low * middle), max(*told, high * middle), "finished")


def _took_by_parts(finished: Sequence[Finished], amount: Amount) -> Took | None:
    training = [one.training / one.tokens for one in finished if one.training and one.tokens]
    scoring = [
        (one.seconds - one.training) / one.checkpoints for one in finished if one.checkpoints
    ]
    parts = ((amount.steps * amount.step_tokens, training), (amount.checkpoints, scoring))
    if not any(size for size, _ in parts) or any(size and not told for size, told in parts):
        return None
    seconds = sum(size * statistics.median(told) for size, told in parts if size)
    return Took.within(seconds, (3.0, 3.0), "like")


def finished_jobs(out: Path, suite: str, device: str) -> list[Finished]:
    """Return the finished jobs of the runs in a folder.

    Args:
        out: folder of runs.
        suite: name of the suite whose runs count.
        device: as a run's `env.json` names it: `cpu`, or the card's name.
    """
    found: dict[Path, Finished] = {}
    for file in sorted(out.glob(f"{suite}-*/plan.json")):
        if _read(file.with_name("env.json")).get("device") != device:
            continue
        batches = _batches(file.with_name("config.yaml"))
        for job in _read(file).get("jobs", ()):
            folder = out / "store" / str(job["stage"]) / str(job["key"])
            try:
                one = _finished(read_sealed(folder / "DONE"), batches)
            except StoreError:  # damaged, or not there
                continue
            if one is not None:
                found[folder] = one
    return list(found.values())


def _finished(done: Mapping[str, Any], batches: Mapping[str, int]) -> Finished | None:
    meta = done.get("meta", {})
    if "seconds" not in meta:
        return None
    cost = meta.get("cost", {})
    name = str(meta.get("method") or meta.get("attack") or "")
    return Finished(
        str(meta["stage"]),
        name,
        float(meta["seconds"]),
        float(cost.get("train_seconds", 0.0)),
        float(cost.get("steps", 0.0)),
        float(cost.get("tokens", 0.0)),
        batches.get(f"{meta['stage']} {name}", 0),
        sum(file.startswith("scores/") and file.endswith(".json") for file in done["files"]),
    )


def _batches(config: Path) -> dict[str, int]:
    """Return `stage name` -> sequences a step, as a run's settings have it."""
    try:
        told: Any = load_yaml(config)
        plugins = {f"attack {name}": one for name, one in told["attacks"].items()}
        plugins[f"unlearn {told['run']['method']['use']}"] = told["method"]
        return {name: one["train"]["batch_size"] for name, one in plugins.items() if "train" in one}
    except (OSError, IlubenchError, KeyError, TypeError, AttributeError):
        return {}


def _read(path: Path) -> dict[str, Any]:
    """Return a file's JSON; nothing where there is none, or it is damaged: it is only a hint."""
    try:
        found = read_json(path)
    except DataError:
        return {}
    return found if isinstance(found, dict) else {}
