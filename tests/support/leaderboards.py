"""Small leaderboards: entries of runs with scores of known means, or of the shipped runs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml
from finished_runs import Told, edit_record, write_run
from places import MEASURED

from ilubench.leaderboard.records.files import (
    finished_run,
    read_entry,
    read_entry_run,
    write_record,
)
from ilubench.leaderboard.records.models import AttackEntry, AttackResult, Verification, Weights
from ilubench.leaderboard.records.prediction import compare_runs
from ilubench.leaderboard.records.samples import point_to_samples
from ilubench.leaderboard.submit.entry import About, submit_run
from ilubench.records.estimators import estimate
from ilubench.records.results import RunRecord
from ilubench.specs import Estimator

SHIPPED = MEASURED
BY = About(by="A. Tester")

TINY = {
    "none": Told("none", seeds=(0, 1, 2)),
    "npo": Told("npo", seeds=(0, 1, 2)),
    "rmu": Told("rmu", after=0.75, end=0.35, seeds=(0, 1, 2), noise=2),
}
"""Entry's label -> what its run measured."""


def full_run(folder: Path, told: Told) -> Path:
    """Write a run's folder that has all that a run leaves, and return it."""
    write_run(folder, told)
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    asked = {"suite": "known", "method": {"use": told.use, "settings": {}}}
    seeds = list(told.seeds)
    whole = {"run": asked, "method": dict(told.settings), "seeds": seeds, **config}
    whole["attacks"] = {name: config["attacks"][name] for name in told.attacks}
    path.write_text(yaml.safe_dump(whole, sort_keys=False))
    environment = {"ilubench": "0.1.0", "git": {"commit": None, "dirty": None}, "seeds": seeds}
    (folder / "env.json").write_text(json.dumps({**environment, "data": {}}))
    edit_record(folder, scores=_scores(folder / "samples.parquet"))
    return folder


def _scores(samples: Path) -> list[dict[str, Any]]:
    """The summaries of all that was scored before any attack."""
    found: dict[tuple[Any, ...], list[float]] = {}
    for line in pq.read_table(samples).to_pylist():
        if not line["attack"]:
            key = (line["who"], line["seed"], line["scorer"], line["metric"])
            found.setdefault(key, []).append(line["value"])
    scores = []
    for (who, seed, scorer, metric), values in found.items():
        value, se = estimate(Estimator(), values, [], [])
        facts = {"value": value, "se": se, "n": len(values), "estimator": {"kind": "mean"}}
        scores.append({"who": who, "seed": seed, "scorer": scorer, "metric": metric, **facts})
    return scores


def tiny_entry(
    root: Path, label: str, told: Told | None = None, weights: Sequence[Weights] = ()
) -> Path:
    """Submit a run of known means to `<root>/known`, and return the entry's file.

    Args:
        root: the leaderboards' folder.
        label: of the entry; its name is `<label>-1`.
        told: what was measured; without it, `TINY`'s of that label.
        weights: of the entry.
    """
    run = full_run(root.parent / "runs" / label, told or TINY[label])
    about = About(by="A. Tester", label=label)
    return submit_run(run, root, about, weights=tuple(weights)).path


def tiny_board(root: Path) -> Path:
    """Return the folder of a suite `known` below ``root`` with entries none-1, npo-1 and rmu-1."""
    for label in TINY:
        tiny_entry(root, label)
    return root / "known"


def shipped_entry(root: Path, name: str) -> Path:
    """Submit one of the shipped runs of the mini suite, and return the entry's file (seconds)."""
    return submit_run(SHIPPED / name, root, About(by="A. Tester", label=name)).path


def verified_entry(root: Path, label: str, told: Told, label_of_run: str = "again") -> Path:
    """Give an entry a verification as a method, by a run of other seeds; return its file.

    Args:
        root: the leaderboards' folder, in which the entry `<label>-1` lies.
        label: of the entry.
        told: what the other run measured.
        label_of_run: names its folder and its samples.
    """
    folder = root / "known"
    path = folder / f"{label}-1.json"
    again = full_run(root.parent / "runs" / label_of_run, told)
    samples = f"{label}-1.{label_of_run}.parquet"
    shutil.copyfile(again / "samples.parquet", folder / samples)
    entry = read_entry(path)
    run = RunRecord.model_validate_json((again / "results.json").read_text())
    pointer = point_to_samples(folder, samples)
    verified = finished_run(path, run, entry.config, folder, pointer)
    one = Verification(
        kind="method",
        by="M. Aintainer",
        day=entry.submission.day,
        seeds=run.seeds,
        run=run,
        samples=pointer,
        comparisons=compare_runs(read_entry_run(entry, folder), verified),
    )
    write_record(path, entry.model_copy(update={"verifications": (*entry.verifications, one)}))
    return path


def attacked_board(root: Path) -> Path:
    """Submit an attack `extra` against npo-1 of `tiny_board`; return its record's file.

    Args:
        root: the leaderboards' folder.
    """
    folder = root / "known"
    extra = {"extra": {"fa": {"scorer": "nothing", "metric": "acc"}}}
    told = replace(TINY["npo"], attacks=("extra",), suite={"attacks": extra, "core_unseen": []})
    run = full_run(root.parent / "runs" / "extra", told)
    (folder / "attacks").mkdir()
    shutil.copyfile(run / "samples.parquet", folder / "attacks" / "extra.npo-1.parquet")
    result = AttackResult(
        entry="npo-1",
        run=RunRecord.model_validate_json((run / "results.json").read_text()),
        samples=point_to_samples(folder, "attacks/extra.npo-1.parquet"),
    )
    record = AttackEntry(
        entry="extra",
        title="Extra",
        suite="known",
        suite_version=1,
        config=yaml.safe_load((run / "config.yaml").read_text()),
        results=(result,),
        submission=read_entry(folder / "npo-1.json").submission,
    )
    write_record(folder / "attacks" / "extra.json", record)
    return folder / "attacks" / "extra.json"


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Change what a JSON file holds, in place."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value, indent=1))
