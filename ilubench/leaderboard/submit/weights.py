"""The unlearned weights of a run's seeds, as whole checkpoints that can be published."""

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from ilubench.data.hub.models import INDEX, SINGLE, TEXTS
from ilubench.errors import DataError, UsageError
from ilubench.leaderboard.records.models import Weights
from ilubench.records.finished import FinishedRun, read_run
from ilubench.records.keys import file_sha256
from ilubench.records.store import Artifact, Store

__all__ = ["export_weights", "place_weights", "write_whole"]


def place_weights(run: Path, folder: Path | None, addresses: Sequence[str]) -> tuple[Weights, ...]:
    """Write a run's unlearned models, and return them with the addresses where they can be had.

    Args:
        run: its folder, beside the store that it was made with.
        folder: where to write; None: nothing is written, and no weights are listed.
        addresses: of the folder that they will lie in on the net, or `SEED=address` of one
            seed's; each may be left out.

    Raises:
        UsageError: addresses without a folder, of no seed of the run, or that are none.
        DataError: the store no longer has the weights.
    """
    if folder is None:
        if addresses:
            remedy = "give --weights-to FOLDER too: their SHA-256 is taken from there"
            raise UsageError(f"--weights {addresses[0]}: {remedy}")
        return ()
    found = export_weights(read_run(run), folder)
    return _with_addresses(found, addresses)


def export_weights(run: FinishedRun, folder: Path) -> tuple[Weights, ...]:
    """Write `<folder>/seed-<seed>/` with each seed's unlearned model: weights, tokenizer, config.

    The same run gives the same bytes. A method without randomness has one model, of the first seed.

    Raises:
        DataError: the store no longer has the weights.
        StoreError: they are damaged.
    """
    store = Store(run.path.parent / "store")
    unlearned = list(_unlearned(run, store))
    base = _base(run, store)
    found = []
    for seed, artifact in unlearned:
        place = folder / f"seed-{seed}"
        path = place / SINGLE
        place.mkdir(parents=True, exist_ok=True)
        for beside in sorted(base.iterdir()):
            if _belongs(beside):
                shutil.copyfile(beside, place / beside.name)
        write_whole(base, artifact.folder, run.suite.dtype if run.suite else "float32", path)
        facts = path.stat()
        found.append(Weights(seed=seed, sha256=file_sha256(path), bytes=facts.st_size))
    return tuple(found)


# --- inside ---


def _belongs(path: Path) -> bool:
    """Whether a file beside weights is part of the checkpoint; a job's log is not."""
    names = (INDEX, "log.jsonl")
    return path.is_file() and path.name.endswith(TEXTS) and path.name not in names


def _unlearned(run: FinishedRun, store: Store) -> Iterator[tuple[int, Artifact]]:
    """Seed and artifact of each unlearned model of the run's own method."""
    use, none = run.record.method_name, True
    for job in run.record.jobs:
        if job.stage != "unlearn":
            continue
        artifact = store.get("unlearn", job.key)
        if artifact is None:
            raise DataError(f"{store.root} no longer has the weights of {job.label}; run it again")
        artifact.verify()
        meta = artifact.meta()
        seed = meta.get("seed")
        if meta.get("method") == use and isinstance(seed, int):
            none = False
            yield seed, artifact
    if none:
        raise DataError(f"{run.path}: {use} unlearned nothing, so that there are no weights")


def _base(run: FinishedRun, store: Store) -> Path:
    """The folder of the model that was unlearned."""
    from ilubench.models.checkpoints import find_folder

    keys = [job.key for job in run.record.jobs if job.stage == "target"]
    made = store.get("target", keys[0]) if keys else None
    if made is not None:
        made.verify()
        return made.folder
    model = run.suite.target.model if run.suite is not None else None
    if model is None:
        raise DataError(f"{store.root} no longer has the target model; run it again")
    return find_folder(model)


def write_whole(base: Path, changes: Path, dtype: str, path: Path) -> None:
    """Write the base with the tensors that were changed, in one file, as transformers does.

    Args:
        base: folder of the checkpoint.
        changes: folder that `save_changes` wrote.
        dtype: that it was trained in.
        path: of the file.
    """
    import torch

    from ilubench.models.checkpoints import apply_changes, load_model
    from ilubench.models.quiet import quiet

    model = load_model(base, "cpu", getattr(torch, dtype))
    apply_changes(model, changes)
    with tempfile.TemporaryDirectory(dir=path.parent) as aside, quiet():
        model.save_pretrained(aside, max_shard_size="1TB")
        (Path(aside) / SINGLE).replace(path)


def _with_addresses(found: tuple[Weights, ...], addresses: Sequence[str]) -> tuple[Weights, ...]:
    urls: dict[int, str] = {}
    for text in addresses:
        seed, sign, url = text.partition("=")
        if sign and seed.isdecimal():
            urls[int(seed)] = url
            continue
        for one in found:
            urls.setdefault(one.seed, f"{text.rstrip('/')}/seed-{one.seed}/{SINGLE}")
    unknown = sorted(set(urls) - {one.seed for one in found})
    if unknown:
        known = ", ".join(str(one.seed) for one in found)
        raise UsageError(f"--weights {unknown[0]}=...: the run's weights are of seeds {known}")
    return tuple(one.model_copy(update={"url": urls.get(one.seed, "")}) for one in found)
