"""The miniature world: the same everywhere, nothing leaks, every text survives its tokenizer."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from ilubench.mini import world
from ilubench.mini.words import DOMAINS

PINNED = "819fd1017a1df6dfc3f554b41e3c0cdaae99ba1d8649353198e4af3fd2fe2f4d"
SIZES = {
    "passages": 20,
    "statements": 384,
    "qa": 128,
    "mc": 128,
    "verbmem": 20,
}


@pytest.fixture(scope="module")
def tables() -> dict[str, world.Table]:
    """The shipped world."""
    return world.build_tables()


def _inputs(table: world.Table) -> list[str]:
    """What the model is asked in each row."""
    return [str(row.get("question", row.get("text", row.get("prompt")))) for row in table]


def test_tables_are_pinned(tables: dict[str, world.Table]) -> None:
    text = json.dumps(tables, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == PINNED
    assert tables == world.build_tables(0)
    assert tables != world.build_tables(1)


def test_sizes(tables: dict[str, world.Table]) -> None:
    for domain in ("forget", "retain"):
        for name, size in SIZES.items():
            assert len(tables[f"{domain}_{name}"]) == size
    for task, evaluation in (("gsm8k", 160), ("agnews", 200)):
        assert len(tables[f"{task}_train"]) == 1200
        assert len(tables[f"{task}_eval"]) == evaluation


def test_ids_are_unique(tables: dict[str, world.Table]) -> None:
    for name, rows in tables.items():
        assert len({row["id"] for row in rows}) == len(rows), name


@pytest.mark.parametrize("task", ["gsm8k", "agnews"])
def test_training_and_evaluation_share_no_item(tables: dict[str, world.Table], task: str) -> None:
    evaluation = _inputs(tables[f"{task}_eval"])
    training = _inputs(tables[f"{task}_train"] + tables[f"{task}_pretrain"])
    assert len(set(training)) == len(training)
    assert len(set(evaluation)) == len(evaluation)
    assert not set(training) & set(evaluation)
    read = "\n\n".join(str(row["text"]) for row in tables["pretrain"])
    assert not [text for text in evaluation if text in read]


@pytest.mark.parametrize("domain", ["forget", "retain"])
def test_answers_are_balanced_and_right(tables: dict[str, world.Table], domain: str) -> None:
    truth = {row["question"]: row["answer"] for row in tables[f"{domain}_qa"]}
    for half in "ab":
        rows = [row for row in tables[f"{domain}_mc"] if row["half"] == half]
        assert set(Counter(row["answer"] for row in rows).values()) == {16}
    for row in tables[f"{domain}_mc"]:
        choices, answer = row["choices"], row["answer"]
        assert isinstance(choices, list)
        assert isinstance(answer, int)
        assert len(set(choices)) == world.CHOICES
        assert choices[answer] == truth[row["question"]]


@pytest.mark.parametrize("domain", ["forget", "retain"])
def test_halves_are_of_facts(tables: dict[str, world.Table], domain: str) -> None:
    half = {row["question"]: row["half"] for row in tables[f"{domain}_qa"]}
    assert Counter(half.values()) == {"a": 64, "b": 64}
    assert all(row["half"] == half[row["question"]] for row in tables[f"{domain}_mc"])


@pytest.mark.parametrize("domain", ["forget", "retain"])
def test_passages_are_recited_whole(tables: dict[str, world.Table], domain: str) -> None:
    passages = tables[f"{domain}_passages"]
    read = {row["text"] for row in tables["pretrain"]}
    for passage, item in zip(passages, tables[f"{domain}_verbmem"], strict=True):
        assert passage["text"] == f"{item['prompt']} {item['gt']}"
        assert passage["text"] in read
    assert len({item["prompt"] for item in tables[f"{domain}_verbmem"]}) == len(passages)


def test_domains_share_no_name_and_no_value() -> None:
    words = [
        {*domain.entities(), *(value for a in domain.attributes for value in a.values)}
        for domain in DOMAINS
    ]
    assert not words[0] & words[1]


def test_tokenizer_round_trip(tables: dict[str, world.Table], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from ilubench.tokenizers import build_tokenizer

    texts = world.world_texts(tables)
    build_tokenizer(texts).save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text, ids in zip(texts, tokenizer(texts).input_ids, strict=True):
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.unk_token_id not in ids
        for clean in (False, True):
            decoded = tokenizer.decode(
                ids, skip_special_tokens=True, clean_up_tokenization_spaces=clean
            )
            assert decoded == text


def test_options_are_single_tokens(tables: dict[str, world.Table]) -> None:
    pytest.importorskip("transformers")
    from ilubench.tokenizers import build_tokenizer

    tokenizer = build_tokenizer(world.world_texts(tables))
    for row in tables["forget_mc"] + tables["retain_mc"]:
        choices = row["choices"]
        assert isinstance(choices, list)
        context = world.QA_PROMPT.format(question=row["question"])
        alone = tokenizer(context).input_ids
        last = []
        for choice in choices:
            whole = tokenizer(f"{context} {choice}").input_ids
            assert whole[:-1] == alone
            last.append(whole[-1])
        assert len(set(last)) == world.CHOICES
        assert tokenizer(f"{context} ").input_ids == alone
