"""What ROUGE counts, and references of which it would count nothing."""

from typing import Any

import pytest
from doubles import make_tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from ilubench.errors import DataError
from ilubench.interfaces import Row, ScoreContext
from ilubench.scoring.scorers.muse import KnowMem, VerbMem
from ilubench.scoring.scorers.nll import AnswerNLL
from ilubench.scoring.scorers.rouge import rouge_l, rouge_l_recall, unicode_words
from ilubench.testing.engine import FakeEngine

TOKENIZER = make_tokenizer()


def value(scorer: Any, row: Row, written: str) -> float:
    pairs: list[Row] = [{"question": "one", "answer": "two"}]
    roles: dict[str, list[Row]] = {"d": [{"id": "r", **row}], "i": pairs}
    context = ScoreContext(roles.__getitem__, lambda _: False)
    engine = FakeEngine(TOKENIZER, answer=lambda _: written)
    (score,) = scorer.build(TOKENIZER, context).score(engine)
    return float(score.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Старый кот-обжора.", ["старый", "кот", "обжора"]),
        ("don't 12,5 x_y", ["don", "t", "12", "5", "x", "y"]),
        ("猫は走る2回", ["猫", "は", "走", "る", "2", "回"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("Cafe\u0301 CAFÉ", ["café", "café"]),
        ("\uff21\uff22", ["ab"]),
        ("مرحبا بالعالم!", ["مرحبا", "بالعالم"]),
        (" ?! … ", []),
    ],
)
def test_words_of_any_script(text: str, words: list[str]) -> None:
    assert unicode_words(text) == words


def test_latin_text_counts_alike() -> None:
    written, right = "The quick (brown) fox, 7!", "a quick fox runs 7 times"
    assert 0 < rouge_l(right, written, "latin") == rouge_l(right, written, "unicode") < 1


WORDS = st.lists(
    st.sampled_from(
        ["a", "B", "cat's", "7", "é", "\n", "x_y", "\u0130", "cats", "Flies", "dying", "relational"]
    ),
    max_size=12,
)


@settings(max_examples=300, deadline=None)
@given(WORDS.map(" ".join), WORDS.map(" ".join))
def test_equal_to_the_package(reference: str, written: str) -> None:
    theirs = RougeScorer(["rougeL"], use_stemmer=False).score(reference, written)["rougeL"]
    assert rouge_l(reference, written, "latin") == theirs.fmeasure
    stemmed = RougeScorer(["rougeL"], use_stemmer=True).score(reference, written)["rougeL"]
    assert rouge_l(reference, written, "stemmed") == stemmed.fmeasure
    assert rouge_l_recall(reference, written, "stemmed") == stemmed.recall


@pytest.mark.parametrize(
    ("reference", "share"),
    [
        ("старый кот", "none of its letters"),
        ("在 2024 年的北京奥运会", "fewer than half of its letters"),
        ("ที่นี่ ok", "fewer than half of its letters"),
        (" ... !", "no letter or digit"),
    ],
)
def test_references_that_latin_words_cannot_show(reference: str, share: str) -> None:
    for scorer, row in (
        (VerbMem, {"prompt": "the", "gt": reference}),
        (KnowMem, {"question": "who", "answer": reference}),
    ):
        column, settings = (
            list(row)[1],
            {"data": "d", **({"icl": "i"} if scorer is KnowMem else {})},
        )
        with pytest.raises(DataError, match=rf"data\.d: item 'r': column '{column}'.*{share}"):
            value(scorer.model_validate(settings), row, reference)
        if "letter or digit" not in share:
            wide = scorer.model_validate({**settings, "rouge_tokens": "unicode"})
            assert value(wide, row, reference) == 1.0
            assert value(wide, row, "something else") == 0.0


@pytest.mark.parametrize("reference", ["größer für Käse", "un café à Orléans", "7"])
def test_references_that_they_show(reference: str) -> None:
    assert value(KnowMem(data="d", icl="i"), {"question": "q", "answer": reference}, reference) == 1


@pytest.mark.parametrize("answer", ["", "  ", "\n"])
def test_a_blank_answer_has_no_likelihood(answer: str) -> None:
    scorer = AnswerNLL(data="d", prompt="{q}", completion=" {a}")
    with pytest.raises(DataError, match=r"data\.d: item 'r': the answer is blank"):
        value(scorer, {"q": "who", "a": answer}, "")
