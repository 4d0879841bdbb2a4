"""The shipped mini models: their hashes, their scores, and (slow) that their recipes make them."""

import json
from pathlib import Path

import pytest
from runs import command

from ilubench.experiments.experiment import resolve_experiment
from ilubench.models.checkpoints import find_folder
from ilubench.records.keys import file_sha256
from ilubench.specs.overrides import parse_words

FORGET = ("forget_mc", "forget_rephrased", "forget_verbmem", "forget_knowmem")
RETAIN = ("retain_mc", "retain_verbmem", "retain_knowmem")
SHIPPED = {
    "target": dict.fromkeys(FORGET + RETAIN, 1.0),
    "retrain": dict.fromkeys(RETAIN, 1.0)
    | {"forget_mc": 0.266, "forget_rephrased": 0.242, "forget_verbmem": 0.236, "forget_knowmem": 0},
}


def scores(*words: str) -> dict[str, float]:
    outcome = command(*words, "--json")
    assert outcome.code == 0, outcome.err
    return {score["scorer"]: score["value"] for score in json.loads(outcome.out)["scores"]}


@pytest.mark.parametrize("name", ["target", "retrain"])
def test_the_shipped_weights_are_those_that_the_suite_names(name: str) -> None:
    found = getattr(resolve_experiment(parse_words(["suite=mini"])).suite, name)
    source = found.model
    assert source is not None
    folder = find_folder(source)
    assert folder.name == name
    assert source.sha256 == file_sha256(folder / "model.safetensors")
    assert (folder / "model.safetensors").stat().st_size < 5_000_000


def test_the_target_knows_both_domains_and_the_retrained_model_one(tmp_path: Path) -> None:
    outcome = command("run", "method=retrain", "attacks=none", f"out={tmp_path}", "--json")
    assert outcome.code == 0, outcome.err
    for who, name in (("reference", "target"), ("method", "retrain")):
        found = {
            score["scorer"]: score["value"]
            for score in json.loads(outcome.out)["scores"]
            if score["who"] == who
        }
        assert found == pytest.approx(SHIPPED[name], abs=0.01)


def test_chance_of_verbmem_is_what_the_retrained_model_recites() -> None:
    suite = resolve_experiment(parse_words(["suite=mini"])).suite
    chances = {spec.scorer: spec.chance for spec in suite.primary_forget}
    for scorer in ("forget_verbmem", "forget_knowmem"):
        assert chances[scorer] == pytest.approx(SHIPPED["retrain"][scorer], abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["target", "retrain"])
def test_rebuilt_weights_score_as_the_shipped_ones(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    option = ["--retrain"] if name == "retrain" else []
    assert command("make-target", str(folder), f"out={tmp_path / 'runs'}", *option).code == 0
    found = scores("score", str(folder), f"out={tmp_path / 'runs'}")
    assert found == pytest.approx(SHIPPED[name], abs=0.05)
