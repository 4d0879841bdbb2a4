"""Committed result sets: every figure of a row follows from the samples beside it."""

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from measured import RESULT_SETS, read
from places import LEADERBOARDS

from ilubench.leaderboard.records.files import list_suites, read_board
from ilubench.records.finished import read_run
from ilubench.runs.collect import robustness_rows

CHECKED = {
    board.folder / Path(entry.samples.path).parent
    for board in map(read_board, list_suites(LEADERBOARDS))
    for entry in board.entries
}
"""Those of entries, whose figures `ilubench leaderboard check` computes again."""

OTHERS = [folder for folder in RESULT_SETS if folder not in CHECKED]


def test_there_are_result_sets() -> None:
    assert CHECKED
    assert set(RESULT_SETS) > CHECKED


def test_a_row_with_a_missing_attack_is_marked() -> None:
    folder = LEADERBOARDS / "mini" / "measured" / "npo"
    record, experiment = read(folder)
    samples = pq.read_table(folder / "samples.parquet")
    lost = pc.and_(pc.equal(samples["attack"], "agnews"), pc.equal(samples["seed"], 3))
    lost = pc.and_(lost, pc.equal(samples["who"], "method"))
    rows = robustness_rows(experiment, samples.filter(pc.invert(lost)))
    assert {row.status for row in rows.values()} == {"incomplete"}
    assert {row.ra.n_seeds for row in rows.values()} == {len(record.seeds) - 1}


@pytest.mark.parametrize("folder", OTHERS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_figures_follow_from_the_samples(folder: Path) -> None:
    run = read_run(folder)
    assert run.samples is not None, run.unread
    assert run.rows  # an error where they do not follow
