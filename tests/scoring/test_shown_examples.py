"""Examples that are shown before an item: never the item itself, whatever role they come from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from doubles import make_tokenizer

from ilubench.attacks.fewshot import FewShot
from ilubench.data.overlap import asks_same
from ilubench.errors import DataError
from ilubench.interfaces import Item, PromptContext, Row, ScoreContext, Shot
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.muse import KnowMem
from ilubench.testing.engine import FakeEngine

TOKENIZER = make_tokenizer()
INTRODUCTION = "The following are multiple choice questions (with answers) about biology.\n\n"
ROWS: list[Row] = [
    {"id": str(n), "question": f"What is number {n}?", "choices": [*"wxyz"], "answer": n % 4}
    for n in range(4)
]
OTHERS: list[Row] = [{**row, "question": f"Other {n}?"} for n, row in enumerate(ROWS)]


def answering() -> FakeEngine:
    return FakeEngine(
        TOKENIZER, answer=lambda _: "", likelihood=lambda _, __: -1.0, choice=lambda _, __: -1.0
    )


def contexts(task: str, roles: Mapping[str, Sequence[Row]], **settings: object) -> list[str]:
    """Return the prompt of each item."""
    engine = answering()
    given = {"task": task, "data": "rows", **settings}
    context = ScoreContext(rows=roles.__getitem__, publish_text=lambda _: False)
    LmEval.model_validate(given).build(TOKENIZER, context).score(engine)
    return list(dict.fromkeys(text for _, text in engine.asked))


def shown(prompts: Sequence[str]) -> list[list[str]]:
    """Return the questions of each prompt, the one that is asked last."""
    parts = (prompt.removeprefix(INTRODUCTION).split("\n\n") for prompt in prompts)
    return [[part.split("\n")[0] for part in own] for own in parts]


@pytest.mark.parametrize(
    "shots",
    [
        ROWS,  # another role with the same rows
        [{**row, "id": f"copy {n}", "more": "x"} for n, row in enumerate(ROWS)],
        [{**row, "question": f" {row['question']}".upper()} for row in ROWS],
        [{**row, "choices": [*"zyxw"]} for row in ROWS],  # the options in another order
        [*ROWS[:1], *OTHERS],
    ],
)
@pytest.mark.parametrize("task", ["wmdp_bio", "mini_mc"])
def test_another_role_with_the_item(task: str, shots: list[Row]) -> None:
    prompts = contexts(task, {"rows": ROWS, "shots": shots}, fewshot="shots", num_fewshot=2)
    for *before, asked in shown(prompts):
        assert len(before) == 2
        assert asked.strip().lower() not in {one.strip().lower() for one in before}


@pytest.mark.parametrize("task", ["wmdp_bio", "mini_mc", "mini_gsm8k"])
def test_one_role_for_both(task: str) -> None:
    rows = [{**row, "answer": "so #### 3"} for row in ROWS] if task == "mini_gsm8k" else ROWS
    engine = answering()
    context = ScoreContext(rows=lambda _: rows, publish_text=lambda _: False)
    scorer = LmEval(task=task, data="rows", fewshot="rows", num_fewshot=3)
    scorer.build(TOKENIZER, context).score(engine)
    for *before, asked in shown([prompt for _, prompt in engine.asked]):
        assert len(set(before)) == 3
        assert asked not in before
    with pytest.raises(DataError, match="shows 4 examples and there are 3 besides the item asked"):
        LmEval(task=task, data="rows", fewshot="rows", num_fewshot=4).build(TOKENIZER, context)


def test_a_question_that_is_there_twice() -> None:
    twice = [*ROWS, {**ROWS[0], "id": "again"}]
    settings = {"fewshot": "rows", "num_fewshot": 3}
    for *before, asked in shown(contexts("wmdp_bio", {"rows": twice}, **settings)):
        assert asked not in before
    with pytest.raises(DataError, match=r"wmdp_bio: item '0': 4 examples .* 3 ask something else"):
        contexts("wmdp_bio", {"rows": twice}, fewshot="rows", num_fewshot=4)


def test_what_lm_eval_draws_stays_where_no_example_is_the_item() -> None:
    """Only the item that is among the examples is asked behind others than lm-eval's draw."""
    drawn = []
    for first in ROWS[:2]:  # the first example is one of the items, or a stranger
        roles = {"rows": ROWS[1:], "shots": [first, *OTHERS]}
        prompts = shown(contexts("wmdp_bio", roles, fewshot="shots", num_fewshot=3))
        drawn.append([[roles["shots"][0]["question"] == q or q for q in own] for own in prompts])
    (_, *plain), (_, *others) = drawn
    assert plain == others


def test_pairs_of_knowmem_leave_out_the_question(tmp_path: Path) -> None:
    pairs: list[Row] = [{"question": f"Who is {n}?", "answer": f"name {n}"} for n in range(3)]
    asked: list[Row] = [
        {"id": "a", "question": "Who is 1?", "answer": "someone else"},
        {"id": "b", "question": "Who is 9?", "answer": "name 9"},
    ]
    engine = FakeEngine(TOKENIZER, answer=lambda _: "x")
    context = ScoreContext({"d": asked, "i": pairs}.__getitem__, lambda _: False)
    KnowMem(data="d", icl="i").build(TOKENIZER, context).score(engine)
    first, second = (text for _, text in engine.asked)
    assert [part.split("\n")[0] for part in first.split("\n\n")] == [
        "Question: Who is 0?",
        "Question: Who is 2?",
        "Question: Who is 1?",
    ]
    assert second.count("Question:") == 4
    alone = ScoreContext({"d": asked, "i": pairs[1:2]}.__getitem__, lambda _: False)
    with pytest.raises(DataError, match=r"data\.i: no pair besides item 'a' of data\.d"):
        KnowMem(data="d", icl="i").build(TOKENIZER, alone)


@pytest.mark.parametrize(
    "item",
    [
        {"question": "who is  ANNA", "answer": "no"},
        {"question": "Who is Anna?", "choices": ["a", "b"], "answer": 1, "part": "x"},
    ],
)
def test_shots_of_the_attack_leave_out_the_question(item: Row) -> None:
    rows: list[Row] = [{"question": f"Who is {n}?", "answer": "x"} for n in ("Anna", "Bo", "Cy")]
    shots = [Shot(row, f"Question: {row['question']}", f" {row['answer']}") for row in rows]
    (asked,) = FewShot(k=2).rewrite(Item("i", item), PromptContext({"shots": shots}, 0))
    assert asked.before.count("Question:") == 2
    assert "Anna" not in asked.before


@pytest.mark.parametrize(
    ("item", "other", "prompt", "same"),
    [
        ({"q": "a b", "choices": ["x", "y"]}, {"q": "a b", "choices": ["y", "z"]}, "a b", True),
        ({"q": "a b", "choices": ["x", "y"]}, {"q": "a b", "choices": ["w", "z"]}, "a b", False),
        ({"choices": ["x", "y"]}, {"choices": ["y", "z"]}, "", False),
        (
            {"s": "the _ ran", "option1": "x", "option2": "y", "answer": "1"},
            {"s": "The _ ran", "option1": "y", "option2": "x", "answer": "2"},
            "",
            True,
        ),
        ({"q": "a b", "n": 1}, {"q": "a b", "n": 2}, "a b", True),
        ({"q": "a b", "a": "one"}, {"q": "a b", "a": "two"}, "Q: a b", True),
        (
            {"sentence": "the _ ran", "option1": "x"},
            {"sentence": "the _ ran", "option1": "y"},
            "",
            0,
        ),
        ({"id": "1", "text": "x"}, {"id": "1", "other": "x"}, "x", True),
        ({"id": "1", "text": "a b"}, {"id": "1", "other": "x"}, "Q: so A, b?", True),
        ({"id": "1", "text": "a b"}, {"id": "1", "other": "x"}, "Q: a bc", False),
        ({"text": "?!"}, {"text": "!?"}, "!?", False),
    ],
)
def test_what_asks_the_same(item: Row, other: Row, prompt: str, same: bool) -> None:
    assert asks_same(item, other, prompt) == same
