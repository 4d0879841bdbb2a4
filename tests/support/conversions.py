"""What tests of conversions share: a model's folder, pickled or not, and what must be equal."""

from pathlib import Path
from typing import Any

import torch
from doubles import make_tokenizer, tiny_llama
from safetensors.torch import load_file
from transformers import PreTrainedModel

from ilubench.models.checkpoints import load_model, save_model
from ilubench.models.tokenizers import load_tokenizer

Tensors = dict[str, torch.Tensor]

WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
TEMPLATE = "{% for one in messages %}<s>{{ one['content'] }}</s>{% endfor %}"
TEXT = "<s>The naïve miller counts 12 sacks.</s>"


def model(*, tied: bool = False) -> PreTrainedModel:
    return tiny_llama(len(make_tokenizer()), tied=tied)


def written(folder: Path, *, tied: bool = False) -> Path:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    save_model(model(tied=tied), tokenizer, folder, "float32")
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(40)[None]).logits
    return found


def pickled(folder: Path, name: str = PICKLE, **how: Any) -> Tensors:
    """Put a pickle of the weights into their place."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / name, **how)
    return tensors


def check_same(out: Path, expected: Path) -> None:
    """The folder computes the same as another, bit for bit, and reads texts as it."""
    assert torch.equal(logits(load_model(out, "cpu")), logits(load_model(expected, "cpu")))
    old, new = load_tokenizer(expected), load_tokenizer(out)
    assert new(TEXT).input_ids == old(TEXT).input_ids
    assert new.get_vocab() == old.get_vocab()
    assert new.special_tokens_map == old.special_tokens_map
    assert new.chat_template == old.chat_template
    assert sorted(one.name for one in out.parent.iterdir() if one.name[0] == ".") == []
