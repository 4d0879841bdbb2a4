"""Committed result sets: every figure of a row follows from the samples beside it."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from measured import RESULT_SETS, read
from places import LEADERBOARDS

from ilubench.records.run_files import leaves, read_record
from ilubench.runs.collect import robustness_rows


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
    _, stored = read_record(folder / "results.json")
    found, recorded = (dict(leaves(each, version=record.schema_version)) for each in (rows, stored))
    assert found.keys() == recorded.keys()
    for name, value in recorded.items():
        exact = not isinstance(value, float)
        expected = value if exact else pytest.approx(value, rel=1e-9, abs=1e-12)
        assert found[name] == expected, name
