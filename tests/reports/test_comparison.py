"""`ilubench compare`: differences are those of the samples, paired by seed and item."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
from finished_runs import Told, write_run
from places import LEADERBOARDS
from runs import command

from ilubench.records.finished import FinishedRun, read_run
from ilubench.reports.comparison import Comparison, compare_runs, comparison_text

MINI = LEADERBOARDS / "mini" / "measured"


@pytest.fixture(scope="module")
def both() -> tuple[FinishedRun, FinishedRun]:
    return read_run(MINI / "npo"), read_run(MINI / "ilu")


@pytest.fixture(scope="module")
def found(both: tuple[FinishedRun, FinishedRun]) -> Comparison:
    return compare_runs(*both)


def cells(run: FinishedRun, attack: str, step: int, scorer: str) -> dict[tuple[int, str], float]:
    assert run.samples is not None
    mine = run.samples
    where = {"who": "method", "attack": attack, "step": step, "scorer": scorer, "metric": "acc"}
    for name, value in where.items():
        mine = mine.filter(pc.equal(mine[name], value))
    return {(s["seed"], s["item"]): s["value"] for s in mine.to_pylist()}


def test_a_difference_is_that_of_shared_seeds_and_items(
    both: tuple[FinishedRun, FinishedRun], found: Comparison
) -> None:
    step = both[0].rows["FQ"].attacks[1].steps[-1].step
    one, other = (cells(run, "agnews", step, "forget_mc") for run in both)
    shared = one.keys() & other.keys()
    assert {seed for seed, _ in shared} == set(range(5))  # npo has ten
    (line,) = [f for f in found.figures if (f.metric, f.what) == ("FQ", "after agnews")]
    wanted = np.mean([(1 - other[key]) - (1 - one[key]) for key in shared])
    assert line.difference.value == pytest.approx(wanted)
    assert (line.difference.n_seeds, line.difference.n_items) == (5, 128)


def test_all_is_compared_that_both_have(
    both: tuple[FinishedRun, FinishedRun], found: Comparison
) -> None:
    attacks = len(both[0].record.attacks)
    assert both[0].suite is not None
    metrics, utility = len(both[0].rows), len(both[0].suite.utility)
    assert len(found.figures) == metrics * (2 + attacks) + utility + attacks
    assert found.names == ("npo", "ilu")
    assert ("use", "npo", "ilu") in found.settings


def test_a_run_against_itself_shows_nothing(tmp_path: Path) -> None:
    one, other = (
        write_run(tmp_path / name, Told("npo", end=0.4, noise=1)) for name in ("one", "two")
    )
    found = compare_runs(read_run(one), read_run(other))
    assert {line.difference.value for line in found.figures} == {0.0}
    assert found.settings == ()
    shown = command("compare", str(one), str(other))
    assert shown.code == 0
    assert "0.000" in shown.out


def test_without_a_shared_seed_there_is_no_difference(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", Told("npo", seeds=(0, 1)))
    other = write_run(tmp_path / "two", Told("ilu", seeds=(2, 3)))
    found = compare_runs(read_run(one), read_run(other))
    assert {line.difference.value for line in found.figures} == {None}
    assert "no seed is shared" in command("compare", str(one), str(other)).out


def test_the_original_was_scored_once_for_all_seeds() -> None:
    none, ilu = read_run(MINI / "none"), read_run(MINI / "ilu")
    assert len(none.scores("FQ").unlearned_forget.seeds) == 1
    unlearned = ilu.rows["FQ"].forget_unlearned.value
    assert unlearned is not None
    for one, other, sign in ((none, ilu, 1), (ilu, none, -1)):
        lines = {(f.metric, f.what): f for f in compare_runs(one, other).figures}
        line = lines["FQ", "after unlearning (f_u)"]
        assert line.difference.value == pytest.approx(sign * unlearned)
        assert line.difference.n_seeds == 5
        assert lines["KnowMem_r", "after unlearning"].difference.n_seeds == 5


def test_seeds_that_one_lacks_are_told(both: tuple[FinishedRun, FinishedRun]) -> None:
    told = "npo has 10 seeds, ilu 5, and both have 5: a difference is not that of the two columns."
    assert told in comparison_text(compare_runs(*both))
    assert "seeds, " not in comparison_text(compare_runs(both[1], read_run(MINI / "dpo")))


def test_a_record_alone_cannot_be_paired(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", Told("npo"))
    other = write_run(tmp_path / "two", Told("ilu"))
    (other / "samples.parquet").unlink()
    done = command("compare", str(one), str(other))
    assert done.code == 2
    assert "paired item by item" in done.err
