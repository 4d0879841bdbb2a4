"""Tokenizers trained on a recipe's own text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ilubench.specs import TokenizerSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = ["train_tokenizer"]

_BOS, _EOS, _PAD = "<s>", "</s>", "<pad>"


def train_tokenizer(spec: TokenizerSpec, texts: Sequence[str]) -> "PreTrainedTokenizerFast":
    """Return a tokenizer trained on ``texts``; it puts BOS before each text.

    Args:
        spec: `word` makes every word, number and sign of the texts one token; `bpe` is
            byte-level byte-pair encoding, which can read any text.
        texts: the text; the same texts give the same tokenizer.
    """
    if spec.kind == "word":
        from ilubench.mini.tokenizer import build_tokenizer

        return build_tokenizer(texts)
    return _bpe(spec.vocab_size, texts)


def _bpe(size: int, texts: Sequence[str]) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_PAD, _BOS, _EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(texts, trainer)
    raw.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{_BOS} $A", special_tokens=[(_BOS, raw.token_to_id(_BOS))]
            ),
        ]
    )
    made: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token=_BOS, eos_token=_EOS, pad_token=_PAD
    )
    return made
