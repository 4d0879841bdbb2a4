"""`ilubench job`: a run carried out job by job, in any order that its needs allow."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from places import FIXTURES
from runs import SUITE, command, made, process, target_folder

from ilubench.errors import SpecError, UsageError
from ilubench.runs.carry_out import carry_out_planned
from ilubench.runs.jobs import Job


def read_plan(folder: Path) -> list[Job]:
    raw = json.loads((folder / "plan.json").read_text())
    return [Job.model_validate(job) for job in raw["jobs"]]


def shuffled(jobs: list[Job], seed: int) -> list[Job]:
    """The jobs in a random order in which each comes after those that it needs."""
    draw, left, order = random.Random(seed), list(jobs), []
    while left:
        ready = [job for job in left if not {one.key for one in left} & set(job.needs)]
        order.append(draw.choice(ready))
        left.remove(order[-1])
    return order


def results(folder: Path) -> Any:
    """A run's record without what differs from run to run: times, memory, states."""
    record = json.loads((folder / "results.json").read_text())
    assert record["rows"]
    return {key: value for key, value in record.items() if key not in ("jobs", "cost")}


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a planned run, nothing of which is done."""
    monkeypatch.chdir(tmp_path)
    target = f"suite.target.model.path={target_folder(made())}"
    words = (SUITE, target, "method=npo", "attacks=gsm8k", "seeds=0")
    done = command("plan", *words, "--write")
    assert done.code == 0, done.err
    (folder,) = (path for path in Path("runs").iterdir() if path.is_dir())
    (tmp_path / "words.json").write_text(json.dumps(words))
    return folder


def test_jobs_by_hand_are_the_run(planned: Path, tmp_path: Path) -> None:
    words = json.loads((tmp_path / "words.json").read_text())
    order = [job for job in shuffled(read_plan(planned), 3) if job.stage != "target"]
    assert {job.stage for job in order} == {"unlearn", "score", "attack"}
    early = next(job for job in order if job.stage == "attack")
    refused = command("job", str(planned), early.key)
    assert refused.code == 2
    assert f"ilubench job {planned.resolve()} {early.needs[0]}" in refused.err
    # one in a process of its own, from another folder
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = process("job", str(planned.resolve()), order[0].key, cwd=elsewhere)
    assert done.code == 0, done.err
    for job in order[1:]:
        done = command("job", str(planned), job.key[:10])  # as `plan` shows it
        assert done.code == 0, done.err
    assert "cached" in command("job", str(planned), order[0].key).err

    again = command("run", *words, "--json")
    assert again.code == 0, again.err
    assert {job["state"] for job in again.json["jobs"]} == {"cached"}
    # the same jobs, one after the other, in a store of their own
    whole = command("run", *words, "out=whole", "--json")
    assert {job["state"] for job in whole.json["jobs"]} == {"done", "cached"}
    (other,) = (path for path in Path("whole").iterdir() if path.name == planned.name)
    assert results(other) == results(planned)
    one, two = (path / "samples.parquet" for path in (planned, other))
    assert one.read_bytes() == two.read_bytes()


def test_a_job_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = f"suite.target.model.path={target_folder(made())}"
    method = f"method={FIXTURES}/faulty.py:Raises"
    assert command("plan", SUITE, target, method, "attacks=gsm8k", "--write").code == 0
    (folder,) = (path for path in Path("runs").iterdir() if path.is_dir())
    jobs = read_plan(folder)
    for job in jobs[1:3]:  # the original model's weights and score
        assert command("job", str(folder), job.key).code == 0
    mine = next(job for job in jobs if job.stage == "unlearn" and job.who == "method")
    done = command("job", str(folder), mine.key)
    assert done.code == 4, done.err
    assert "Traceback" in (folder / "failures" / f"{mine.key}.txt").read_text()


def test_what_cannot_be_carried_out(planned: Path) -> None:
    progress: Any = None
    key = read_plan(planned)[-1].key
    with pytest.raises(UsageError, match="has no jobs whose keys begin with 'nothing'"):
        carry_out_planned(planned, "nothing", progress)
    with pytest.raises(UsageError, match=r"no plan\.json; `ilubench plan --write`"):
        carry_out_planned(planned.parent, key, progress)
    config = yaml.safe_load((planned / "config.yaml").read_text())
    config["attacks"]["gsm8k"]["train"]["lr"] *= 2
    (planned / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UsageError, match="are not those of the plan"):
        carry_out_planned(planned, key, progress)
    plan = json.loads((planned / "plan.json").read_text())
    (planned / "plan.json").write_text(json.dumps({**plan, "folder": "/no/where"}))
    with pytest.raises(UsageError, match="every node must see that folder"):
        carry_out_planned(planned, key, progress)
    damaged: list[tuple[str, Any]] = [("needs", ["abc"]), ("attack", "nope"), ("stage", "score")]
    for field, value in damaged:
        jobs = [{**job, field: value} if job["key"] == key else job for job in plan["jobs"]]
        (planned / "plan.json").write_text(json.dumps({**plan, "jobs": jobs}))
        with pytest.raises(UsageError):
            carry_out_planned(planned, key, progress)
    config["attacks"]["gsm8k"]["train"]["lr"] /= 2
    for field in ("seeds", "attacks"):
        (planned / "config.yaml").write_text(yaml.safe_dump({**config, field: None}))
        (planned / "plan.json").write_text(json.dumps(plan))
        with pytest.raises(SpecError, match=field):
            carry_out_planned(planned, key, progress)
    (planned / "plan.json").write_text("[]")
    with pytest.raises(UsageError, match=r"plan\.json is no plan"):
        carry_out_planned(planned, key, progress)
