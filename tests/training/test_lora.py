"""Adapters: trained in the weights' place, merged as peft merges them, gone afterwards."""

import copy
import sys
from collections.abc import Callable
from typing import Any, cast

import peft
import pytest
import torch
from doubles import (
    MemoryState,
    differing,
    make_context,
    make_tokenizer,
    random_examples,
    tiny_llama,
    unlearn_data,
    weights,
)
from transformers import PreTrainedModel

from ilubench.attacks.finetune import FineTune
from ilubench.errors import SpecError, UsageError
from ilubench.interfaces import Context
from ilubench.methods.ilu import ILU
from ilubench.methods.npo import NPO
from ilubench.methods.rmu import RMU
from ilubench.methods.rr import RR
from ilubench.methods.sam import SAM
from ilubench.models.linear import linear_layers
from ilubench.specs import LoraSpec, TrainSpec
from ilubench.training import LossMethod, train_part

VOCABULARY = 60
TRAIN = TrainSpec(lr=1e-2, steps=4, batch_size=4, save_every_s=0)
LORA = LoraSpec(rank=4, alpha=8, targets=("q_proj", "mlp.up_proj"))
DATA = {"train": random_examples(9, VOCABULARY, 1)}
CHANGED = {
    f"model.layers.{layer}.{name}.weight"
    for layer in (0, 1)
    for name in ("self_attn.q_proj", "mlp.up_proj")
}


def context(**changes: Any) -> Context:
    return make_context(make_tokenizer(), **changes)


def course(attack: FineTune, model: PreTrainedModel, **changes: Any) -> dict[int, Any]:
    """Return step -> the weights that were scored there."""
    found = {}
    for checkpoint in attack.tamper(model, DATA, context(**changes)):
        assert not any("lora" in name for name, _ in checkpoint.model.named_modules())
        found[cast("int", checkpoint.step)] = weights(checkpoint.model)
    return found


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's own
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_merged_as_by_peft_bit_for_bit(dtype: torch.dtype) -> None:
    """Adapters of some training, put into a model of peft's own and merged by it."""
    module: torch.nn.Module = tiny_llama(VOCABULARY)
    model = cast("PreTrainedModel", module.to(dtype))
    theirs = copy.deepcopy(model)
    with train_part(model, (), LORA, 0) as merged:
        trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
        for place, parameter in enumerate(trained.values()):
            assert parameter.dtype == torch.float32
            parameter.data.add_(torch.randn(parameter.shape, generator=generator(place)))
        values = {name: parameter.detach().clone() for name, parameter in trained.items()}
        with merged():
            scored = weights(model)
    targets = [n for n in linear_layers(theirs) if n.endswith(("q_proj", "up_proj"))]
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets)
    wrapped: Any = peft.get_peft_model(cast("Any", theirs), config)
    own = dict(wrapped.named_parameters())
    for name, value in values.items():
        own[f"base_model.model.{name}"].data = value
    expected = weights(wrapped.merge_and_unload())
    assert not differing(scored, expected)
    assert not differing(weights(model), expected)  # what the next attack of a chain begins with


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_scoring_between_steps_changes_no_bit() -> None:
    """Merged and put back after every step, or at the end only; and what it was at step 0."""
    often, once = tiny_llama(VOCABULARY), tiny_llama(VOCABULARY)
    before = weights(often)
    spec = LORA.model_copy(update={"dropout": 0.2})
    stops = tuple(step / 4 for step in (1, 2, 3, 4))
    found = course(FineTune(train=TRAIN, lora=spec, fractions=stops), often)
    ended = course(FineTune(train=TRAIN, lora=spec, fractions=(1.0,), each_epoch=False), once)
    assert list(found) == [0, 1, 2, 3, 4]
    assert list(ended) == [0, 4]
    assert not differing(found[0], before)
    assert not differing(found[4], ended[4])
    assert {*differing(found[1], found[2])} == CHANGED
    assert often.state_dict().keys() == before.keys()
    assert not hasattr(often, "peft_config")


def test_the_next_attack_meets_no_adapter() -> None:
    """A full fine-tuning after one of adapters is that of a model with the same weights."""
    model = tiny_llama(VOCABULARY)
    course(FineTune(train=TRAIN, lora=LORA), model)
    assert all(parameter.requires_grad for parameter in model.parameters())
    fresh = tiny_llama(VOCABULARY)
    fresh.load_state_dict(model.state_dict())
    full = FineTune(train=TRAIN)
    assert not differing(course(full, model)[4], course(full, fresh)[4])


class Killed(Exception):  # noqa: N818
    """The job ends here."""


def test_a_killed_job_ends_with_the_same_bits() -> None:
    attack = FineTune(train=TRAIN, lora=LORA)
    whole = course(attack, tiny_llama(VOCABULARY), seed=3)[4]
    state = MemoryState()

    def die(step: int, _metrics: object) -> None:
        if step == 3:
            raise Killed

    with pytest.raises(Killed):
        course(attack, tiny_llama(VOCABULARY), seed=3, state=state, log=die)
    again = course(attack, tiny_llama(VOCABULARY), seed=3, state=state)
    assert list(again) == [3, 4]
    assert not differing(again[4], whole)
    other = course(attack, tiny_llama(VOCABULARY), seed=4)[4]
    assert differing(other, whole)


def test_an_error_leaves_the_model_as_it_was() -> None:
    model = tiny_llama(VOCABULARY)
    before = weights(model)
    with pytest.raises(Killed), train_part(model, (), LORA, 0):
        raise Killed
    assert not differing(weights(model), before)


@pytest.mark.parametrize(
    "make",
    [
        lambda **given: NPO(train=TRAIN, retain="kl", **given),
        lambda **given: RMU(train=TRAIN, layer=1, scale="relative", coefficient=2.0, **given),
        lambda **given: SAM.model_validate({"base": NPO(train=TRAIN), **given}),
        lambda **given: SAM.model_validate({"base": NPO(train=TRAIN, **given)}),
        lambda **given: ILU(base=NPO(train=TRAIN), environments=("e",), **given),
    ],
)
def test_methods_train_adapters(make: Callable[..., LossMethod]) -> None:
    """Only the targets change; the original that a method compares with is the original."""
    method = make(lora=LORA)
    assert method.lora == LORA
    assert type(method).model_validate(method.model_dump(mode="json")) == method
    model = tiny_llama(VOCABULARY)
    before = weights(model)
    losses: list[float] = []
    job = context(log=lambda _step, metrics: losses.append(metrics["loss"]))
    made = method.unlearn(model, unlearn_data(VOCABULARY, environments=("e",)), job)
    assert {*differing(before, weights(made))} == CHANGED
    full: list[float] = []
    job = context(log=lambda _step, metrics: full.append(metrics["loss"]))
    start = make(trainable=("*.0.mlp.up_proj.weight",))
    start.unlearn(tiny_llama(VOCABULARY), unlearn_data(VOCABULARY, environments=("e",)), job)
    if not isinstance(method, SAM):  # whose first loss is that of perturbed weights
        assert losses[0] == pytest.approx(full[0], rel=1e-5)  # new adapters change nothing


def test_one_part_is_trained_and_rr_trains_no_adapters() -> None:
    with pytest.raises(ValueError, match="trainable and lora: one of them"):
        NPO(train=TRAIN, trainable=("*.up_proj.weight",), lora=LORA)
    config = tiny_llama(VOCABULARY).config
    for method in (
        RR(train=TRAIN, layers=(0,), lora=LORA),
        SAM.model_validate({"base": RR(train=TRAIN), "lora": LORA}),
    ):
        with pytest.raises(SpecError, match="lora: RR begins with noise"):
            getattr(method, "base", method).check_model(config)


@pytest.mark.parametrize("target", ["q_projection", "proj", "lm_head", "layers", ""])
def test_targets_that_match_nothing(target: str) -> None:
    config = tiny_llama(VOCABULARY).config
    spec = LoraSpec(targets=("q_proj", target))
    said = rf"lora.targets: the model has no linear layer '{target}', its head aside; .*_proj"
    for plugin in (FineTune(train=TRAIN, lora=spec), NPO(train=TRAIN, lora=spec)):
        with pytest.raises(SpecError, match=said):
            plugin.check_model(config)


def test_peft_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"LoRA needs peft: pip install 'ilubench\[lora\]'"):
        FineTune(train=TRAIN, lora=LORA).check_model(tiny_llama(VOCABULARY).config)


def test_adapters_are_not_divided_among_devices() -> None:
    for plugin in (FineTune(train=TRAIN, lora=LORA), NPO(train=TRAIN, lora=LORA)):
        with pytest.raises(SpecError, match="adapters do not go with a model that is divided"):
            plugin.check_sharding()
