"""Tokenizers: a checkpoint's, or one trained on a recipe's own text (words, or byte-level BPE).

None of them marks the end of a text: a prompt goes on, and training appends EOS itself.
"""

import importlib.util
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ilubench.data.hub.models import OTHER_TOKENIZER, TEXTS, is_tokenizer_file
from ilubench.errors import ModelError
from ilubench.models.configuration import read_json, refuse_pointer
from ilubench.models.quiet import panics_told, quiet
from ilubench.specs import TokenizerSpec
from ilubench.specs.untrusted import shorten

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PretrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = ["build_tokenizer", "check_vocabulary", "load_tokenizer", "train_tokenizer"]

_PAD, _BOS, _EOS, _UNK = "<pad>", "<s>", "</s>", "<unk>"
_CONFIG = "tokenizer_config.json"
_STRANGE = "a \U0010fffd \u2e3b"
_PIECE = r" ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s"


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Return a checkpoint's tokenizer, without special tokens that it would append to a text.

    Those that it puts before a text stay. `add_eos_token` and the like would end every prompt, and
    a model that reads the end of its text looks as if it had forgotten.

    Raises:
        ModelError: there is none, or it is damaged or no fast one (offsets are needed).
    """
    from transformers import AutoTokenizer

    try:
        with quiet(), panics_told():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            ends = _appended(tokenizer) if tokenizer.is_fast else []
    except Exception as error:
        # the libraries raise plain Exception, and whatever a file's odd values lead to
        raise ModelError(f"{folder}: its tokenizer cannot be loaded: {_fault(folder)}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{folder}: a fast tokenizer (tokenizer.json) is needed")
    if ends is None:
        remedy = "put the text into its post_processor"
        raise ModelError(
            f"{folder}: its tokenizer gives special tokens alone, whatever it reads; {remedy}"
        )
    if ends:
        _append_nothing(tokenizer)
        if _appended(tokenizer):
            remedy = "take that out of its post_processor"
            raise ModelError(
                f"{folder}: its tokenizer ends every text with {' '.join(ends)}; {remedy}"
            )
    if problem := _misread(tokenizer):
        raise ModelError(
            f"{folder}: tokenizer.json: {problem}; copy it again, or {OTHER_TOKENIZER}"
        )
    return cast("PreTrainedTokenizerBase", tokenizer)


def _misread(tokenizer: Any) -> str:  # noqa: ANN401
    """Say what would make a tokenizer fail on a text, or read it otherwise than its model did."""
    model = tokenizer.backend_tokenizer.model
    if getattr(model, "dropout", None):
        return f"its model has a dropout of {model.dropout}, and reads a text otherwise each time"
    try:
        whole, alone = (tokenizer(_STRANGE, add_special_tokens=own) for own in (True, False))
    except Exception as error:  # noqa: BLE001 - the library raises nothing narrower
        return f"a text with a sign that it does not know cannot be read ({error})"
    read = whole.encodings[0]
    added = [place for place, of in enumerate(read.sequence_ids) if of is None]
    for token, number in ((read.tokens[place], read.ids[place]) for place in added):
        known = tokenizer.convert_tokens_to_ids(token)
        if number != known:
            return f"{token!r} is {number} by its post_processor, and {known} by its words"
    if len(read.ids) - len(added) != len(alone["input_ids"]):
        return "its post_processor gives a text more than once, or a part of it"
    return ""


def _fault(folder: Path) -> str:
    """Say what is wrong with the files of a tokenizer that does not load."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.endswith(TEXTS) and is_tokenizer_file(path.name):
            refuse_pointer(path)
            if problem := _damage(path):
                return f"{path.name} {problem}"
    whole = folder / "tokenizer.json"
    if whole.is_file():
        model = read_json(whole).get("model")
        kind = model.get("type") if isinstance(model, dict) else None
        if kind is not None and kind not in ("BPE", "Unigram", "WordLevel", "WordPiece"):
            return f"tokenizer.json has a model of type {kind!r}, which `tokenizers` does not know"
        what = "tokenizer.json is none that `tokenizers` reads"
        if _is_readable(whole):
            what = f"{_CONFIG} {_odd_setting(folder)}"
        return f"{what}; copy it again, or {OTHER_TOKENIZER}"
    if (folder / "tokenizer.model").is_file():
        remedy = f"copy a tokenizer.json there, or {OTHER_TOKENIZER}"
        if importlib.util.find_spec("sentencepiece") is None:
            problem = "it is tokenizer.model alone, which only sentencepiece reads"
            return f"{problem}; install sentencepiece, {remedy}"
        return f"tokenizer.model cannot be turned into a fast one; {remedy}"
    return f"there is no tokenizer.json; copy one's files there, or {OTHER_TOKENIZER}"


def _is_readable(path: Path) -> bool:
    from tokenizers import Tokenizer

    try:
        with panics_told():
            Tokenizer.from_file(str(path)).encode("a")
    except Exception:  # noqa: BLE001 - the library raises nothing narrower
        return False
    return True


def _odd_setting(folder: Path) -> str:
    """Say what is wrong with the settings of a tokenizer whose words can be read."""
    found = read_json(folder / _CONFIG) if (folder / _CONFIG).is_file() else {}
    if found.get("auto_map"):
        return "names code of its own, which is never run"
    for name, value in found.items():
        typed = isinstance(value, dict) and value.get("__type") == "AddedToken"
        if name.endswith("_token") and not (
            value is None or typed or isinstance(value, str | bool)
        ):
            return f"has {shorten(str(value))} for {name}, and a token's text is needed"
    return "holds a setting that transformers does not take"


def _damage(path: Path) -> str:
    if path.suffix == ".json" and not isinstance(read_json(path), dict):
        return "holds no settings; copy it again"
    if path.suffix == ".jinja" and "\ufffd" in path.read_text("utf-8", errors="replace"):
        return "is no UTF-8 text; write it as such"
    return ""


def _appended(tokenizer: Any) -> list[str] | None:  # noqa: ANN401
    """Return the special tokens with which a tokenizer ends a text; None if it leaves texts out."""
    for text in ("a", *islice(tokenizer.get_vocab(), 100)):
        encoding = tokenizer(text, verbose=False).encodings[0]
        places = [place for place, of in enumerate(encoding.sequence_ids) if of is not None]
        if places:
            return list(encoding.tokens[places[-1] + 1 :])
    return None


def _append_nothing(tokenizer: Any) -> None:  # noqa: ANN401
    from tokenizers import Tokenizer

    raw = tokenizer.backend_tokenizer
    state = json.loads(raw.to_str())
    # a tokenizer without words is read in no time, and its post-processor is all that is wanted
    state |= {"model": {"type": "BPE", "vocab": {}, "merges": []}, "added_tokens": []}
    state["post_processor"] = _beginning(state["post_processor"])
    raw.post_processor = Tokenizer.from_str(json.dumps(state)).post_processor


def _beginning(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return a post-processor that adds what another adds before a text, and nothing behind."""
    kind = step["type"]
    if kind == "Sequence":
        return {**step, "processors": [_beginning(one) for one in step["processors"]]}
    if kind == "TemplateProcessing":
        text = [place for place, piece in enumerate(step["single"]) if "Sequence" in piece]
        return {**step, "single": step["single"][: text[-1] + 1]}
    if kind not in ("BertProcessing", "RobertaProcessing"):
        return dict(step)
    token, number = step["cls"]
    single = [
        {"SpecialToken": {"id": token, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    template = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [number], "tokens": [token]}},
    }
    if kind == "BertProcessing":
        return template
    offsets = {name: step[name] for name in ("add_prefix_space", "trim_offsets")}
    trimmed = {"type": "ByteLevel", "use_regex": True, **offsets}
    return {"type": "Sequence", "processors": [trimmed, template]}


def check_vocabulary(
    tokenizer: "PreTrainedTokenizerBase", config: "PretrainedConfig", folder: Path
) -> None:
    """Raise unless the model has an embedding row for every token that text is made of.

    Tokens that were added to the vocabulary for other inputs (images, tools) do not count: a text
    that has one is refused when it is read.

    Args:
        tokenizer: that reads the text.
        config: of the model.
        folder: of the tokenizer, for the error.

    Raises:
        ModelError: it has not: the tokenizer is another model's.
    """
    rows = int(cast("Any", config.get_text_config()).vocab_size)
    special = {tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token, tokenizer.unk_token}
    for token, number in tokenizer.get_vocab().items():
        plain = number not in tokenizer.added_tokens_decoder
        if number >= rows and (plain or token in special):
            raise ModelError(
                f"{folder}: its tokenizer gives {token!r} the id {number}, and the target model "
                f"has {rows} embedding rows: it is another model's; {OTHER_TOKENIZER}"
            )


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
