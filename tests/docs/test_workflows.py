"""The workflows: what they may do, what they trust, and whether their commands exist."""

import re
import shlex
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from places import ROOT
from runs import environment

from ilubench.cli import app
from ilubench.experiments.suites import suite_variants
from ilubench.interfaces.discovery import list_entries
from leaderboards import edit_json, tiny_board

CI = ROOT / ".ci"
FILES = sorted((ROOT / ".github" / "workflows").glob("*.y*ml"))
ONLY_READS = {"contents": "read"}
MORE = {
    ("leaderboard-comment", "comment"): {"actions": "read", "pull-requests": "write", **ONLY_READS},
    ("pages", "deploy"): {"pages": "write", "id-token": "write"},
}
"""(workflow, job) -> what it may do, where that is not reading the repository."""

workflow = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)


def read(file: Path) -> dict[Any, Any]:
    found = yaml.safe_load(file.read_text())
    found["on"] = found.pop(True)  # YAML 1.1 reads `on` as a truth value
    return dict(found)


def steps(file: Path) -> Iterator[dict[str, Any]]:
    for job in read(file)["jobs"].values():
        yield from job["steps"]


def scripts(file: Path) -> Iterator[str]:
    yield from (step["run"] for step in steps(file) if "run" in step)


def test_there_are_workflows() -> None:
    names = {"ci", "leaderboard-pr", "leaderboard-comment", "pages", "scheduled"}
    assert {file.stem for file in FILES} == names


@workflow
def test_permissions_are_stated_and_least(file: Path) -> None:
    found = read(file)
    assert found["permissions"] in ({}, ONLY_READS)
    for name, job in found["jobs"].items():
        wanted = MORE.get((file.stem, name), found["permissions"])
        assert job.get("permissions", found["permissions"]) == wanted


@workflow
def test_no_job_is_without_end_or_doubled(file: Path) -> None:
    found = read(file)
    assert {"group", "cancel-in-progress"} == found["concurrency"].keys()
    for job in found["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 150


@workflow
def test_actions_are_pinned_and_named(file: Path) -> None:
    lines = [line for line in file.read_text().splitlines() if re.search(r"\buses:", line)]
    assert len(lines) == sum("uses" in step for step in steps(file))
    for line in lines:
        pattern = r" +(- )?uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+"
        assert re.fullmatch(pattern, line), line


def test_an_action_has_one_version() -> None:
    pins = {
        tuple(step["uses"].split("@")) for file in FILES for step in steps(file) if "uses" in step
    }
    assert len({name for name, _ in pins}) == len(pins)


@workflow
def test_checkouts_leave_no_credentials(file: Path) -> None:
    for step in steps(file):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@workflow
def test_strangers_code_meets_no_rights(file: Path) -> None:
    """A pull request's code runs without secrets; what has rights checks out no pull request."""
    text, found = file.read_text(), read(file)
    assert "pull_request_target" not in text
    assert "secrets." not in text
    assert "actions/cache" not in text
    assert not re.search(r"^\s+cache:", text, re.MULTILINE)
    if "workflow_run" in found["on"]:
        refs = [
            step["with"].get("ref") for step in steps(file) if "checkout" in step.get("uses", "")
        ]
        assert set(refs) == {"${{ github.event.repository.default_branch }}"}
        assert not any(word in script for script in scripts(file) for word in ("pip", "ilubench"))
    if "pull_request" in found["on"]:
        assert found["permissions"] == ONLY_READS


@workflow
def test_no_script_holds_an_expression(file: Path) -> None:
    """What an event says reaches a script by its environment alone: as text, never as code."""
    assert not [script for script in scripts(file) if "${{" in script]


def test_the_pull_request_is_data() -> None:
    """Its files lie apart, and nothing is installed or run from there."""
    file = ROOT / ".github" / "workflows" / "leaderboard-pr.yml"
    base, change = (step["with"] for step in steps(file) if "checkout" in step.get("uses", ""))
    assert (base["path"], change["path"]) == ("base", "change")
    assert base["ref"] == "${{ github.event.pull_request.base.sha }}"
    assert change["sparse-checkout"] == "leaderboards"
    said = " ".join(scripts(file))
    assert re.findall(r"\S*change/\S*", said) == ['"$GITHUB_WORKSPACE/change/leaderboards"']


def test_only_the_deploying_job_deploys() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "pages.yml")["jobs"]
    assert [list(step) for step in jobs["deploy"]["steps"]] == [["id", "uses"]]


def test_the_gate_is_the_one_that_runs_here() -> None:
    assert list(scripts(ROOT / ".github" / "workflows" / "ci.yml")) == [".ci/run"]


@workflow
def test_scripts_are_there(file: Path) -> None:
    for script in re.findall(r"\.ci/[a-z-]+(?![\w.-])", " ".join(scripts(file))):
        assert (ROOT / script).stat().st_mode & stat.S_IXUSR, script


def commands() -> Iterator[Any]:
    """Every use of the command line in a workflow, or in a script that one runs."""
    texts = [(file.stem, script) for file in FILES for script in scripts(file)]
    texts += [(file.name, file.read_text()) for file in sorted(CI.glob("leaderboard-*"))]
    for name, text in texts:
        for line in re.findall(r"^ *(?:if ! |- )?(ilubench .*)$", text, re.MULTILINE):
            words = shlex.split(re.split(r" [|>] | 2>|; then", line)[0])[1:]
            yield pytest.param(words, id=f"{name}: {' '.join(words)}")


def test_there_are_commands() -> None:
    found = {" ".join(case.values[0][:2]) for case in commands()}
    assert {"leaderboard check", "leaderboard build", "leaderboard track"} <= found
    assert any(words.startswith("run ") for words in found)


@pytest.mark.parametrize("words", list(commands()))
def test_commands_exist_and_take_their_options(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    left = list(words)
    while hasattr(command, "commands"):
        command = command.commands[left.pop(0)]
    command.make_context(command.name, left)  # refuses options and arguments that it does not have


def test_every_method_is_run_again() -> None:
    jobs = read(ROOT / ".github" / "workflows" / "scheduled.yml")["jobs"]
    listed = jobs["rerun"]["strategy"]["matrix"]["method"]
    own = {
        name for name, target in list_entries("methods").items() if target.startswith("ilubench.")
    }
    # a checkpoint is somebody's model, no method of ours
    assert set(listed) == (own - {"checkpoint"}) | set(suite_variants("mini"))
    assert len(set(listed)) == len(listed)


# --------------------------------------------------------------------------- what changes


def changes(before: Path, after: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{environment()['PATH']}"
    return subprocess.run(
        [CI / "leaderboard-changes", before, after],
        capture_output=True,
        text=True,
        env={**environment(), "PATH": path},
        check=False,
        timeout=300,
    )


def test_problems_of_a_change_are_shown(tmp_path: Path) -> None:
    board = tiny_board(tmp_path / "leaderboards")
    edit_json(board / "npo-1.json", lambda entry: entry.update(title=7))
    done = changes(tmp_path / "leaderboards", tmp_path / "leaderboards")
    assert done.returncode == 1
    assert "npo-1.json: title" in done.stdout
    assert done.stderr == ""


@pytest.mark.slow
def test_the_changed_tables_are_shown_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    board = tiny_board(tmp_path / "leaderboards")
    there = sorted(board.rglob("*"))
    done = changes(tmp_path / "before", tmp_path / "leaderboards")
    assert done.stderr == ""
    # the record is fine, but its table was not committed with it
    assert done.returncode == 1
    assert "leaderboards/known/README.md: not what the records say" in done.stdout
    assert re.search(r"^\|.*\bnpo\b.*\|$", done.stdout, re.MULTILINE)
    assert sorted(board.rglob("*")) == there


@pytest.mark.slow
def test_what_only_a_maintainer_may_write_stands_first(tmp_path: Path) -> None:
    board = tiny_board(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "leaderboards")
    edit_json(
        tmp_path / "leaderboards" / board.name / "npo-1.json",
        lambda entry: entry.update(title="Better"),
    )
    done = changes(tmp_path / "before", tmp_path / "leaderboards")
    assert done.stderr == ""
    assert done.stdout.startswith("**Only a maintainer may write these")
    assert "- ! known/npo-1 is changed" in done.stdout


# --------------------------------------------------------------------------- the comment


ADDRESS = "https://example.org/run"


def comment(artifact: Path) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, str(CI / "leaderboard-comment"), str(artifact), ADDRESS]
    return subprocess.run(words, capture_output=True, check=False, timeout=60)


def archive(folder: Path, **members: bytes) -> Path:
    path = folder / "artifact.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return path


def test_a_comment_is_plain_text(tmp_path: Path) -> None:
    hostile = "@all ![x](https://example.org/x.png)\n````\n<script>\u202e\x1b[31m\n"
    done = comment(archive(tmp_path, **{"changes.md": hostile.encode()}))
    assert done.returncode == 0
    head, body = done.stdout.decode().split("\n\n", 1)
    assert ADDRESS in head
    lines = body.splitlines()
    assert (lines[0], lines[-1]) == ("`````text", "`````")
    assert not [line for line in lines[1:-1] if line.startswith("`````")]
    assert lines[3] == "<script>??[31m"


def test_a_long_text_is_cut_and_says_so(tmp_path: Path) -> None:
    done = comment(archive(tmp_path, **{"changes.md": b"a" * 30_000_000}))  # 30 kB, packed
    assert 50_000 < len(done.stdout) < 65_000
    assert b"Only the first 50,000 bytes" in done.stdout


@pytest.mark.parametrize(
    "members",
    [{}, {"other.md": b""}, {"../changes.md": b""}, {"changes.md": b"", "more.md": b""}],
    ids=["nothing", "another name", "elsewhere", "two files"],
)
def test_an_artifact_of_another_shape_is_refused(tmp_path: Path, members: dict[str, bytes]) -> None:
    done = comment(archive(tmp_path, **members))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"must hold changes.md alone" in done.stderr
