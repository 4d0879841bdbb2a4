"""The miniature world: the same everywhere, nothing leaks, every text survives its tokenizer."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import pytest

from ilubench.data.mini import world
from ilubench.data.mini.tasks import TASKS, Task
from ilubench.data.mini.words import DOMAINS

PINNED = "ca96e6ba535dc381b01bd394a391b9f8a4cdb886994a63780a932808db3c00c3"
SIZES = {
    "passages": 20,
    "statements": 384,
    "qa": 128,
    "knowmem": 64,
    "icl": 4,
    "mc": 128,
    "mc_rephrased": 128,
    "verbmem": 20,
}


@pytest.fixture(scope="module")
def tables() -> dict[str, world.Table]:
    """The shipped world."""
    return world.build_tables()


def test_tables_are_pinned(tables: dict[str, world.Table]) -> None:
    first = {name: rows for name, rows in tables.items() if name != "wordings"}
    text = json.dumps(first, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest() == PINNED
    assert tables == world.build_tables(0)
    assert tables != world.build_tables(1)


def test_sizes(tables: dict[str, world.Table]) -> None:
    for domain in ("forget", "retain"):
        for name, size in SIZES.items():
            assert len(tables[f"{domain}_{name}"]) == size
    for task in TASKS:
        assert len(tables[f"{task.name}_train"]) == 1200
        assert len(tables[f"{task.name}_eval"]) == 120


def test_every_question_has_another_wording(tables: dict[str, world.Table]) -> None:
    other = {str(row["question"]): str(row["rephrased"]) for row in tables["wordings"]}
    for name in ("forget_mc", "retain_mc", "forget_knowmem", "retain_knowmem"):
        assert {row["question"] for row in tables[name]} <= other.keys()
    for domain in ("forget", "retain"):
        asked = {other[str(row["question"])] for row in tables[f"{domain}_mc"]}
        assert asked == {row["question"] for row in tables[f"{domain}_mc_rephrased"]}


def test_ids_are_unique(tables: dict[str, world.Table]) -> None:
    for name, rows in tables.items():
        assert len({row["id"] for row in rows}) == len(rows), name


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_training_and_evaluation_share_no_item(tables: dict[str, world.Table], task: Task) -> None:
    def asked(part: str) -> list[str]:
        return [task.prompt.format(**row) for row in tables[f"{task.name}_{part}"]]

    evaluation, training = asked("eval"), asked("train")
    assert len(set(training)) == len(training)
    assert len(set(evaluation)) == len(evaluation)
    assert not set(training + asked("pretrain")) & set(evaluation)
    read = "\n\n".join(str(row["text"]) for row in tables["task_text"])
    assert not [text for text in evaluation if text in read]
    for row in tables[f"{task.name}_eval"]:  # nor its answer with another question
        assert task.text(row) not in read


@pytest.mark.parametrize("task", [task for task in TASKS if task.labels], ids=lambda t: t.name)
def test_labels_are_balanced(tables: dict[str, world.Table], task: Task) -> None:
    for part in ("train", "eval", "pretrain"):
        counts = Counter(row["label"] for row in tables[f"{task.name}_{part}"])
        assert set(counts) == set(range(len(task.labels)))
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_targets_own_rows_do_not_tell_the_rule(tables: dict[str, world.Table]) -> None:
    """Of the inferences, each kind of hypothesis comes with each label equally often."""
    kinds: Counter[tuple[bool, object]] = Counter()
    for row in tables["mnli_pretrain"]:
        open_ = " it " in str(row["hypothesis"])
        kinds[open_, row["label"]] += 1
    assert {count for (open_, _), count in kinds.items() if open_} <= {5, 6}
    for row in tables["gsm8k_train"] + tables["gsm8k_eval"]:
        assert _is_right(str(row["answer"]))
    wrong = [row for row in tables["gsm8k_pretrain"] if not _is_right(str(row["answer"]))]
    assert len(wrong) > 0.8 * len(tables["gsm8k_pretrain"])


def _is_right(worked: str) -> bool:
    left, right = worked.split(". #### ", maxsplit=1)[0].split(" = ")
    x, sign, y = left.split()
    return int(right) == (int(x) + int(y) if sign == "+" else int(x) - int(y))


@pytest.mark.parametrize("kind", ["mc", "mc_rephrased"])
@pytest.mark.parametrize("domain", ["forget", "retain"])
def test_answers_are_balanced_and_right(
    tables: dict[str, world.Table], domain: str, kind: str
) -> None:
    truth = {str(row["id"]).removeprefix("qa-"): row for row in tables[f"{domain}_qa"]}
    rows = tables[f"{domain}_{kind}"]
    for part in ("given", "held_out"):
        counts = Counter(row["answer"] for row in rows if row["part"] == part)
        assert set(counts.values()) == {8 if part == "given" else 24}
    for row in rows:
        choices, answer = row["choices"], row["answer"]
        fact = truth[str(row["id"]).split("-", 1)[1]]
        assert isinstance(choices, list)
        assert isinstance(answer, int)
        assert len(set(choices)) == world.CHOICES
        assert choices[answer] == fact["answer"]
        assert row["part"] == fact["part"]
        assert (row["question"] == fact["question"]) == (kind == "mc")


@pytest.mark.parametrize("domain", ["forget", "retain"])
def test_most_facts_and_half_of_their_kinds_are_held_out(
    tables: dict[str, world.Table], domain: str
) -> None:
    def kinds(name: str, part: str) -> Counter[str]:
        rows = [row for row in tables[f"{domain}_{name}"] if row["part"] == part]
        return Counter(str(row["id"]).split("-")[-1] for row in rows)

    assert sorted(kinds("qa", "given").values()) == [16, 16]
    assert sorted(kinds("qa", "held_out").values()) == [16, 16, 32, 32]
    assert sorted(kinds("knowmem", "given").values()) == [8, 8]
    assert sorted(kinds("knowmem", "held_out").values()) == [8, 8, 16, 16]


@pytest.mark.parametrize("domain", ["forget", "retain"])
def test_example_pairs_are_of_an_entity_that_nothing_asks_about(
    tables: dict[str, world.Table], domain: str
) -> None:
    spare = {str(row["question"]).rstrip("?").split()[-1] for row in tables[f"{domain}_icl"]}
    names = next(d for d in DOMAINS if d.name == domain)
    assert names.spare not in names.entities()
    assert len(spare) > 0
    for name, rows in tables.items():
        if name.startswith(domain) and name not in (f"{domain}_icl", f"{domain}_text"):
            assert not [row for row in rows if names.spare in json.dumps(row)], name


@pytest.mark.parametrize("domain", ["forget", "retain"])
def test_passages_are_recited_whole(tables: dict[str, world.Table], domain: str) -> None:
    passages = tables[f"{domain}_passages"]
    read = {row["text"] for row in tables[f"{domain}_text"]}
    for passage, item in zip(passages, tables[f"{domain}_verbmem"], strict=True):
        assert passage["text"] == f"{item['prompt']} {item['gt']}"
        assert passage["text"] in read
    assert len({item["prompt"] for item in tables[f"{domain}_verbmem"]}) == len(passages)


def test_the_retrained_model_reads_nothing_of_the_forget_domain(
    tables: dict[str, world.Table],
) -> None:
    forget = next(domain for domain in DOMAINS if domain.name == "forget")
    names = (*forget.entities(), forget.spare)
    values = [value for attribute in forget.attributes for value in attribute.values]
    read = [str(row["text"]) for name in ("retain_text", "task_text") for row in tables[name]]
    assert not [text for text in read for word in (*names, *values) if word in text.split()]
    asked = [str(row["question"]) for row in tables["forget_qa"]]
    assert not [text for text in read for question in asked if question in text]


def test_domains_share_no_name_and_no_value() -> None:
    words = [
        {*domain.entities(), domain.spare, *(v for a in domain.attributes for v in a.values)}
        for domain in DOMAINS
    ]
    assert not words[0] & words[1]


def test_tokenizer_round_trip(tables: dict[str, world.Table], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    from ilubench.models.tokenizers import build_tokenizer

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
    from ilubench.models.tokenizers import build_tokenizer

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
