"""ILU's variants: which fit together, the forget set as an environment, the split estimator."""

from typing import Any

import pytest
import torch
from cases import VOCABULARY, Making, fresh, make, one_step
from doubles import random_examples
from runs import SUITE

from ilubench.data.batches import collate
from ilubench.errors import DataError, SpecError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.interfaces import Example, UnlearnData
from ilubench.interfaces.discovery import create_plugin
from ilubench.methods.invariance import token_shares
from ilubench.specs import PluginRef
from ilubench.specs.overrides import parse_words


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"penalty": "grad_norm", "predictor": "params"}, "predictor=params needs penalty=irm"),
        ({"penalty": "cross_entropy", "estimator": "split"}, "needs a squared penalty"),
        ({"estimator": "split", "environment_batch": 1}, "batches of 2 sequences at least"),
        (
            {"estimator": "split", "environments": ["forget"], "train": {"batch_size": 1}},
            "batches of 2 sequences at least",
        ),
    ],
)
def test_variants_that_make_no_sense(settings: dict[str, Any], problem: str) -> None:
    base = {"use": "npo", "settings": {"train": {"lr": 1e-3, "steps": 1}}}
    with pytest.raises(SpecError, match=problem):
        create_plugin("methods", PluginRef(use="ilu", settings={"base": base, **settings}))


def test_a_base_that_is_no_loss_is_refused() -> None:
    with pytest.raises(SpecError, match="NoUnlearning is not a LossMethod"):
        create_plugin("methods", PluginRef(use="ilu", settings={"base": "none"}))


def test_an_empty_environment_is_an_error(context: Making) -> None:
    items = random_examples(4, VOCABULARY, 1)
    with pytest.raises(DataError, match="the environment one set is empty"):
        make("ilu-params").unlearn(fresh(), UnlearnData(items, items, {"one": []}), context())


def test_the_penalty_is_logged_with_its_gradient(context: Making) -> None:
    _, metrics, _ = one_step(make("ilu-rr"), context(), 3)
    assert metrics["penalty/one"] == pytest.approx(metrics["g/one"] ** 2)


def test_the_forget_set_is_no_environment_of_the_suite() -> None:
    assert make("ilu-forget").environment_names() == ("one",)
    words = ("method=ilu", "method.environments=forget")
    assert resolve_experiment(parse_words([SUITE, *words])).seen == ()
    both = resolve_experiment(
        parse_words([SUITE, "method=ilu", "method.environments=forget,gsm8k"])
    )
    assert both.seen == ("gsm8k",)


def test_halves_do_not_depend_on_the_micro_batches() -> None:
    items = random_examples(10, VOCABULARY, 4)
    whole = collate(items, range(10), 0)
    (together,) = token_shares(whole, split=True)
    apart = token_shares(collate(items, range(10), 0, micro=3), split=True)
    for part in (0, 1):
        assert torch.equal(together[part], torch.cat([shares[part] for shares in apart]))
        members = together[part] > 0
        assert int(members.sum()) == 5
        tokens = whole[0].loss_mask.sum(1)[members]
        assert float((together[part][members] * tokens).sum()) == pytest.approx(1.0)
    assert not bool(((together[0] > 0) & (together[1] > 0)).any())
    (one,) = token_shares(whole, split=False)[0]
    assert float((one * whole[0].loss_mask.sum(1)).sum()) == pytest.approx(1.0)


def test_halves_are_drawn() -> None:
    items = random_examples(64, VOCABULARY, 4)
    found = set()
    for start in range(0, 64, 8):
        ((first, _),) = token_shares(collate(items, range(start, start + 8), 0), split=True)
        found.add(bool(first[0] > 0))
    assert found == {True, False}  # the shortest sequence is now in one half, now in the other


def test_the_split_estimator_has_no_upward_bias() -> None:
    """Over random batches, the product of halves has the mean's square as its mean."""
    torch.manual_seed(0)
    values = torch.randn(4000) + 0.5  # one token an item; the mean's square is 1/4, Var/B is 1/8
    plain: list[float] = []
    split: list[float] = []
    for start in range(0, 4000, 8):
        items = [Example("", (5, 6), (False, True))] * 4000
        batches = collate(items, range(start, start + 8), 0)
        for found, halved in ((plain, False), (split, True)):
            (shares,) = token_shares(batches, split=halved)
            means = [float((values[batches[0].index] * share).sum()) for share in shares]
            found.append(means[0] * means[-1])
    assert sum(plain) / len(plain) == pytest.approx(0.375, abs=0.05)
    assert sum(split) / len(split) == pytest.approx(0.25, abs=0.05)
