"""What a task reads of its rows, as what; columns beside those do no harm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from ilubench.data.values import Cell, Unusable
from ilubench.errors import DataError
from ilubench.interfaces import Asked, Row
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.task_columns import Reading, column_values, read_columns
from ilubench.scoring.scorers.task_files import Member, Reference

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

OPTIONS: list[JsonValue] = ["Mars", "Jupiter", "Venus", "Earth"]
QUESTION: Row = {"id": "1", "question": "What is largest?", "choices": OPTIONS, "answer": 1}


def reads(row: Row, **config: Any) -> dict[str, Reading]:
    return dict(read_columns(Member("task", Path(), {}, config), [row], "rows"))


def asks(task: str, rows: Sequence[Any]) -> list[Asked]:
    return list(LmEval(task=task, data="rows").asks(rows) or ())


# ------------------------------------------------------------------ which columns, as what


def test_the_columns_of_templates() -> None:
    row: Row = dict.fromkeys(["q", "o1", "o2", "label", "no", "own"], "x")
    found = reads(
        row,
        doc_to_text="{% set own = q|trim %}{{own}}: {{q}}",
        doc_to_choice="{{[o1, o2]}}",
        doc_to_target="label",
        output_type="multiple_choice",
        metric_list=[{"metric": Reference("no.code")}],
    )
    assert found == {
        "q": Reading(shown=True),
        "o1": Reading(shown=True),
        "o2": Reading(shown=True),
        "label": Reading(number=True),
    }


@pytest.mark.parametrize(
    ("template", "reading"),
    [
        ("{{c}}", Reading(shown=True)),
        ("{{c|trim}}", Reading()),
        ("{{c.strip()}}", Reading(shown=True)),
        ("{{c.text}} {{c.title}} {{c.index(n)}}", Reading()),
        ("{{['x', 'y'][c - 1]}}", Reading(number=True)),
        ("{{c[:9]}}", Reading()),
        ("{{c[0]}}", Reading()),
        ("{{c[0]}} {{c[1]}}", Reading(list=True)),
        ("{{c[n]}}", Reading(list=True)),
        ("{{['x', 'y'][c]}}", Reading(number=True)),
        ("{{n[c]}}", Reading(number=True)),
        ("{% for one in c %}{{one}}{% endfor %}", Reading(list=True)),
        ("{{c|join(', ')}}", Reading(list=True)),
        ("{% if c == 1 %}x{% endif %}", Reading(number=True, optional=True)),
        ("{% if c == '1' %}x{% endif %}", Reading(optional=True)),
        ("{{'x' if c else 'y'}}", Reading(number=True, optional=True)),
        ("{% if c is none %}x{% endif %}", Reading(optional=True)),
        ("{{c|default('')}}", Reading(optional=True)),
        ("c", Reading(shown=True)),
    ],
)
def test_how_a_template_reads_a_column(template: str, reading: Reading) -> None:
    assert reads({"c": "x", "n": "x"}, doc_to_text=template, doc_to_target="{{n}}")["c"] == reading


def test_code_may_read_any_column() -> None:
    code = Reference("utils.f")
    assert reads({"a": 1, "b": 2}, doc_to_text="{{a}}", process_docs=code).keys() == {"a", "b"}
    assert reads({"a": 1}, process_docs=code) == {"a": Reading(code=True)}
    below = {"doc_to_text": [code]}
    assert reads({"a": 1, "b": 2}, doc_to_text="{{a}}", fewshot_config=below).keys() == {"a", "b"}


@pytest.mark.parametrize("config", [{"doc_to_text": "{{qestion}}"}, {"doc_to_target": "qestion"}])
def test_a_column_that_is_not_there(config: dict[str, str]) -> None:
    message = "data.rows: there is no column 'qestion', which task reads; did you mean 'question'"
    with pytest.raises(DataError, match=message):
        reads(QUESTION, **config)
    assert reads(QUESTION, doc_to_text="{{qestion|default('')}}") == {"id": Reading()}


# ------------------------------------------------------------------ values


def values(given: Sequence[Any], **reading: bool) -> list[Any]:
    rows: list[Row] = [{"c": value, "id": f"i{n}"} for n, value in enumerate(given)]
    return column_values("c", rows, Reading(**reading), "data.rows")


def test_a_column_is_of_one_kind() -> None:
    assert values(["a", 1, 2.5]) == ["a", "1", "2.5"]
    assert values([1, 2.5]) == ["1", "2.5"]  # as the file has them, not 1.0
    assert values([1, 2.5], number=True) == [1, 2.5]
    assert values([1, 2.5, True], shown=True) == ["1", "2.5", True]
    assert values([1, 2], shown=True, number=True) == [1, 2]
    assert values([1, None], optional=True) == [1, None]
    assert values([1, None, 2.5], code=True) == [1, None, 2.5]
    cells = [Cell("1"), Cell("0")]
    assert values(cells, shown=True) == ["1", "0"]
    assert values(cells, number=True) == [1, 0]
    assert values(cells, code=True) == [1, 0]
    assert values([*cells, Cell("2a")], number=True) == ["1", "0", "2a"]
    assert values([Cell("007")], number=True) == ["007"]
    assert values(["1"], number=True) == ["1"]  # a JSON file says text where it means text
    assert values(["['a' 'b']", ["c"]], list=True) == [["a", "b"], ["c"]]
    assert values([["a", 1]], list=True) == [["a", "1"]]


@pytest.mark.parametrize(
    ("value", "reading", "message"),
    [
        (None, {}, "is null, not text"),
        (None, {"list": True}, "is null, not text"),
        (["a"], {"shown": True}, "is a list, not text"),
        ({"a": 1}, {"shown": True}, "is a mapping, not text"),
        (Unusable("NaN"), {"code": True}, "is NaN, which no task can read; leave it out"),
        ("Mars, Venus", {"list": True}, r'is text, and a list is wanted: \["a", "b"\]'),
        (4, {"list": True}, "is 4, and a list is wanted"),
        (["a", None], {"list": True}, "holds null, and a list of texts is wanted"),
    ],
)
def test_values_that_do_not_fit(value: Any, reading: dict[str, bool], message: str) -> None:
    with pytest.raises(DataError, match=f"^data.rows: item 'i0': column 'c' {message}"):
        values([value], **reading)


# ------------------------------------------------------------------ in lm-eval's tasks


@pytest.mark.parametrize(
    "options",
    [str(OPTIONS), '["Mars", "Jupiter", "Venus", "Earth"]', "['Mars' 'Jupiter'\n 'Venus' 'Earth']"],
)
def test_options_that_are_text_are_asked_as_a_list(options: str) -> None:
    row = {**QUESTION, "choices": Cell(options), "answer": Cell("1")}
    assert asks("wmdp_bio", [row]) == asks("wmdp_bio", [QUESTION])
    (asked,) = asks("mini_mc", [row])
    assert asked == asks("mini_mc", [QUESTION])[0]
    assert asked.answers == (" Jupiter",)


@pytest.mark.parametrize("beside", [Unusable("NaN"), 10**31, [1], {"a": 1}, None])
def test_columns_beside_those_that_are_read_do_no_harm(beside: Any) -> None:
    other = {**QUESTION, "id": "3a", "meta": "text"}
    asked = asks("wmdp_bio", [{**QUESTION, "meta": beside}, other, {**QUESTION, "id": "4"}])
    assert asked == asks("wmdp_bio", [QUESTION]) * 3
    assert len(asked) == 3


def test_numbers_in_a_csv_are_labels_and_text() -> None:
    rows: list[Row] = [
        {"id": "1", "text": Cell("2012"), "label": Cell("0")},
        {"id": "2a", "text": Cell("Stocks fell"), "label": Cell("2")},
    ]
    first, second = asks("agnews", rows)
    assert (first.prompt, first.answers) == ("2012\nTopic:", (" World",))
    assert (second.prompt, second.answers) == ("Stocks fell\nTopic:", (" Business",))


def test_numbers_count_as_text() -> None:
    (asked,) = asks("wmdp_bio", [{**QUESTION, "question": 7, "choices": [1, "b", 2.5, "d"]}])
    assert asked.prompt.endswith("7\nA. 1\nB. b\nC. 2.5\nD. d\nAnswer:")
    options = {"distractor1": 1, "distractor2": 2, "distractor3": 3, "correct_answer": 4}
    (asked,) = asks("sciq", [{"id": "1", "support": "", "question": "?", **options}])
    assert asked.answers == (" 4",)


def test_code_gets_a_table_or_the_column_that_makes_none() -> None:
    row: dict[str, Any] = {
        "id": "1",
        "premise": "It rains.",
        "hypothesis": "It is wet",
        "label": 0,
        "idx": 1,
    }
    (asked,) = asks("mnli", [row])
    csv = {name: Cell(value) for name, value in row.items()}
    assert asks("mnli", [{**csv, "id": "1"}]) == [asked]
    message = (
        "data.rows: column 'idx' is 1 in item '1' and a list in item '2', of another kind; give"
    )
    with pytest.raises(DataError, match=message):
        asks("mnli", [row, {**row, "id": "2", "idx": [2]}])
    with pytest.raises(DataError, match="item '2': column 'idx' has a number of over 18 digits"):
        asks("mnli", [row, {**row, "id": "2", "idx": 10**31}])
