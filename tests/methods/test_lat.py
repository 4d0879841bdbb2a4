"""Latent adversarial training: what is perturbed and what not, the adversary, the wrappers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from cases import ADVERSARY, VOCABULARY, Making, data, fresh, make, moved, step_batch
from doubles import differing, gradients, weights
from runs import planned
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ilubench.errors import SpecError
from ilubench.interfaces import Batch, Context
from ilubench.interfaces import UnlearnData as Data
from ilubench.interfaces.discovery import create_plugin
from ilubench.methods.activations import hidden_state
from ilubench.methods.lat import LAT
from ilubench.methods.terms import ForgetRetain, mean_nll
from ilubench.specs import PluginRef, TrainSpec

TRAIN = TrainSpec(lr=1e-3, steps=3, batch_size=4)  # its steps see all of the forget set


def lat(base: str = "graddiff", settings: Any = None, **more: Any) -> Any:
    given = {"train": TRAIN.model_dump(mode="json"), **(settings or {})}
    reference = {"use": base, "settings": given}
    return create_plugin(
        "methods", PluginRef(use="lat", settings={**ADVERSARY, **more, "base": reference})
    )


def step(method: Any, context: Context, micro: int | None = None) -> tuple[Any, Any]:
    """Return the gradients and metrics of one step of the moved model."""
    model = fresh()
    prepared = method.prepare(model, data(), context)
    model.load_state_dict(moved(method).state_dict())
    metrics = method.backward(model, step_batch(data(), micro), prepared)
    return gradients(model), metrics


# ------------------------------------------------------------------------------- what is perturbed


class Watching(ForgetRetain):
    """Notes the hidden states that its terms meet."""

    def prepare(self, model: PreTrainedModel, data: Data, context: Context) -> Any:
        return {"forget": [], "retain": [], "original": []}

    def forget_term(self, model: PreTrainedModel, batch: Batch, prepared: Any) -> torch.Tensor:
        with torch.no_grad():
            prepared["original"].append(hidden_state(model, batch, 0))
        prepared["forget"].append(hidden_state(model, batch, 0))
        return -mean_nll(model, batch)

    def retain_term(self, model: PreTrainedModel, batch: Batch, prepared: Any) -> torch.Tensor:
        prepared["retain"].append(hidden_state(model, batch, 0))
        return mean_nll(model, batch)


@pytest.mark.parametrize("epsilon", [0.3, 5.0])
def test_the_forget_batch_is_perturbed_and_nothing_else(context: Making, epsilon: float) -> None:
    method = LAT(base=Watching(train=TRAIN), **{**ADVERSARY, "epsilon": epsilon, "inner_lr": 0.2})
    model, whole = fresh(), step_batch(data(), 4)
    seen = method.prepare(model, data(), context())
    metrics = method.backward(model, whole, seen)
    assert metrics["perturbed"] == 8
    for place, micro in enumerate(whole.micro):
        forget, retain = (hidden_state(model, b, 0).detach() for b in (micro.forget, micro.retain))
        assert torch.equal(seen["retain"][place], retain)
        assert torch.equal(seen["original"][place], forget)
        lengths = (seen["forget"][place].detach() - forget).norm(dim=-1)
        ids = micro.forget.attention_mask
        padding = (ids == 0) | (ids.cumsum(1) == ids.sum(1, keepdim=True))
        assert float(lengths[padding].max()) == 0  # nothing depends on these: the last token, too
        longest = min(epsilon, 3 * 0.2)
        assert float(lengths.max()) == pytest.approx(longest, rel=1e-3)
        assert float(lengths[~padding].min()) > 0.05


def test_a_loss_by_itself_is_perturbed_too(context: Making) -> None:
    method, model = lat(), fresh()
    prepared = method.prepare(model, data(), context())
    (micro,) = step_batch(data(), None).micro
    value = method.loss(model, micro, prepared).item()
    assert value > method.base.loss(model, micro, prepared).item() + 0.05
    metrics = method.backward(model, step_batch(data(), 2), prepared)
    assert value == pytest.approx(metrics["loss"], rel=1e-4)


def test_no_weight_and_no_hook_is_left(context: Making) -> None:
    method, model = lat(layers=[0, 1]), fresh()
    before = weights(model)
    method.backward(model, step_batch(data(), 4), method.prepare(model, data(), context()))
    assert not differing(before, weights(model))
    hooked = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert not hooked


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("gpt2", {"n_embd": 96, "n_head": 2, "n_layer": 2, "n_positions": 64}),
        ("gemma2", {"num_key_value_heads": 2, "head_dim": 48, "final_logit_softcapping": 5.0}),
        ("gpt_neox", {}),
    ],
)
def test_other_architectures(context: Making, kind: str, settings: dict[str, Any]) -> None:
    sizes = {} if kind == "gpt2" else {"hidden_size": 96, "num_hidden_layers": 2}
    if kind != "gpt2":
        sizes |= {"num_attention_heads": 2, "intermediate_size": 128}
    config = AutoConfig.for_model(
        kind,
        vocab_size=VOCABULARY,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **sizes,
        **settings,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    method = lat(layers=[0, 1])
    metrics = method.backward(model, step_batch(data(), 4), None)
    assert metrics["perturbed"] == 8
    assert metrics["recall_to"] < metrics["recall_from"] - 1e-3


# ------------------------------------------------------------------------------- the adversary


@pytest.mark.parametrize("use", ["npo", "graddiff", "simnpo"])
def test_a_vanishing_perturbation_is_the_base(context: Making, use: str) -> None:
    method = lat(use, epsilon=1e-6)
    found, metrics = step(method, context())
    base, plain = step(method.base, context())
    assert metrics["loss"] == pytest.approx(plain["loss"], rel=1e-4)
    for name, gradient in base.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4)
    _, far = step(lat(use), context())
    assert far["loss"] > plain["loss"] + 0.05


def test_the_adversary_recalls_the_more_the_further_it_goes(context: Making) -> None:
    reached = [
        step(lat(inner_steps=count, epsilon=2.0, inner_lr=0.2), context())[1] for count in (1, 2, 6)
    ]
    assert reached[0]["recall_to"] == reached[0]["recall_from"]  # before the only step
    start = reached[0]["recall_from"]
    assert [metrics["recall_from"] for metrics in reached] == pytest.approx([start] * 3)
    assert start > reached[1]["recall_to"] + 0.05 > reached[2]["recall_to"] + 0.2
    assert [m["loss"] for m in reached] == sorted(m["loss"] for m in reached)


@pytest.mark.parametrize(
    ("use", "settings", "alike"),
    [
        ("npo", {"reduction": "sum"}, True),
        ("npo", {"reduction": "batch_mean"}, True),
        ("simnpo", {}, True),
        ("rmu", {"layer": 1}, False),
        ("rr", {"layers": [1]}, False),
    ],
)
def test_both_targets_are_one_where_nll_is_all(
    context: Making, use: str, settings: Any, alike: bool
) -> None:
    losses = [step(lat(use, settings, target=t), context())[1]["loss"] for t in ("recall", "base")]
    assert (abs(losses[0] - losses[1]) < 1e-4 * abs(losses[0])) == alike
    if not alike:  # an adversary of the term itself raises it more
        assert losses[1] > losses[0]


# ------------------------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("method=lat method.layers=0,2", "method.layers: the model has 2 layers, no layer 2"),
        ("method=rr method.layers=9", "method.layers: the model has 2 layers, no layer 9"),
        ("method=rmu method.layer=2", "method.layer: the model has 2 layers, no layer 2"),
        (
            "method=lat method.layers=1 method.base=rmu method.base.layer=3",
            "method.base.layer: the model has 2 layers, no layer 3; give one of 0..1",
        ),
        (
            "method=ilu method.base=lat method.base.layers=0 method.base.base=rr "
            "method.base.base.layers=1,5",
            "method.base.base.layers: the model has 2 layers, no layer 5",
        ),
    ],
)
def test_a_layer_that_is_not_there_is_found_by_the_plan(
    words: str, problem: str, tmp_path: Path
) -> None:
    with pytest.raises(SpecError) as caught:
        planned(*words.split(), f"out={tmp_path / 'none'}")
    assert str(caught.value).startswith(problem)
    assert not (tmp_path / "none").exists()


def test_layers_above_the_forget_loss(context: Making) -> None:
    rmu = {"layer": 0, "trainable": ["*layers.0.mlp.down_proj.weight"]}
    for target in ("recall", "base"):
        method = lat("rmu", rmu, layers=[0, 1], target=target)
        with pytest.raises(
            SpecError, match="layers: RMU computes no layer 1 to forget; give lower"
        ):
            method.unlearn(fresh(), data(), context())


def test_a_base_without_a_forget_term() -> None:
    sam = {"base": {"use": "npo", "settings": {"train": TRAIN.model_dump(mode="json")}}}
    reference = {"use": "sam", "settings": sam}
    settings = {**ADVERSARY, "base": reference}
    with pytest.raises(SpecError, match="SAM has no forget term of its own; give target=recall"):
        create_plugin("methods", PluginRef(use="lat", settings={**settings, "target": "base"}))
    assert create_plugin("methods", PluginRef(use="lat", settings=settings)).target == "recall"


def test_refusals_are_not_perturbed(context: Making) -> None:
    method = lat("idk", {"refusals": ["three apples"]})
    _, metrics = step(method, context())
    _, plain = step(method.base, context())
    assert metrics["perturbed"] == 0
    assert metrics["loss"] == pytest.approx(plain["loss"], rel=1e-6)


def test_a_wrapper_around_it_trains_as_it_does() -> None:
    method = make("ilu-lat")
    assert method.train == method.base.train == method.base.base.train
    assert method.environment_names() == ("one",)
