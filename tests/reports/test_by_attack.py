"""`ilubench table --attacks`: each attack alone, what no row trained on, one against several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from finished_runs import SUITE, Told, write_run
from runs import command

from ilubench.records.finished import read_run
from ilubench.reports.by_attack import attack_tables

ATTACKS = ("seen", "core", "other")
EXTENDED: dict[str, Any] = {"attacks": {**SUITE["attacks"], "other": SUITE["attacks"]["core"]}}


def ilu(*environments: str, **changes: Any) -> Told:
    settings = {
        "base": {"use": "npo", "settings": {"beta": 0.1, "train": {"schedule": "constant"}}},
        "environments": list(environments),
        "weight": 0.1 * len(environments),
        "penalty": changes.pop("penalty", "irm"),
    }
    given = {"seen": environments, "suite": EXTENDED, "attacks": ATTACKS, **changes}
    return Told("ilu", settings=settings, **given)


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Ends, and with them RA of `core` and `other`; RA of `seen` is .1 lower."""
    told = {
        "npo": Told("npo", end=0.4, noise=1, suite=EXTENDED, attacks=ATTACKS),
        "one": ilu("seen", end=0.6, noise=2),
        "two": ilu("other", end=0.5, noise=3),
        "both": ilu("seen", "other", end=0.7, noise=4),
        "control": ilu("seen", end=0.45, noise=5, penalty="cross_entropy"),
    }
    return {name: write_run(tmp_path / name, one) for name, one in told.items()}


def value(figure: Any) -> float:
    assert figure is not None
    assert figure.low < figure.value < figure.high
    return float(figure.value)


def test_cells_and_the_mean_of_what_nobody_trained_on(runs: dict[str, Path]) -> None:
    (one,) = attack_tables([read_run(path) for path in runs.values()])
    assert (one.metric, one.attacks, one.unseen) == ("FQ", ATTACKS, ("core",))
    ends = (0.4, 0.6, 0.5, 0.7, 0.45)
    for row, end in zip(one.rows, ends, strict=True):
        wanted = {"seen": end - 0.1, "core": end, "other": end}
        assert {name: value(cell) for name, cell in row.cells.items()} == pytest.approx(wanted)
        assert value(row.unseen) == pytest.approx(end)
    assert [row.seen for row in one.rows][-2:] == [("seen", "other"), ("seen",)]
    (two,) = attack_tables([read_run(runs[name]) for name in ("npo", "one")])
    assert two.unseen == ("core", "other")
    assert two.carried == ()


def test_several_environments_against_one(runs: dict[str, Path]) -> None:
    """.7 - (.6 + .5) / 2; the control is another method."""
    (one,) = attack_tables([read_run(path) for path in runs.values()])
    (carried,) = one.carried
    assert "other" in carried.several
    assert set(carried.singles.values()) == {("core",)}
    assert len(carried.singles) == 2
    assert value(carried.difference) == pytest.approx(0.15)
    assert (carried.difference.n_seeds, carried.difference.n_items) == (5, 12)
    assert carried.left_out == {}


def test_singles_that_cannot_be_compared_are_named(runs: dict[str, Path], tmp_path: Path) -> None:
    all_seen = write_run(tmp_path / "all", ilu(*ATTACKS, end=0.7, noise=6))
    done = command("table", str(runs["one"]), str(all_seen), "--attacks")
    assert done.code == 0, done.err
    assert "was not compared with" in done.out
    assert "one of the two trained on every attack" in done.out
    assert "every attack was trained on by a row" in done.out
    (runs["two"] / "samples.parquet").unlink()
    bare = command("table", str(runs["two"]), str(runs["both"]), "--attacks")
    assert "no samples.parquet beside it" in bare.out
    assert "0.500 [" in bare.out  # the record's figures are shown


def test_markdown_and_json(runs: dict[str, Path]) -> None:
    words = ("table", *map(str, runs.values()), "--attacks")
    done = command(*words)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert "| method | seen | core | other | mean of {core} |" in lines
    (npo,) = (line for line in lines if line.startswith("| npo "))
    assert "seen)" not in npo
    (both,) = (line for line in lines if line.startswith("| ilu") and line.count("(seen)") == 2)
    assert "| 0.600 [" in both
    assert any("over attacks that neither trained on (core): 0.150 [" in line for line in lines)
    (one,) = command(*words, "--json").json
    assert one["unseen"] == ["core"]
    assert one["rows"][0]["cells"]["core"]["value"] == pytest.approx(0.4)
    assert one["carried"][0]["difference"]["value"] == pytest.approx(0.15)
    both_options = command(*words, "--pairs")
    assert both_options.code == 2
    assert "--attacks is another table" in both_options.err
