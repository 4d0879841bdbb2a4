"""Checkpoints whose files name, divide or tie tensors otherwise than the loaded model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, CORE, make_model
from doubles import differing, make_tokenizer, weights
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from ilubench.models.checkpoints import apply_changes, load_model, save_changes
from ilubench.scoring.engines.handover import write_live
from ilubench.scoring.engines.hf import HFEngine

IDS = (5, 6, 7, 8, 9, 30)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.tensor([IDS]), use_cache=False).logits
    return found


def disturb(model: PreTrainedModel) -> None:
    """Change two of three parameters, the first (the embedding, tied or not) among them."""
    with torch.no_grad():
        for place, parameter in enumerate(model.parameters()):
            if place % 3 != 1:
                parameter.add_(torch.randn_like(parameter) * 0.05)


def comes_back(base: Path, tmp_path: Path) -> PreTrainedModel:
    """Store what a disturbed model changed, put it into the base again, and hand it over."""
    model = load_model(base, "cpu")
    assert save_changes(model, base, tmp_path / "none") == ()
    disturb(model)
    changed = save_changes(model, base, tmp_path / "some")
    assert 0 < len(changed) < len({p.data_ptr() for p in model.state_dict().values()})
    again = load_model(base, "cpu")
    assert differing(weights(model), weights(again))
    apply_changes(again, tmp_path / "some")
    assert not differing(weights(model), weights(again))
    spool = write_live(again, "float32")
    handed_over = load_model(spool.folder, "cpu")
    spool.free()
    assert not differing(weights(model), weights(handed_over))
    torch.testing.assert_close(logits(handed_over), logits(model), rtol=1e-5, atol=1e-6)
    return model


@pytest.mark.parametrize(
    "name",
    [n if n in CORE else pytest.param(n, marks=pytest.mark.slow) for n in sorted(ARCHITECTURES)],
)
def test_an_architecture_is_scored_stored_and_handed_over(name: str, tmp_path: Path) -> None:
    made = make_model(name)
    made.save_pretrained(tmp_path / "base")
    loaded = load_model(tmp_path / "base", "cpu")
    assert not differing(weights(made), weights(loaded))
    torch.testing.assert_close(logits(loaded), logits(made), rtol=1e-5, atol=1e-6)
    engine = HFEngine(make_tokenizer(), max_length=64)
    engine.load(tmp_path / "base")
    (row,) = engine.choices([IDS], [3, 4])
    expected = logits(made)[0, -1].log_softmax(-1)[[3, 4]]
    assert row == pytest.approx(expected.tolist(), abs=1e-4)
    comes_back(tmp_path / "base", tmp_path)


Tensors = dict[str, torch.Tensor]


def _short(stored: Tensors) -> Tensors:
    """As GPT-2 lies on its hub: without a prefix, with its masks."""
    short = {name.removeprefix("transformer."): tensor for name, tensor in stored.items()}
    return {**short, "h.0.attn.bias": torch.ones(1, 1, 64, 64).tril()}


def _with_buffers(stored: Tensors) -> Tensors:
    """As Pythia lies on its hub."""
    masks = {
        "attention.bias": torch.ones(1, 1, 64, 64),
        "attention.masked_bias": torch.tensor(-1.0),
    }
    masks["attention.rotary_emb.inv_freq"] = torch.ones(16)
    return stored | {f"gpt_neox.layers.0.{name}": tensor for name, tensor in masks.items()}


def _head_only(stored: Tensors) -> Tensors:
    name = next(name for name in stored if "embed_tokens" in name)
    return {"lm_head.weight" if key == name else key: value for key, value in stored.items()}


def _twice(stored: Tensors) -> Tensors:
    return {**stored, "lm_head.weight": stored["model.embed_tokens.weight"].clone()}


LAYOUTS: dict[str, tuple[str, Callable[[Tensors], Tensors]]] = {
    "without a prefix": ("gpt2", _short),
    "old buffers": ("gpt_neox", _with_buffers),
    "the head alone": ("opt", _head_only),
    "a tied tensor under the head's name": ("llama-tied", _head_only),
    "a tied tensor twice": ("llama-tied", _twice),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_layouts_of_a_file(layout: str, tmp_path: Path) -> None:
    name, rewrite = LAYOUTS[layout]
    made = make_model(name)
    made.save_pretrained(tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    stored = load_file(file)
    rewritten = rewrite(stored)
    assert rewritten.keys() != stored.keys()
    save_file(rewritten, file, metadata={"format": "pt"})
    assert not differing(weights(made), weights(load_model(tmp_path / "base", "cpu")))
    comes_back(tmp_path / "base", tmp_path)


def test_several_files(tmp_path: Path) -> None:
    make_model("llama").save_pretrained(tmp_path / "base", max_shard_size="50KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    comes_back(tmp_path / "base", tmp_path)
