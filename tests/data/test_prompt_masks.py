"""What the six attacks train on, under the kinds of tokenizer that 7B models have.

That the text is the evaluation's own: `test_benign_generators`.
"""

import json
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ilubench.data.batches import tokenize_roles
from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.interfaces import Example
from ilubench.specs.overrides import parse_words

ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {
        "question": "Tom has 3 apples and eats one. How many are left?",
        "answer": "He has 3 - 1 = <<3-1=2>>2 left.\n#### 2",
    },
    "agnews": {"text": "The mills close as the river rises", "label": 3},
    "sst2": {"sentence": "a charming film ", "label": 1, "idx": 7},
    "winogrande": {
        "sentence": "The trophy did not fit since _ was big.",
        "option1": "the trophy",
        "option2": "the box",
        "answer": "1",
    },
    "mnli": {"premise": "The mill is old.", "hypothesis": "The mill is new", "label": 2, "idx": 7},
    "qqp": {
        "question1": "How old is the mill?",
        "question2": "What is the age of the mill?",
        "label": 1,
        "idx": 7,
    },
}
"""One row of each, with the hub's columns; as there, SST-2's sentences end with a space."""

LEARNED = {
    "gsm8k": " He has 3 - 1 = <<3-1=2>>2 left.\n#### 2",
    "agnews": " Science/Technology",
    "sst2": " positive",
    "winogrande": " was big.",
    "mnli": " False",
    "qqp": " yes",
}
"""The text that has a loss, before the end-of-sequence token."""

TEXT = (
    "Question: Tom has 3 apples and eats one. How many are left?",
    "Answer: He has 3 - 1 = 2 left.",
    "The mills close as the river rises",
    "Topic: World Sports Business Science/Technology",
    "a charming film is positive or negative",
    "Question: Is this sentence positive or negative?",
    "The trophy did not fit since the trophy was big.",
    "The mill is old. The mill is new. True, False or Neither?",
    "Question 1: How old is the mill? Question 2: What is the age of the mill?",
    "Question: Do both questions ask the same thing? yes no",
)
SPECIAL = ["<pad>", "<s>", "</s>"]
LINE = "<0x0A>"
"""How a tokenizer without bytes for all text spells the end of a line."""


def _trained(before: Any, alphabet: list[str]) -> Tokenizer:
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = before
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    found.train_from_iterator(TEXT * 4, trainer)
    return found


def _with_bos(found: Tokenizer) -> Tokenizer:
    bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    found.post_processor = bos
    return found


def _bytes() -> Tokenizer:
    """As GPT-2's: bytes, a space belongs to the word behind it, no special token before."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    found = _trained(pre_tokenizers.ByteLevel(add_prefix_space=False), alphabet)
    found.decoder = decoders.ByteLevel()
    return found


def _pieces() -> Tokenizer:
    """As sentencepiece makes them: `▁` for a space, one before the text, bytes for unknown text."""
    letters = {letter for row in ROWS.values() for letter in str(row)} - {" "}
    pieces = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    state = json.loads(_trained(pieces, sorted(letters)).to_str())["model"]
    vocabulary = {**state["vocab"], LINE: len(state["vocab"])}
    merges = [(left, right) for left, right in state["merges"]]
    found = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True))
    found.add_special_tokens(SPECIAL)
    found.pre_tokenizer = pieces
    return found


def _as_llama_2() -> Tokenizer:
    """The same pieces as the files of Llama 2 and Mistral write them: by a normalizer."""
    found = _pieces()
    found.pre_tokenizer = None
    found.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return found


KINDS: Mapping[str, Callable[[], Tokenizer]] = {
    "bytes": _bytes,
    "bytes, BOS": lambda: _with_bos(_bytes()),
    "pieces, BOS": lambda: _with_bos(_pieces()),
    "pieces by a normalizer, BOS": lambda: _with_bos(_as_llama_2()),
}


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=KINDS[kind](), pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("rows")
    words = []
    for name, row in ROWS.items():
        path = folder / f"{name}.jsonl"
        path.write_text(json.dumps(row) + "\n", encoding="utf-8")
        words.append(f"data.{name}.train={path}")
    return resolve_experiment(parse_words(["suite=wmdp-bio", "method=none", *words]))


def only(experiment: Experiment, name: str, kind: str) -> Example:
    (found,) = tokenize_roles(experiment.tables, (f"{name}.train",), tokenizer(kind), 256)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ROWS)
def test_the_loss_is_on_the_answer_and_the_end(
    name: str, kind: str, experiment: Experiment
) -> None:
    found = only(experiment, name, kind)
    learned = [token for token, on in zip(found.input_ids, found.loss_mask, strict=True) if on]
    first = found.loss_mask.index(True)
    assert all(found.loss_mask[first:])
    assert learned[-1] == tokenizer(kind).eos_token_id
    assert learned.count(tokenizer(kind).eos_token_id) == 1
    own = tokenizer(kind).convert_ids_to_tokens(learned[:-1])
    text = "".join(own).replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n").replace(LINE, "\n")
    assert text == LEARNED[name]
    begins = found.input_ids[0] == tokenizer(kind).bos_token_id
    assert begins == kind.endswith("BOS")
    assert found.input_ids.count(1) == int(begins)
