"""Content-free text: the shape of other text, and none of its words."""

import re
from collections import Counter

import pytest

from ilubench.data.generators.control import WORDS, ContentFree
from ilubench.data.overlap import count_overlaps, item_texts
from ilubench.errors import DataError
from ilubench.interfaces import Row

ROWS: list[Row] = [
    {
        "id": "a",
        "question": "Ada has 3 plums,\nand Ben 14.  How many?",
        "answer": "3 + 14 = <<17>>",
    },
    {"id": "b", "question": "What is it that a miller's mill mills?", "answer": "#### 12", "n": 7},
]
WORD = re.compile(r"[^\W_]+")


def made(**settings: object) -> list[Row]:
    found = ContentFree.model_validate(settings).tables({"train": ROWS})["train"]
    assert len(found) == len(ROWS)
    return list(found)


def test_words_change_and_nothing_else() -> None:
    found = made()
    for row, free in zip(ROWS, found, strict=True):
        assert free.keys() == row.keys()
        assert free["id"] == row["id"]
        for column in ("question", "answer"):
            before, after = str(row[column]), str(free[column])
            assert WORD.sub("", after) == WORD.sub("", before)  # spaces, lines and marks
            assert len(WORD.findall(after)) == len(WORD.findall(before))
            assert set(WORD.findall(after)) <= set(WORDS)
            assert not set(WORD.findall(after)) & set(WORD.findall(before)) - {"a", "is"}
    assert found[1]["n"] == 7


def test_it_is_drawn_by_its_seed() -> None:
    assert made() == made()
    assert made() != made(seed=1)
    other = ContentFree().tables({"train": ROWS[1:]})["train"]
    assert (
        other[0]["question"] != made()[1]["question"]
    )  # a row's place counts, not the draw before


def test_only_some_columns_and_own_words() -> None:
    found = made(columns=["answer"], words=["uno", "due", "tre"])
    assert [row["question"] for row in found] == [row["question"] for row in ROWS]
    assert {word for row in found for word in WORD.findall(str(row["answer"]))} <= {
        "uno",
        "due",
        "tre",
    }
    listed = ContentFree().tables({"x": [{"id": "1", "choices": ["one", "two"], "answer": 1}]})["x"]
    assert len(listed[0]["choices"]) == 2  # type: ignore[arg-type]
    assert listed[0]["choices"] != ["one", "two"]
    assert listed[0]["answer"] == 1


def test_words_are_of_about_the_same_length() -> None:
    text = " ".join(["a", "mill", "mills", "questions", "extraordinarily"] * 200)
    (row,) = ContentFree().tables({"x": [{"id": "1", "text": text}]})["x"]
    free = str(row["text"])
    assert abs(len(free) - len(text)) < 0.25 * len(text)
    assert Counter(map(len, free.split()))[1] > 20


def test_no_item_is_in_it() -> None:
    """Not even an item whose own text it was made from."""
    long: list[Row] = [
        {"id": str(n), "question": f"Who of the {n} millers has seen the mill by the river today?"}
        for n in range(50)
    ]
    free = [str(row["question"]) for row in ContentFree().tables({"x": long})["x"]]
    found = count_overlaps(free, {"own": {str(row["id"]): item_texts(row) for row in long}})
    assert found["own"].contained == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"columns": ["anser"]}, "train row 1: column 'anser' is missing; did you mean 'answer'"),
        ({"columns": ["n"]}, "train row 1: column 'n' is missing"),
    ],
)
def test_what_cannot_be_replaced(settings: dict[str, object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        made(**settings)
    with pytest.raises(DataError, match="x row 1: no column has text to replace"):
        ContentFree().tables({"x": [{"id": "1", "n": 3}]})
