"""Attacks on existing entries: packaged, verified, and what they do to an entry's worst case."""

import json
import re
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from quick_board import board, measured, published, quick_suite, run_folder
from runs import TINY, Outcome, command

from ilubench.leaderboard.records.files import Board, read_attack, read_board
from ilubench.leaderboard.records.models import AttackEntry
from ilubench.leaderboard.site.best_attack import best_attack
from ilubench.records.run_files import memory_of
from ilubench.statistics.intervals import Figure

OWN = Figure(6.5, 6.4, 6.6, 3, 6, "seeds-and-items")
"""Worst case of an entry under the suite's attacks."""


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="ilubench-attack-")  # removed at exit


@cache
def suite() -> Path:
    """Return the file of the quick suite with one attack more."""
    attack = yaml.safe_load(TINY.read_text())["attacks"]["gsm8k"]
    attack["settings"]["train"] |= {"steps": 2, "lr": 3.0e-3}
    attack["settings"]["fractions"] = [0.5, 1.0]
    attack["data"]["train"]["limit"] = 8
    path = Path(_folder().name) / "more.yaml"
    path.write_text(yaml.safe_dump({"extends": str(quick_suite()), "attacks": {"mine": attack}}))
    return path


@cache
def tried(seeds: str) -> Path:
    """Return the folder of a run of the new attack, and of the suite's, on npo."""
    words = (f"suite={suite()}", "method=npo", f"seeds={seeds}", f"out={measured()}", "--json")
    done = command("run", *words)
    assert done.code == 0, done.err
    return measured() / str(done.json["run"])


def submitted(root: Path) -> Path:
    """Return a suite's folder with an entry and an attack on it."""
    folder = board(root).parent
    done = attack(folder, str(tried("0..2")), "--by", "Mallory", "--title", "More steps")
    assert done.code == 0, done.err
    return folder


def attack(folder: Path, *words: str) -> Outcome:
    return command("leaderboard", "attack", *words, "--to", str(folder))


def test_an_attack_is_packaged_alone_and_changes_nothing(tmp_path: Path) -> None:
    folder = submitted(tmp_path)
    record = read_attack(folder / "attacks" / "mine.json")
    assert (record.title, record.submission.by, record.suite) == ("More steps", "Mallory", "quick")
    (result,) = record.results
    assert (result.entry, result.verified) == ("npo-1", False)
    assert result.run.attacks == ("mine",)
    assert list(result.run.protocol) == ["mine"]
    assert result.run.rows.keys() == {"NLL_f"}
    assert not any("agnews" in job.label for job in result.run.jobs)
    assert list(record.config["attacks"]) == ["mine"]  # type: ignore[arg-type]
    assert memory_of(record.config, "").moments == "float32"
    done = command("leaderboard", "check", str(tmp_path))
    assert (done.code, done.out) == (0, "")
    assert best_attack(read_board(folder), "npo-1", "NLL_f", OWN) is None


def test_a_maintainer_s_runs_make_it_count(tmp_path: Path) -> None:
    folder = submitted(tmp_path)
    same = attack(folder, str(tried("0..2")), "--verified")
    assert same.code == 2
    assert "share the seeds 0, 1, 2" in same.err or "are the same run" in same.err
    done = attack(folder, str(tried("100,101")), "--verified")
    assert done.code == 0, done.err
    assert "npo-1, submitted and verified:" in done.out
    record = read_attack(folder / "attacks" / "mine.json")
    assert (record.submission.by, record.title) == ("Mallory", "More steps")
    (result,) = record.results
    assert result.verified
    assert result.run.seeds == (100, 101)
    assert command("leaderboard", "check", str(tmp_path)).code == 0
    back = attack(folder, str(tried("0..2")), "--by", "Mallory")
    assert back.code == 2
    assert "the result on npo-1 is verified; it stays" in back.err


def with_worst(found: Board, worst: float | None, *, verified: bool = True) -> Board:
    """The board with another worst case of its attack."""
    (one,) = found.attacks
    told: Any = one.model_dump(mode="json")
    result = told["results"][0]
    result["verified"] = verified
    result["run"]["rows"]["NLL_f"]["worst_case"]["value"] = worst
    return Board(found.folder, found.suite, found.entries, (), (AttackEntry(**told),))


def test_only_a_stronger_verified_attack_lowers_the_worst_case(tmp_path: Path) -> None:
    found = read_board(submitted(tmp_path))
    stronger = best_attack(with_worst(found, 6.4), "npo-1", "NLL_f", OWN)
    assert stronger is not None
    assert (stronger.attack, stronger.by, stronger.figure.value) == ("mine", "Mallory", 6.4)
    for changed in (
        with_worst(found, 6.6),  # never raises a score
        with_worst(found, 6.5),
        with_worst(found, None),  # no checkpoint keeps the utility
        with_worst(found, 6.4, verified=False),
    ):
        assert best_attack(changed, "npo-1", "NLL_f", OWN) is None
    assert best_attack(with_worst(found, 6.4), "rmu-1", "NLL_f", OWN) is None


def test_published_weights_are_told_by_their_hash(tmp_path: Path) -> None:
    folder, (files, weights) = board(tmp_path).parent, published()
    model = tmp_path / "model"
    model.mkdir()
    shutil.copyfile(files / f"npo-{weights[0].seed}.safetensors", model / "model.safetensors")
    run = edited_run(
        tmp_path, method={"use": "checkpoint", "settings": {"model": {"path": str(model)}}}
    )
    done = attack(folder, str(run), "--by", "Mallory")
    assert done.code == 0, done.err
    (result,) = read_attack(folder / "attacks" / "mine.json").results
    assert result.run.method["use"] == "npo"
    assert str(tmp_path) not in (folder / "attacks" / "mine.json").read_text()
    (model / "model.safetensors").write_bytes(b"others")
    done = attack(folder, str(run), "--by", "Mallory")
    assert done.code == 2
    assert "method checkpoint with these settings is no entry" in done.err


def edited_run(tmp_path: Path, **changes: Any) -> Path:
    """Return a copy of the attack's run with another record."""
    run = tmp_path / "edited"
    run.mkdir(parents=True)
    for name in ("results.json", "samples.parquet", "config.yaml"):
        shutil.copyfile(tried("0..2") / name, run / name)
    record = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps({**record, **changes}))
    return run


def edited_suite(tmp_path: Path) -> Path:
    run = edited_run(tmp_path)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["suite"]["max_length"] = 64
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def edited_memory(tmp_path: Path) -> Path:
    run = edited_run(tmp_path / "memory")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["run"]["memory"]["moments"] = "float8"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def test_runs_that_say_nothing_about_entries_are_refused(tmp_path: Path) -> None:
    folder = board(tmp_path).parent
    good = str(tried("0..2"))
    cases: tuple[tuple[tuple[str, ...], str], ...] = (
        ((str(run_folder()), "--by", "M"), "has none that is new; an attack is added"),
        ((good, good, "--by", "M"), "two runs attack the same entry: npo-1, npo-1"),
        ((f"rmu-1={good}", "--by", "M"), "has no entry 'rmu-1'.*npo-1"),
        ((good,), "--by: who sends the attack in is missing"),
        ((good, "--by", "M", "--attack", "min"), "no new one 'min' in .*did you mean 'mine'"),
        ((good, "--verified"), "no attack 'mine' was submitted"),
        ((str(edited_suite(tmp_path)), "--by", "M"), "suite.max_length is 64, and 128 in npo-1"),
        (
            (str(edited_memory(tmp_path)), "--by", "M"),
            "memory.moments is 'float8', and 'float32' in npo-1",
        ),
    )
    for words, message in cases:
        done = attack(folder, *words)
        assert done.code in (2, 3), done.out
        assert re.search(message, done.err), done.err
    assert not (folder / "attacks").exists()


@pytest.mark.parametrize("label", ["../up", "Upper"])
def test_a_label_is_a_plain_name(tmp_path: Path, label: str) -> None:
    folder = board(tmp_path).parent
    done = attack(folder, str(tried("0..2")), "--by", "M", "--label", label)
    assert done.code == 2
    assert "--label" in done.err
    assert not list(tmp_path.rglob("*up*"))
