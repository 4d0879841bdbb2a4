"""The miniature world's tokenizer: one token a word, with the space before it.

Every piece of text (" word", "word", a punctuation mark, a newline) is one token and decoding only
concatenates, so that a round trip is exact. Spaces at the very end of a text are dropped: a prompt
that ends in "Answer: " reads as "Answer:", whose continuation is what the model was trained on.
"""

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS, UNK = "<pad>", "<s>", "</s>", "<unk>"
_PIECE = Regex(r"\n[A-D]\.| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s")


def build_tokenizer(texts: Iterable[str], max_length: int = 512) -> PreTrainedTokenizerFast:
    """Build a tokenizer that has every piece of the given texts as one token.

    Args:
        texts: the texts to cover; their order does not matter.
        max_length: `model_max_length`, in tokens.

    Returns:
        The tokenizer; its post-processor puts BOS in front.
    """
    normalizer = normalizers.Replace(Regex(r" +\z"), "")
    splitter = pre_tokenizers.Split(_PIECE, behavior="isolated")
    pieces = {
        piece
        for text in set(texts)
        for piece, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))
    }
    words = [PAD, BOS, EOS, UNK, *sorted(pieces)]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=UNK))
    backend.normalizer = normalizer
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.Fuse()
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B:1",
        special_tokens=[(BOS, words.index(BOS))],
    )
    fast: PreTrainedTokenizerFast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )
    return fast
