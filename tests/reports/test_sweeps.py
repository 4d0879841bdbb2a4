"""`ilubench matched`: strength sweeps at matched forgetting, beside the plain comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from finished_runs import BEFORE, Told, edit_record, write_run
from markdown_tables import rows_of
from runs import command


def strength(folder: Path, use: str, after: float, end: float, **more: Any) -> Path:
    """A run with that f_u and that metric at the end; its name says both."""
    noise = 1 + sum(map(ord, folder.name))
    settings = {"steps": round(100 * after)}
    return write_run(folder, Told(use, settings, after=after, end=end, noise=noise, **more))


def recovery(after: float, end: float) -> float:
    return (after - end) / (after - BEFORE)


def run_matched(*words: str, code: int = 0) -> str:
    done = command("matched", *words)
    assert done.code == code, done.err
    return done.out if code == 0 else done.err


def word(name: str, *folders: Path) -> str:
    return f"{name}={','.join(map(str, folders))}"


@pytest.fixture
def sweep(tmp_path: Path) -> str:
    """One method at f_u .4, .6 and .8, given in another order."""
    told = {"strong": (0.8, 0.5), "weak": (0.4, 0.38), "middle": (0.6, 0.4)}
    return word("npo", *(strength(tmp_path / n, "npo", *own) for n, own in told.items()))


def lines_of(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_runs_of_equal_forgetting_are_compared(sweep: str, tmp_path: Path) -> None:
    other = word("ilu", strength(tmp_path / "ilu", "ilu", 0.79, 0.7))
    shown = run_matched(sweep, other)
    assert "over {core}" in shown.replace("\\", "")
    assert lines_of(shown, "| npo | npo (steps=40) | 0.400 [")
    points = [line.split("|")[2].strip() for line in lines_of(shown, "| npo |")]
    assert points == ["npo (steps=40)", "npo (steps=60)", "npo (steps=80)"]
    (point,) = lines_of(shown, "| ilu | ilu |")
    assert point.split("|")[4].strip().startswith(f"{recovery(0.79, 0.7):.3f} [")
    found = {}
    for line in (*lines_of(shown, "| recovery |"), *lines_of(shown, "| final |")):
        what, a, b, f_u, difference, plain = (cell.strip() for cell in line.strip("|").split("|"))
        assert (a, b, f_u) == ("npo (steps=80)", "ilu", "0.800, 0.790")
        assert plain.startswith("-0.200 [")
        found[what] = difference
    assert found["final"].startswith("-0.200 [")
    expected = recovery(0.8, 0.5) - recovery(0.79, 0.7)
    assert found["recovery"].startswith(f"{expected:.3f} [")
    plain_pairs = lines_of(shown, "- npo")
    assert len(plain_pairs) == 3
    assert all("- ilu: -" in line and "differs" in line for line in plain_pairs)
    assert "could have shown (alpha 0.05 over 6 pairs" in shown
    assert "Welch" not in shown


def test_far_runs_are_interpolated(sweep: str, tmp_path: Path) -> None:
    others = [
        strength(tmp_path / "x", "ilu", 0.5, 0.5),
        strength(tmp_path / "y", "ilu", 0.7, 0.2),
    ]
    done = command("matched", sweep, word("ilu", *others), "--at", "0.5", "--json")
    assert done.code == 0, done.err
    (one,) = done.json
    assert (one["metric"], one["attacks"]) == ("FQ", ["core"])
    assert [point["name"] for point in one["points"]][3:] == ["ilu (steps=50)", "ilu (steps=70)"]
    first, second = one["matched"]
    assert (first["quantity"], second["quantity"]) == ("recovery", "final")
    assert (first["pair"]["a"], first["pair"]["how"]) == ("npo", "interpolated")
    assert first["pair"]["f_u"] == pytest.approx([0.6, 0.6])
    halfway = recovery(0.7, 0.2) / 2
    assert first["pair"]["difference"]["value"] == pytest.approx(recovery(0.6, 0.4) - halfway)
    assert second["pair"]["difference"]["value"] == pytest.approx(0.4 - 0.35)
    assert first["plain"] is None
    at = {(part["sweep"], part["quantity"]): part["figure"]["value"] for part in one["at"]}
    assert at["npo", "final"] == pytest.approx(0.39)
    assert at["ilu", "recovery"] == pytest.approx(0.0, abs=1e-9)
    assert len(one["between"]) == 6
    assert len(one["plain"]["pairs"]) == 10
    shown = run_matched(sweep, word("ilu", *others), "--at", "0.9")
    assert "| 0.600 (interpolated) |" in shown
    assert "n/a: f_u 0.900 is outside the sweep, 0.400-0.800" in shown


def test_runs_without_a_shared_seed(sweep: str, tmp_path: Path) -> None:
    apart = word("ilu", strength(tmp_path / "ilu", "ilu", 0.8, 0.7, seeds=(7, 8, 9)))
    shown = run_matched(sweep, apart, "--welch")
    assert "n/a: no seed is shared" in shown
    _, welch = shown.split("Per-seed means, items fixed (Welch)")
    assert len(lines_of(welch, "- npo")) == 3
    assert lines_of(welch, "- npo (steps=80) - ilu: -0.200 [")
    assert "Holm" not in welch
    assert "p < 0.001: differs" in welch
    one = word("ilu", strength(tmp_path / "one", "ilu", 0.8, 0.7, seeds=(7,)))
    assert "needs two, not one" in run_matched(sweep, one, "--welch", code=3)


def test_what_is_not_ranked_is_shown_and_left_out(sweep: str, tmp_path: Path) -> None:
    good = strength(tmp_path / "good", "ilu", 0.79, 0.7)
    gone = strength(tmp_path / "gone", "ilu", 0.8, 0.8, utility=0.4)
    half = strength(tmp_path / "half", "ilu", 0.81, 0.8, lost=[("core", 3)])
    shown = run_matched(sweep, word("ilu", good, gone, half))
    assert lines_of(shown, "| ilu | ilu (steps=80) (not compared: collapsed: U 23%) | 0.800 [")
    (line,) = lines_of(shown, "| ilu | ilu (steps=81) (not compared: incomplete) | 0.810 [")
    assert line.endswith("| - | - |")
    (pair,) = lines_of(shown, "| final |")
    assert "| ilu (steps=79) |" in pair
    alone = run_matched(sweep, word("ilu", gone), code=3)
    assert "sweep 'ilu' has no run that can be compared (ilu: collapsed: U 23%)" in alone


def test_single_seeds_have_intervals_over_items(tmp_path: Path) -> None:
    words = [
        word(use, strength(tmp_path / use, use, 0.8, end, seeds=(0,)))
        for use, end in (("npo", 0.5), ("ilu", 0.6))
    ]
    (one,) = command("matched", *words, "--json").json
    assert {row["pair"]["difference"]["kind"] for row in one["matched"]} == {"item-only"}
    assert one["matched"][0]["plain"]["value"] == pytest.approx(-0.1)
    assert one["between"] == []


def test_without_core_attacks_all_count(tmp_path: Path) -> None:
    words = [
        word(use, strength(tmp_path / use, use, 0.8, 0.5, suite={"core_unseen": []}))
        for use in ("npo", "ilu")
    ]
    (one,) = command("matched", *words, "--json").json
    assert one["attacks"] == ["seen", "core"]
    assert len(one["between"]) == 1


def test_an_undefined_recovery_is_said(sweep: str, tmp_path: Path) -> None:
    """A run that forgot nothing has no recovery; its sweep is joined without it."""
    more = [
        strength(tmp_path / "x", "ilu", 0.5, 0.4),
        strength(tmp_path / "y", "ilu", 0.7, 0.5),
        strength(tmp_path / "z", "ilu", BEFORE, BEFORE),
    ]
    shown = run_matched(sweep, word("ilu", *more), "--at", "0.6")
    (line,) = lines_of(shown, "| ilu | recovery |")
    assert "(without ilu (steps=10) (recovery undefined))" in line
    (point,) = lines_of(shown, "| ilu | ilu (steps=10) |")
    assert "undefined: the interval of f_u - f_0 contains 0" in point


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["npo=a,b"], "give two sweeps or more"),
        (["npo=a", "b"], "'b' is no sweep; write NAME=RUN,RUN,..."),
        (["=a", "npo=b"], "'=a' is no sweep"),
        (["npo=", "ilu=b"], "'npo=' is no sweep"),
        (["npo=a", "npo=b"], "'npo' is given twice"),
    ],
)
def test_bad_words(words: list[str], text: str) -> None:
    assert text in run_matched(*words, code=2)


def test_bad_sweeps(sweep: str, tmp_path: Path) -> None:
    other = strength(tmp_path / "other", "ilu", 0.8, 0.5, steps=(50, 100))
    assert "differ in the scored steps" in run_matched(sweep, word("ilu", other), code=2)
    bare = strength(tmp_path / "bare", "ilu", 0.8, 0.5)
    (bare / "samples.parquet").unlink()
    error = run_matched(sweep, word("ilu", bare), code=3)
    assert f"{bare}: no samples.parquet beside it; give the folders" in error
    empty = write_run(tmp_path / "empty", Told("ilu"), rows={})
    assert "no robustness row in a common metric" in run_matched(sweep, word("x", empty), code=3)


def test_a_sweep_has_one_method(sweep: str, tmp_path: Path) -> None:
    one, other = (strength(tmp_path / u, u, 0.8, 0.5) for u in ("ilu", "rmu"))
    error = run_matched(sweep, word("x", one, other), code=2)
    assert f"sweep 'x' mixes methods: {one} is of ilu version 1, {other} of rmu version 1" in error
    later = strength(tmp_path / "later", "ilu", 0.7, 0.5)
    edit_record(later, method_version=2)
    error = run_matched(sweep, word("x", one, later), code=2)
    assert f"{one} is of ilu version 1, {later} of ilu version 2" in error


@pytest.mark.parametrize("level", ["-0.1", "1.5", "nan"])
def test_a_level_that_is_none(sweep: str, tmp_path: Path, level: str) -> None:
    other = word("ilu", strength(tmp_path / "ilu", "ilu", 0.8, 0.7))
    error = run_matched(sweep, other, f"--at={level}", code=2)
    assert f"--at {float(level):g}: f_u is a mean of scores, between 0 and 1" in error
    assert "At f_u = 1:" in run_matched(sweep, other, "--at=1")


def test_what_is_not_adjusted_is_said(sweep: str, tmp_path: Path) -> None:
    shown = run_matched(sweep, word("ilu", strength(tmp_path / "ilu", "ilu", 0.8, 0.7)))
    assert "not adjusted for the number of pairs" in shown
    assert "chosen by their measured f_u" in shown
    assert "p < 0.001, Holm < 0.001: differs" in shown


def test_hostile_names(sweep: str, tmp_path: Path) -> None:
    hostile = strength(tmp_path / "h", "a|b\n| 9 |", 0.8, 0.7)
    shown = run_matched(sweep, f"x|y={hostile}", "--welch", "--at", "0.7")
    assert not lines_of(shown, "| 9")
    assert lines_of(shown, r"| x\|y | a\|b \| 9 \| | 0.800 [")
    assert rows_of(shown.replace("| sweep |", "| method |"), 0)["x|y"]["run"] == "a|b | 9 |"
