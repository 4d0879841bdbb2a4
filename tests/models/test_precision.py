"""Weights held in another type for a while."""

from typing import TYPE_CHECKING

import pytest
import torch
from doubles import tiny_llama, weights

from ilubench.models.precision import weights_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def narrow_llama() -> "PreTrainedModel":
    """A model as it is loaded in bfloat16: its rotations stay in float32."""
    model = tiny_llama(300)
    for parameter in model.parameters():
        parameter.data = parameter.data.bfloat16()
    return model


def test_bfloat16_weights_are_read_in_float32_and_come_back() -> None:
    model = narrow_llama()
    model.model.register_buffer("narrow", torch.ones(2, dtype=torch.bfloat16))
    model.model.register_buffer("wide", torch.ones(2))
    model.model.norm.float()  # some checkpoints keep their norms in float32
    parameters, before = list(model.parameters()), weights(model)
    kinds = [parameter.dtype for parameter in parameters]
    kept = [id(parameter) for parameter in parameters]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    rotary = model.model.rotary_emb.inv_freq
    ids = torch.tensor([[3, 5, 8]])
    with weights_in(model, "float32"):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert model.model.narrow.dtype == torch.float32
        assert model.model.rotary_emb.inv_freq is rotary
        logits = model(ids).logits
        assert logits.dtype == torch.float32
    assert [id(parameter) for parameter in model.parameters()] == kept
    assert [parameter.dtype for parameter in model.parameters()] == kinds
    assert all(torch.equal(value, before[name]) for name, value in weights(model).items())
    assert model.model.narrow.dtype == torch.bfloat16
    wide = tiny_llama(300).float()
    wide.load_state_dict({name: value.float() for name, value in before.items()}, strict=False)
    torch.testing.assert_close(logits, wide(ids).logits)
    optimizer.zero_grad()
    torch.stack([parameter.float().sum() for parameter in parameters]).sum().backward()
    optimizer.step()  # training goes on


def test_a_failure_puts_them_back() -> None:
    model = narrow_llama()
    with pytest.raises(KeyError), weights_in(model, "float32"):
        raise KeyError
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_weights_of_a_wider_type_stay() -> None:
    model = narrow_llama()
    model.model.norm.float()
    kinds = [parameter.dtype for parameter in model.parameters()]
    with weights_in(model, "bfloat16"):
        assert [parameter.dtype for parameter in model.parameters()] == kinds
