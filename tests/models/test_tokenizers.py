"""A checkpoint's tokenizer: what it puts around a text, and what is wrong with its files."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from doubles import SENTENCES, make_tokenizer
from tokenizers import Tokenizer, processors
from transformers import (
    AutoTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ilubench.data.batches import encode_pair
from ilubench.errors import ModelError
from ilubench.interfaces import Ids, Row, SamplingSpec, ScoreContext, Scorer
from ilubench.models.tokenizers import load_tokenizer
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.muse import KnowMem, VerbMem
from ilubench.scoring.scorers.nll import AnswerNLL
from ilubench.scoring.scorers.privleak import PrivLeak
from ilubench.testing import FakeEngine

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NAMES = ("<pad>", "<s>", "</s>", "[CLS]", "[SEP]")


def _raw() -> Tokenizer:
    raw = Tokenizer.from_str(make_tokenizer().backend_tokenizer.to_str())
    raw.add_special_tokens(list(NAMES))
    return raw


NUMBERS: dict[str, int] = _raw().get_vocab()
PAIRS = [(name, NUMBERS[name]) for name in NAMES]
SEP, CLS = PAIRS[4], PAIRS[3]


def _template(single: str) -> Any:
    return processors.TemplateProcessing(single=single, special_tokens=PAIRS)


Files = Callable[[Path], None]


def _saved(step: Any) -> Files:
    """Write a tokenizer with a post-processor."""

    def write(folder: Path) -> None:
        raw = _raw()
        if step is not None:
            raw.post_processor = step
        PreTrainedTokenizerFast(
            tokenizer_object=raw, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
        ).save_pretrained(folder)

    return write


KINDS: dict[str, tuple[Files, list[str], list[str]]] = {
    "nothing": (_saved(None), [], []),
    "BOS": (_saved(_template("<s> $A")), ["<s>"], []),
    "BOS and EOS": (_saved(_template("<s> $A </s>")), ["<s>"], ["</s>"]),
    "EOS": (_saved(_template("$A </s>")), [], ["</s>"]),
    "two and two": (
        _saved(_template("[CLS] <s> $A [SEP] </s>")),
        ["[CLS]", "<s>"],
        ["[SEP]", "</s>"],
    ),
    "bert": (_saved(processors.BertProcessing(SEP, CLS)), ["[CLS]"], ["[SEP]"]),
    "roberta": (_saved(processors.RobertaProcessing(SEP, CLS)), ["[CLS]"], ["[SEP]"]),
    "two steps": (
        _saved(
            processors.Sequence([processors.ByteLevel(trim_offsets=True), _template("<s> $A </s>")])
        ),
        ["<s>"],
        ["</s>"],
    ),
}


def loaded(kind: str, folder: Path) -> tuple[Any, Any]:
    """A tokenizer as transformers loads it, and as we do."""
    KINDS[kind][0](folder)
    return AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_appended_to_a_text(kind: str, tmp_path: Path) -> None:
    before, after = KINDS[kind][1:]
    theirs, ours = loaded(kind, tmp_path)
    assert theirs.tokenize("x", add_special_tokens=True)[len(before) + 1 :] == after
    for text in (SENTENCES[0], "", "a", "ends with </s>", " spaces "):
        given = theirs(text, return_offsets_mapping=True)
        found = ours(text, return_offsets_mapping=True)
        kept = len(given["input_ids"]) - len(after)
        assert found["input_ids"] == given["input_ids"][:kept]
        assert found["offset_mapping"] == given["offset_mapping"][:kept]
        assert found["input_ids"][: len(before)] == [NUMBERS[name] for name in before]
    ours.save_pretrained(tmp_path / "again")
    again = load_tokenizer(tmp_path / "again")
    assert again(SENTENCES[1])["input_ids"] == ours(SENTENCES[1])["input_ids"]
    ids, mask = encode_pair(ours, "the river", " runs past")
    assert ids.count(NUMBERS["</s>"]) == 1
    assert ids[-1] == NUMBERS["</s>"]
    assert not any(mask[: len(before)])


def test_what_add_eos_token_appends_is_left_out(tmp_path: Path) -> None:
    words = {word: at for at, word in enumerate(["<unk>", "<s>", "</s>", "\u2581", "a", "b"])}
    LlamaTokenizer(vocab=words, merges=[], add_bos_token=True, add_eos_token=True).save_pretrained(
        tmp_path
    )
    assert AutoTokenizer.from_pretrained(tmp_path)("a b")["input_ids"] == [1, 3, 4, 3, 5, 2]
    assert load_tokenizer(tmp_path)("a b")["input_ids"] == [1, 3, 4, 3, 5]


ROLES: dict[str, Sequence[Row]] = {
    "recite": [{"id": "r", "prompt": "The river runs", "gt": " past the old mill"}],
    "facts": [{"id": "f", "question": "how many apples are left?", "answer": "three"}],
    "shown": [{"id": "e", "question": "how many sacks?", "answer": "seven"}],
    "texts": [{"id": "t", "text": SENTENCES[0]}],
    "others": [{"id": "o", "text": SENTENCES[1]}],
    "choice": [
        {
            "id": "c",
            "question": "What is it?",
            "choices": ["river", "mill", "sack", "cake"],
            "answer": 1,
        }
    ],
    "sums": [{"id": "s", "question": "2 + 1 is?", "answer": "It is 3.\n#### 3"}],
}
SCORERS: dict[str, Scorer] = {
    "verbmem": VerbMem(data="recite"),
    "knowmem": KnowMem(data="facts", icl="shown"),
    "privleak": PrivLeak(forget="texts", holdout="others", retrain_auc=0.5),
    "nll": AnswerNLL(data="facts", prompt="{question}", completion=" {answer}"),
    "letters": LmEval(task="wmdp_bio", data="choice"),
    "answers": LmEval(task="mini_mc", data="choice"),
    "written": LmEval(task="mini_gsm8k", data="sums"),
}


class Asked(FakeEngine):
    """Keeps the ids that it was asked, with anything as an answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(
            tokenizer,
            answer=lambda _prompt: "three",
            likelihood=lambda _prompt, _rest: -1.0,
            choice=lambda _prompt, _option: -1.0,
        )
        self.ids: list[tuple[int, ...]] = []

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> Any:
        self.ids += map(tuple, prompts)
        return super().generate(prompts, sampling)

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> Any:
        self.ids += [(*context, -1, *rest) for context, rest in pairs]
        return super().logprobs(pairs)

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> Any:
        self.ids += [*map(tuple, prompts), tuple(options)]
        return super().choices(prompts, options)


@pytest.mark.parametrize("name", SCORERS)
def test_every_scorer_asks_as_if_nothing_was_appended(name: str, tmp_path: Path) -> None:
    asked: dict[str, list[tuple[int, ...]]] = {}
    for kind in ("nothing", "EOS", "BOS", "BOS and EOS"):
        _, tokenizer = loaded(kind, tmp_path / kind)
        context = ScoreContext(rows=lambda role: ROLES[role], publish_text=lambda _role: False)
        engine = Asked(tokenizer)
        SCORERS[name].build(tokenizer, context).score(engine)
        asked[kind] = engine.ids
    assert asked["BOS and EOS"] == asked["BOS"]
    assert asked["EOS"] == asked["nothing"]
    assert asked["BOS"]
    assert not any(NUMBERS["</s>"] in ids for ids in asked["BOS and EOS"])


# --------------------------------------------------------------------------- damaged files


def _changed(**changes: object) -> Files:
    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def _written(name: str, text: str, *gone: str) -> Files:
    def change(folder: Path) -> None:
        for other in gone:
            (folder / other).unlink()
        (folder / name).write_text(text)

    return change


def _set(**settings: object) -> Files:
    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | settings))

    return change


def _template_file(name: str, number: int, times: int = 1) -> Files:
    text = [{"Sequence": {"id": "A", "type_id": 0}}] * times
    token = {"id": "<s>", "ids": [number], "tokens": ["<s>"]}
    return _changed(
        post_processor={
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": name, "type_id": 0}}, *text],
            "pair": [*text, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"<s>": token},
        }
    )


BOTH = ("tokenizer.json", "tokenizer_config.json")
FAULTS: dict[str, tuple[Files, str]] = {
    "a new model": (
        _changed(model={"type": "New"}),
        "tokenizer.json has a model of type 'New', which `tokenizers` does not know",
    ),
    "no words": (_changed(model={"type": "BPE", "vocab": 3}), "is none that `tokenizers` reads"),
    "no model": (_changed(model=None), "is none that `tokenizers` reads"),
    "a new step": (_changed(post_processor={"type": "New"}), "is none that `tokenizers` reads"),
    "no text": (
        _changed(
            post_processor={
                "type": "TemplateProcessing",
                "single": [],
                "pair": [],
                "special_tokens": {},
            }
        ),
        "its tokenizer gives special tokens alone, whatever it reads",
    ),
    "a panic": (
        _changed(normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "tokenizer.json is none that `tokenizers` reads",
    ),
    "a panic at a text": (_template_file("<none>", 1), "tokenizer.json is none that `tokenizers`"),
    "another id": (
        _template_file("<s>", 99_999),
        "'<s>' is 99999 by its post_processor, and 1 by its words",
    ),
    "a text twice": (_template_file("<s>", 1, times=2), "gives a text more than once"),
    "no word for the unknown": (
        _changed(model={"type": "WordLevel", "vocab": {"<s>": 1, "a": 2}, "unk_token": "none"}),
        "a text with a sign that it does not know cannot be read",
    ),
    "dropout": (
        _changed(model={"type": "BPE", "vocab": {"a": 9}, "merges": [], "dropout": 0.5}),
        "dropout of 0.5, and reads a text otherwise each time",
    ),
    "half": (_written("tokenizer.json", '{"a"'), "tokenizer.json is no readable JSON"),
    "null": (_written("tokenizer.json", "null"), "tokenizer.json holds no settings"),
    "a nest": (_written("tokenizer.json", "[" * 100_000), "tokenizer.json is no readable JSON"),
    "pointer": (
        _written("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n"),
        "tokenizer.json is a Git LFS pointer",
    ),
    "null settings": (_written(BOTH[1], "null"), "tokenizer_config.json holds no settings"),
    "half settings": (_written(BOTH[1], "{"), "tokenizer_config.json is no readable JSON"),
    "a number for a token": (_set(eos_token=5), "config.json has '5' for eos_token, and a token's"),
    "a token of parts": (
        _set(bos_token={"content": "<s>"}),
        "config.json has .* for bos_token, and",
    ),
    "own code": (
        _set(tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]}),
        "tokenizer_config.json names code of its own, which is never run; copy it again, or name",
    ),
    "null names": (_written("special_tokens_map.json", "null"), "special_tokens_map.json holds no"),
    "a list of names": (_written("added_tokens.json", "[1]"), "added_tokens.json holds no"),
    "nothing": (_written("README.md", "a card", *BOTH), "there is no tokenizer.json; copy one"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_files_are_named(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    _saved(None)(tmp_path)
    change(tmp_path)
    with pytest.raises(ModelError, match=message) as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("installed", [True, False])
def test_a_sentencepiece_model_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x0a\x0b")
    found = object() if installed else None
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: found)
    message = "cannot be turned into a fast one" if installed else "install sentencepiece, copy a"
    with pytest.raises(ModelError, match=rf"its tokenizer cannot be loaded: .*{message}"):
        load_tokenizer(tmp_path)
