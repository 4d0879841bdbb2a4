"""Where unlearning and fine-tuning move the weights, and whether one undoes the other.

tau_u = theta_u - theta_o is what unlearning did, tau_ft = theta_ft - theta_o what an attack does to
the original model, tau_u->ft = theta_u,ft - theta_u what it does to the unlearned one. Their
cosines are those of the ILU paper (arXiv 2506.01339): (tau_u, tau_ft) near -1 says that the two
move against each other; (tau_u->ft, tau_u) below 0 that the attack undoes unlearning; (tau_u->ft,
tau_ft) whether it does to the unlearned model what it does to the original.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ilubench.errors import UsageError
from ilubench.models.checkpoints import CHANGES, load_model
from ilubench.models.folder import headers, weight_files
from ilubench.runs.carry_out import open_planned
from ilubench.runs.jobs import Job
from ilubench.runs.stages.workbench import Workbench

if TYPE_CHECKING:
    import torch

__all__ = ["PAIRS", "Cosines", "task_vectors"]

PAIRS = ("tau_u, tau_ft", "tau_u->ft, tau_u", "tau_u->ft, tau_ft")
"""Which vectors each cosine is of."""

_LAYER = re.compile(r"\.(?:layers|h|blocks?)\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class Cosines:
    """The three cosines of one attack and seed, in the order of `PAIRS`; None where a vector is 0.

    Attributes:
        attack: its name.
        seed: of the run.
        part: `model`, `layer 3`, or a kind of module such as `q_proj`.
        values: the cosines.
        lengths: of tau_u, tau_ft and tau_u->ft.
    """

    attack: str
    seed: int
    part: str
    values: tuple[float | None, float | None, float | None]
    lengths: tuple[float, float, float]


def task_vectors(folder: Path) -> tuple[Cosines, ...]:
    """Return the cosines of a run, whole, by layer and by kind of module.

    Tensors are read one at a time: no model is held in memory, unless the target's file calls its
    tensors otherwise than the loaded model.

    Args:
        folder: of a finished run with `keep=attacked`, its store in its place.

    Raises:
        StoreError: weights are damaged.
        UsageError: the run kept no attacked weights, or has no attack that trains.
    """
    with open_planned(folder) as (bench, jobs):
        found = [
            one
            for job in jobs
            if job.who == "method" and job.attack
            for one in _of(bench, jobs, job)
        ]
    if not found:
        problem = "no attack on an unlearned model left weights to look into"
        told = "those of the original, prompts and trials leave none"
        raise UsageError(f"{folder}: {problem} ({told}); run one that trains, with keep=attacked")
    return tuple(found)


# --- inside ---


def _of(bench: Workbench, jobs: tuple[Job, ...], job: Job) -> Iterator[Cosines]:
    same = {"who": "reference", "attack": job.attack, "seed": job.seed}
    other = [j for j in jobs if all(getattr(j, name) == value for name, value in same.items())]
    places = {
        "u": _changes(bench, "unlearn", job.weights),
        "uft": _changes(bench, "attack", job.key),
        "ft": _changes(bench, "attack", other[0].key) if other else None,
    }
    if places["uft"] is None and not hasattr(bench.attack(job.attack).plugin, "train"):
        return  # it asks differently, or has levels
    for name, place in places.items():
        if place is None:
            what = {"u": "unlearned", "uft": "attacked", "ft": "fine-tuned original"}[name]
            remedy = "run the same words with keep=attacked references=run"
            raise UsageError(f"{job.label}: the {what} weights are not kept; {remedy}")
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * 6)
    for name, o, tensors in _together(bench.target_folder, places):
        tau_u, tau_ft = tensors["u"] - o, tensors["ft"] - o
        tau_uft = tensors["uft"] - tensors["u"]
        squares = [(tau_u, tau_u), (tau_ft, tau_ft), (tau_uft, tau_uft)]
        pairs = [*squares, (tau_u, tau_ft), (tau_uft, tau_u), (tau_uft, tau_ft)]
        products = [float((a * b).sum()) for a, b in pairs]
        for part in _parts(name):
            sums[part] = [x + y for x, y in zip(sums[part], products, strict=True)]
    for part, (u, ft, uft, *dots) in sums.items():
        first, second, third = (
            dot / (a * b) ** 0.5 if a * b > 0 else None
            for dot, (a, b) in zip(dots, ((u, ft), (uft, u), (uft, ft)), strict=True)
        )
        lengths = (u**0.5, ft**0.5, uft**0.5)
        yield Cosines(job.attack, job.seed, part, (first, second, third), lengths)


def _changes(bench: Workbench, stage: str, key: str) -> Path | None:
    artifact = bench.store.get(stage, key)
    if artifact is None or not (artifact.folder / CHANGES).is_file():
        return None
    artifact.verify()
    return artifact.folder / CHANGES


def _together(
    target: Path, places: Mapping[str, Path | None]
) -> "Iterator[tuple[str, torch.Tensor, dict[str, torch.Tensor]]]":
    """Yield each tensor that anything changed: its name, the target's, what each has; float64."""
    from safetensors import safe_open

    with ExitStack() as files:
        changed = {
            name: files.enter_context(safe_open(place, "pt"))
            for name, place in places.items()
            if place is not None
        }
        have = {name: set(file.keys()) for name, file in changed.items()}
        names = sorted(set().union(*have.values()))
        before = _target(target, names, files)
        for name in names:
            o = before(name).double()
            found = {
                one: file.get_tensor(name).double() if name in have[one] else o
                for one, file in changed.items()
            }
            yield name, o, found


def _target(folder: Path, names: list[str], files: ExitStack) -> Any:  # noqa: ANN401
    """Return what reads one of the target's tensors."""
    from safetensors import safe_open

    within = {name: file for file in weight_files(folder) for name, _ in headers([file])}
    if set(names) <= within.keys():
        opened = {
            file: files.enter_context(safe_open(file, "pt"))
            for file in dict.fromkeys(within.values())
        }
        return lambda name: opened[within[name]].get_tensor(name)
    return load_model(folder, "cpu").state_dict().__getitem__


def _parts(name: str) -> Iterator[str]:
    yield "model"
    layer = _LAYER.search(name)
    if layer is not None:
        yield f"layer {layer[1]}"
    yield name.removesuffix(".weight").removesuffix(".bias").rpartition(".")[2]
