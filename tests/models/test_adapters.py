"""LoRA adapters: merged they compute what they did beside their base, or are refused."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import make_model
from conversions import TEMPLATE, WEIGHTS, logits, written
from doubles import make_tokenizer
from hub_server import ask_only, go_offline, served
from safetensors.torch import load_file, save_file

from ilubench.errors import ModelError, NotCachedError, UsageError
from ilubench.models.checkpoints import load_model, save_model
from ilubench.models.convert import convert
from ilubench.models.tokenizers import load_tokenizer
from ilubench.specs import ModelSource


def adapter(base: Path, folder: Path, **settings: Any) -> torch.Tensor:
    """Write a LoRA adapter; return the logits of the base with it."""
    peft: Any = pytest.importorskip("peft")
    modules = settings.pop("target_modules", ["q_proj", "down_proj"])
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=modules, **settings)
    loaded = load_model(base, "cpu")
    loaded.config._name_or_path = str(base)
    with torch.random.fork_rng([]), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(1)
        wrapped = peft.get_peft_model(loaded, config).eval()
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
            elif "modules_to_save" in name:
                parameter.data += 0.1
        wrapped.save_pretrained(folder)
    return logits(wrapped)


def loaded(folder: Path) -> list[tuple[str, torch.Tensor]]:
    return list(load_file(folder / "adapter_model.safetensors").items())


def rewrite(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    whole = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(whole, folder / "adapter_model.safetensors", {"format": "pt"})


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "of the embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
    "that changed its base": {"init_lora_weights": "pissa"},
    "scaled, and by layer": {"use_rslora": True, "rank_pattern": {"down_proj": 2}},
    "DoRA": {"use_dora": True},
    "with a whole module": {"modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_adapter_and_its_base(kind: str, good: Path, tmp_path: Path) -> None:
    expected = adapter(good, tmp_path / "lora", **SETTINGS[kind])
    done = convert(tmp_path / "lora", tmp_path / "out")
    found = logits(load_model(tmp_path / "out", "cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, logits(load_model(good, "cpu")), atol=0.01)
    assert sorted(done.source) == ["adapter_model.safetensors", WEIGHTS]
    assert load_tokenizer(tmp_path / "out").chat_template == TEMPLATE


def test_an_adapter_without_its_base(good: Path, tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    adapter(good, lora)
    settings = json.loads((lora / "adapter_config.json").read_text())

    def refused(problem: str, base: Path | None = None, **changes: Any) -> None:
        (lora / "adapter_config.json").write_text(json.dumps(settings | changes))
        given = ModelSource(path=str(base)) if base else None
        with pytest.raises(ModelError, match=problem) as caught:
            convert(lora, tmp_path / "out", base=given)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    remedy = "give it: --base FOLDER$"
    refused(f"names no base; {remedy}", base_model_name_or_path=None)
    refused(
        f"its base is '/no/such', and there is .*; {remedy}", base_model_name_or_path="/no/such"
    )
    refused(r"no model folder '.*/none'; check the path \(--base\)", base=tmp_path / "none")
    refused("peft_type is 'IA3', and only adapters of type 'LORA' can be merged", peft_type="IA3")
    megatron: dict[str, Any] = {"megatron_config": {"a": 1}, "megatron_core": "this"}
    refused("adapters of Megatron's layers are not merged", **megatron)
    refused("has no place for 4 tensors, first", target_modules=["q_proj"])
    refused("lacks 4 tensors, first", target_modules=["q_proj", "down_proj", "up_proj"])
    refused("its settings, its tensors and the base do not go together", target_modules=["x_proj"])
    small = tmp_path / "small"
    save_model(make_model("llama"), make_tokenizer(), small, "float32")
    refused("its settings, its tensors and the base do not go together", base=small)
    with pytest.raises(UsageError, match="is no adapter, and needs no base; leave --base out"):
        convert(good, tmp_path / "out", base=ModelSource(path=str(good)))


def test_an_adapter_that_would_be_lost(good: Path, tmp_path: Path) -> None:
    """One that changes nothing, or that its base's type is too coarse for."""
    lora = tmp_path / "lora"
    expected = adapter(good, lora)
    half = load_model(good, "cpu", torch.bfloat16)
    save_model(half, load_tokenizer(good), tmp_path / "half", "bfloat16")
    kept = {name: tensor / 500 if "lora_B" in name else tensor for name, tensor in loaded(lora)}
    rewrite(lora, kept)
    done = convert(lora, tmp_path / "out", base=ModelSource(path=str(tmp_path / "half")))
    assert done.dtype == "float32"
    alone, found = (logits(load_model(tmp_path / name, "cpu")) for name in ("half", "out"))
    assert 0.2 < (found - alone).norm() / (expected - alone).norm() * 500 < 5

    about = lora / "adapter_config.json"
    settings = json.loads(about.read_text())
    nothing = "changes nothing of its base; was it saved before it was trained"
    floats = "_A.weight' is of type I8, and floats are needed; it is quantised or damaged"
    odd = "peft cannot merge it as its settings say; merge it with what trained it"
    biased = {f"{n.removesuffix('weight')}bias": t[:, 0] for n, t in kept.items() if "_B" in n}
    for tensors, changes, problem in (
        ({n: t * 0 if "lora_B" in n else t for n, t in kept.items()}, {}, nothing),
        (kept, {"lora_alpha": 0}, nothing),
        ({n: t.to(torch.int8) for n, t in kept.items()}, {}, floats),
        (kept | biased, {"lora_bias": True}, odd),
    ):
        rewrite(lora, tensors)
        about.write_text(json.dumps(settings | changes))
        with pytest.raises(ModelError, match=problem):
            convert(lora, tmp_path / "refused")


def test_an_adapter_that_repeats_layers(good: Path, tmp_path: Path) -> None:
    adapter(good, tmp_path / "lora", layer_replication=[(0, 2), (0, 2)])
    with pytest.raises(ModelError, match="merged it computes something else than beside its base"):
        convert(tmp_path / "lora", tmp_path / "out")


def test_an_adapter_of_one_of_two_tied_tensors(tmp_path: Path) -> None:
    base = written(tmp_path / "base", tied=True)
    adapter(base, tmp_path / "lora", target_modules=["lm_head"])
    with pytest.raises(
        ModelError, match=r"computes something else .* \(it changes one of two tens"
    ):
        convert(tmp_path / "lora", tmp_path / "out")


def test_an_adapter_and_its_base_of_a_hub(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = tmp_path / "lora"
    expected = adapter(good, lora)
    about = lora / "adapter_config.json"
    about.write_text(about.read_text().replace(str(good), "org/base"))
    with served() as hub:
        for name, folder in (("org/lora", lora), ("org/base", good)):
            files = {one.name: one.read_bytes() for one in folder.iterdir()}
            hub.add("model", name, files)
        ask_only(hub, str(tmp_path / "cache"), monkeypatch)
        go_offline(monkeypatch)
        problem = r"model org/base@main: offline, and .* or give a local folder: --base FOLDER$"
        with pytest.raises(NotCachedError, match=problem):
            convert(lora, tmp_path / "out")
        monkeypatch.undo()
        ask_only(hub, str(tmp_path / "cache"), monkeypatch)
        convert(ModelSource(hub="org/lora"), tmp_path / "out")
    found = logits(load_model(tmp_path / "out", "cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
