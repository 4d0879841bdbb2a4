"""Weights in and out, and logits at the answer positions only."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from architectures import known_settings
from doubles import differing, gradients, random_examples, tiny_llama, weights
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ilubench.data.batches import collate
from ilubench.errors import ModelError
from ilubench.methods.activations import hidden_state
from ilubench.models import forward as models
from ilubench.models.checkpoints import (
    apply_changes,
    find_folder,
    folder_sha256,
    load_model,
    save_changes,
    save_model,
)
from ilubench.models.configuration import recipe_config
from ilubench.models.forward import answer_logits, body_inputs, initialise_model
from ilubench.models.tokenizers import load_tokenizer
from ilubench.specs import ModelSource
from ilubench.training import trainable_only

VOCABULARY = 80
SMALL: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint's folder."""
    folder = tmp_path / "base"
    tiny_llama(VOCABULARY, tied=request.param).save_pretrained(folder)
    return folder


def test_a_saved_checkpoint_comes_back(
    tmp_path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    before = weights(model)
    save_model(model, tokenizer, tmp_path, "float32")
    loaded = load_model(tmp_path, "cpu")
    assert not differing(before, weights(loaded))
    assert not differing(before, weights(model))
    assert not loaded.training
    again = load_tokenizer(tmp_path)
    assert again("three apples")["input_ids"] == tokenizer("three apples")["input_ids"]
    assert (again.eos_token_id, again.pad_token_id) == (2, 0)


def test_a_checkpoint_loads_in_the_dtype_asked_for(
    tmp_path: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    save_model(model, tokenizer, tmp_path, "bfloat16")
    assert load_file(tmp_path / "model.safetensors")["lm_head.weight"].dtype is torch.bfloat16
    assert load_model(tmp_path, "cpu").dtype is torch.float32
    assert load_model(tmp_path, "cpu", torch.bfloat16).dtype is torch.bfloat16


# ------------------------------------------------------------------------------- changes


def test_an_untouched_model_has_no_changes(base: Path, tmp_path: Path) -> None:
    model = load_model(base, "cpu")
    assert save_changes(model, base, tmp_path / "out") == ()
    again = load_model(base, "cpu")
    apply_changes(again, tmp_path / "out")
    assert not differing(weights(model), weights(again))


@pytest.mark.parametrize("part", ["embed_tokens", "down_proj", "norm", ""])
def test_changes_are_the_tensors_that_differ(base: Path, tmp_path: Path, part: str) -> None:
    model = load_model(base, "cpu")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part in name:
                parameter.add_(0.25)
    changed = save_changes(model, base, tmp_path / "out")
    assert changed
    assert all(part in name or "lm_head" in name for name in changed)
    again = load_model(base, "cpu")
    apply_changes(again, tmp_path / "out")
    assert not differing(weights(model), weights(again))
    ids = torch.tensor([[1, 5, 9]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)


def test_a_base_that_stores_a_tied_head_twice(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny_llama(VOCABULARY, tied=True).save_pretrained(base)
    stored = load_file(base / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    model = load_model(base, "cpu")
    with torch.no_grad():
        model.get_parameter("model.embed_tokens.weight").add_(1.0)
    save_changes(model, base, tmp_path / "out")
    again = load_model(base, "cpu")
    apply_changes(again, tmp_path / "out")
    assert not differing(weights(model), weights(again))


def test_changes_of_a_model_in_half_precision(base: Path, tmp_path: Path) -> None:
    model = load_model(base, "cpu", torch.bfloat16)
    assert save_changes(model, base, tmp_path / "out") == ()


def test_old_checkpoints_with_computed_buffers(base: Path, tmp_path: Path) -> None:
    stored = load_file(base / "model.safetensors")
    stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(24)
    save_file(stored, base / "model.safetensors", metadata={"format": "pt"})
    assert save_changes(load_model(base, "cpu"), base, tmp_path / "out") == ()


def test_a_tie_that_came_apart_is_refused(tmp_path: Path) -> None:
    tiny_llama(VOCABULARY, tied=True).save_pretrained(tmp_path)
    model = load_model(tmp_path, "cpu")
    head = cast("torch.nn.Linear", model.get_output_embeddings())
    head.weight = torch.nn.Parameter(head.weight.detach() + 1)
    with pytest.raises(ModelError, match=r"are one in .*, and differ in the model .*; tie them$"):
        save_changes(model, tmp_path, tmp_path / "out")


def test_a_changed_sign_of_zero_is_a_change(base: Path, tmp_path: Path) -> None:
    model = load_model(base, "cpu")
    with torch.no_grad():
        model.get_parameter("model.norm.weight").zero_()
    model.save_pretrained(base)
    with torch.no_grad():
        model.get_parameter("model.norm.weight").neg_()
    assert save_changes(model, base, tmp_path / "out") == ("model.norm.weight",)


def test_a_model_of_another_shape_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not in the model that came out"):
        save_changes(tiny_llama(VOCABULARY + 1), base, tmp_path / "out")
    model = load_model(base, "cpu")
    model.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ModelError, match="has a new tensor 'extra"):
        save_changes(model, base, tmp_path / "out")


def test_a_model_is_found_and_its_hash_checked(base: Path, tmp_path: Path) -> None:
    from ilubench.records.keys import file_sha256

    good = file_sha256(base / "model.safetensors")
    assert find_folder(ModelSource(path=str(base), sha256=good)) == base
    with pytest.raises(ModelError, match="the weights were changed or are damaged"):
        find_folder(ModelSource(path=str(base), sha256="0" * 64))
    with pytest.raises(ModelError, match=r"no model folder .*; check the path"):
        find_folder(ModelSource(path=str(tmp_path / "none")))
    before = folder_sha256(base)
    (base / "config.json").write_text((base / "config.json").read_text() + "\n")
    assert folder_sha256(base) != before


# ------------------------------------------------------------------------------- initialise


def test_initial_weights_depend_on_the_seed_alone() -> None:
    config = {"model_type": "llama", **SMALL}
    torch.manual_seed(5)
    first = initialise_model(config, VOCABULARY, 1)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), drawn)  # the caller's random state is untouched
    assert not differing(weights(first), weights(initialise_model(config, VOCABULARY, 1)))
    assert differing(weights(first), weights(initialise_model(config, VOCABULARY, 2)))
    assert first.config.vocab_size == VOCABULARY


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "lama"}, r"unknown model_type 'lama'; did you mean 'llama'\?"),
        ({"hidden_size": 96}, "unknown model_type ''"),
        ({"model_type": "llama", "hidden_size": "x"}, "hidden_size is 'x', which does not make"),
        (
            {"model_type": "llama", "hidden_size": 97, "num_attention_heads": 2},
            "hidden_size is '97', which does not",
        ),
        ({"model_type": "llama", "num_attention_heads": 0}, "num_attention_heads is '0', which"),
        ({"model_type": "llama", "vocab_size": 3}, "vocab_size"),
        ({"model_type": "llama", "hiden_size": 3}, "unknown setting 'hiden_size'; did you mean"),
        (
            {"model_type": "llama", "hidden_size": 10**9},
            r"hidden_size is 1,000,000,000, and at most",
        ),
        ({"model_type": "llama", "num_hidden_layers": 10**8}, "at most 500 makes a model"),
        ({"model_type": "gpt2", "n_head": 10**6}, r"n_head is 1,000,000, and at most 10,000"),
        ({"model_type": "llama", "hidden_size": 10**6}, r"which take [\d,]+ GB; this machine has"),
    ],
)
def test_configurations_that_transformers_refuses(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=f"recipe.config: .*{message}"):
        initialise_model(config, VOCABULARY, 0)


def test_a_setting_that_only_the_models_code_reads_is_one() -> None:
    """Qwen2's configuration does not list it."""
    config = {"model_type": "qwen2", **known_settings("qwen2", SMALL), "head_dim": 32}
    model = initialise_model(config, VOCABULARY, 0)
    assert weights(model)["model.layers.0.self_attn.q_proj.weight"].shape == (64, 96)


def test_rotations_as_older_configurations_write_them_count() -> None:
    made = recipe_config({"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 500})
    assert made.rope_parameters["rope_theta"] == 500
    assert made.rope_parameters["partial_rotary_factor"] == 0.5


# ------------------------------------------------------------------------------- forward


def built(kind: str, **more: Any) -> PreTrainedModel:
    config = {"model_type": kind, **known_settings(kind, SMALL), **more}
    model = initialise_model(config, VOCABULARY, 0)
    model.eval()
    return model


@pytest.mark.parametrize("scale", [1.0, 60.0], ids=["as-made", "large"])
@pytest.mark.parametrize(
    ("kind", "more", "plain"),
    [
        ("llama", {}, True),
        ("llama", {"tie_word_embeddings": True}, True),
        ("qwen2", {}, True),
        ("gpt_neox", {}, True),
        ("gemma2", {}, False),  # caps its logits
        ("gemma2", {"final_logit_softcapping": None}, True),
        ("cohere", {}, False),  # scales its logits
        ("granite", {"logits_scaling": 4.0}, False),
    ],
)
def test_answer_logits_are_those_of_the_full_forward(
    kind: str, more: dict[str, Any], scale: float, *, plain: bool
) -> None:
    model = built(kind, **more)
    (batch,) = collate(random_examples(5, VOCABULARY, 1), range(5), pad=0)
    answer_logits(model, batch)  # looked at while the weights are small
    with torch.no_grad():
        head = cast("torch.nn.Linear", model.get_output_embeddings())
        head.weight.mul_(scale)
        found = answer_logits(model, batch)
        full = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    chosen = batch.loss_mask[:, 1:]
    torch.testing.assert_close(found.logits, full[:, :-1][chosen], rtol=1e-5, atol=1e-5)
    assert torch.equal(found.targets, batch.input_ids[:, 1:][chosen])
    assert found.sequence.tolist() == [
        row for row in range(5) for _ in range(int(batch.loss_mask[row].sum()))
    ]
    assert found.count == 5
    assert vars(model)["_ilubench_plain_head"] is plain


def test_looking_at_the_head_leaves_no_trace() -> None:
    model = built("gpt2", n_embd=96, n_head=2, n_layer=2, n_positions=64)
    (batch,) = collate(random_examples(3, VOCABULARY, 1), range(3), pad=0)
    model.train()
    torch.manual_seed(1)
    first = answer_logits(model, batch).logits
    torch.manual_seed(1)
    again = answer_logits(model, batch).logits
    assert torch.equal(first, again)  # the first call drew no other dropout
    assert vars(model)["_ilubench_plain_head"] is True
    assert model.training
    head = cast("torch.nn.Module", model.get_output_embeddings())
    assert not head._forward_hooks
    assert all(p.grad is None for p in model.parameters())


MASKLESS: dict[str, dict[str, Any]] = {
    "gemma": {},
    "gemma2": {"sliding_window": 6},
    "gpt_neox": {},
    "llama": {},
    "mistral": {"sliding_window": 6},
    "olmo2": {},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 96},
    "phi": {},
    "phi3": {"sliding_window": 6},
    "qwen2": {"sliding_window": 6, "use_sliding_window": True, "max_window_layers": 0},
    "qwen3": {},
}


@pytest.mark.parametrize("kind", MASKLESS)
def test_real_tokens_need_no_mask_of_the_padding_behind_them(kind: str) -> None:
    model = built(kind, **MASKLESS[kind])
    (batch,) = collate(random_examples(5, VOCABULARY, 1), range(5), pad=0)
    real = batch.attention_mask.bool()
    assert not real.all()
    assert set(body_inputs(model, batch)) == {"input_ids"}
    found = {}
    for masked in (True, False):
        mask = {"attention_mask": batch.attention_mask} if masked else {}
        states = model.base_model(input_ids=batch.input_ids, **mask).last_hidden_state[real]
        states.square().sum().backward()
        found[masked] = {"": states.detach(), **gradients(model)}
        model.zero_grad(set_to_none=True)
    for name, value in found[True].items():
        torch.testing.assert_close(found[False][name], value, rtol=1e-5, atol=1e-6, msg=name)
    if kind == "opt":  # its layers are not found
        return
    with torch.no_grad():
        masked_too = model.base_model(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            output_hidden_states=True,
        ).hidden_states[1]
        below = hidden_state(model, batch, 0)
    torch.testing.assert_close(below[real], masked_too[real], rtol=1e-6, atol=1e-6)


def test_all_families_without_a_mask_are_looked_at() -> None:
    assert set(MASKLESS) == models._CAUSAL


@pytest.mark.parametrize("kind", ["gpt2", "mixtral"])
def test_other_families_keep_the_mask(kind: str) -> None:
    (batch,) = collate(random_examples(3, VOCABULARY, 1), range(3), pad=0)
    assert body_inputs(built(kind), batch)["attention_mask"] is batch.attention_mask


def test_padding_changes_no_logits(model: PreTrainedModel) -> None:
    dataset = random_examples(6, 80, 4)
    (batch,) = collate(dataset, range(6), pad=0)
    together = answer_logits(model, batch)
    for row, index in enumerate(batch.index.tolist()):
        (one,) = collate(dataset, [index], pad=0)
        alone = answer_logits(model, one)
        mine = together.logits[together.sequence == row]
        torch.testing.assert_close(mine, alone.logits, rtol=1e-4, atol=1e-4)


def test_an_attacker_trains_everything_and_leaves_the_flags_as_they_were(
    model: PreTrainedModel,
) -> None:
    model.get_parameter("model.embed_tokens.weight").requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with trainable_only(model, ()):
        assert all(p.requires_grad for p in model.parameters())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt", "tokenizer.model", "chat.jinja"])
def test_every_file_of_a_tokenizer_counts(name: str, tmp_path: Path) -> None:
    tiny_llama(300).save_pretrained(tmp_path)
    (tmp_path / name).write_text("one")
    before = folder_sha256(tmp_path)
    (tmp_path / name).write_text("two")
    assert folder_sha256(tmp_path) != before
