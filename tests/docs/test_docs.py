"""The documents: the reference is up to date, the first method's commands and code work."""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import cast

import pytest
from places import ROOT

from ilubench.cli.scaffold import new_method
from ilubench.experiments.experiment import resolve
from ilubench.interfaces import Method
from ilubench.interfaces.discovery import find
from ilubench.specs.overrides import parse
from ilubench.testing import TINY, MethodContract

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    """Return docs/reference.py as a module."""
    spec = importlib.util.spec_from_file_location("reference_of_docs", DOCS / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_up_to_date(reference: ModuleType) -> None:
    written = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert written == reference.render(), "run `python docs/reference.py`"


def test_every_public_class_and_function_is_described(reference: ModuleType) -> None:
    nodes = {
        f"{module}.{name}": reference.defined(module, name).node
        for module in reference.MODULES
        for name in reference.names_in(reference.parsed(module))
    }
    defined = {
        n: node for n, node in nodes.items() if isinstance(node, ast.ClassDef | ast.FunctionDef)
    }
    assert len(defined) > 100
    assert [name for name, node in defined.items() if not ast.get_docstring(node)] == []


def test_names_are_followed_to_where_they_are_defined(reference: ModuleType) -> None:
    shown = "\n".join(reference.about("ilubench.testing", "make_context"))
    assert "make_context(tokenizer: PreTrainedTokenizerBase, **changes: Any) -> Context" in shown
    with pytest.raises(ValueError, match="does not define it"):
        reference.defined("ilubench.testing", "nobody")


# ------------------------------------------------------------------------------- first method


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
        used.append(type(resolve(parse(here)).method).__name__)
    assert used == ["MyMethod", "NPO", "MyMethod", "MyMethod", "MyMethod", "MyMethod"]


def test_its_code_holds_to_the_contract(project: Path, tmp_path: Path) -> None:
    (path,) = project.glob("ilubench_*.py")
    (loss,) = blocks("python")
    before, _, after = path.read_text().partition("    def loss(")
    path.write_text(before + loss + "\n\ndef nll(" + after.partition("\n\ndef nll(")[2])
    kind = cast("type[Method]", find("methods", f"{path}:MyMethod"))
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
    kind = cast("type[Method]", find("methods", f"{path}:MyMethod"))
    subject = MethodContract()
    subject.make = lambda: kind.model_validate({"train": TINY})  # type: ignore[method-assign]
    (quoted,) = blocks("text")
    _, _, remedy = " ".join(quoted.split()).partition("%; ")
    with pytest.raises(AssertionError, match=re.escape(remedy)):
        subject.test_micro_batches_add_up()
