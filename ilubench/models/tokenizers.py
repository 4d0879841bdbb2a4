"""Tokenizers trained on a recipe's own text: word-level, or byte-level BPE.

Both put BOS before each text and mark its end with EOS only where training asks for it.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ilubench.specs import TokenizerSpec

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

__all__ = ["build_tokenizer", "train_tokenizer"]

_PAD, _BOS, _EOS, _UNK = "<pad>", "<s>", "</s>", "<unk>"
_PIECE = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s"


def train_tokenizer(spec: TokenizerSpec, texts: Sequence[str]) -> "PreTrainedTokenizerFast":
    """Return a tokenizer trained on ``texts``; it puts BOS before each text.

    Args:
        spec: `word` makes every word, number and sign of the texts one token; `bpe` is
            byte-level byte-pair encoding, which can read any text.
        texts: the text; the same texts give the same tokenizer.
    """
    if spec.kind == "word":
        return build_tokenizer(texts)
    return _bpe(spec.vocab_size, texts)


def build_tokenizer(texts: Iterable[str]) -> "PreTrainedTokenizerFast":
    """Return a word-level tokenizer that has every piece of the given texts as one token.

    A piece (" word", "word", " 12", a sign, a newline) carries its leading space and decoding only
    concatenates, so that a round trip is exact. Spaces at the very end of a text are dropped: a
    prompt that ends in "Answer: " reads as "Answer:".

    Args:
        texts: the texts to cover; their order does not matter.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    normalizer = normalizers.Replace(Regex(r" +\z"), "")
    splitter = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    pieces = {
        piece
        for text in set(texts)
        for piece, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    words = [_PAD, _BOS, _EOS, _UNK, *sorted(pieces)]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=_UNK))
    raw.normalizer = normalizer
    raw.pre_tokenizer = splitter
    raw.decoder = decoders.Fuse()
    return _wrapped(raw, unk_token=_UNK)


def _bpe(size: int, texts: Sequence[str]) -> "PreTrainedTokenizerFast":
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

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
    return _wrapped(raw)


def _wrapped(raw: "Tokenizer", **special: str) -> "PreTrainedTokenizerFast":
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    raw.post_processor = processors.TemplateProcessing(
        single=f"{_BOS} $A",
        pair=f"{_BOS} $A $B:1",
        special_tokens=[(_BOS, raw.token_to_id(_BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        bos_token=_BOS,
        eos_token=_EOS,
        pad_token=_PAD,
        clean_up_tokenization_spaces=False,
        **special,
    )
