"""Folders of finished runs with scores of known means: no model, no training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from ilubench.attacks.finetune import FineTune
from ilubench.data.rows import Tables
from ilubench.experiments.experiment import Attack, Experiment
from ilubench.methods.none import NoUnlearning
from ilubench.records.results import RunRecord
from ilubench.records.scores import SCHEMA
from ilubench.runs.collect import robustness_rows
from ilubench.specs import RunSpec, SuiteSpec, TrainSpec
from ilubench.statistics.intervals import Array

ITEMS = tuple(f"i{k:02}" for k in range(12))
STEPS = (25, 50, 75, 100)
SUITE: dict[str, Any] = {
    "name": "known",
    "version": 1,
    "title": "Scores of known means",
    "target": {"model": {"path": "nowhere"}},
    "data": {"text": {"path": "nowhere.jsonl"}},
    "forget": ["text"],
    "retain": ["text"],
    "scorers": {"asked": "nothing", "kept": "nothing"},
    "primary_forget": [{"label": "FQ", "scorer": "asked", "metric": "acc"}],
    "utility": [{"label": "U", "scorer": "kept", "metric": "acc", "chance": 0.25}],
    "attacks": {
        "seen": {"fa": {"scorer": "nothing", "metric": "acc"}},
        "core": {"fa": {"scorer": "nothing", "metric": "acc"}},
    },
    "core_unseen": ["core"],
}


BEFORE = 0.1
"""Forget metric of the original model."""


@dataclass(frozen=True)
class Told:
    """What a run measured: means on 0-1, higher = better forgotten; `noise` seeds the scatter."""

    use: str = "npo"
    settings: Mapping[str, Any] = field(default_factory=dict)
    after: float = 0.8
    end: float = 0.6
    utility: float = 0.9
    seeds: Sequence[int] = range(5)
    attacks: Sequence[str] = ("seen", "core")
    steps: Sequence[int] = STEPS
    noise: int = 1
    seen: Sequence[str] = ()
    suite: Mapping[str, Any] = field(default_factory=dict)
    attack_settings: Mapping[str, Any] = field(default_factory=dict)
    before: float = BEFORE
    lost: Sequence[tuple[str, int]] = ()  # (attack, seed) that failed


def _scatter(mean: float, seeds: Sequence[int], rng: np.random.Generator) -> Array:
    """A table [S, I] of exactly that mean."""
    values = rng.normal(size=(len(seeds), len(ITEMS)))
    scattered: Array = mean + 0.03 * (values - values.mean())
    return scattered


def _lines(where: tuple[str, str, int], scorer: str, seeds: Sequence[int], values: Array) -> Any:
    who, attack, step = where
    return [
        dict(
            zip(SCHEMA.names, (who, attack, s, step, scorer, "acc", i, x, "", "", ""), strict=True)
        )
        for s, row in zip(seeds, values.tolist(), strict=True)
        for i, x in zip(ITEMS, row, strict=True)
    ]


def _model(told: Told, who: str, after: float, end: float) -> Any:
    """All lines of one model: the metric goes to `end` with the first checkpoint, and stays.

    The attack `seen` goes .1 further; `core` ends .1 lower on its own task than the original.
    """
    rng = np.random.default_rng(told.noise if who == "method" else 0)
    once = list(told.seeds)[:1] if who == "reference" else list(told.seeds)
    utility = told.utility if who == "method" else 0.9
    lines = _lines((who, "", 0), "asked", once, 1 - _scatter(after, once, rng))
    lines += _lines((who, "", 0), "kept", once, _scatter(utility, once, rng))
    for attack in told.attacks:
        lines += _lines((who, attack, 0), "fa", told.seeds, _scatter(0.2, told.seeds, rng))
        task = 0.6 if attack == "core" and who == "method" else 0.7
        last = end - 0.1 if attack == "seen" and who == "method" else end
        for step in told.steps:
            where = (who, attack, step)
            lines += _lines(where, "asked", told.seeds, 1 - _scatter(last, told.seeds, rng))
            lines += _lines(where, "kept", told.seeds, _scatter(utility, told.seeds, rng))
            lines += _lines(where, "fa", told.seeds, _scatter(task, told.seeds, rng))
    return lines


def _experiment(suite: SuiteSpec, told: Told) -> Experiment:
    plugin = FineTune(train=TrainSpec(lr=0.1, steps=STEPS[-1]))
    return Experiment(
        run=RunSpec(suite=suite.name),
        suite=suite,
        method_name=told.use,
        method=NoUnlearning(),
        attacks=tuple(Attack(name, suite.attacks[name], plugin, None) for name in told.attacks),
        scorers={},
        seeds=tuple(told.seeds),
        tables=Tables({}, {}, _no_generator),
    )


def _no_generator(spec: object) -> Any:
    raise NotImplementedError(spec)


def write_run(folder: Path, told: Told, **changes: Any) -> Path:
    """Write a run's folder and return it.

    Args:
        folder: does not exist yet.
        told: what was measured.
        changes: fields of the record that are written otherwise than they follow.
    """
    folder.mkdir(parents=True)
    suite = SuiteSpec.model_validate({**SUITE, **told.suite})
    lines = _model(told, "reference", told.before, told.before)
    if told.use != "none":
        mine = _model(told, "method", told.after, told.end)
        lines += [line for line in mine if (line["attack"], line["seed"]) not in told.lost]
    samples = pa.Table.from_pylist(lines, schema=SCHEMA)
    record = RunRecord(
        run=f"known-{folder.name}",
        suite=suite.name,
        suite_version=suite.version,
        method={"use": told.use, "settings": dict(told.settings)},
        method_version=1,
        seeds=tuple(told.seeds),
        attacks=tuple(told.attacks),
        engine="hf",
        dtype="float32",
        seen=tuple(told.seen),
        rows={},
        cost={},
        jobs=(),
    )
    rows = robustness_rows(_experiment(suite, told), samples)
    plain = {label: dataclasses.asdict(row) for label, row in rows.items()}
    stored = {**record.model_dump(mode="json"), "rows": plain, **changes}
    (folder / "results.json").write_text(json.dumps(stored))
    attacks = {name: {"train": {"lr": 0.1}, **told.attack_settings} for name in told.attacks}
    config = {"suite": suite.model_dump(mode="json"), "attacks": attacks}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    pq.write_table(samples, folder / "samples.parquet")
    return folder


def edit_row(folder: Path, **changes: Any) -> None:
    """Change fields of every row of a run's record."""
    record = json.loads((folder / "results.json").read_text())
    for row in record["rows"].values():
        row.update(changes)
    edit_record(folder, rows=record["rows"])


def edit_record(folder: Path, **changes: Any) -> None:
    """Change fields of a run's record."""
    path = folder / "results.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    forget_manifest(folder)


def edit_suite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the suite in a run's configuration."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config["suite"])
    path.write_text(yaml.safe_dump(config))


def edit_samples(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a run's samples."""
    path = folder / "samples.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    forget_manifest(folder)


def forget_manifest(folder: Path) -> None:
    """Leave a run as those of before are, of whose files nothing tells the hashes."""
    (folder / "DONE").unlink(missing_ok=True)
