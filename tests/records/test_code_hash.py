"""The code in a key: what an import leads to and counts, and what may change without harm."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from places import PACKAGE

from ilubench.errors import PluginError
from ilubench.records.code_hash import code_closure, source_file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that writes a module of the package `closurepkg`."""
    monkeypatch.syspath_prepend(tmp_path)
    stamp = [1_000_000_000]

    def write(name: str, code: str) -> None:
        path = tmp_path / "closurepkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        stamp[0] += 10
        os.utime(path, (stamp[0], stamp[0]))

    write("__init__.py", "")
    write("leaf.py", "X = 1\n")
    yield write
    for name in [name for name in sys.modules if name.startswith("closurepkg")]:
        del sys.modules[name]


ROOT = (
    '"""A module."""\nfrom closurepkg import leaf\n\ndef f():\n    """Doc."""\n    return leaf.X\n'
)


def test_the_closure_follows_imports(package: Callable[..., None]) -> None:
    package("root.py", ROOT)
    package("other.py", "Y = 1\n")
    assert set(code_closure(["closurepkg.root"])) == {
        "closurepkg",
        "closurepkg.leaf",
        "closurepkg.root",
    }


@pytest.mark.parametrize(
    "line",
    [
        "from .leaf import X",
        "from . import leaf",
        "from .deep.module import Z",
        "import closurepkg.leaf",
        "def f():\n    from closurepkg.leaf import X",
    ],
)
def test_every_form_of_import_is_followed(package: Callable[..., None], line: str) -> None:
    package("root.py", line + "\n")
    package("deep/__init__.py", "")
    package("deep/module.py", "from ..leaf import X as Z\n")
    assert "closurepkg.leaf" in code_closure(["closurepkg.root"])


def test_relative_imports_of_a_package_itself(package: Callable[..., None]) -> None:
    package("__init__.py", "from .leaf import X\n")
    assert "closurepkg.leaf" in code_closure(["closurepkg"])


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("# a comment\n" + ROOT, True),
        (ROOT.replace("Doc.", "Another."), True),
        (ROOT.replace('"""A module."""\n', ""), True),
        (ROOT.replace("    return", "\n\n    return"), True),
        (ROOT.replace("leaf.X", "leaf.X + 1"), False),
        (ROOT.replace("def f", "def g"), False),
        (ROOT.replace('"""Doc."""', 'x = """Doc."""'), False),
    ],
)
def test_comments_and_docstrings_do_not_count(
    package: Callable[..., None], code: str, *, same: bool
) -> None:
    package("root.py", ROOT)
    before = code_closure(["closurepkg.root"])
    package("root.py", code)
    assert (code_closure(["closurepkg.root"]) == before) is same


def test_a_change_of_an_imported_module_counts(package: Callable[..., None]) -> None:
    package("root.py", ROOT)
    before = code_closure(["closurepkg.root"])
    package("leaf.py", "X = 2\n")
    assert code_closure(["closurepkg.root"]) != before


def test_a_file_may_be_a_root(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from ilubench.errors import DataError\nfrom ilubench.training.losses import nll\n"
    )
    found = code_closure([path])
    assert set(found) == {"mine.py", "ilubench.training.losses"}


def test_modules_without_source_are_left_out() -> None:
    assert source_file("math") is None
    assert source_file("no_such_package.module") is None
    with pytest.raises(PluginError, match="no_such_package has no Python source"):
        code_closure(["no_such_package"])


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ('problem = f"{x} is small"\n    raise DataError(f"{problem}: give more")', True),
        ('raise DataError("less")', True),
        ('raise SpecError("more")', False),
        ('x = x + 1\n    raise DataError(f"more {x}")', False),
    ],
)
def test_what_an_error_says_does_not_count(
    package: Callable[..., None], code: str, *, same: bool
) -> None:
    def module(body: str) -> str:
        return f"from closurepkg import leaf\n\ndef f(x):\n    y = x\n    {body}\n"

    package("root.py", module('raise DataError("more")'))
    before = code_closure(["closurepkg.root"])
    package("root.py", module(code))
    assert (code_closure(["closurepkg.root"]) == before) is same


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("n = clip(x, 1.0)\n    raise ValueError(n)", "n = clip(x, 9.0)\n    raise ValueError(n)"),
        ("self.x = 1\n    raise ValueError(x)", "self.x = 2\n    raise ValueError(x)"),
        ("return MeanSquaredError(1)", "return MeanSquaredError(2)"),
        ("raise Stop(x)", "raise Stop(2 * x)"),
        (
            "global y\n    y = 1\n    raise ValueError(y)",
            "global y\n    y = 2\n    raise ValueError(y)",
        ),
        ("return x.format(description=1)", "return x.format(description=2)"),
        ('"""One."""\n    return f.__doc__', '"""Two."""\n    return f.__doc__'),
    ],
)
def test_what_looks_like_words_and_is_none_counts(
    package: Callable[..., None], before: str, after: str
) -> None:
    package("root.py", f"def f(x):\n    {before}\n")
    first = code_closure(["closurepkg.root"])
    package("root.py", f"def f(x):\n    {after}\n")
    assert code_closure(["closurepkg.root"]) != first


def test_what_runs_when_types_are_not_checked_counts(package: Callable[..., None]) -> None:
    code = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    X = 1\nelse:\n    X = 2\n"
    package("root.py", code)
    first = code_closure(["closurepkg.root"])
    package("root.py", code.replace("X = 1", "X = 3"))
    assert code_closure(["closurepkg.root"]) == first
    package("root.py", code.replace("X = 2", "X = 3"))
    assert code_closure(["closurepkg.root"]) != first


def test_a_package_of_a_folder_alone_and_a_loose_helper_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "barepkg").mkdir()
    (tmp_path / "barepkg" / "method.py").write_text("import loosehelper, numpy\n")
    (tmp_path / "loosehelper.py").write_text("X = 1\n")
    found = code_closure(["barepkg.method"])
    assert set(found) == {"barepkg.method", "loosehelper"}  # numpy is installed
    (tmp_path / "loosehelper.py").write_text("X = 23\n")
    assert code_closure(["barepkg.method"]) != found


STAGES = ("target", "unlearn", "score", "attack")
ROOTS = (*(f"ilubench.runs.stages.{stage}" for stage in STAGES), "ilubench.methods.ilu")


def test_which_packages_count() -> None:
    """What can change a number, and nothing else: a change elsewhere must not retrain a model."""
    found = code_closure([*ROOTS, "ilubench.scoring.engines.vllm", "ilubench.attacks.finetune"])
    assert {name.split(".")[1] for name in found} == {
        "attacks",
        "data",
        "experiments",
        "interfaces",
        "methods",
        "models",
        "records",
        "runs",
        "scoring",
        "specs",
        "training",
    }
    assert {name for name in found if name.split(".")[1] in ("records", "runs", "specs")} == {
        "ilubench.records.estimators",
        *(f"ilubench.runs.stages.{stage}" for stage in STAGES),
        "ilubench.runs.stages.compared",
        "ilubench.runs.stages.measure",
        "ilubench.runs.stages.cost",  # what a method costs is a figure, too
        "ilubench.runs.stages.prompting",
        "ilubench.runs.stages.telling",
        "ilubench.runs.stages.untouched",
        "ilubench.runs.stages.workbench",
        "ilubench.specs.memory",
        "ilubench.specs.training",
    }
    assert not any(name.startswith("ilubench.data.hub") for name in found)
    training = code_closure(["ilubench.methods.ilu"])
    assert {"ilubench.training.losses", "ilubench.data.batches", "ilubench.data.seeds"} <= set(
        training
    )
    assert not any(name.startswith("ilubench.scoring") for name in training)


EDITS = [
    (
        "errors.py",
        "class DataError(",
        "class OtherError(Exception):\n    ...\n\n\nclass DataError(",
        (),
    ),
    ("reports/ranking.py", '"""', '"""Edited. ', ()),
    ("reports/ranking.py", "def rank_runs", "X = 1\n\n\ndef rank_runs", ()),
    ("runs/plan.py", "def make_plan", "X = 1\n\n\ndef make_plan", ()),
    ("forecast/plan_view.py", "def jobs_table", "X = 1\n\n\ndef jobs_table", ()),
    ("data/hub/refusals.py", "from", "X = 1\nfrom", ()),
    ("training/loop.py", "not finite: {dict", "all odd: {dict", ()),
    ("training/losses.py", "return", "return 1 *", (*ROOTS[:2], *ROOTS[3:])),
    (
        "scoring/engines/hf.py",
        "class HFEngine",
        "X = 1\n\n\nclass HFEngine",
        ("ilubench.runs.stages.score",),
    ),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"), EDITS, ids=lambda value: str(value)[:24]
)
def test_an_edit_changes_the_keys_that_it_must(
    file: str, old: str, new: str, changed: tuple[str, ...], tmp_path: Path
) -> None:
    """In a copy of the package: its stages' hashes before and after."""
    copy = tmp_path / "ilubench"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))

    def hashes() -> dict[str, Any]:
        script = (
            "import json; from ilubench.records.code_hash import code_closure\n"
            f"roots, engine = {ROOTS}, ['ilubench.scoring.engines.hf']\n"
            "more = {'ilubench.runs.stages.score': engine}\n"
            "print(json.dumps({r: code_closure([r, *more.get(r, [])]) for r in roots}))"
        )
        command = [sys.executable, "-c", script]  # the copy lies where the process begins
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    before = hashes()
    text = (copy / file).read_text(encoding="utf-8")
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    after = hashes()
    assert {root for root in ROOTS if before[root] != after[root]} == set(changed)
