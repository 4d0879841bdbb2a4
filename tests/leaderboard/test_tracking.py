"""Re-runs beside the committed rows: what has left its interval, and what cannot tell."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from finished_runs import Told, edit_record, edit_suite, write_run
from runs import command

from ilubench.leaderboard.records.files import read_board
from ilubench.leaderboard.submit.entry import About, submit_run
from ilubench.leaderboard.verify.tracking import Tracked, compare_with_records, missing
from ilubench.records.finished import read_run
from ilubench.records.rows import Compared, robustness_row
from ilubench.records.scores import method_samples, plain_samples
from leaderboards import full_run, tiny_entry

FIGURES = {"after unlearning", "RA_core", "utility kept"}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    root = tmp_path / "leaderboards"
    tiny_entry(root, "npo", Told())
    return root / "known"


@pytest.fixture
def track(board: Path, tmp_path: Path) -> Callable[..., Tracked]:
    """Run the suite again as told, and compare."""

    def again(told: Told, change: Callable[[Path], object] = lambda folder: None) -> Tracked:
        folder = write_run(tmp_path / "again", told)
        change(folder)
        return compare_with_records(read_board(board), read_run(folder))

    return again


def test_the_same_scores_need_no_interval(track: Callable[..., Tracked]) -> None:
    found = track(Told())
    assert (found.entry, found.equal, found.figures, found.problem) == ("npo-1", 1.0, (), "")
    assert found.fine


@pytest.mark.parametrize("seed", [0, 3])
def test_one_seed_that_repeats_its_scores_is_enough(
    board: Path, track: Callable[..., Tracked], seed: int
) -> None:
    def repeat(folder: Path) -> None:
        """Leave what a run of that seed alone leaves where it repeats the record's scores."""
        record = read_run(board.parents[1] / "runs" / "npo")
        assert record.samples is not None
        assert record.suite is not None
        every = record.samples
        # the original model is scored once, under one of the seeds
        once = pc.and_(pc.equal(every["who"], "reference"), pc.equal(every["attack"], ""))
        named = pc.if_else(once, pa.scalar(seed, pa.int64()), every["seed"])
        every = every.set_column(every.column_names.index("seed"), "seed", named)
        samples = every.filter(pc.equal(every["seed"], seed))
        (metric,) = record.suite.primary_forget
        who = (method_samples(samples, one) for one in ("method", "reference", "retrain"))
        row = robustness_row(record.suite, metric, record.record.attacks, (seed,), Compared(*who))
        pq.write_table(plain_samples(samples), folder / "samples.parquet")
        edit_record(folder, rows={metric.label: dataclasses.asdict(row)})

    found = track(Told(seeds=[seed]), repeat)
    assert (found.entry, found.equal, found.figures, found.problem) == ("npo-1", 1.0, (), "")


def test_other_scores_within_the_interval_are_fine(track: Callable[..., Tracked]) -> None:
    found = track(Told(seeds=range(2), noise=2))
    assert 0 < found.equal < 1  # the original model's scores are the same
    assert {figure.figure for figure in found.figures} >= FIGURES
    assert found.fine


def test_a_figure_that_left_is_named(track: Callable[..., Tracked]) -> None:
    found = track(Told(seeds=range(2), noise=2, end=0.3))
    assert not found.fine
    assert {figure.figure.split(":")[0] for figure in found.left} == {"RA_core", "worst case"}
    (moved,) = (figure for figure in found.left if figure.figure == "RA_core")
    assert moved.high < 0
    assert moved.submitted == pytest.approx(0.6)
    assert moved.verified == pytest.approx(0.3)


def test_equal_scores_of_some_seeds_do_not_excuse_the_others(track: Callable[..., Tracked]) -> None:
    """A seed that is none of the record's says something new, whatever the shared ones say."""
    found = track(Told(seeds=[0, 7], noise=2, end=0.3))
    assert found.left


def test_seeds_of_the_record_and_others_are_compared_alike(
    board: Path, tmp_path: Path, track: Callable[..., Tracked]
) -> None:
    shared = track(Told(seeds=[3, 4], noise=2))
    fresh = write_run(tmp_path / "fresh", Told(seeds=[13, 14], noise=2))
    other = compare_with_records(read_board(board), read_run(fresh))
    assert [one.model_dump() for one in shared.figures] == [
        one.model_dump() for one in other.figures
    ]
    assert shared.figures


def test_one_seed_with_other_scores_cannot_tell(track: Callable[..., Tracked]) -> None:
    found = track(Told(seeds=[0], noise=2))
    assert not found.fine
    assert "1 seed" in found.problem


def test_a_row_that_collapsed_has_left(track: Callable[..., Tracked]) -> None:
    found = track(Told(seeds=range(2), utility=0.3))
    assert found.problem == "FQ is collapsed in the re-run, and ok in the record"
    assert not found.fine


def test_a_changed_default_is_named(track: Callable[..., Tracked]) -> None:
    found = track(Told(settings={"beta": 0.1}))
    assert found.entry == ""
    assert "npo-1 differs in beta (None and 0.1)" in found.problem


def test_how_a_machine_does_the_work_is_no_setting(track: Callable[..., Tracked]) -> None:
    assert track(Told(settings={"micro_batch": 4})).fine


def test_another_version_is_another_method(track: Callable[..., Tracked]) -> None:
    found = track(Told(), lambda folder: edit_record(folder, method_version=2))
    assert "npo-1 differs in method version (1 and 2)" in found.problem


def test_a_suite_that_changed_without_a_version_is_named(track: Callable[..., Tracked]) -> None:
    def change(folder: Path) -> None:
        edit_suite(folder, lambda suite: suite.update(max_length=77))

    found = track(Told(noise=2), change)
    assert "differ in max_length" in found.problem
    assert not found.fine


def test_fewer_attacks_are_no_re_run(track: Callable[..., Tracked]) -> None:
    found = track(Told(attacks=["core"]))
    assert found.problem == "attacked with core, and the record's with core, seen"


def test_a_method_without_an_entry(track: Callable[..., Tracked]) -> None:
    assert "has no entry of rmu" in track(Told(use="rmu")).problem


def shipped(board: Path, use: str) -> None:
    """Put a run into the board's own folder of runs, and submit it from there."""
    run = full_run(board / "measured" / use, Told(use=use))
    submit_run(run, board.parent, About(by="A. Tester", label=use))


def test_what_was_not_run_again(board: Path, track: Callable[..., Tracked]) -> None:
    shipped(board, "rmu")
    tiny_entry(board.parent, "theirs", Told(use="theirs"))  # sent in: no concern of ours
    assert missing(read_board(board), [track(Told())]) == ("rmu-1",)


# --------------------------------------------------------------------------- the command


def test_the_command_says_what_left_and_leaves_with_4(board: Path, tmp_path: Path) -> None:
    fine = write_run(tmp_path / "fine", Told())
    moved = write_run(tmp_path / "moved", Told(seeds=range(2), noise=2, end=0.3))
    done = command("leaderboard", "track", str(fine), "--against", str(board))
    assert (done.code, done.err) == (0, "")
    assert "all scores are the record's" in done.out
    done = command("leaderboard", "track", str(fine), str(moved), "--against", str(board))
    assert (done.code, done.err) == (4, "")
    assert [line.split("|")[3].strip() for line in done.out.splitlines() if "LEFT" in line] == [
        "RA_core",
        next(line.split("|")[3].strip() for line in done.out.splitlines() if "worst" in line),
    ]
    assert "2 of 4 figures left their interval" in done.out


def test_complete_counts_what_was_not_run(board: Path, tmp_path: Path) -> None:
    shipped(board, "rmu")
    fine = write_run(tmp_path / "fine", Told())
    words = ("leaderboard", "track", str(fine), "--against", str(board))
    assert command(*words).code == 0
    done = command(*words, "--complete")
    assert done.code == 4
    assert "rmu-1: not run again" in done.out


def test_json(board: Path, tmp_path: Path) -> None:
    moved = write_run(tmp_path / "moved", Told(seeds=range(2), noise=2, end=0.3))
    done = command("leaderboard", "track", str(moved), "--against", str(board), "--json")
    (one,) = json.loads(done.out)["runs"]
    assert (one["entry"], one["seeds"], done.code) == ("npo-1", [0, 1], 4)
    assert {figure["metric"] for figure in one["figures"]} == {"FQ", "U"}
    assert next(figure["figure"] for figure in one["figures"] if figure["left"]) == "RA_core"


def test_a_board_that_is_not_there(tmp_path: Path) -> None:
    fine = write_run(tmp_path / "fine", Told())
    done = command("leaderboard", "track", str(fine), "--against", str(tmp_path / "nowhere"))
    assert done.code == 3
    assert "no such folder" in done.err
