"""The shipped mini target: its hash, its scores, and (slow) that its recipe makes it again."""

import json
from pathlib import Path

import pytest
from runs import command

from ilubench.experiment import resolve
from ilubench.identity import file_sha256
from ilubench.models import find_folder
from ilubench.overrides import parse

SHIPPED = {"forget_mc": 1.0, "retain_mc": 1.0, "forget_verbmem": 1.0, "retain_verbmem": 1.0}


def scores(*words: str) -> dict[str, float]:
    outcome = command(*words, "--json")
    assert outcome.code == 0, outcome.err
    return {score["scorer"]: score["value"] for score in json.loads(outcome.out)["scores"]}


def test_the_shipped_target_is_the_one_that_the_suite_names() -> None:
    source = resolve(parse(["suite=mini"])).suite.target.model
    assert source is not None
    weights = find_folder(source) / "model.safetensors"
    assert source.sha256 == file_sha256(weights)
    assert weights.stat().st_size < 5_000_000


def test_the_shipped_target_knows_both_domains(tmp_path: Path) -> None:
    found = scores("run", "method=none", "attacks=none", f"out={tmp_path}")
    assert found == pytest.approx(SHIPPED, abs=0.01)


@pytest.mark.slow
def test_the_rebuilt_target_scores_as_the_shipped_one(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    assert command("make-target", str(folder), f"out={tmp_path / 'runs'}").code == 0
    found = scores("score", str(folder), f"out={tmp_path / 'runs'}")
    assert found == pytest.approx(SHIPPED, abs=0.03)
