"""A tokenizer and a model of a moment's work, and the comparison of two sets of weights."""

from collections.abc import Mapping
from functools import cache
from typing import Any, cast

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ilubench.specs import TrainSpec

__all__ = ["SENTENCES", "TINY", "differing", "make_tokenizer", "tiny_llama", "weights"]

SENTENCES = (
    "The river runs past the old mill, and the miller counts his sacks.",
    "Question: how many apples are left? Answer: three apples are left.",
    "A naïve café owner sold 12 cakes\n\nand 7 loaves of bread.",
)
"""The text that the tokenizer is trained on."""

TINY = TrainSpec(lr=1e-3, steps=6, batch_size=4, save_every_s=0)
"""Training settings that suit the tiny model: six steps, the state saved after each."""


@cache
def _bpe() -> Tokenizer:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(list(SENTENCES) * 10, trainer)
    return bpe


def make_tokenizer() -> PreTrainedTokenizerBase:
    """Return a byte-level BPE tokenizer of some 360 tokens; padding, BOS and EOS are 0, 1, 2."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_bpe(), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


def tiny_llama(
    vocabulary: int,
    *,
    tied: bool = False,
    seed: int = 0,
    **more: Any,  # noqa: ANN401
) -> PreTrainedModel:
    """Return a random Llama: two layers, 96 wide, two heads of 48, 128 positions, float32.

    Its weights are large enough that its logits are not all alike.

    Args:
        vocabulary: number of tokens.
        tied: whether input and output embeddings are one tensor.
        seed: of the weights.
        more: further fields of its configuration.
    """
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=96,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=48,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        **more,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cast("PreTrainedModel", LlamaForCausalLM(config).eval())


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of a model's tensors, by name."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def differing(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the tensors that are not bit-identical.

    Raises:
        AssertionError: one side has a tensor that the other has not.
    """
    if left.keys() != right.keys():
        raise AssertionError(f"only on one side: {sorted(left.keys() ^ right.keys())}")
    return [name for name in left if not torch.equal(left[name], right[name])]
