"""Attacks with levels: quantised, pruned and noisy weights."""

import copy
from typing import Any, cast

import pytest
import torch
from doubles import differing, make_context, make_tokenizer, tiny_llama, weights
from pydantic import ValidationError
from torch.nn.utils.prune import L1Unstructured, global_unstructured
from transformers import GPT2Config, GPT2LMHeadModel, MixtralConfig, PreTrainedModel

from ilubench.attacks import quantize as quantizing
from ilubench.attacks.noise import Noise
from ilubench.attacks.prune import Prune
from ilubench.attacks.quantize import Quantize
from ilubench.errors import SpecError, UsageError
from ilubench.interfaces import WeightAttack
from ilubench.models.linear import by_outputs, linear_layers

Levels = dict[str, dict[str, torch.Tensor]]


def attacked(attack: WeightAttack, model: PreTrainedModel, seed: int = 0) -> Levels:
    """Return level -> the weights there; the unlearned ones' level is empty."""
    found = attack.tamper(model, {}, make_context(make_tokenizer(), seed=seed))
    return {one.level or "": weights(one.model) for one in found}


def gpt2() -> PreTrainedModel:
    """Return a model whose weights are [inputs, outputs]."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=40, n_positions=16, n_embd=64, n_layer=1, n_head=2)
    )


@pytest.fixture(params=[lambda: tiny_llama(40, tied=True), gpt2], ids=["llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    made: PreTrainedModel = request.param()
    return made


ATTACKS: list[Any] = [
    Prune(),
    Noise(),
    pytest.param(Quantize(group=32), id="rtn"),
    pytest.param(Quantize(method="nf4"), id="nf4"),
]


def in_type(model: torch.nn.Module, dtype: torch.dtype) -> PreTrainedModel:
    return cast("PreTrainedModel", model.to(dtype))


def skip_without_library(attack: WeightAttack) -> None:
    if isinstance(attack, Quantize):
        pytest.importorskip("torchao" if attack.method == "rtn" else "bitsandbytes")


@pytest.mark.parametrize("attack", ATTACKS)
def test_linear_layers_change_and_each_level_begins_anew(
    attack: WeightAttack, model: PreTrainedModel
) -> None:
    skip_without_library(attack)
    before = weights(model)
    attack.check_model(model.config)
    names = {f"{name}.weight" for name in linear_layers(model)}
    found = attacked(attack, model)
    assert ["", *list(found)[1:]] == ["", *map(str, attack.checkpoints(0)[1:])]
    assert not differing(before, found[""])
    last = list(found)[-1]
    assert not differing(weights(model), found[last])  # what stays is the strongest
    for level in list(found)[1:]:
        assert {*differing(before, found[level])} == names
        model.load_state_dict(before)
        name, values = field_of(attack, level)
        alone = attacked(attack.model_copy(update={name: (values,)}), model)
        assert not differing(alone[level], found[level])


def field_of(attack: WeightAttack, level: str) -> tuple[str, float]:
    if isinstance(attack, Quantize):
        return "bits", int(level.removesuffix("bit"))
    return ("shares" if isinstance(attack, Prune) else "scales"), float(level)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rtn_is_what_torchao_makes_of_the_model(dtype: torch.dtype) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    model = in_type(tiny_llama(40), dtype)
    theirs = {bits: copy.deepcopy(model) for bits in (8, 4)}
    found = attacked(Quantize(group=32), model)
    for bits, other in theirs.items():
        kind = getattr(torch, f"int{bits}")
        config = torchao.IntxWeightOnlyConfig(weight_dtype=kind, granularity=torchao.PerGroup(32))
        torchao.quantize_(other.model, config)  # its head lies beside
        for name, layer in linear_layers(other).items():
            expected: torch.Tensor = layer.weight.dequantize()  # type: ignore[operator]
            assert torch.equal(found[f"{bits}bit"][f"{name}.weight"], expected)
            assert len(expected[0, :32].unique()) <= 2**bits


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nf4_is_what_a_layer_of_bitsandbytes_holds(dtype: torch.dtype) -> None:
    library = pytest.importorskip("bitsandbytes")
    model = in_type(tiny_llama(40), dtype)
    before = weights(model)
    found = attacked(Quantize(method="nf4"), model)
    for name in linear_layers(model):
        value = before[f"{name}.weight"]
        theirs = library.nn.LinearNF4(*reversed(value.shape), bias=False, compress_statistics=False)
        theirs.load_state_dict({"weight": value})
        held = theirs.to("cpu").weight
        expected = library.functional.dequantize_4bit(held.data, held.quant_state)
        assert torch.equal(found["4bit"][f"{name}.weight"], expected.to(dtype))


def test_pruning_is_torchs_of_all_weights_together() -> None:
    model = tiny_llama(40)
    other = copy.deepcopy(model)
    found = attacked(Prune(shares=(0.1, 0.35)), model)
    for share in (0.1, 0.35):
        pruned = copy.deepcopy(other)
        pairs = [(layer, "weight") for layer in linear_layers(pruned).values()]
        global_unstructured(pairs, L1Unstructured, amount=share)
        for name, layer in linear_layers(pruned).items():
            assert torch.equal(found[str(share)][f"{name}.weight"], by_outputs(layer))


def test_of_equal_weights_the_first_go_and_as_many_as_asked() -> None:
    model = in_type(tiny_llama(40), torch.bfloat16)
    layers = linear_layers(model)
    with torch.no_grad():
        for layer in layers.values():
            by_outputs(layer).fill_(-0.5)
        first = by_outputs(layers["model.layers.0.self_attn.q_proj"])
        first[3, 5] = 0.25
    found = attacked(Prune(shares=(0.001,)), model)["0.001"]
    values = [found[f"{name}.weight"] for name in layers]
    total = sum(value.numel() for value in values)
    gone = [int((value == 0).sum()) for value in values]
    assert sum(gone) == round(0.001 * total)
    assert gone[1:] == [0] * (len(gone) - 1)
    expected = torch.full_like(values[0], -0.5).flatten()
    expected[: sum(gone) - 1] = 0.0
    expected[3 * 96 + 5] = 0.0
    assert torch.equal(values[0].flatten(), expected)


def test_noise_is_of_the_seed_and_the_level_alone() -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    model = tiny_llama(40)
    before = weights(model)[name]
    found = attacked(Noise(scales=(0.1, 0.5)), tiny_llama(40))
    again = attacked(Noise(scales=(0.5,)), tiny_llama(40))
    other = attacked(Noise(scales=(0.5,)), tiny_llama(40), seed=1)
    assert torch.equal(found["0.5"][name], again["0.5"][name])
    moved = {level: found[level][name] - before for level in ("0.1", "0.5")}
    for level, change in moved.items():
        assert float(change.std() / before.std()) == pytest.approx(float(level), rel=0.03)
    pairs = [(moved["0.1"], moved["0.5"]), (moved["0.5"], other["0.5"][name] - before)]
    for one, two in pairs:
        both = torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))
        assert abs(float(both[0, 1])) < 0.05


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        (Quantize, {"bits": [4, 8]}, "from the weakest to the strongest, each once: 8, 4"),
        (Quantize, {"bits": [8, 8, 4]}, "each once: 8, 4"),
        (Quantize, {"bits": [16]}, "less than or equal to 8"),
        (Quantize, {"bits": []}, "at least 1"),
        (Quantize, {"method": "nf4", "bits": [8, 4]}, r"nf4 has 4; write bits: \[4\]"),
        (Quantize, {"method": "nf4", "group": 48}, "nf4 has groups of 64, 128"),
        (Prune, {"shares": [0.1, 0.3, 0.2]}, "each once: 0.1, 0.2, 0.3"),
        (Prune, {"shares": [0.1, 0.1]}, "each once: 0.1"),
        (Prune, {"shares": [0.5, 1.0]}, "less than 1"),
        (Noise, {"scales": [0.2, 0.1]}, "each once: 0.1, 0.2"),
        (Noise, {"scales": [0.0, 0.1]}, "greater than 0"),
    ],
)
def test_levels_that_make_no_course(kind: type[WeightAttack], settings: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        kind.model_validate(settings)


def test_a_missing_library_and_groups_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_llama(40).config
    monkeypatch.setattr(quantizing.importlib.util, "find_spec", lambda name: name)  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match=r"64 does not divide the 96 inputs of model.*give 32 or"):
        Quantize().check_model(config)
    Quantize(group=32).check_model(config)
    monkeypatch.setattr(quantizing.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    for method, library in (("rtn", "torchao"), ("nf4", "bitsandbytes")):
        with pytest.raises(UsageError, match=rf"needs {library}: pip install 'ilubench\[quant"):
            Quantize.model_validate({"method": method}).check_model(config)


@pytest.mark.parametrize("attack", [Prune(), Noise()])
def test_experts_in_one_tensor_are_not_passed_over(attack: WeightAttack) -> None:
    config = MixtralConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=2,
    )
    with pytest.raises(SpecError, match=r"experts.*several matrices in one tensor"):
        attack.check_model(config)


def test_levels_are_named_as_files_may_be() -> None:
    scales = (1e-5, 0.1, 1e30)
    names = Noise(scales=scales).checkpoints(1)[1:]
    assert len(set(names)) == 3
    assert all(set(str(name)) <= {*"0123456789e.-"} for name in names)
