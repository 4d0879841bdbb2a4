"""Rows -> examples -> batches, with a real BPE tokenizer."""

import copy
import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import SENTENCES, make_tokenizer, random_examples
from hypothesis import given
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerBase

from ilubench.data.batches import (
    PASS,
    Blocks,
    Stream,
    collate,
    encode_pair,
    group_lengths,
    to_device,
    tokenize_roles,
)
from ilubench.data.rows import Tables
from ilubench.errors import DataError, ModelError
from ilubench.interfaces import Example
from ilubench.specs import DataSource


def targets(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> list[str]:
    ids, mask = encode_pair(tokenizer, prompt, completion)
    assert len(ids) == len(mask)
    return [str(tokenizer.decode([i])) for i, target in zip(ids, mask, strict=True) if target]


@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("Question: how many apples are left?", " three apples are left."),
        ("Question: how many apples are left?", "\n\nthree"),
        ("Question:", "   three"),
        ("Question:", "é naïve café"),
        ("The river", " "),
    ],
)
def test_the_loss_is_on_the_completion_and_the_end(
    tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str
) -> None:
    ids, mask = encode_pair(tokenizer, prompt, completion)
    learned = [i for i, target in zip(ids, mask, strict=True) if target]
    given = [i for i, target in zip(ids, mask, strict=True) if not target]
    assert learned[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(learned[:-1]) == completion
    assert tokenizer.decode(given) == prompt


def test_a_token_merged_across_the_boundary_is_the_completions(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    assert targets(tokenizer, "the river runs", " past")[:-1] == [" past"]
    assert targets(tokenizer, "the river runs ", "past")[:-1] == [" past"]
    assert targets(tokenizer, "the riv", "er runs")[0].endswith("er")
    assert "iv" in targets(tokenizer, "the riv", "er runs")[0]


def test_without_a_prompt_all_but_the_first_token_are_targets(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    ids, mask = encode_pair(tokenizer, "", SENTENCES[0])
    assert mask == [False] + [True] * (len(ids) - 1)


def test_a_begin_token_is_no_target_and_the_end_is_there_once() -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    for prompt in ("", "Question:"):
        for end in ("", "</s>"):
            ids, mask = encode_pair(tokenizer, prompt, f" three apples{end}")
            assert ids[0] == 1
            assert not mask[0]
            assert ids.count(2) == 1
            assert (ids[-1], mask[-1]) == (2, True)
            learned = [i for i, target in zip(ids, mask, strict=True) if target]
            assert tokenizer.decode(learned[:-1]) == " three apples"
    tokenizer.backend_tokenizer.post_processor = None


@given(st.text(max_size=30), st.text(min_size=1, max_size=30))
def test_any_text_is_split_somewhere_at_the_boundary(prompt: str, completion: str) -> None:
    tokenizer = make_tokenizer()
    ids, mask = encode_pair(tokenizer, prompt, completion)
    assert ids[:-1] == tokenizer(prompt + completion)["input_ids"]
    assert mask[-1]
    first = mask.index(True)
    assert all(mask[first:])
    assert not mask[0]


# ------------------------------------------------------------------------------- examples


@pytest.fixture
def build(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Callable[..., list[Example]]:
    def make(rows: list[dict[str, Any]], *, length: int = 64, **fields: Any) -> list[Example]:
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        source = DataSource.model_validate({"path": str(path), **fields})
        tables = Tables({"role": source}, {}, lambda _spec: pytest.fail("no generator"))
        return tokenize_roles(tables, ["role"], tokenizer, length)

    return make


Build = Callable[..., list[Example]]


def test_overlong_items_are_errors_unless_the_role_says_what_to_do(build: Build) -> None:
    rows = [{"id": "x", "text": SENTENCES[0] * 3}]
    whole = build(rows, length=1000)[0]
    with pytest.raises(
        DataError, match=r"data\.role: item 'x' has \d+ tokens, over the limit of 8"
    ):
        build(rows, length=8)
    cut = build(rows, length=8, overlong="truncate")
    assert [example.input_ids for example in cut] == [whole.input_ids[:8]]
    parts = build(rows, length=8, overlong="windows")
    assert [example.id for example in parts] == [f"role/x/{n}" for n in range(len(parts))]
    assert sum((part.input_ids for part in parts), ()) in (whole.input_ids, whole.input_ids[:-1])
    assert all(len(part.input_ids) <= 8 for part in parts)
    assert all(part.loss_mask == (False, *(True,) * (len(part.loss_mask) - 1)) for part in parts)


def test_windows_keep_the_prompt_out_of_the_loss(build: Build) -> None:
    rows = [{"id": "x", "q": SENTENCES[0], "a": " three apples"}]
    parts = build(rows, length=6, overlong="windows", prompt="{q}", completion="{a}")
    learned = sum(sum(part.loss_mask) for part in parts)
    assert all(any(part.loss_mask) for part in parts)
    assert 0 < learned <= 5


def test_a_roles_own_length_is_the_shorter(build: Build) -> None:
    with pytest.raises(DataError, match="over the limit of 4"):
        build([{"id": "x", "text": SENTENCES[0]}], length=100, max_length=4)


PAIR = {"prompt": "{q}", "completion": "{a}"}


@pytest.mark.parametrize("overlong", ["error", "truncate", "windows"])
@pytest.mark.parametrize(
    ("row", "fields"),
    [
        ({"q": SENTENCES[0], "a": ""}, PAIR),
        ({"q": "", "a": ""}, PAIR),
        ({"text": ""}, {}),
        ({"q": SENTENCES[0], "a": ""}, {"prompt": "{q}", "completion": " {a}\n"}),
        ({"q": SENTENCES[0] * 4, "a": ""}, PAIR),  # several windows
    ],
)
def test_an_end_alone_is_nothing_to_learn(
    build: Build, row: dict[str, Any], fields: dict[str, Any], overlong: str
) -> None:
    length = 1000 if overlong == "error" else 16
    with pytest.raises(DataError, match=r"^data\.role: item 'x' has no token to learn: its compl"):
        build([{"id": "x", **row}], length=length, overlong=overlong, **fields)


def test_a_single_token_is_nothing_to_learn(build: Build) -> None:
    with pytest.raises(DataError, match=r"^data\.role: item '1' has no token .* a single token"):
        build([{"text": "a"}])  # nothing stands before it


def test_rows_with_blank_completions_are_left_out_where_the_role_says_so(build: Build) -> None:
    rows = [{"text": " "}, {"text": SENTENCES[0]}, {"text": ""}, {"text": SENTENCES[1]}]
    with pytest.raises(DataError, match=r"item '1' .* is blank; .*data\.role\.blank=leave_out"):
        build(rows)
    assert [one.id for one in build(rows, blank="leave_out")] == ["role/2/0", "role/4/0"]
    (one,) = build(rows, blank="leave_out", limit=1)
    assert one.id == "role/2/0"
    with pytest.raises(DataError, match=r"no rows are left of 2"):
        build([{"text": " "}, {"text": ""}], blank="leave_out")
    with pytest.raises(DataError, match=r"column 'text' is null"):
        build([{"text": None}], blank="leave_out")


def test_short_texts_are_learned(build: Build) -> None:
    assert sum(build([{"text": "ab"}])[0].loss_mask) == 2
    assert sum(build([{"q": "a", "a": "b"}], **PAIR)[0].loss_mask) == 2


@pytest.mark.parametrize("completion", [" three", SENTENCES[1]])
@pytest.mark.parametrize("length", [4, 15])
def test_a_prompt_that_fills_the_limit(build: Build, length: int, completion: str) -> None:
    row = {"id": "x", "q": SENTENCES[0], "a": completion}
    alone = len(build([{"text": SENTENCES[0]}])[0].input_ids) - 1
    message = rf"its prompt alone has {alone} tokens, and suite\.max_length={length} leaves nothing"
    assert alone >= length
    with pytest.raises(DataError, match=message):
        build([row], length=length, overlong="truncate", **PAIR)
    with pytest.raises(DataError, match=r"data\.role\.max_length=4 leaves"):
        build([row], overlong="truncate", max_length=4, **PAIR)
    with pytest.raises(DataError, match=r"or set overlong=windows for this role"):
        build([row], length=length, **PAIR)
    with pytest.raises(DataError, match=r"overlong=windows or overlong=truncate"):
        build([row], length=alone + 1, **PAIR)


@pytest.mark.parametrize("row", [{"q": "now foo", "a": "b"}, {"q": "a", "a": "b foo"}])
@pytest.mark.parametrize("windows", [True, False])
def test_a_token_without_a_row(row: dict[str, str], tmp_path: Path, *, windows: bool) -> None:
    tokenizer = make_tokenizer()
    size = len(tokenizer)
    added = copy.deepcopy(tokenizer)
    added.add_tokens(["foo", "bar"])
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "fine", "q": "a", "a": "b"}) + "\n")
    with path.open("a") as file:
        file.write(json.dumps({"id": "x", **row}) + "\n")
    source = DataSource.model_validate(
        {"path": str(path), **PAIR, "overlong": "windows" if windows else "error"}
    )
    tables = Tables({"role": source}, {}, lambda _spec: pytest.fail("no generator"))
    length = 3 if windows else 64
    with pytest.raises(DataError) as caught:
        tokenize_roles(tables, ["role"], added, length, size)
    said = f"data.role: item 'x': it has the token 'foo' (id {size}), and the model has {size} "
    assert str(caught.value).startswith(said)
    assert len(tokenize_roles(tables, ["role"], added, length, size + 1)) >= 2


def test_no_roles_is_an_error(tokenizer: PreTrainedTokenizerBase) -> None:
    tables = Tables({}, {}, lambda _spec: pytest.fail("no generator"))
    with pytest.raises(DataError, match="no training items in no role"):
        tokenize_roles(tables, [], tokenizer, 10)


# ------------------------------------------------------------------------------- streams


@given(st.integers(1, 12), st.integers(1, 7), st.integers(0, 2**31), st.integers(1, 4))
def test_every_item_comes_once_an_epoch(size: int, count: int, seed: int, epochs: int) -> None:
    stream = Stream(size, seed, "train")
    steps = -(-size * epochs // count)
    flat = [index for step in range(steps) for index in stream.step(step, count)]
    for epoch in range(epochs):
        assert sorted(flat[epoch * size : (epoch + 1) * size]) == list(range(size))


@given(st.permutations(range(9)))
def test_a_step_depends_on_nothing_before_it(order: list[int]) -> None:
    straight = [Stream(5, 3, "train").step(step, 4) for step in range(9)]
    jumping = Stream(5, 3, "train")
    assert {step: jumping.step(step, 4) for step in order} == dict(enumerate(straight))


def test_streams_differ_by_seed_name_and_epoch() -> None:
    base = Stream(20, 1, "forget").step(0, 20)
    assert Stream(20, 1, "retain").step(0, 20) != base
    assert Stream(20, 2, "forget").step(0, 20) != base
    assert Stream(20, 1, "forget").step(1, 20) != base


def test_an_empty_set_is_an_error() -> None:
    with pytest.raises(DataError, match="the retain set is empty"):
        Stream(0, 1, "retain")


# ------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("micro", [None, 1, 2, 3, 8, 100, (3, 1, 4)])
def test_micro_batches_hold_the_same_items_and_the_same_totals(
    micro: int | tuple[int, ...] | None,
) -> None:
    dataset = random_examples(12, 50, 1)
    chosen = Stream(12, 5, "train").step(1, 8)
    batches = collate(dataset, chosen, pad=0, micro=micro)
    assert Counter(int(i) for batch in batches for i in batch.index) == Counter(chosen)
    if isinstance(micro, tuple):
        assert tuple(len(batch.index) for batch in batches) == micro
    tokens = sum(sum(dataset[index].loss_mask) for index in chosen)
    for batch in batches:
        assert (batch.sequences, batch.tokens) == (8, tokens)
        assert isinstance(micro, tuple) or len(batch.index) <= (micro or 8)
        for row, index in enumerate(batch.index.tolist()):
            item, length = dataset[index], len(dataset[index].input_ids)
            assert batch.input_ids[row].tolist() == [*item.input_ids] + [0] * (
                batch.input_ids.shape[1] - length
            )
            assert int(batch.attention_mask[row].sum()) == length
            assert batch.attention_mask[row, :length].all()
            assert batch.loss_mask[row, :length].tolist() == list(item.loss_mask)
            assert not batch.loss_mask[row, length:].any()
    assert sum(int(batch.loss_mask.sum()) for batch in batches) == tokens


def padded(lengths: Sequence[int], sizes: Sequence[int]) -> int:
    """Return the positions of groups of ascending lengths."""
    left = iter(sorted(lengths))
    return sum(size * max(itertools.islice(left, size)) for size in sizes)


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.lists(st.lists(st.integers(1, 300), min_size=n, max_size=n), min_size=1)
    ),
    st.integers(1, 12),
)
def test_groups_save_more_padding_than_their_passes_cost(
    lengths: list[list[int]], micro: int
) -> None:
    groups = group_lengths(lengths, micro)
    whole = [[len(own[at : at + micro]) for at in range(0, len(own), micro)] for own in lengths]
    assert len({len(sizes) for sizes in groups}) == 1  # they can be paired
    for own, sizes in zip(lengths, groups, strict=True):
        assert sum(sizes) == len(own)
        assert 1 <= min(sizes) <= max(sizes) <= micro
    saved = sum(
        padded(own, first) - padded(own, sizes)
        for own, first, sizes in zip(lengths, whole, groups, strict=True)
    )
    assert saved >= PASS * sum(map(len, groups)) - PASS * sum(map(len, whole))


@pytest.mark.parametrize(
    ("lengths", "sizes"),
    [
        ([100] * 8, [8]),
        ([90, 100] * 4, [8]),  # 40 saved
        ([10] * 4 + [100] * 4, [4, 4]),
        ([10] * 2 + [60] * 3 + [300], [2, 3, 1]),
        ([20, 100], [1, 1]),
        ([40, 100], [2]),
    ],
)
def test_a_batch_is_cut_where_that_saves_enough_padding(
    lengths: list[int], sizes: list[int]
) -> None:
    assert group_lengths([lengths[::-1]], len(lengths)) == [sizes]


def test_two_sets_are_cut_for_their_common_good() -> None:
    apart = [[10] * 4 + [100] * 4, [90] * 4 + [100] * 4]
    assert group_lengths(apart, 8) == [[4, 4], [4, 4]]
    assert group_lengths(apart[1:], 8) == [[8]]


def test_an_item_drawn_twice_counts_twice() -> None:
    dataset = random_examples(2, 50, 1)
    (batch,) = collate(dataset, [0, 1, 0], pad=0)
    assert batch.sequences == 3
    assert sorted(batch.index.tolist()) == [0, 0, 1]


def test_to_device_keeps_everything() -> None:
    (batch,) = collate(random_examples(3, 50, 1), [0, 1, 2], pad=0)
    moved = to_device(batch, "meta")
    assert moved.input_ids.device.type == "meta"
    assert moved.index.device.type == "cpu"
    assert (moved.sequences, moved.tokens) == (batch.sequences, batch.tokens)


def test_a_tokenizer_without_an_end(tokenizer: PreTrainedTokenizerBase) -> None:
    endless = copy.deepcopy(tokenizer)
    endless.eos_token = None
    tables = Tables({}, {}, lambda _spec: pytest.fail("no generator"))
    problem = "data.a, b: .* no end-of-sequence token, so that no text would end; set eos_token in"
    with pytest.raises(ModelError, match=problem):
        tokenize_roles(tables, ["a", "b"], endless, 9)


# ------------------------------------------------------------------------------- blocks


def test_blocks_join_whole_documents_once_an_epoch() -> None:
    documents = [
        Example(str(n), tuple(range(10 * n, 10 * n + 5)), (False, *(True,) * 4)) for n in range(7)
    ]
    blocks = Blocks(documents, 8, seed=3)
    assert blocks.per_epoch == 4
    first = blocks.step(0, 4)
    assert first.shape == (4, 8)
    flat = first.flatten().tolist()
    assert len(set(flat)) == 32
    heads = [flat[at] for at in range(0, 30, 5)]
    assert all(head % 10 == 0 for head in heads)
    assert flat != blocks.step(1, 4).flatten().tolist()
    again = Blocks(documents, 8, seed=3)
    mixed = again.step(1, 3)  # the last block of epoch 0, then two of epoch 1
    assert torch.equal(mixed[0], first[3])
    assert torch.equal(mixed[1:], blocks.step(1, 4)[:2])


def test_too_little_text_for_a_block() -> None:
    with pytest.raises(DataError, match="does not fill one block of 64 tokens"):
        Blocks(random_examples(2, 50, 1), 64, seed=0)
