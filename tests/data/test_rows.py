"""Rows from files and generators: selected, fingerprinted, rendered."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ilubench.data.rows import Tables, render_template
from ilubench.data.values import Cell, Unusable
from ilubench.errors import DataError, SpecError
from ilubench.interfaces import Generator, Row
from ilubench.specs import DataSource, GeneratorSpec

ROWS: list[Row] = [
    {"q": "one", "n": 1, "label": 0},
    {"q": "two", "n": 2, "label": 1},
    {"q": "drei ü", "n": 3, "label": 0},
]


class Doubling(Generator):
    def tables(self, inputs: Mapping[str, Sequence[Row]]) -> Mapping[str, Sequence[Row]]:
        given = inputs.get("seed", [{"q": "made"}])
        return {"twice": [*given, *given][:3]}


def tables(sources: dict[str, DataSource], **generators: GeneratorSpec) -> Tables:
    return Tables(sources, generators, lambda _spec: Doubling())


def one(path: Path, **fields: Any) -> Tables:
    return tables({"role": DataSource.model_validate({"path": str(path), **fields})})


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)) + "\n\n", encoding="utf-8")
    return path


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.role: no such file .*; check the path"):
        one(tmp_path / "none.jsonl").rows("role")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_no_rows_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text({"a.jsonl": "\n", "a.json": "[]", "a.csv": "a,b\n"}[name])
    with pytest.raises(
        DataError, match=rf"data\.role: .*{name} has no rows; an empty set measures"
    ):
        one(path).rows("role")


def texts(found: Sequence[Row]) -> list[object]:
    return [row["q"] for row in found]


def test_where_offset_limit_and_shuffle(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"q": n, "odd": n % 2}) + "\n" for n in range(20)))
    assert texts(one(path, where={"odd": 1}).rows("role")) == list(range(1, 20, 2))
    assert texts(one(path, offset=18).rows("role")) == [18, 19]
    assert texts(one(path, offset=3, limit=2).rows("role")) == [3, 4]
    assert texts(one(path, where={"odd": 0}, offset=1, limit=2).rows("role")) == [2, 4]
    shuffled = texts(one(path, shuffle=1).rows("role"))
    assert shuffled != list(range(20))
    assert sorted(shuffled, key=str) == sorted(range(20), key=str)
    assert texts(one(path, shuffle=1, offset=5, limit=3).rows("role")) == shuffled[5:8]
    assert texts(one(path, shuffle=2).rows("role")) != shuffled


def test_a_selection_that_leaves_nothing(jsonl: Path) -> None:
    with pytest.raises(DataError, match=r"no rows are left of 3 \(where=\{'n': 9\}, offset=0\)"):
        one(jsonl, where={"n": 9}).rows("role")


def test_a_row_is_named_by_its_id_else_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    ids = [7, "2a", None, "", 1.5]
    path.write_text("".join(json.dumps({"q": n, "id": one}) + "\n" for n, one in enumerate(ids)))
    assert [row["id"] for row in one(path).rows("role")] == ["7", "2a", "3", "4", "1.5"]
    path.write_text("".join(json.dumps({"q": n}) + "\n" for n in range(5)))
    assert [row["id"] for row in one(path, offset=3).rows("role")] == ["4", "5"]
    assert {row["id"]: row["q"] for row in one(path, shuffle=1).rows("role")}["2"] == 1
    inputs = {"seed": DataSource(path=str(path), offset=2)}
    made = {"made": DataSource(generated="gen.twice")}
    rows = tables(made, gen=GeneratorSpec(use="x", inputs=inputs)).rows("made")
    assert rows[0]["id"] == "3"


def test_columns_that_nothing_reads_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        '{"q": "a", "m": [1], "s": NaN, "h": "\\ud83d"}',
        '{"q": "b", "m": {"a": 1e999}, "x": 1}',
    ]
    path.write_text("\n".join(lines))
    found = one(path, completion="{q}")
    assert texts(found.rows("role")) == ["a", "b"]
    whole = found.fingerprint("role")
    path.write_text("\n".join(lines).replace("[1]", "[2]"))
    assert one(path, completion="{q}").fingerprint("role") != whole


@pytest.mark.parametrize("wanted", [True, "true", "True", 1])
def test_rows_are_selected_by_truth(tmp_path: Path, wanted: str | int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"q": "a", "ok": true}\n{"q": "b", "ok": false}\n{"q": "c", "ok": "true"}\n')
    kept = texts(one(path, where={"ok": wanted}).rows("role"))
    assert kept in (["a"], ["a", "c"])


def test_a_csv_is_selected_by_numbers_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id,q,label\n007,a,1\n2a,b,0\n3,c,1\n")
    assert texts(one(path, where={"label": 1}).rows("role")) == ["a", "c"]
    assert texts(one(path, where={"id": "007", "label": "1"}).rows("role")) == ["a"]
    with pytest.raises(DataError, match=r"where: there is no column 'lable'; did you mean 'label'"):
        one(path, where={"lable": 1}).rows("role")


def test_a_role_is_read_once(jsonl: Path) -> None:
    found = one(jsonl)
    assert not found.is_loaded("role")
    rows = found.rows("role")
    jsonl.unlink()
    assert found.is_loaded("role")
    assert found.rows("role") is rows


def test_an_unknown_role_gets_a_did_you_mean(jsonl: Path) -> None:
    with pytest.raises(SpecError, match=r"unknown data role 'rol'; did you mean 'role'\?"):
        one(jsonl).rows("rol")


def test_the_fingerprint_is_of_content_and_rendering(jsonl: Path, tmp_path: Path) -> None:
    path, copy = jsonl, tmp_path / "copy.json"
    copy.write_text(json.dumps(ROWS))
    plain = one(path).fingerprint("role")
    assert one(copy).fingerprint("role") == plain
    assert one(path, limit=2).fingerprint("role") != plain
    assert one(path, shuffle=3).fingerprint("role") != plain
    assert one(path, prompt="{q}").fingerprint("role") != plain
    assert one(path, license="MIT").fingerprint("role") == plain
    changed = [*ROWS[:2], {**ROWS[2], "n": 4}]
    path.write_text("\n".join(map(json.dumps, changed)))
    assert one(path).fingerprint("role") != plain


# ------------------------------------------------------------------------------- rendering


def source(**fields: Any) -> DataSource:
    return DataSource.model_validate({"path": "x", **fields})


def test_templates_are_filled_from_columns() -> None:
    row: Row = {"q": "why?", "n": 3, "self": "me", "a b": "c"}
    found = render_template("Q: {q} ({n}) {self} {a b} {{x}}", row, source(), "role")
    assert found == "Q: why? (3) me c {x}"


def test_values_with_braces_are_not_templates() -> None:
    assert render_template("{q}", {"q": "{n} {"}, source(), "role") == "{n} {"


@pytest.mark.parametrize("value", [1984, "1984", Cell("1984"), 10**31, 1.5, "", "None", "null"])
def test_text_and_numbers_are_printed_as_the_file_has_them(value: Any) -> None:
    assert render_template("{q}.", {"q": value}, source(), "role") == f"{value}."


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "null"),
        ([], "empty"),
        (["a", "b"], "a list"),
        ({"a": "b"}, "a mapping"),
        (True, "True"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (Unusable("a timestamp[ms]"), r"a timestamp\[ms\]"),
    ],
)
def test_what_is_no_text_goes_into_no_template(value: Any, shown: str) -> None:
    row = {"id": "7", "q": value, "r": "text"}
    assert render_template("{r}", row, source(), "role") == "text"
    message = rf"^data\.role: x: item '7': column 'q' is {shown}, not text; give text"
    with pytest.raises(DataError, match=message):
        render_template("{r} {q}", row, source(), "role")


def test_an_element_of_a_list_is_never_a_letter_of_a_text() -> None:
    options: Any
    for options in (["a", "b"], '["a", "b"]', Cell("['a', 'b']"), Cell("['a' 'b']")):
        assert render_template("{o[1]}", {"o": options}, source(), "role") == "b"
    for options in ("ab", Cell("[a, b]"), ""):
        with pytest.raises(DataError, match="column 'o' is text, and a list is wanted"):
            render_template("{o[1]}", {"o": options}, source(), "role")
    with pytest.raises(DataError, match=r"column 'o\[1\]' is null"):
        render_template("{o[1]}", {"o": ["a", None]}, source(), "role")


def test_what_an_item_lacks_is_named_with_the_item() -> None:
    row: Row = {"id": "7", "o": ["a"], "m": {"k": "v"}}
    assert render_template("{o[0]}{m[k]}", row, source(), "role") == "av"
    with pytest.raises(DataError, match=r"item '7': column 'o' \(a list\) has no 'o\[1\]'"):
        render_template("{o[1]}", row, source(), "role")
    with pytest.raises(DataError, match=r"item '7': column 'm' \(a mapping\) has no 'm\[x\]'"):
        render_template("{m[x]}", row, source(), "role")
    with pytest.raises(DataError, match=r"^data\.role: there is no column 'p' in item '7'; choose"):
        render_template("{p}", row, source(), "role")


def test_a_missing_column_gets_a_did_you_mean() -> None:
    with pytest.raises(DataError, match=r"there is no column 'questin'; did you mean 'question'\?"):
        render_template("{questin}", {"question": "x"}, source(), "role")


@pytest.mark.parametrize("template", ["{", "}", "{}", "{0}", "{q.real}", "{q!z}", "{q:d}"])
def test_a_broken_template_says_how_to_write_one(template: str) -> None:
    with pytest.raises(SpecError, match=r"data\.role: .*write \{column\}"):
        render_template(template, {"q": "x"}, source(), "role")


def test_labels_are_rendered_by_name() -> None:
    named = source(labels={"label": ["World", "Sports"]})
    assert render_template("{label}", {"label": 1}, named, "role") == "Sports"


@pytest.mark.parametrize("value", [1, "1", Cell("1")])
def test_labels_may_be_numbers_in_text(value: Any) -> None:
    named = source(labels={"label": ["World", "Sports"]})
    assert render_template("{label}", {"label": value}, named, "role") == "Sports"
    # a label that the template does not ask for is left alone
    assert render_template("{q}", {"q": "x", "label": "?"}, named, "role") == "x"


@pytest.mark.parametrize("value", [2, -1, "World", None, True, "1.0", "01"])
def test_what_is_no_label(value: Any) -> None:
    named = source(labels={"label": ["World", "Sports"]})
    with pytest.raises(DataError, match=r"is not a label of 0\.\.1"):
        render_template("{label}", {"label": value}, named, "role")


# ------------------------------------------------------------------------------- generators


def test_a_generators_table(jsonl: Path) -> None:
    sources = {"made": DataSource(generated="gen.twice", limit=2)}
    assert texts(tables(sources, gen=GeneratorSpec(use="x")).rows("made")) == ["made", "made"]
    inputs = {"seed": DataSource(path=str(jsonl), limit=1)}
    fed = tables(sources, gen=GeneratorSpec(use="x", inputs=inputs))
    assert texts(fed.rows("made")) == ["one", "one"]


def test_what_is_made_from_gated_text_is_gated(jsonl: Path) -> None:
    given = {"plain": source(path=str(jsonl)), "shut": source(path=str(jsonl), gated=True)}
    made = DataSource(generated="gen.twice")
    for name, gated in (("plain", False), ("shut", True)):
        inputs = {"seed": given[name]}
        found = tables({**given, "made": made}, gen=GeneratorSpec(use="x", inputs=inputs))
        assert (found.gated(name), found.gated("made")) == (gated, gated)
    assert not tables({"made": made}, gen=GeneratorSpec(use="x")).gated("made")


def test_an_unknown_table_gets_a_did_you_mean() -> None:
    found = tables({"made": DataSource(generated="gen.twise")}, gen=GeneratorSpec(use="x"))
    with pytest.raises(DataError, match=r"makes no table 'twise'; did you mean 'twice'\?"):
        found.rows("made")


def test_a_label_of_a_gated_source_is_not_shown() -> None:
    named = source(labels={"label": ["World", "Sports"]}, gated=True)
    with pytest.raises(DataError, match=r"label=text is not a label of 0\.\.1"):
        render_template("{label}", {"label": "secret text"}, named, "role")
