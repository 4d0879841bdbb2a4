"""Weights beside a recipe: which counts is told, and a word on the other is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from places import FIXTURES
from runs import command

from ilubench.experiments.experiment import resolve_experiment
from ilubench.specs.overrides import parse_words

RECIPE = "suite.target.recipe.train.lr=1e-4"


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ([RECIPE], "add suite.target.model=none"),
        (["suite.retrain.recipe.seed=3"], "add suite.retrain.model=none"),
        ([RECIPE, "suite.target.model.path=x"], "leave one of the two out"),
        ([RECIPE, "suite.retrain.model=none"], "add suite.target.model=none"),
    ],
)
@pytest.mark.parametrize("name", ["plan", "tune"])
def test_a_word_on_a_recipe_that_makes_nothing(words: list[str], remedy: str, name: str) -> None:
    done = command(name, "method=npo", "suite=mini", *words)
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "weights are given" in done.err
    assert remedy in done.err


def test_the_remedy_works() -> None:
    given = resolve_experiment(
        parse_words(["suite=mini", "method=npo", RECIPE, "suite.target.model=none"])
    )
    assert given.suite.target.model is None
    assert list(given.suite.unused_recipes) == ["retrain"]
    made = resolve_experiment(parse_words(["suite=mini", "method=npo", RECIPE]), by_recipe=True)
    assert made.suite.target.recipe is not None
    assert made.suite.target.recipe.train.lr == 1e-4


def test_what_counts_is_told(tmp_path: Path) -> None:
    words = ("suite=mini", "method=npo", f"out={tmp_path}")
    found = " ".join(command("plan", *words).out.split())
    assert "target model" in found
    assert "packaged mini/target; its recipe is not used" in found.replace("│ │ ", "")
    other = command("plan", *words, f"suite.target.model.path={tmp_path / 'none'}")
    assert "its recipe is not used" in " ".join(other.out.split()) or other.code == 3
    alone = command("plan", *words, "suite.target.model=none", "suite.retrain=none")
    assert "its recipe is not used" not in alone.out


def test_given_weights_may_have_anothers_tokenizer_beside_a_recipe() -> None:
    words = [
        "suite=mini",
        "method=npo",
        "suite.target.model.path=w",
        "suite.target.tokenizer.path=t",
    ]
    target = resolve_experiment(parse_words(words)).suite.target
    assert target.tokenizer is not None
    raw: Any = yaml.safe_load((FIXTURES / "tiny.yaml").read_text())
    assert "tokenizer" not in raw["target"]
    words = [f"suite={FIXTURES / 'tiny.yaml'}", "method=npo", "suite.target.tokenizer.path=t"]
    with pytest.raises(Exception, match="the recipe has one of its own"):
        resolve_experiment(parse_words(words))
