"""GGUF files: read whole, with their tokenizer, or refused in one sentence."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conversions import TEMPLATE, check_same, logits, model
from doubles import make_tokenizer
from transformers import PreTrainedModel

from ilubench.errors import ModelError
from ilubench.models.checkpoints import load_model
from ilubench.models.convert import convert
from ilubench.records.keys import file_sha256


def gguf_file(path: Path, *, extra: bool = False, **changes: Any) -> PreTrainedModel:
    """Write a tiny Llama as llama.cpp's converter does; return the model."""
    gguf: Any = pytest.importorskip("gguf")
    made, tokenizer = model(), make_tokenizer()
    config: Any = made.config
    writer = gguf.GGUFWriter(path, changes.get("arch", "llama"))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if "scaling" in changes:
        writer.add_rope_scaling_type(gguf.RopeScalingType(changes["scaling"]))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = sorted(tokenizer.get_vocab().items(), key=lambda one: one[1])
    writer.add_tokenizer_model(changes.get("tokenizer", "gpt2"))
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([3 if number < 3 else 1 for _, number in words])
    writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    for name, number in {"bos": 1, "eos": 2, "pad": 0}.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in made.state_dict().items():
        values = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:  # llama.cpp turns pairs that lie side by side
            heads = values.reshape(config.num_attention_heads, 2, -1, values.shape[1])
            values = heads.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(values)
        )
    if extra:
        writer.add_tensor("rope_freqs.weight", np.ones(24, np.float32))
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    return made


def test_gguf(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    made = gguf_file(alone / "tiny.gguf")
    done = convert(alone, tmp_path / "out")
    assert torch.equal(logits(load_model(tmp_path / "out", "cpu")), logits(made))
    check_same(tmp_path / "out", folder)
    assert done.source == {"tiny.gguf": file_sha256(alone / "tiny.gguf")}
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()


GGUF_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"arch": "clip"}, "makes no model of its architecture 'clip' and its settin"),
    "factors of positions": (
        {"extra": True},
        r"holds [\d,]+ weights, and the .*place for 'rope_freqs.weight'\); it would compute some",
    ),
    "scaled positions": ({"scaling": "yarn"}, r"its positions are scaled \(yarn\), which transf"),
    "tokenizer": ({"tokenizer": "rwkv"}, r"its tokenizer \('rwkv'\) cannot be read"),
}


@pytest.mark.parametrize("fault", GGUF_FAULTS)
def test_gguf_that_would_be_another_model(fault: str, tmp_path: Path) -> None:
    changes, problem = GGUF_FAULTS[fault]
    gguf_file(tmp_path / "tiny.gguf", **changes)
    with pytest.raises(ModelError, match=problem) as caught:
        convert(tmp_path / "tiny.gguf", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_damaged_gguf(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    gguf_file(path)
    data = path.read_bytes()
    for spoiled in (data[:-100], data[:300], b"", b"<html>Sign in</html>", b"\0" * 64):
        path.write_bytes(spoiled)
        with pytest.raises(ModelError, match=r"is no GGUF file, or cut short or damaged; copy it"):
            convert(path, tmp_path / "out")
