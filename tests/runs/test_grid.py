"""Several methods in one command: shared jobs once, each row as if it had been run alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from places import FIXTURES
from runs import SUITE, WEAK, Outcome, command, environment, made, samples, target_folder, weights

from ilubench.errors import UsageError
from ilubench.experiments.experiment import resolve_grid
from ilubench.runs.plan import make_plan, outline_jobs
from ilubench.specs.overrides import parse_words

METHODS = ("retrain", "npo", "ilu", "none")
SHORT = ("seeds=0..1", "attacks=gsm8k")
DATA_CHECK = ("data", "check", SUITE, "attacks=none", "--json")
MEASURED = ("train_seconds", "grown_bytes", "peak_bytes")
VARIANT = ("suite.methods.strong.use=npo", "suite.methods.strong.beta=0.5")


def asked(methods: str, out: Path) -> tuple[str, ...]:
    folder = target_folder(made())
    models = (f"suite.{which}.model.path={folder}" for which in ("target", "retrain"))
    return ("run", SUITE, *models, f"method={methods}", *SHORT, f"out={out}")


def rows_in(out: Path) -> dict[str, Path]:
    """Return method -> folder of its run."""
    return {path.name.split("-")[1]: path for path in out.glob("tiny-*")}


def record(folder: Path) -> dict[str, Any]:
    """Return a run's record without what differs from time to time."""
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    found["cost"] = {name: n for name, n in found["cost"].items() if name not in MEASURED}
    found["jobs"] = [(job["stage"], job["key"], job["label"]) for job in found["jobs"]]
    return found


def same_rows(one: Path, other: Path, methods: Sequence[str] = METHODS) -> None:
    for method in methods:
        mine, its = rows_in(one)[method], rows_in(other)[method]
        assert mine.name == its.name
        assert record(mine) == record(its)
        for file in ("samples.parquet", "metrics.parquet", "config.yaml"):
            found, wanted = ((path / file).read_bytes() for path in (mine, its))
            assert found.replace(bytes(one), bytes(other)) == wanted, file


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """The `out` folder of a grid of four methods and two seeds, and what the command said."""
    out = tmp_path_factory.mktemp("grid")
    return out, command(*asked(",".join(METHODS), out))


def test_each_row_is_that_of_a_run_of_its_own(grid: tuple[Path, Outcome], tmp_path: Path) -> None:
    out, _ = grid
    for method in METHODS:
        assert command(*asked(method, tmp_path)).code == 0
    same_rows(out, tmp_path)
    assert samples(out) == samples(tmp_path)
    assert weights(out) == weights(tmp_path)
    again = command(*asked("npo", out), "--json")  # and finds all of it done
    assert {job["state"] for job in again.json["jobs"]} == {"cached"}


def test_shared_jobs_are_done_once_and_the_table_ends_it(grid: tuple[Path, Outcome]) -> None:
    out, said = grid
    assert said.code == 0, said.err
    done = [line.split("] ")[1].split(":")[0] for line in said.err.splitlines() if "done," in line]
    assert len(done) == len(set(done)) == 2 * 4 + 2 * 2 * 3  # two references, two methods
    assert "jobs     21, of which 20 to do; 9 are of several methods" in said.err
    folders = [str(rows_in(out)[method]) for method in METHODS]
    table = command("table", *folders)
    assert said.out.startswith(table.out.rstrip("\n"))
    assert said.out.splitlines()[-4:] == [f"Results: {folder}" for folder in folders]
    listed = command("ls", "runs", str(out), "--format", "json").json
    assert sorted(run["folder"] for run in listed) == sorted(folders)


def test_killed_with_two_workers_and_resumed_with_one(
    grid: tuple[Path, Outcome], tmp_path: Path
) -> None:
    out, _ = grid
    words = asked("npo,ilu", tmp_path)
    started = [sys.executable, "-m", "ilubench", *words, WEAK, "workers=2"]
    with subprocess.Popen(started, env=environment(), stderr=subprocess.DEVNULL) as run:
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("store/*/*/DONE"))) < 5:
            assert run.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(run.pid, signal.SIGKILL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/*/*/DONE")}
    assert not list(tmp_path.glob("*/results.json"))
    again = command(*words, "--json")
    assert again.code == 0, again.err
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [run["method"]["use"] for run in again.json] == ["npo", "ilu"]
    same_rows(tmp_path, out, ["npo", "ilu"])


def test_a_row_that_fails_leaves_the_others(grid: tuple[Path, Outcome], tmp_path: Path) -> None:
    out, _ = grid
    (tmp_path / "store").symlink_to(out / "store")
    done = command(*asked(f"npo,{FIXTURES}/faulty.py:Raises,ilu", tmp_path))
    assert done.code == 4
    same_rows(tmp_path, out, ["npo", "ilu"])
    failed = rows_in(tmp_path)["raises"]
    told = record(failed)["failures"]
    assert [one["label"].split(", ")[-1] for one in told] == ["seed 0", "seed 1"]
    assert len(list((failed / "failures").iterdir())) == 2
    assert not (rows_in(tmp_path)["npo"] / "failures").exists()
    assert f"failed: {told[0]['label']}: RuntimeError: the dog ate the gradients" in done.out
    assert "npo" in done.out
    alone = command(*asked(f"{FIXTURES}/faulty.py:Raises", tmp_path), "--json")
    assert alone.json["failures"] == told


def test_a_planned_grid_can_be_carried_out_job_by_job(tmp_path: Path) -> None:
    words = ("plan", *asked("npo,strong", tmp_path)[1:], *VARIANT)
    planned = command(*words, "--write", "--json")
    assert planned.code == 0, planned.err
    told = planned.json
    one, two = (set(row["jobs"]) for row in told["rows"])
    assert [row["method"] for row in told["rows"]] == ["npo", "strong"]
    assert len(told["jobs"]) == len(one | two) == len(one) + 6
    labels = [job["label"] for job in told["jobs"]]
    assert len(set(labels)) == len(labels)
    assert "strong: unlearn npo, seed 1" in labels
    by_label = {job["label"]: job["key"] for job in told["jobs"]}
    first, second = by_label["unlearn none"], by_label["score none"]
    assert command("job", told["folder"], first).code == 0
    assert "cached" in command("job", told["rows"][1]["folder"], first).err
    assert command("job", told["rows"][1]["folder"], second).code == 0
    mine = by_label["strong: unlearn npo, seed 1"]
    assert "has no jobs" in command("job", told["rows"][0]["folder"], mine).err
    assert command("job", told["folder"], mine).code == 0
    state = {job["key"]: job["cached"] for job in command(*words, "--json").json["jobs"]}
    assert [key for key, cached in state.items() if cached][1:] == [first, second, mine]


def test_a_grid_whose_data_are_not_at_hand_has_the_same_jobs() -> None:
    words = parse_words([SUITE, WEAK, *SHORT, *VARIANT, "method=npo,strong,none"])
    grid = resolve_grid(words)
    assert [job.label for job in outline_jobs(*grid)] == [
        job.label for job in make_plan(*grid).jobs
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["method=npo,npo"], "method: npo is named twice"),
        (["method=strong,npo", "method.beta=0.5"], "method: npo is the same as strong"),
        (
            ["method=npo,ilu", "method.beta=0.5"],
            "method.beta: ilu has no setting 'beta', and a word is for all methods; "
            "for npo alone: suite.methods.npo.beta=0.5",
        ),
        (["method=ilu,npo", "method.base.beta=1"], "npo has no setting 'base'.*run ilu by itself"),
        (
            [f"method=npo,{FIXTURES}/faulty.py:Raises", "method.gamma=1"],
            "Raises has no setting 'gamma'.*for npo alone: suite.methods.npo.gamma=1",
        ),
        (["method=npo,simnpo", "method.beta=x"], "method npo: method.beta: must be a number"),
        (["method=npo,simnpo", "method.lr=1"], "method npo: .*did you mean 'method.train.lr'"),
        (
            ["method=ilu,npo", "suite.methods.ilu.environments=[x]"],
            "method ilu: method.environments",
        ),
        (["method=,"], "method: no method is given; write method=ilu"),
        (["method=npo,graddif"], "unknown method 'graddif'; did you mean 'graddiff'"),
    ],
)
def test_words_that_are_no_grid(words: Sequence[str], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        resolve_grid(parse_words([SUITE, *VARIANT, *words]))


def test_settings_are_all_methods_or_one_methods() -> None:
    words = ["method=npo,simnpo", "method.beta=0.3", "suite.methods.simnpo.gamma=0.7"]
    npo, simnpo = (one.method for one in resolve_grid(parse_words([SUITE, *words])))
    told = [(one.model_dump()["beta"], one.model_dump()["gamma"]) for one in (npo, simnpo)]
    assert told == [(0.3, 1.0), (0.3, 0.7)]


def test_the_data_of_all_methods_are_looked_for() -> None:
    found = {
        methods: {
            supply["field"] for supply in command(*DATA_CHECK, f"method={methods}").json["supplies"]
        }
        for methods in ("npo", "ilu", "npo,ilu")
    }
    assert found["npo"] < found["npo,ilu"] == found["ilu"]


def test_a_command_of_one_method_says_so(tmp_path: Path) -> None:
    done = command("make-target", str(tmp_path / "x"), SUITE, "method=npo,ilu")
    assert done.code == 2
    assert "one method is needed here, and 2 are named; write method=npo" in done.err
