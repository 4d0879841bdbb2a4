"""README and the pages: commands exist, files are there, figures are the records'."""

import importlib
import inspect
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from places import LEADERBOARDS, ROOT

from ilubench.cli import app
from ilubench.records.finished import read_run
from ilubench.statistics.intervals import Figure

DOCS = ROOT / "docs"
PAGES = [
    path
    for path in (*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md")))
    if path.name != "CHANGELOG.md"  # names what is no longer there
]
README = (ROOT / "README.md").read_text(encoding="utf-8")

page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def commands(text: str) -> list[list[str]]:
    """Return every command of a page, in blocks and in running text."""
    joined = text.replace("\\\n", " ")
    blocks = re.findall(r"^```sh\n(.*?)^```$", joined, re.MULTILINE | re.DOTALL)
    lines = [part for block in blocks for line in block.splitlines() for part in line.split("&&")]
    lines += re.findall(r"`(ilubench [^`]*)`", joined.replace("\n", " "))
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in split if words[:1] == ["ilubench"]]


@page
def test_commands_exist_and_take_their_options(path: Path) -> None:
    for words in commands(path.read_text(encoding="utf-8")):
        command: Any = typer.main.get_command(app)
        left = list(words)
        while left and hasattr(command, "commands"):
            assert left[0] in command.commands, words
            command = command.commands[left.pop(0)]
        options = {name for one in getattr(command, "params", ()) for name in one.opts}
        assert {word.split("=")[0] for word in left if word.startswith("--")} <= options, words


@page
def test_files_that_it_names_are_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    inside = r"`((?:ilubench|tests|docs|tasks|leaderboards|\.github|\.ci)/[\w./-]+)`"
    for name in re.findall(inside, text):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (path.parent / name).is_file(), name
    for name in re.findall(r"`(ilubench(?:\.\w+)+)`", text):
        assert resolves(name), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or a name in one."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        module, _, member = name.rpartition(".")
        return bool(module) and hasattr(importlib.import_module(module), member)
    return True


def test_the_figures_of_the_readme_are_those_of_the_records() -> None:
    rows = re.findall(r"^\| (\w+)(?: \([^|]*\))? \| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert [name for name, *_ in rows] == ["npo", "ilu", "rmu", "retrain", "none"]
    for name, seeds, cells in rows:
        run = read_run(LEADERBOARDS / "mini" / "measured" / name)
        fq, known = run.rows["FQ"], run.rows["1 - KnowMem_f"]
        assert fq.utility.worst is not None
        assert int(seeds) == len(run.record.seeds)
        assert cells.split(" | ") == [
            value(fq.forget_unlearned),
            interval(fq.ra_core),
            interval(fq.recovery),
            value(known.forget_unlearned),
            interval(known.ra_core),
            value(fq.utility.kept[fq.utility.worst]),
        ]


def value(figure: Figure | None) -> str:
    assert figure is not None
    return "undefined" if figure.value is None else f"{figure.value:.3f}"


def interval(figure: Figure | None) -> str:
    text = value(figure)
    assert figure is not None
    return text if figure.low is None else f"{text} [{figure.low:.3f}, {figure.high:.3f}]"


def modules_of_the_api() -> list[str]:
    text = "".join(path.read_text() for path in sorted((DOCS / "api").glob("*.md")))
    return re.findall(r"^::: (\S+)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", modules_of_the_api())
def test_every_public_class_and_function_is_described(name: str) -> None:
    module = importlib.import_module(name)
    found = {public: getattr(module, public) for public in module.__all__}
    defined = [key for key, one in found.items() if inspect.isclass(one) or inspect.isfunction(one)]
    assert [key for key in defined if not found[key].__doc__] == []


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation.keys() >= {"message", "title", "authors"}
    assert (citation["version"], citation["license"]) == (project["version"], project["license"])
