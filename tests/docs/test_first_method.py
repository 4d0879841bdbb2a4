"""docs/first-method.md: its commands are understood, its code works, its messages are real."""

import re
from pathlib import Path
from typing import cast

import pytest
from places import ROOT

from ilubench.cli.scaffold import new_method
from ilubench.experiments.experiment import resolve_experiment
from ilubench.interfaces import Method
from ilubench.interfaces.discovery import find_plugin
from ilubench.specs.overrides import parse_words
from ilubench.testing import TINY, MethodContract

DOCS = ROOT / "docs"


def blocks(kind: str) -> list[str]:
    text = (DOCS / "first-method.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def lines(kind: str) -> list[str]:
    return [line for block in blocks(kind) for line in block.splitlines()]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return what the document's `ilubench new` writes."""
    (name,) = [line.split()[-1] for line in lines("sh") if line.startswith("ilubench new method")]
    new_method(name, tmp_path / f"ilubench-{name}")
    assert f"cd ilubench-{name}" in lines("sh")
    return tmp_path / f"ilubench-{name}"


def test_the_files_that_it_names_are_written(project: Path) -> None:
    text = (DOCS / "first-method.md").read_text(encoding="utf-8")
    written = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    named = set(re.findall(r"^\| `([^`]*\.(?:py|toml|yml))` \|", text, re.MULTILINE))
    assert len(named) == 4
    assert named <= written
    for path in re.findall(r"`(ilubench/methods/\w+\.py)`", text):
        assert (DOCS.parent / path).is_file()


def test_its_commands_are_understood(project: Path) -> None:
    """Every word of `run` and `plan` means something to the method or the suite."""
    (path,) = project.glob("ilubench_*.py")
    asked = [line.split() for line in lines("sh") if re.match(r"ilubench (run|plan)", line)]
    used = []
    for _, _, *words in asked:
        here = [word.replace("method=my_method", f"method={path}:MyMethod") for word in words]
        used.append(type(resolve_experiment(parse_words(here)).method).__name__)
    assert used == ["MyMethod", "NPO", "MyMethod", "MyMethod", "MyMethod", "MyMethod"]


def test_its_code_holds_to_the_contract(project: Path, tmp_path: Path) -> None:
    (path,) = project.glob("ilubench_*.py")
    (loss,) = blocks("python")
    before, _, after = path.read_text().partition("    def loss(")
    path.write_text(before + loss + "\n\ndef nll(" + after.partition("\n\ndef nll(")[2])
    kind = cast("type[Method]", find_plugin("methods", f"{path}:MyMethod"))
    subject = MethodContract()
    subject.make = lambda: kind.model_validate({"train": TINY})  # type: ignore[method-assign]
    subject.test_it_forgets()
    subject.test_it_keeps_what_is_retained()
    subject.test_micro_batches_add_up()


def test_the_message_that_it_quotes_is_the_real_one(project: Path) -> None:
    (path,) = project.glob("ilubench_*.py")
    text = path.read_text()
    path.write_text(text.replace(".sum() / batch.forget.tokens", ".mean()"))
    assert path.read_text() != text
    kind = cast("type[Method]", find_plugin("methods", f"{path}:MyMethod"))
    subject = MethodContract()
    subject.make = lambda: kind.model_validate({"train": TINY})  # type: ignore[method-assign]
    (quoted,) = blocks("text")
    _, _, remedy = " ".join(quoted.split()).partition("%; ")
    with pytest.raises(AssertionError, match=re.escape(remedy)):
        subject.test_micro_batches_add_up()
