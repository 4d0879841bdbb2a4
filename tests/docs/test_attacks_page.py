"""docs/attacks.md: its table is whole, its attack works as it stands there, its words are real."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

from ilubench.cli.scaffold import new_attack
from ilubench.experiments.experiment import resolve_experiment
from ilubench.interfaces import Checkpoint, Context
from ilubench.interfaces.discovery import find_plugin
from ilubench.specs.overrides import parse_words
from ilubench.specs.yaml_files import task_names
from ilubench.testing import TINY, AttackContract

TEXT = (ROOT / "docs" / "attacks.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what the page's `ilubench new attack` writes, which is the folder one is in then."""
    (name,) = re.findall(r"ilubench new attack ([\w-]+)", TEXT)
    new_attack(name, tmp_path / f"ilubench-{name}")
    assert f"cd ilubench-{name}\n" in TEXT
    monkeypatch.chdir(tmp_path / f"ilubench-{name}")
    return tmp_path / f"ilubench-{name}"


def test_its_table_names_every_attack() -> None:
    (table,) = re.findall(r"^\| name \| kind .*?\n\n", TEXT, re.MULTILINE | re.DOTALL)
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert named == {*task_names("attacks"), *project["entry-points"]["ilubench.attacks"]}


def test_its_attack_is_what_the_command_writes(folder: Path) -> None:
    (code,) = blocks("python")
    assert code == (folder / "my_attack.py").read_text()
    assert len(code.splitlines()) <= 40


@pytest.mark.usefixtures("folder")
def test_its_commands_are_understood() -> None:
    joined = "\n".join(blocks("sh")).replace("\\\n", " ")
    asked = [line.split("#")[0].split()[2:] for line in re.findall(r"ilubench run .*", joined)]
    used = [[a.name for a in resolve_experiment(parse_words(words)).attacks] for words in asked]
    assert used[2] == ["gsm8k", "relearn_forget"]
    assert set(used[0]) < set(used[1])
    assert used.count(["my_attack"]) == 3


@pytest.mark.usefixtures("folder")
def test_the_message_that_it_quotes_is_the_real_one() -> None:
    kind = find_plugin("attacks", "./my_attack.py:MyAttack")

    class Steady(kind):  # type: ignore[misc, valid-type]
        """The seed changes nothing."""

        def tamper(self, model: Any, data: Any, context: Context) -> Iterator[Checkpoint]:
            found: Iterator[Checkpoint] = super().tamper(model, data, replace(context, seed=1))
            return found

    class Subject(AttackContract):
        attack = Steady.model_validate({"train": TINY})

    (quoted,) = blocks("text")
    with pytest.raises(AssertionError) as caught:
        Subject().test_the_seed_determines_the_course()
    assert quoted.strip() == f"AssertionError: {caught.value}"
