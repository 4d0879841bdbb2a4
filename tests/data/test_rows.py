"""Rows from files and generators: selected, fingerprinted, rendered."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from ilubench.data.files import read_file
from ilubench.data.rows import Tables, render_template
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


def write(folder: Path, ending: str) -> Path:
    path = folder / f"rows{ending}"
    if ending == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")
    elif ending == ".json":
        path.write_text(json.dumps(ROWS), encoding="utf-8")
    elif ending == ".csv":
        lines = [f"{row['q']},{row['n']},{row['label']}" for row in ROWS]
        path.write_text("q,n,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(r) for r in ROWS]), path)
    return path


@pytest.fixture
def jsonl(tmp_path: Path) -> Path:
    return write(tmp_path, ".jsonl")


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_same_rows(tmp_path: Path, ending: str) -> None:
    assert read_file(write(tmp_path, ending), "role") == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"data\.role: .*a\.jsonl cannot be read: line 2"),
        ("a.jsonl", b"[1]\n", "must hold one object"),
        ("a.jsonl", b'{"a": "\xff"}\n', "cannot be read: .*utf-8"),
        ("a.json", b'{"a": 1}', r"a \.json file must hold a list of rows"),
        ("a.json", b"[1", "cannot be read"),
        ("a.parquet", b"no parquet", "cannot be read"),
        ("a.csv", b"a,b\n1\n", "cannot be read: line 2: not as many columns as the header"),
        ("a.csv", b"a,b\n1,2,3\n", "cannot be read: line 2: not as many columns as the header"),
        ("a.txt", b"a", "unknown ending '.txt'; use .jsonl, .json, .csv or .parquet"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_file(path, "role")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.role: no such file .*; check the path"):
        one(tmp_path / "none.jsonl").rows("role")


def test_whole_numbers_of_a_csv_are_numbers_and_codes_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b,c,d\n7,010,1.5,\n")
    assert read_file(path, "role") == [{"a": 7, "b": "010", "c": "1.5", "d": ""}]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_no_rows_is_an_error(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text({"a.jsonl": "\n", "a.json": "[]", "a.csv": "a,b\n"}[name])
    with pytest.raises(DataError, match=r"data\.role: no rows are left of 0 .*measures nothing"):
        one(path).rows("role")


def test_numbers_that_are_not_finite_are_a_data_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "x", "text": "a", "score": NaN}\n')
    with pytest.raises(DataError, match=r"data\.role"):
        one(path).fingerprint("role")


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


def test_rows_get_stable_ids_from_their_content(jsonl: Path) -> None:
    first, again = one(jsonl).rows("role"), one(jsonl, offset=1).rows("role")
    assert len({row["id"] for row in first}) == 3
    assert first[1] == again[0]


def test_ids_that_are_given_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "x", "text": "a"}\n')
    assert one(path).rows("role") == [{"id": "x", "text": "a"}]


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


def test_the_fingerprint_is_of_content_and_rendering(tmp_path: Path) -> None:
    path, copy = write(tmp_path, ".jsonl"), tmp_path / "copy.json"
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


@pytest.mark.parametrize("value", [2, -1, "World", None])
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
    with pytest.raises(DataError, match=r"label=a str is not a label of 0\.\.1"):
        render_template("{label}", {"label": "secret text"}, named, "role")
