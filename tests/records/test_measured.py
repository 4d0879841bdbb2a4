"""Committed result sets: every figure of a row follows from the samples beside it."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from measured import RESULT_SETS, read
from places import LEADERBOARDS

from ilubench.records.run_files import read_record
from ilubench.runs.collect import robustness_rows


def agree(left: Any, right: Any, where: str = "") -> None:
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            agree(left[key], right[key], f"{where}.{key}")
    elif isinstance(left, list):
        assert len(left) == len(right), where
        for place, pair in enumerate(zip(left, right, strict=True)):
            agree(*pair, f"{where}[{place}]")
    elif isinstance(left, float) and isinstance(right, int | float):
        assert math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12), where
    else:
        assert left == right, where


def test_there_are_result_sets() -> None:
    assert RESULT_SETS


def test_a_row_with_a_missing_attack_is_marked() -> None:
    folder = LEADERBOARDS / "mini" / "measured" / "npo"
    record, experiment = read(folder)
    samples = pq.read_table(folder / "samples.parquet")
    lost = pc.and_(pc.equal(samples["attack"], "agnews"), pc.equal(samples["seed"], 3))
    lost = pc.and_(lost, pc.equal(samples["who"], "method"))
    rows = robustness_rows(experiment, samples.filter(pc.invert(lost)))
    assert {row.status for row in rows.values()} == {"incomplete"}
    assert {row.ra.n_seeds for row in rows.values()} == {len(record.seeds) - 1}


@pytest.mark.parametrize("folder", RESULT_SETS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_figures_follow_from_the_samples(folder: Path) -> None:
    record, experiment = read(folder)
    assert experiment.suite.version == record.suite_version
    rows = robustness_rows(experiment, pq.read_table(folder / "samples.parquet"))
    _, stored = read_record(folder / "results.json")  # fields that came later have their defaults
    found, recorded = (
        {label: dataclasses.asdict(row) for label, row in each.items()} for each in (rows, stored)
    )
    agree(json.loads(json.dumps(found)), json.loads(json.dumps(recorded)))
