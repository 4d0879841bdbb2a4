"""A figure has one name: in commands, on the page, in exports, in documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import LEADERBOARDS

from ilubench.records import labels
from ilubench.records.labels import PAGE

ROOT = LEADERBOARDS.parent
PACKAGE = ROOT / "ilubench"
NAMES = {PAGE[key] for key in PAGE if key not in ("ra", "recovery", "area")}
SHOWING = [
    *PACKAGE.glob("reports/*.py"),
    *PACKAGE.glob("leaderboard/site/*.py"),
    *PACKAGE.glob("leaderboard/site/template/*"),
]
OTHER_NAMES = re.compile(r"RA core|RA all|RA-core|[Ff]orgotten before|vs never knew")


def test_the_page_has_the_names_and_no_others() -> None:
    constants = [getattr(labels, name) for name in labels.__all__]
    assert set(PAGE.values()) == {one for one in constants if isinstance(one, str)}


@pytest.mark.parametrize("path", SHOWING, ids=lambda path: path.name)
def test_names_stand_in_one_place(path: Path) -> None:
    """Quoted names are taken from there; sentences may have them."""
    quoted = re.findall(r"""(?<!")"([^"\n]+)"(?!")|'([^'\n]+)'""", path.read_text())
    assert NAMES & {one or other for one, other in quoted} == set()


def test_no_document_has_another_name() -> None:
    documents = [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), *LEADERBOARDS.glob("*/README.md")]
    documents += [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".js", ".j2")]
    history = ROOT / "CHANGELOG.md"
    found = [path for path in documents if OTHER_NAMES.search(path.read_text())]
    assert set(found) <= {history}
