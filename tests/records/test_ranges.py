"""What scores can be: declared by scorers, kept in records, refused beyond, obeyed by intervals."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from finished_runs import SUITE, Told, edit_record, edit_samples, write_run
from places import MEASURED
from runs import command

from ilubench.errors import DataError
from ilubench.interfaces import Checkpoint, SampleScore
from ilubench.interfaces.discovery import find_plugin
from ilubench.leaderboard.check.check import check_boards
from ilubench.records.finished import read_run
from ilubench.records.ranges import range_of
from ilubench.runs.stages.measure import Measure
from ilubench.runs.stages.score import score_checkpoint
from ilubench.specs import KNOWN_RANGES, Estimator
from ilubench.testing.job import SilentProgress
from leaderboards import tiny_entry

SHARES: dict[str, Any] = {
    "scorers": {"asked": "lm_eval", "kept": "lm_eval"},
    "attacks": {name: {"fa": {"scorer": "lm_eval", "metric": "acc"}} for name in SUITE["attacks"]},
}

MEASURED_SHARES = Told(before=0.3, after=0.7, end=0.6, utility=0.8, suite=SHARES)


def change_first(folder: Path, scorer: str, value: float) -> None:
    """Change one score of the method under an attack."""

    def change(samples: pa.Table) -> pa.Table:
        mine = pc.and_(
            pc.equal(samples["scorer"], scorer),
            pc.and_(pc.equal(samples["who"], "method"), pc.equal(samples["attack"], "core")),
        )
        place = pc.index(mine, value=True).as_py()
        values = samples["value"].to_pylist()
        values[place] = value
        return samples.set_column(
            samples.column_names.index("value"), "value", pa.array(values, pa.float64())
        )

    edit_samples(folder, change)


def test_the_scorers_that_come_along_are_known() -> None:
    for name, known in KNOWN_RANGES.items():
        assert find_plugin("scorers", name).ranges == known


def test_a_metric_of_another_filter_has_the_range() -> None:
    known = KNOWN_RANGES["lm_eval"]
    assert range_of(known, "exact_match_flexible") == range_of(known, "acc_norm") == (0.0, 1.0)
    assert range_of(known, "accurate") == (None, None)


@pytest.mark.parametrize(
    ("scorer", "value", "says"),
    [
        ("asked", -3.0, "item 'i00' of asked.acc scored -3 under core; it lies between 0 and 1"),
        ("kept", 1.5, "item 'i00' of kept.acc scored 1.5 under core; it lies between 0 and 1"),
        ("fa", 40.0, "item 'i00' of core/fa.acc scored 40 under core; it lies between 0 and 1"),
    ],
)
def test_an_impossible_score_is_refused(
    scorer: str, value: float, says: str, tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run", MEASURED_SHARES)
    assert read_run(folder).rows
    change_first(folder, scorer, value)
    done = command("table", str(folder))
    assert (done.code, done.err.strip()) == (3, f"error: {folder}: samples: {says}")


@pytest.mark.parametrize("ranges", [{}, {"asked.acc": [-1e300, 1e300]}])
def test_no_score_is_so_large_that_its_figures_are_no_numbers(
    ranges: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_run(tmp_path / "run", Told(), ranges=ranges)
    change_first(folder, "asked", -1e155)
    done = command("table", str(folder))
    assert done.code == 3
    assert "of asked.acc scored -1e+155 under core; it lies between -1e+60 and 1e+60" in done.err


def test_a_declared_range_is_kept_in_the_record(tmp_path: Path) -> None:
    """Of a scorer that does not come along; one that does is not believed another range."""
    folder = write_run(tmp_path / "own", Told(), ranges={"asked.acc": [None, 0.5]})
    with pytest.raises(
        DataError, match=r"of asked\.acc scored .*; it lies between -1e\+60 and 0\.5"
    ):
        read_run(folder)
    folder = write_run(tmp_path / "ours", MEASURED_SHARES, ranges={"asked.acc": [-9, 9]})
    change_first(folder, "asked", -3.0)
    with pytest.raises(DataError, match="it lies between 0 and 1"):
        read_run(folder)


def test_check_names_the_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_entry(tmp_path / "boards", "npo", MEASURED_SHARES)
    assert check_boards([path]) == []
    monkeypatch.setitem(cast("dict[str, Any]", KNOWN_RANGES), "lm_eval", {"acc": (0.0, 0.5)})
    (problem,) = check_boards([path])
    assert "of asked.acc scored" in problem.line or "of kept.acc scored" in problem.line


def test_intervals_of_older_records_are_kept_within_where_they_are_shown() -> None:
    run = read_run(MEASURED / "ilu")
    label = "1 - VerbMem_f"
    stored, shown = run.recorded[label].worst_case, run.rows[label].worst_case
    assert run.record.schema_version < 3
    assert stored.high is not None
    assert shown.high is not None
    assert stored.high > 1 > shown.high > (shown.value or 1)
    assert shown.value == pytest.approx(stored.value, abs=1e-9)
    for row in run.rows.values():
        parts = [row.ra, row.forget_unlearned, *row.utility.unlearned]
        parts += [one for part in row.attacks for point in part.steps for one in point.utility]
        parts += [point.fa for part in row.attacks for point in part.steps if point.fa]
        assert all(0 <= (one.low or 0) <= (one.high or 0) <= 1 for one in parts)


def test_a_record_of_this_version_has_them_within(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", MEASURED_SHARES)
    run = read_run(folder)
    assert run.rows["FQ"] == run.recorded["FQ"]
    edit_record(folder, schema_version=2)
    with pytest.raises(DataError, match=r"forget_original\.low of FQ is"):
        assert read_run(folder).rows


def test_a_scorer_that_leaves_its_range_is_named(tmp_path: Path) -> None:
    def score(_: object) -> list[SampleScore]:
        return [SampleScore("a", "acc", 0.5), SampleScore("b", "acc", 1.5)]

    measure = Measure(cast("Any", SimpleNamespace(score=score)), {"acc": Estimator()}, {})
    bounded = Measure(measure.bound, measure.metrics, {"acc": (0.0, 1.0)})
    engine: Any = SimpleNamespace(load=lambda _: None)
    progress = SilentProgress()
    point = Checkpoint(cast("Any", None), 0)
    score_checkpoint(point, engine, {"mine": measure}, tmp_path / "free", progress)
    with pytest.raises(DataError, match=r"'mine': item 'b' of 'acc' scored 1\.5; it lies between"):
        score_checkpoint(point, engine, {"mine": bounded}, tmp_path / "bound", progress)
