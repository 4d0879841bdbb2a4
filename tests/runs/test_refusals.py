"""What a run refuses before anything is unlearned: a single item, checkpoints that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import SUITE, command, made, target_folder

from ilubench.attacks.finetune import FineTune
from ilubench.errors import SpecError
from ilubench.specs import TrainSpec

ONE = "1 item for {}, and an interval needs two; give more rows, or a higher limit"


def refused(*words: str, code: int, out: Path) -> str:
    """The message of a run that ends before its first job; the target model is there."""
    target = f"suite.target.model.path={target_folder(made())}"
    done = command("run", SUITE, target, "method=npo", f"out={out}", *words)
    assert done.code == code, done.err
    assert list(out.glob("store/*/*")) == []
    assert list(out.glob("tiny-*")) == []
    return done.err


@pytest.mark.parametrize(
    ("word", "scorer", "label"),
    [
        ("suite.scorers.forget_nll.settings.limit=1", "forget_nll", "NLL_f"),
        ("data.retain_mc.limit=1", "retain_mc", "MC_r"),
        ("data.gsm8k.eval.limit=1", "gsm8k/fa", "FA"),
        ("data.agnews.eval.limit=1", "agnews/fa", "FA"),
    ],
)
def test_a_metric_of_one_item_is_refused(
    word: str, scorer: str, label: str, tmp_path: Path
) -> None:
    error = refused(word, code=3, out=tmp_path)
    assert f"scorer {scorer}: {ONE.format(label)}" in error


def test_scoring_alone_takes_one_item(tmp_path: Path) -> None:
    word = "suite.scorers.forget_nll.settings.limit=1"
    model = str(target_folder(made()))
    done = command("score", model, SUITE, word, f"out={tmp_path}")
    assert done.code == 0, done.err


@pytest.mark.parametrize(
    ("fraction", "says"),
    [
        ("2", "fractions"),
        ("-1", "fractions"),
        ("0", "fractions"),
        ("nan", "fractions"),
        ("0.5,1.01", "fractions"),
        ("1e-7", "1e-07 of 8 steps is step 0"),
        ("0.05,1.0", "attack.gsm8k.fractions: 0.05 of 8 steps is step 0"),
    ],
)
def test_fractions_lie_within_the_attack(fraction: str, says: str, tmp_path: Path) -> None:
    words = ("attacks=gsm8k", f"attack.fractions={fraction}")
    assert says in refused(*words, code=2, out=tmp_path)


def test_the_remedy_of_a_fraction_works() -> None:
    train = TrainSpec(lr=1e-3, steps=30)
    with pytest.raises(SpecError, match=r"give 0\.033 or more"):
        FineTune(train=train, fractions=(0.01, 1.0)).check_examples({"train": 8})
    FineTune(train=train, fractions=(0.033, 1.0)).check_examples({"train": 8})


def test_the_usual_fractions_go_with_an_attack_of_two_steps() -> None:
    attack = FineTune(train=TrainSpec(lr=1e-3, steps=2))
    attack.check_examples({"train": 8})
    assert attack.checkpoints(8) == (0, 1, 2)
