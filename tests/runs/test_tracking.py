"""What a tracker is told of a run's jobs: everything once, and never so that the run ends."""

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from filelock import FileLock
from runs import SUITE, command, made, planned, rows, with_target

from ilubench.runs.tracker_process import PATIENCE_S
from ilubench.runs.tracking import tracking

RECORDING = """
import json
from pathlib import Path

class Run:
    def __init__(self, name): self.name = name
    def log(self, values, step): tell("log", self.name, step, values)
    def finish(self): tell("finish", self.name)

def tell(*words):
    with (Path(__file__).parent / "told.jsonl").open("a") as file:
        file.write(json.dumps(words) + "\\n")

def init(project, name, group, config, resume, **how):
    print("greetings")
    tell("init", name, group, config, resume)
    return Run(name)
"""

FAILING = """
def init(*words, **how):
    raise OSError("no network\\nat all")
"""

HANGING = """
import time

def init(*words, **how):
    print("greetings")
    time.sleep(600)
"""

LEAVING = """
import sys

def init(*words, **how):
    sys.exit(7)
"""

Told = Callable[[], list[Any]]


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    """What a module in trackio's place was told since the last call."""
    place = tmp_path / "modules"
    place.mkdir()
    (place / "trackio.py").write_text(RECORDING)
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "trackio", raising=False)

    def read() -> list[Any]:
        file = place / "told.jsonl"
        lines = file.read_text().splitlines() if file.is_file() else []
        file.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]

    yield read
    monkeypatch.delitem(sys.modules, "trackio", raising=False)


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A finished run's `out` folder, to be written to."""
    return Path(shutil.copytree(made(), tmp_path / "out"))


def tracked(out: Path) -> Any:
    found = command("run", SUITE, "method=ilu", "track=trackio", f"out={out}", "--json")
    assert found.code == 0, found.err
    return found


def test_each_job_is_a_run_of_its_row_with_every_step_and_score(done: Path, told: Told) -> None:
    record = tracked(done).json  # nothing that the library prints is on stdout
    found = told()
    opened = {words[1]: words for words in found if words[0] == "init"}
    assert {words[2] for words in opened.values()} == {record["run"]}
    assert {words[4] for words in opened.values()} == {"never"}
    left = {job["label"] for job in record["jobs"]} - set(opened)
    assert left == {"unlearn none"}  # it trains nothing and scores nothing
    attack = opened["attack ilu with gsm8k, seed 0"][3]
    assert attack["attack"]["use"] == "gsm8k"
    assert attack["attack"]["train"]["lr"] > 0
    assert attack["method"]["use"] == "ilu"
    (job,) = (job for job in record["jobs"] if job["label"] == "attack ilu with gsm8k, seed 0")
    cell = done / record["run"] / "cells" / job["key"]
    steps = [json.loads(line) for line in (cell / "log.jsonl").read_text().splitlines()]
    mine = [words[2:] for words in found if words[:2] == ["log", job["label"]]]
    losses = [(step, values["train/loss"]) for step, values in mine if "train/loss" in values]
    assert losses == [(entry["step"], entry["loss"]) for entry in steps]
    scored = {step: values for step, values in mine if "train/loss" not in values}
    last = max(scored)
    kept = {row["step"]: row for row in map(json.loads, _scores(cell))}
    assert scored.keys() == kept.keys()
    for one in kept[last]["summaries"]:
        assert scored[last][f"{one['scorer']}/{one['metric']}"] == one["value"]
    assert sum(words[0] == "finish" for words in found) == len(opened)


def _scores(cell: Path) -> list[str]:
    return [file.read_text() for file in sorted((cell / "scores").glob("*.json"))]


def test_nothing_is_told_twice_and_a_resumed_job_goes_on(done: Path, told: Told) -> None:
    tracked(done)
    told()
    tracked(done)
    assert told() == []
    (file,) = (
        file
        for file in (done / "tracked" / "trackio").glob("*.json")
        if json.loads(file.read_text())["id"] == "unlearn ilu, seed 0"
    )
    known = json.loads(file.read_text())
    file.write_text(json.dumps({**known, "step": known["step"] - 1, "ended": False}))
    tracked(done)
    opened, logged, ended = told()
    assert (opened[0], opened[4], ended[0]) == ("init", "allow", "finish")
    assert (logged[1], logged[2]) == (known["id"], known["step"])


def test_a_tracker_that_fails_is_one_line_and_never_the_end(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modules" / "trackio.py").write_text(FAILING)
    out = with_target(made(), tmp_path / "out")
    found = tracked(out)
    said = [line for line in found.err.splitlines() if "track=" in line]
    assert said == ["track=trackio stopped (OSError: no network); the run goes on without it"]
    assert rows(out) == rows(made())  # and the keys know nothing of it
    assert told() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [(HANGING, "it did not end within 1 s of the run"), (LEAVING, "SystemExit: 7")],
)
def test_a_tracker_that_hangs_or_leaves_holds_nothing_up(
    done: Path, told: Told, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    monkeypatch.setattr("ilubench.runs.tracking.PATIENCE_S", 1.0)
    (done.parent / "modules" / "trackio.py").write_text(text)
    began = time.monotonic()
    found = tracked(done)
    assert time.monotonic() - began < 30
    assert f"track=trackio stopped ({said}); the run goes on without it" in found.err
    assert told() == []


def test_an_interrupted_run_does_not_wait_for_its_tracker(done: Path, told: Told) -> None:
    (done.parent / "modules" / "trackio.py").write_text(HANGING)
    plan = planned("method=ilu", "track=trackio", f"out={done}")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), tracking(plan, Mock()):
        raise KeyboardInterrupt
    assert time.monotonic() - began < PATIENCE_S / 2
    assert told() == []


def test_a_job_that_another_process_tells_of_is_left_to_it(done: Path, told: Told) -> None:
    with ExitStack() as held:
        for file in (done / "store").glob("*/*/DONE"):
            place = done / "tracked" / "trackio" / f".{file.parent.name}.lock"
            place.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(FileLock(place))
        tracked(done)
        assert told() == []
    tracked(done)
    assert any(words[0] == "log" for words in told())


def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = command("run", SUITE, "method=ilu", "track=wandb", f"out={tmp_path / 'out'}")
    assert found.code == 2
    assert "track=wandb needs the package wandb: pip install 'ilubench[wandb]'" in found.err
    assert not (tmp_path / "out").exists()


def test_no_key_depends_on_the_tracker(tmp_path: Path) -> None:
    out = f"out={tmp_path}"
    plain, told = planned("method=ilu", out), planned("method=ilu", out, "track=mlflow")
    assert [job.key for job in plain.jobs] == [job.key for job in told.jobs]
    assert plain.folder == told.folder


def test_tensorboard_has_the_losses(done: Path) -> None:
    reading = "tensorboard.backend.event_processing.event_accumulator"
    accumulator = pytest.importorskip(reading).EventAccumulator
    found = command("run", SUITE, "method=ilu", "track=tensorboard", f"out={done}", "--json")
    folder = done / "tensorboard" / found.json["run"] / "unlearn ilu, seed 0"
    events = accumulator(str(folder))
    events.Reload()
    steps = [one.step for one in events.Scalars("train/loss")]
    assert steps == list(range(1, len(steps) + 1))
    assert "config/text_summary" in events.Tags()["tensors"]
