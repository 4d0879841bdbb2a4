"""A figure has one name: in commands, on the page, in exports, in documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from places import LEADERBOARDS

from ilubench.records import labels
from ilubench.records.columns import NAMES as PAGE_NAMES

ROOT = LEADERBOARDS.parent
PACKAGE = ROOT / "ilubench"
LABELS = {one for name in labels.__all__ if isinstance(one := getattr(labels, name), str)}
NAMES = LABELS - {"RA", "recovery", "area"}
SHOWING = [
    *PACKAGE.glob("reports/*.py"),
    *PACKAGE.glob("leaderboard/site/*.py"),
    *PACKAGE.glob("leaderboard/site/template/*"),
]
OTHER_NAMES = re.compile(r"RA core|RA all|RA-core|[Ff]orgotten before|vs never knew")


def test_every_name_is_one_of_the_pages() -> None:
    assert set(PAGE_NAMES.values()) >= LABELS


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
