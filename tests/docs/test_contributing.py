"""CONTRIBUTING: its commands exist, its files are there, its example of an attack can be run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from places import ROOT

from ilubench.cli import app
from ilubench.experiments.experiment import resolve
from ilubench.specs.overrides import parse

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = (
    "Submitting a result",
    "Submitting a method",
    "Submitting an attack",
    "Verification",
    "Disputes",
)


def section(name: str) -> str:
    (found,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    return str(found)


def commands() -> list[list[str]]:
    """Every command of the sections on the leaderboard, in blocks and in running text."""
    text = "".join(section(name) for name in SECTIONS).replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(ilubench [^`]*)`", text.replace("\n", " "))
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_exist_and_take_their_options(words: list[str]) -> None:
    command: Any = typer.main.get_command(app)
    left = list(words)
    while hasattr(command, "commands"):
        command = command.commands[left.pop(0)]
    if left or command.name in ("check", "build"):  # the others are only named
        command.make_context(command.name, left)


def test_the_example_of_an_attack_can_be_run(tmp_path: Path) -> None:
    text = section("Submitting an attack")
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "longer.yaml").write_text(example)
    (asked,) = (words for words in commands() if words[0] == "run" and "attacks=longer" in words)
    words = [word.replace("./longer.yaml", str(tmp_path / "longer.yaml")) for word in asked[1:]]
    found = resolve(parse(words))
    assert (found.suite.name, [attack.name for attack in found.attacks]) == ("mini", ["longer"])
    # the attack is all that it adds
    shipped = resolve(parse(["suite=mini", "method=npo"])).suite
    rest = found.suite.model_copy(update={"attacks": shipped.attacks})
    assert rest == shipped
    assert found.suite.attacks.keys() - shipped.attacks.keys() == {"longer"}


def test_files_that_it_names_are_there() -> None:
    text = "".join(section(name) for name in SECTIONS)
    named = re.findall(r"`((?:ilubench|tests|docs|\.github)/[\w./-]+)`", text)
    named += re.findall(r"\]\(([\w./-]+)\)", text)
    assert len(named) > 3
    for path in named:
        assert (ROOT / path).is_file(), path


def test_layers_are_in_the_table() -> None:
    assert "| | `leaderboard` |" in TEXT


@pytest.mark.parametrize(
    "file", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")), ids=str
)
def test_issue_forms_have_a_head(file: Path) -> None:
    head = yaml.safe_load(file.read_text().split("---")[1])
    assert head.keys() == {"name", "about", "labels"}
