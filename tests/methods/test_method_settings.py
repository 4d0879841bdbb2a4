"""What is particular to a method: NPO's variants, SAM, RMU, refusals, task vectors."""

import math
from typing import Any, cast

import pytest
import torch
from cases import Making, data, fresh, make, step_batch
from chats import CHATML, chat_tokenizer
from doubles import MemoryState, StepRecorder, differing, gradients, make_context, weights
from objectives import Plain
from transformers import PreTrainedTokenizerBase

from ilubench.data.batches import collate, encode_pair
from ilubench.errors import DataError, IlubenchError, SpecError
from ilubench.interfaces import Chat, Example, StepBatch, UnlearnBatch
from ilubench.interfaces import UnlearnData as Data
from ilubench.interfaces.discovery import create_plugin
from ilubench.methods.original import Original
from ilubench.methods.refusals import make_refusals
from ilubench.specs import DataSource, PluginRef
from ilubench.training import trainable_only

# ------------------------------------------------------------------------------- NPO, SAM


def test_the_original_comes_and_goes() -> None:
    model = fresh()
    kept = Original(model, ["*down_proj*"])
    start = weights(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "down_proj" in name:
                parameter.add_(1.0)
    trained = weights(model)
    model.train()
    with kept.weights(model):
        assert not differing(start, weights(model))
        assert not model.training
        assert not torch.is_grad_enabled()
    assert not differing(trained, weights(model))
    assert model.training
    assert torch.is_grad_enabled()


def test_kl_is_zero_at_first_and_positive_after(context: Making) -> None:
    log = StepRecorder()
    settings = {"beta": 0.1, "reduction": "mean", "retain": "kl", "gamma": 1.0}
    train = {"lr": 1e-3, "steps": 3, "batch_size": 4, "precision": "bfloat16"}
    ref = PluginRef(use="npo", settings={**settings, "train": train})
    create_plugin("methods", ref).unlearn(fresh(), data(), context(log=log))
    start = 2 / 0.1 * math.log(2)
    assert log.losses[0] == pytest.approx(start, abs=1e-4)  # NLL = NLL_ref, KL = 0
    bare = PluginRef(use="npo", settings={**settings, "train": train, "gamma": 0.0})
    other = StepRecorder()
    create_plugin("methods", bare).unlearn(fresh(), data(), context(log=other, state=MemoryState()))
    assert log.losses[1] > other.losses[1] + 1e-3


def test_batch_mean_has_no_partial_loss(context: Making) -> None:
    method, model = make("npo-batch_mean"), fresh()
    prepared = method.prepare(model, data(), context())
    whole, parts = (step_batch(data(), micro).micro for micro in (None, 4))
    expected = method.backward(model, step_batch(data(), 2), prepared)["loss"]
    assert method.loss(model, whole[0], prepared).item() == pytest.approx(expected, rel=1e-5)
    with pytest.raises(IlubenchError, match="batch_mean has no partial loss"):
        method.loss(model, parts[0], prepared)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_sam_looks_uphill_and_comes_back(context: Making, precision: str) -> None:
    """A stale half-precision copy of the weights would make the sharpness exactly zero."""
    method, model = make("sam", precision=precision), fresh()
    found = data()
    prepared = method.prepare(model, found, context())
    before = weights(model)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        metrics = method.backward(model, step_batch(found, 4), prepared)
    assert metrics["sharpness"] > 1e-3
    assert not differing(before, weights(model))


def test_sam_needs_a_forget_term() -> None:
    train = {"train": {"lr": 1e-3, "steps": 1}}
    ilu = {"use": "ilu", "settings": {"base": {"use": "npo", "settings": train}}}
    with pytest.raises(SpecError, match="ILU has no forget term of its own; give terms=all"):
        create_plugin("methods", PluginRef(use="sam", settings={"base": ilu}))
    method = create_plugin("methods", PluginRef(use="sam", settings={"base": ilu, "terms": "all"}))
    assert method.environment_names() == ("gsm8k",)


def test_a_wrapper_in_a_wrapper_hands_its_training_down() -> None:
    ilu = make("ilu-sam")
    trained = {"train": {"steps": 9}, "trainable": ["lm_head*"]}
    outer = type(ilu).model_validate({**ilu.model_dump(mode="json"), **trained})
    for method in (outer, outer.base, outer.base.base):
        assert method.train.steps == 9
        assert method.trainable == ("lm_head*",)


# ------------------------------------------------------------------------------- RMU


def test_the_direction_is_fixed_by_the_seed(context: Making) -> None:
    method = make("rmu")
    target = method.prepare(fresh(), data(), context()).target
    assert target.shape == (96,)
    assert float(target.norm()) == pytest.approx(3.0, rel=1e-5)
    assert float(target.min()) >= 0  # uniform on [0, 1): no coordinate is negative
    ratio = float(target.max() / target.mean())
    assert 1.6 < ratio < 2.4
    again, other = (method.prepare(fresh(), data(), context(seed=seed)).target for seed in (7, 8))
    assert torch.equal(target, again)
    assert not torch.equal(target, other)


def test_a_relative_coefficient(context: Making, tokenizer: PreTrainedTokenizerBase) -> None:
    method = make("rmu-targets")
    plain = Plain(method, tokenizer)
    lengths = [
        plain.hidden(plain.original, item, 1)[torch.tensor(item.loss_mask)].norm(dim=-1)
        for item in data().forget
    ]
    target = method.prepare(fresh(), data(), context()).target
    expected = 6.5 * torch.cat(lengths).mean().item()
    assert float(target.norm()) == pytest.approx(expected, rel=1e-4)


def test_rmu_does_not_compute_what_lies_above(context: Making) -> None:
    settings = {**make("rmu").model_dump(mode="json"), "layer": 0, "trainable": []}
    method = create_plugin("methods", PluginRef(use="rmu", settings=settings))
    assert method.trainable == ("*layers.0.mlp.down_proj.weight",)
    model = fresh()
    prepared = method.prepare(model, data(), context())

    def reached(*_: object) -> None:
        raise AssertionError

    cast("Any", model).model.layers[1].register_forward_pre_hook(reached)
    with trainable_only(model, method.trainable):
        metrics = method.backward(model, step_batch(data(), None), prepared)
    assert metrics["loss"] > 0


# ------------------------------------------------------------------------------- layers

TRAIN = {"lr": 1e-3, "steps": 1}


@pytest.mark.parametrize(
    ("use", "settings"),
    [
        ("rmu", {"train": TRAIN, "layer": 7}),
        ("rr", {"train": TRAIN, "layers": [0, 7]}),
        ("lat", {"layers": [7], "base": {"use": "npo", "settings": {"train": TRAIN}}}),
    ],
)
def test_a_layer_that_is_not_there(context: Making, use: str, settings: dict[str, Any]) -> None:
    method = create_plugin("methods", PluginRef(use=use, settings=settings))
    with pytest.raises(SpecError, match=r"^layers?: the model has 2 layers, no layer 7; .* 0\.\.1"):
        method.unlearn(fresh(), data(), context())


def test_the_default_matrices() -> None:
    rmu, rr = (
        create_plugin("methods", PluginRef(use=u, settings={"train": TRAIN})) for u in ("rmu", "rr")
    )
    assert rmu.trainable == tuple(f"*layers.{i}.mlp.down_proj.weight" for i in (5, 6, 7))
    assert rr.layers == (10, 20)
    assert rr.trainable == tuple(f"*layers.{i}.*_proj.weight" for i in range(21))
    wrapped = make("sam-rr")
    assert wrapped.trainable == wrapped.base.trainable
    assert wrapped.trainable[-1] == "*layers.1.*_proj.weight"


# ------------------------------------------------------------------------------- refusals


def test_refusals_stand_behind_the_prompts(context: Making) -> None:
    found = make_refusals(data().forget, ["three apples", "the miller"], context())
    tokenizer = context().tokenizer
    prompted = [i for i, item in enumerate(data().forget) if not item.loss_mask[1]]
    assert list(found.places) == prompted
    seen = set()
    for index, item in zip(prompted, found.examples, strict=True):
        prompt = data().forget[index].loss_mask.index(True)
        assert item.input_ids[:prompt] == data().forget[index].input_ids[:prompt]
        assert item.loss_mask.index(True) == prompt
        assert item.input_ids[-1] == tokenizer.eos_token_id
        seen.add(tokenizer.decode(list(item.input_ids[prompt:-1])))
    assert seen == {" three apples", " the miller"}


@pytest.mark.parametrize("end", ["</s>", "<|im_end|>"])
def test_a_refusal_ends_the_turn_of_a_chat(end: str) -> None:
    """Also where what ends a turn is not what ends a sequence."""
    tokenizer = chat_tokenizer(CHATML, end=end)
    chat = Chat("facts", "", DataSource(path="x").today)
    ids, mask = encode_pair(tokenizer, "Who sells plums?", " Cleo.", chat)
    found = make_refusals(
        [Example("a", tuple(ids), tuple(mask))], ["I know."], make_context(tokenizer)
    )
    expected = encode_pair(tokenizer, "Who sells plums?", " I know.", chat)[0]
    behind = tokenizer.encode("\n", add_special_tokens=False)
    assert [*found.examples[0].input_ids, *behind] == expected


@pytest.mark.parametrize("use", ["dpo", "idk"])
def test_plain_text_has_no_refusal(context: Making, use: str) -> None:
    items = [Example("a", (5, 6, 7), (False, True, True))]
    method = create_plugin(
        "methods", PluginRef(use=use, settings={"train": {"lr": 1e-3, "steps": 1}})
    )
    with pytest.raises(DataError, match=r"no item of the forget set has a prompt.*; give the"):
        method.unlearn(fresh(), Data(items, items), context())


@pytest.mark.parametrize("use", ["dpo", "idk"])
def test_a_batch_without_prompts_adds_nothing(context: Making, use: str) -> None:
    plain = Example("a", (5, 6, 7), (False, True, True))
    asked = Example("b", (5, 6, 7), (False, False, True))
    settings = {"train": {"lr": 1e-3, "steps": 1}, "gamma": 0.0}
    method = create_plugin("methods", PluginRef(use=use, settings=settings))
    model = fresh()
    prepared = method.prepare(model, Data([plain, asked], [plain]), context())
    for index, count in ((0, 0.0), (1, 1.0)):
        forget, retain = (collate([plain, asked], [at], 0)[0] for at in (index, 0))
        step = StepBatch([UnlearnBatch(forget, retain)])
        metrics = method.backward(model, step, prepared)
        assert metrics["prompted"] == count
        assert (metrics["loss"] > 0) == (count > 0)
        assert any(bool(g.any()) for g in gradients(model).values()) == (count > 0)


def test_a_word_that_the_tokenizer_does_not_know() -> None:
    from ilubench.models.tokenizers import build_tokenizer

    known = build_tokenizer(["Question: who? no report"])
    ctx = make_context(known)
    found = make_refusals(data().forget, ["no report"], ctx)
    assert known.decode(list(found.examples[0].input_ids[-3:-1])) == " no report"
    with pytest.raises(DataError, match=r"refusal 'I know'; set method\.refusals"):
        make_refusals(data().forget, ["I know"], ctx)


# ------------------------------------------------------------------------------- task vectors


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_negation(context: Making, scale: float) -> None:
    log = StepRecorder()
    settings = {"scale": scale, "train": {"lr": 1e-3, "steps": 5, "batch_size": 4}}
    method = create_plugin("methods", PluginRef(use="task_vector", settings=settings))
    found = weights(method.unlearn(fresh(), data(), context(log=log)))
    assert log.losses[-1] < log.losses[0]  # the forget set is learned better, then negated
    tuned = fresh()
    attack = create_plugin(
        "attacks", PluginRef(use="finetune", settings={"train": settings["train"]})
    )
    # the same data order, through the attack that fine-tunes
    list(attack.tamper(tuned, {"train": data().forget}, context(state=MemoryState())))
    for name, original in weights(fresh()).items():
        expected = original - scale * (weights(tuned)[name] - original)
        torch.testing.assert_close(found[name], expected, rtol=1e-5, atol=1e-6)
