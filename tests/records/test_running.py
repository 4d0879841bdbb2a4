"""`ilubench watch`: where a run stands follows from its files."""

import json
import os
from pathlib import Path

import pytest
from runs import command, made

from ilubench.errors import DataError
from ilubench.records.running import read_state, state_lines

NOW = 1_000_000.0


def job(stage: str, key: str) -> dict[str, str]:
    return {"stage": stage, "key": key, "label": f"{stage} {key}"}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "out" / "tiny-npo-1"
    folder.mkdir(parents=True)
    jobs = [job("target", "a"), job("unlearn", "b"), job("attack", "c"), job("attack", "d")]
    jobs += [job("attack", name) for name in "efghi"]
    (folder / "plan.json").write_text(json.dumps({"jobs": jobs}))
    store = folder.parent / "store"
    (store / "target" / "a").mkdir(parents=True)
    (store / "target" / "a" / "DONE").write_text("{}")
    work = store / "attack" / "c.partial"
    (work / "scores").mkdir(parents=True)
    (work / "scores" / "step-000000.json").write_text("{}")
    (work / "log.jsonl").write_text('{"step": 3, "loss": 0.25}\n{"step": 4, "lo')
    for file in (work, *work.rglob("*")):
        os.utime(file, (NOW - 7, NOW - 7))
    old = store / "attack" / "d.partial"
    old.mkdir()
    os.utime(old, (NOW - 9000, NOW - 9000))
    (folder / "status.json").write_text(json.dumps({"states": {"b": "failed"}}))
    return folder


def test_each_job_is_what_its_files_say(run: Path) -> None:
    found = read_state(run, NOW)
    states = {one.label: one.state for one in found.jobs}
    assert [*states.values()][:4] == ["done", "failed", "running", "stopped"]
    assert set([*states.values()][4:]) == {"waiting"}
    running = found.jobs[2]
    assert running.told == "step 3, loss 0.25, 1 checkpoint scored"
    assert running.silent == pytest.approx(7, abs=1)
    assert not found.finished
    lines = list(state_lines(found))
    assert lines[0] == "tiny-npo-1: 1 of 9 jobs done, 1 running, 1 stopped, 1 failed, 5 waiting"
    assert "  running  attack c: step 3, loss 0.25, 1 checkpoint scored, 7 s ago" in lines
    assert lines[-1] == "  and 2 more"
    assert max(map(len, lines)) <= 80


def test_a_run_of_which_nothing_is_heard_says_so(run: Path) -> None:
    told = "  nothing is written: not begun, between two jobs, or stopped"
    assert told not in state_lines(read_state(run, NOW))
    assert told in state_lines(read_state(run, NOW + 9000))


def test_a_finished_run_ends_the_watch() -> None:
    (folder,) = made().glob("tiny-ilu-*")
    assert read_state(folder).finished
    done = command("watch", str(folder))
    assert done.code == 0
    assert f"finished: ilubench show {folder}" in done.out


def test_a_log_reads_a_line_a_change(run: Path) -> None:
    done = command("watch", str(run), "--once")
    assert done.code == 0
    assert "1 of 9 jobs done" in done.out


def test_a_label_does_not_move_the_cursor(run: Path) -> None:
    plan = {"jobs": [{**job("target", "a"), "label": "a\x1b[2J\u202e"}]}
    (run / "plan.json").write_text(json.dumps(plan))
    (run.parent / "store" / "target" / "a" / "DONE").unlink()
    assert "a\ufffd[2J\ufffd" in command("watch", str(run), "--once").out


def test_ctrl_c_ends_the_watch_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    done = command("watch", str(run))
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1] == "no longer watched; the run is left as it is"


def test_a_file_may_go_while_it_is_looked_at(run: Path) -> None:
    (run.parent / "store" / "attack" / "c.partial" / "log.jsonl.tmp").symlink_to(run / "gone")
    assert read_state(run, NOW).jobs[2].state == "running"


@pytest.mark.parametrize("text", ["[]", "{", '{"jobs": [{}]}', '{"jobs": 3}'])
def test_what_is_no_run_says_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(DataError, match="no folder of a run"):
        read_state(tmp_path)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(DataError, match=r"plan.json: (not what a run leaves|no JSON)"):
        read_state(tmp_path)
