"""A checkpoint folder that loads, and a copy of it to be made into something else."""

import shutil
from pathlib import Path

import pytest
from conversions import written


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("models") / "good")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "source"))
