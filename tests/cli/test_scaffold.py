"""`ilubench new`, and packages of methods that pip installs: a sound and a broken one."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from places import FIXTURES
from runs import SUITE, Outcome, command, environment, made, process

from ilubench.cli.scaffold import names_of, new_attack, new_method
from ilubench.errors import UsageError

PACKAGES = FIXTURES / "packages"
EXAMPLE = PACKAGES / "ilubench-example-method"


def tree(folder: Path) -> dict[str, str]:
    """Return the files of a project by name, but what tools leave behind."""
    left = ("__pycache__", ".egg-info", "_cache", "build")
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.endswith(left) for part in path.parts)
    }


def in_folder(folder: Path, *words: str) -> Outcome:
    """Run a module of this Python in a folder, as a person would."""
    done = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment(),
        check=False,
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


# ------------------------------------------------------------------------------- the names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyMethod", "'MyMethod' cannot be a method's name.*for example 'my_method'"),
        ("my method", "for example 'my_method'"),
        ("2fast", "for example 'fast'"),
        ("ünï", "cannot be a method's name"),
        ("../up", "for example 'up'"),
        ("", "for example 'my_method'"),
        ("a--b", "for example 'a_b'"),
        ("a" * 37, "36 at most"),
        ("none", "the class None, a word of Python"),
        ("npo", "there is a method 'npo' already"),
        ("task-vector", "there is a method 'task_vector' already"),
    ],
)
def test_names_that_cannot_be_used(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        new_method(name, tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["my-method", "my_method"])
def test_names(name: str) -> None:
    found = names_of(name)
    assert (found.plugin, found.package) == ("my_method", "ilubench-my-method")
    assert (found.module, found.kind) == ("ilubench_my_method", "MyMethod")


# ------------------------------------------------------------------------------- the files


def test_the_command_writes_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("new", "method", "my-method")
    assert done.code == 0, done.err
    folder = tmp_path / "ilubench-my-method"
    assert sorted(done.out.split()) == sorted(f"{folder.name}/{name}" for name in tree(folder))
    assert "ilubench run method=my_method" in done.err
    assert not re.findall(r"@[a-z]+@", "".join(tree(folder).values()))
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize("words", [("new",), ("new", "method"), ("new", "attack"), ("doctor",)])
def test_each_new_command_has_help(words: tuple[str, ...]) -> None:
    done = command(*words, "--help")
    assert (done.code, done.err) == (0, "")
    assert "Usage" in done.out


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    done = command("new", "method", "my-method", "--folder", str(tmp_path))
    assert done.code == 2
    assert "exists; give another with --folder" in done.err
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    done = command("new", "method", "my-method", "--folder", str(tmp_path / "file" / "new"))
    assert done.code == 2
    assert "cannot be written" in done.err


def test_the_method_is_short() -> None:
    (method,) = EXAMPLE.glob("ilubench_*.py")
    assert len(method.read_text().splitlines()) <= 40


def test_the_example_is_what_the_command_writes(tmp_path: Path) -> None:
    """So the example's types, style and tests, which the gate checks, are those of new packages.

    To renew it, remove its folder and run
    `ilubench new method example-method --folder tests/fixtures/packages/ilubench-example-method`.
    """
    new_method("example-method", tmp_path / "new")
    assert tree(tmp_path / "new") == tree(EXAMPLE)


@pytest.mark.parametrize("name", ["x", "b" * 36])
def test_the_longest_and_shortest_names_keep_the_style(name: str, tmp_path: Path) -> None:
    new_method(name, tmp_path / "new")
    for words in (["format", "--check", "."], ["check", "--no-cache", "."]):
        done = in_folder(tmp_path / "new", "ruff", *words)
        assert done.code == 0, done.out


# ------------------------------------------------------------------------------- attacks


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MyAttack", "'MyAttack' cannot be an attack's name.*for example 'my_attack'"),
        ("", "for example 'my_attack'"),
        ("finetune", "there is an attack 'finetune' already"),
        ("gsm8k", "there is an attack 'gsm8k' already"),
    ],
)
def test_names_that_no_attack_can_have(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        new_attack(name, tmp_path / "new")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["", pytest.param("--prompt", marks=pytest.mark.slow)])
def test_a_new_attack_passes_its_test_and_is_understood(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = command("new", "attack", "my-attack", *filter(None, [kind]))
    assert done.code == 0, done.err
    folder = tmp_path / "ilubench-my-attack"
    assert sorted(done.out.split()) == sorted(f"{folder.name}/{name}" for name in tree(folder))
    assert not re.findall(r"@[a-z]+@", "".join(tree(folder).values()))
    assert len((folder / "my_attack.py").read_text().splitlines()) <= 40
    tested = in_folder(folder, "pytest", "-q", "-W", "error")
    assert tested.code == 0, tested.out
    monkeypatch.chdir(folder)
    (asked,) = re.findall(r"ilubench run (.*)", done.err)
    planned = command("plan", *asked.split(), "--json")
    assert planned.code == 0, planned.err
    assert "attack npo with my_attack, seed 0" in {job["label"] for job in planned.json["jobs"]}


@pytest.mark.parametrize("name", ["x", "b" * 36])
@pytest.mark.parametrize("prompt", [False, True])
def test_new_attacks_keep_the_style(name: str, tmp_path: Path, *, prompt: bool) -> None:
    new_attack(name, tmp_path / "new", prompt=prompt)
    for words in (["format", "--check", "."], ["check", "--no-cache", "--isolated", "."]):
        done = in_folder(tmp_path / "new", "ruff", *words)
        assert done.code == 0, done.out


# ------------------------------------------------------------------------------- installed


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of three projects: the example, the broken one, and a new one."""
    folder = tmp_path_factory.mktemp("projects")
    for project in PACKAGES.iterdir():
        left = shutil.ignore_patterns("*.egg-info", "__pycache__", "build", ".*_cache")
        shutil.copytree(project, folder / project.name, ignore=left)
    new_method("another", folder / "ilubench-another")
    return folder


@pytest.fixture(scope="module")
def site(projects: Path) -> Path:
    """Return a folder that pip has installed them into; no network, no build isolation."""
    folder = projects / "site"
    offline = ["--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
    found = [str(path) for path in sorted(projects.iterdir())]
    done = in_folder(projects, "pip", "install", "-q", *offline, "--target", str(folder), *found)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def _installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the installed packages on the path, of this process and of those that a test starts."""
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *_path()]))


def _path() -> Sequence[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


@pytest.mark.usefixtures("_installed")
def test_a_new_package_s_own_tests_pass(projects: Path) -> None:
    done = in_folder(projects / "ilubench-another", "pytest", "-q", "-W", "error")
    assert done.code == 0, done.out
    assert " passed" in done.out
    assert "skipped" not in done.out


@pytest.mark.usefixtures("_installed")
def test_an_installed_method_runs_by_its_name(tmp_path: Path) -> None:
    shutil.copytree(made() / "store", tmp_path / "out" / "store")
    words = ("method=example_method", "method.gamma=2", "method.train.steps=2")
    attack = ("attacks=agnews", "attack.train.steps=2")
    done = process("run", SUITE, *words, *attack, f"out={tmp_path / 'out'}", "--json")
    assert done.code == 0, done.err
    record = done.json
    assert record["failures"] == []
    assert record["method"]["use"] == "example_method"
    assert record["method"]["settings"]["gamma"] == 2


@pytest.mark.usefixtures("_installed")
def test_a_broken_package_harms_no_other(tmp_path: Path) -> None:
    listed = {entry["name"] for entry in command("ls", "methods", "--json").json}
    assert {"example_method", "another", "broken_method", "ilu"} <= listed
    asked = command("run", SUITE, "method=broken_method", f"out={tmp_path}")
    assert asked.code == 2
    assert "method 'broken_method' is broken: ImportError: libexotic.so.3" in asked.err
    assert not list(tmp_path.iterdir())
    planned = command("plan", SUITE, "method=another", f"out={tmp_path}", "--json")
    assert planned.code == 0, planned.err


@pytest.mark.usefixtures("_installed")
def test_the_doctor_names_the_broken_package() -> None:
    done = command("doctor", "--json")
    assert done.code == 4
    found = json.loads(done.out)
    assert found["fine"] is False
    states = {entry["name"]: entry for entry in found["findings"] if entry["area"] == "methods"}
    assert {n for n, entry in states.items() if entry["state"] != "fine"} == {"broken_method"}
    assert "libexotic.so.3" in states["broken_method"]["detail"]
    assert "ilubench-broken-method 0.1.0" in states["broken_method"]["detail"]
    assert "ilubench-example-method 0.1.0" in states["example_method"]["detail"]
