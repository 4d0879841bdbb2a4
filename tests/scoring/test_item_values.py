"""Values that a task's templates would print or read wrongly: refused, item and column named."""

from pathlib import Path
from typing import Any

import pytest
from doubles import make_tokenizer

from ilubench.errors import DataError
from ilubench.interfaces import Row, ScoreContext
from ilubench.scoring.scorers.lm_eval import LmEval

TOKENIZER = make_tokenizer()
LETTERS = "test_split: test\noutput_type: multiple_choice\nmetric_list: [{metric: acc}]\n"
TASKS = {
    "arc": "doc_to_text: 'Question: {{question}}'\ndoc_to_choice: '{{choices.text}}'\n"
    "doc_to_target: '{{choices.label.index(answer)}}'\n",
    "looped": "doc_to_text: '{{question}}{% for one in choices %} {{one}}{% endfor %}'\n"
    "doc_to_choice: [A, B]\ndoc_to_target: answer\n",
    "column": "doc_to_text: question\ndoc_to_choice: choices\ndoc_to_target: answer\n",
    "pair": "doc_to_text: question\ndoc_to_choice: \"{{['so ' + first, 'so ' ~ second]}}\"\n"
    "doc_to_target: answer\n",
    "coded": "doc_to_text: !function words.ask\ndoc_to_choice: [A, B]\ndoc_to_target: answer\n",
    "optional": "doc_to_text: '{% if hint %}{{hint}} {% endif %}{{question}}'\n"
    "doc_to_choice: [A, B]\ndoc_to_target: answer\n",
}
CODE = (
    "def ask(doc):\n    first = doc['question'][0].upper() + doc['question'][1:]\n"
    "    return first + ''.join(f' {n}. {c}' for n, c in enumerate(doc['choices'], 1))\n"
)
FOUR: Row = {"question": "What is largest?", "choices": ["Mars", "Venus", "Io", "Sun"], "answer": 3}
TWO: Row = {"question": "which?", "choices": ["Mars", "Venus"], "answer": 1}


def build(task: str, rows: list[Row], folder: Path, **settings: Any) -> Any:
    if task in TASKS:
        (folder / "words.py").write_text(CODE)
        (folder / f"{task}.yaml").write_text(f"task: {task}\n{LETTERS}{TASKS[task]}")
        task = str(folder / f"{task}.yaml")
    context = ScoreContext(rows=lambda _: rows, publish_text=lambda _: False)
    return LmEval(task=task, data="rows", **settings).build(TOKENIZER, context)


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        # text where the task has a list
        (
            "wmdp_bio",
            [{**FOUR, "choices": "Mars, Venus"}],
            "row 1: column 'choices' is text",
        ),
        ("looped", [{**TWO, "choices": "ab"}], "column 'choices' is text"),
        ("column", [{**TWO, "choices": "ab"}], "column 'choices' is text, and a list"),
        (
            "coded",
            [{**TWO, "choices": "ab"}],
            "column 'choices' is text, and the task reads single",
        ),
        # what is no text in the list
        (
            "wmdp_bio",
            [FOUR, {**FOUR, "choices": ["a", None, "c", "d"]}],
            "row 2: column 'choices' holds null",
        ),
        ("wmdp_bio", [{**FOUR, "choices": [1, 2, 3, 4]}], "option 1 of column 'choices' is 1, not"),
        ("wmdp_bio", [{**FOUR, "choices": list("abcde")}], "has 5 options, and .* asks about 4"),
        ("mini_mc", [{**FOUR, "choices": [3, 4, 5, 6]}], "option 1 of its doc_to_choice is 3, not"),
        ("mini_mc", [{**FOUR, "choices": ["a", None, "c", "d"]}], "column 'choices' holds null"),
        ("column", [{**TWO, "choices": [["a"], ["b"]]}], "option 1 .* is a list, not text"),
        # options that cannot be told apart, or missed
        ("mini_mc", [{**FOUR, "choices": ["a", " ", "c", "d"]}], "option 2 is blank"),
        ("mini_mc", [{**FOUR, "choices": ["a", "d", "c", "d"]}], "options 2 and 4 are the same"),
        ("column", [{**TWO, "choices": ["a"], "answer": 0}], "one option: every model chooses it"),
        # nulls and lists that are printed
        ("agnews", [{"text": "x", "label": 0}, {"text": None, "label": 1}], "row 2: column 'text'"),
        ("agnews", [{"text": ["a", "b"], "label": 0}], "column 'text' is a list, not text"),
        (
            "mnli",
            [{"premise": None, "hypothesis": "x", "label": 0}],
            "column 'premise' is or holds",
        ),
        ("pair", [{**TWO, "first": "a", "second": None}], "column 'second' is null, not text"),
        ("mini_gsm8k", [{"question": "1?", "answer": None}], "column 'answer' is null, not text"),
        # answers of which nothing is compared
        ("mini_gsm8k", [{"question": "1?", "answer": "  "}], "the answer is blank"),
        ("mini_gsm8k", [{"question": "1?", "answer": "7 #### "}], "exact_match compares nothing"),
    ],
)
def test_values_that_are_refused(task: str, rows: list[Row], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message) as caught:
        build(task, rows, tmp_path)
    assert str(caught.value).startswith((f"{task}: row ", "data.rows: row "))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("task", "row"),
    [
        ("wmdp_bio", FOUR),
        ("wmdp_bio", {**FOUR, "choices": ["a", "b", "b", "None"]}),  # the letter still tells
        ("wmdp_bio", {**FOUR, "question": 12, "unread": None} | {"question": "None of these?"}),
        ("mini_mc", {**FOUR, "choices": str(FOUR["choices"])}),  # the template reads the list
        ("mini_mc", {**FOUR, "choices": ["a", "a", "c", "d"]}),  # two wrong ones
        (
            "arc",
            {"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answer": "B"},
        ),
        ("looped", TWO),
        ("coded", TWO),
        ("optional", {**TWO, "hint": None}),
        ("agnews", {"text": 12, "label": 0}),
    ],
)
def test_values_that_are_right(task: str, row: Row, tmp_path: Path) -> None:
    build(task, [row], tmp_path)


def test_examples_that_are_shown_are_looked_at(tmp_path: Path) -> None:
    roles: dict[str, list[Row]] = {"rows": [FOUR], "shots": [{**FOUR, "choices": "abcd"}]}
    context = ScoreContext(rows=roles.__getitem__, publish_text=lambda _: False)
    scorer = LmEval(task="wmdp_bio", data="rows", fewshot="shots", num_fewshot=1)
    with pytest.raises(DataError, match="shots: row 1: column 'choices' is text"):
        scorer.build(TOKENIZER, context)
