"""The news-scratch tables, on made-up rows."""

import random

import pytest

from ilubench.data.generators.news import Row, cut_item, item_rows, merge_spans, span_tables
from ilubench.errors import DataError

LONGEST_WORD = 12


def words(seed: int, count: int) -> list[str]:
    """Return made-up words, different for every seed."""
    rng = random.Random(seed)
    return [
        f"{rng.choice('bdfgklmnprst')}{rng.choice('aeiou')}{rng.randrange(10**6)}"
        for _ in range(count)
    ]


def prose(seed: int, count: int) -> str:
    """Return made-up text in paragraphs of ten words."""
    all_words = words(seed, count)
    return "\n\n".join(" ".join(all_words[at : at + 10]) for at in range(0, count, 10))


def window(text: str, begin: int, prompt: int, answer: int) -> Row:
    """Cut an item by characters, both parts stripped as the published items are."""
    middle = begin + prompt
    return {"prompt": text[begin:middle].strip(), "gt": text[middle : middle + answer].strip()}


@pytest.fixture
def raw() -> list[Row]:
    return [{"text": prose(seed, 60)} for seed in range(6)]


@pytest.fixture
def retain() -> list[Row]:
    return [{"text": prose(100 + seed, 120)} for seed in range(4)]


def joined(rows: list[Row]) -> str:
    return "\n\n".join(row["text"] for row in rows)


def length(rows: list[Row], count: int) -> int:
    """Return where the row `count` begins in the joined text."""
    return sum(len(row["text"]) + 2 for row in rows[:count])


def test_an_item_that_crosses_rows_gets_every_row_it_touches(
    raw: list[Row], retain: list[Row]
) -> None:
    text = joined(raw)
    begin = length(raw, 2) - 50
    item = window(text, begin, 100 + len(raw[2]["text"]), 60)
    tables = span_tables(raw, [item], retain, items=1)
    assert tables["forget_spans"] == [{"id": "raw-1-3", "text": joined(raw[1:4])}]
    assert tables["forget_verbmem"] == [{"id": "verbmem-0", **item}]


def test_an_item_within_a_row_gets_that_row_alone(raw: list[Row], retain: list[Row]) -> None:
    item = window(raw[4]["text"], 0, 200, 100)
    to_the_end = window(raw[5]["text"], len(raw[5]["text"]) - 300, 200, 100)
    tables = span_tables(raw, [item, to_the_end], retain, items=2)
    assert [row["id"] for row in tables["forget_spans"]] == ["raw-4-4", "raw-5-5"]
    assert [row["text"] for row in tables["forget_spans"]] == [raw[4]["text"], raw[5]["text"]]


def test_overlapping_items_share_one_span(raw: list[Row], retain: list[Row]) -> None:
    text = joined(raw)
    late = window(text, length(raw, 3) - 100, 150, 50)
    early = window(text, length(raw, 2) - 100, 150, 50)
    tables = span_tables(raw, [late, early], retain, items=2)
    assert tables["forget_spans"] == [{"id": "raw-1-3", "text": joined(raw[1:4])}]
    assert [row["prompt"] for row in tables["forget_verbmem"]] == [late["prompt"], early["prompt"]]


def test_the_seam_and_other_white_space_do_not_matter(raw: list[Row]) -> None:
    text = raw[2]["text"]
    cut = text.index("\n\n")
    prompt, answer = text[:cut], text[cut:].strip().replace("\n\n", "\n")
    assert item_rows([row["text"] for row in raw], [prompt], [answer]) == [(2, 2)]


def test_an_item_that_is_nowhere_is_named(raw: list[Row], retain: list[Row]) -> None:
    good = window(raw[0]["text"], 0, 100, 50)
    bad = {"prompt": raw[0]["text"][:100], "gt": "not in any row"}
    with pytest.raises(DataError, match="verbmem item 1 "):
        span_tables(raw, [good, bad], retain, items=2)
    with pytest.raises(DataError, match="verbmem item 0 "):
        span_tables(raw, [{"prompt": " ", "gt": ""}], retain, items=1)


def test_rows_out_of_order_do_not_hold_a_crossing_item(raw: list[Row]) -> None:
    item = window(joined(raw), length(raw, 2) - 50, 80, 40)
    shuffled = [row["text"] for row in reversed(raw)]
    with pytest.raises(DataError, match="in order"):
        item_rows(shuffled, [item["prompt"]], [item["gt"]])


def test_retain_items_have_the_forget_items_lengths(raw: list[Row], retain: list[Row]) -> None:
    forget = [window(raw[0]["text"], 3, 200, 60), window(raw[1]["text"], 5, 240, 80)]
    tables = span_tables(raw, forget, retain, items=2)
    assert [row["id"] for row in tables["retain_spans"]] == ["retain-0", "retain-1"]
    for index, (item, model) in enumerate(zip(tables["retain_verbmem"], forget, strict=True)):
        text = retain[index]["text"]
        assert tables["retain_spans"][index] == {"id": item["id"], "text": text}
        assert 0 <= len(item["prompt"]) - len(model["prompt"]) < LONGEST_WORD
        assert 0 <= len(item["gt"]) - len(model["gt"]) < LONGEST_WORD
        assert any(item["prompt"] + seam + item["gt"] in text for seam in (" ", "\n\n"))
        assert 0 < text.index(item["prompt"]) < len(text) / 2


def test_cut_item_takes_whole_words_from_the_middle() -> None:
    text = "aaa bbb ccc\n\nddd eee fff ggg"
    assert cut_item(text, 5, 3, name="it") == ("ccc\n\nddd", "eee")
    assert cut_item("aaa bbb", 3, 3, name="it") == ("aaa", "bbb")


@pytest.mark.parametrize(("prompt", "answer"), [(40, 3), (11, 20), (27, 1)])
def test_a_text_too_short_is_named(prompt: int, answer: int) -> None:
    with pytest.raises(DataError, match="retain row 3"):
        cut_item("aaa bbb ccc\n\nddd eee fff ggg", prompt, answer, name="retain row 3")


def test_merge_spans_sorts_and_joins_only_what_shares_a_row() -> None:
    assert merge_spans([(4, 5), (2, 3), (0, 0), (5, 7), (5, 6)]) == [(0, 0), (2, 3), (4, 7)]
    assert merge_spans([]) == []


def test_too_few_rows_and_missing_fields_are_named(raw: list[Row], retain: list[Row]) -> None:
    item = window(raw[0]["text"], 0, 100, 50)
    with pytest.raises(DataError, match="verbmem has 1 rows, 2 are needed"):
        span_tables(raw, [item], retain, items=2)
    with pytest.raises(DataError, match="retain has 4 rows, 5 are needed"):
        span_tables(raw, [item] * 5, retain, items=5)
    with pytest.raises(DataError, match="raw has 0 rows"):
        span_tables([], [item], retain, items=1)
    with pytest.raises(DataError, match="row 0 has no text in field 'gt'"):
        span_tables(raw, [{"prompt": "x"}], retain, items=1)
    with pytest.raises(DataError, match="at least one"):
        span_tables(raw, [item], retain, items=0)
