"""YAML -> spec: numbers, duplicate keys, and errors that name file, line and field."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from ilubench.errors import SpecError
from ilubench.specs import AttackSpec, SuiteSpec, TrainSpec, yaml_text
from ilubench.specs.merging import merge_mappings
from ilubench.specs.suite_files import load_suite
from ilubench.specs.yaml_files import (
    load_yaml,
    task_file,
    task_names,
    validate_spec,
)
from ilubench.specs.yaml_text import parse_yaml, write_yaml


def write(folder: Path, text: str, name: str = "a.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5e1", 5.0),
        ("1.e2", 100.0),
        ("3", 3),
        ("0.5", 0.5),
        ("'1e-5'", "1e-5"),
        ("e5", "e5"),
        ("1e5a", "1e5a"),
        ("0x1F", 31),
        ("0123", "0123"),
        ("1:30", "1:30"),
        ("2024-01-02", "2024-01-02"),
        (".inf", ".inf"),
    ],
)
def test_numbers(tmp_path: Path, text: str, value: object) -> None:
    found = load_yaml(write(tmp_path, f"x: {text}\n"))["x"]
    assert found == value
    assert type(found) is type(value)


def test_a_key_given_twice_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, "train:\n  lr: 1\n  steps: 2\n  lr: 3\n")
    with pytest.raises(SpecError, match=r"a\.yaml:4: not valid YAML: the key 'lr' is given twice"):
        load_yaml(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\nb: 3\n", r"a\.yaml:2: not valid YAML"),
        ("a: 1\n\tb: 2\n", r"a\.yaml:2: not valid YAML"),
        ("- a\n- b\n", "the top level must be a mapping"),
        ("", "the top level must be a mapping"),
        ("a: {{b}}\n", r"a\.yaml:1: not valid YAML: a key must be plain text"),
        ("a: !!python/object:os.system x\n", r"a\.yaml:1: not valid YAML"),
        ("a: !!timestamp 2001-99-99\n", r"a\.yaml:1: not valid YAML: the tag 'timestamp'"),
        ("a: !!int ''\n", r"a\.yaml:1: not valid YAML: '.*' is no number of at most 64 bits"),
        ("a: !!bool maybe\n", r"a\.yaml:1: not valid YAML: the tag 'bool'"),
        (f"a: {'9' * 5000}\n", r"a\.yaml:1: not valid YAML: '.*' is no number of at most 64 bits"),
        ("a: 1e400\n", r"a\.yaml:1: not valid YAML: '.*' is no number of at most 64 bits"),
        (f"a: {2**63}\n", r"a\.yaml:1: not valid YAML: '.*' is no number of at most 64 bits"),
        (
            "a: 1\n\0\n",
            r"a\.yaml, character 6: not valid YAML: the character U\+0000; leave it out",
        ),
        ("a: " + "[" * 70 + "]" * 70, r"a\.yaml:1: not valid YAML: nested deeper than 64"),
        ("a: &a [*a]\n", r"a\.yaml:1: not valid YAML: an alias names what it stands in"),
        ("a: [" + "1, " * 1_100 + "]\n", r"a\.yaml:1: not valid YAML: more than 1000 values"),
        (f"a: &a [{'1, ' * 100}]\nb: [{'*a, ' * 11}]", "than 1000 values, with those that aliases"),
        ("a: " + "b" * 500_000, r"a\.yaml has 500003 bytes; 500000 are allowed"),
        ("a: " + "[" * 3000 + "]" * 3000, r"a\.yaml: its values are nested too deeply"),
    ],
)
def test_what_is_not_a_mapping_of_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setattr(yaml_text, "MAX_NODES", 1000)
    with pytest.raises(SpecError, match=message):
        load_yaml(write(tmp_path, text))


def test_the_settings_of_many_attacks_are_no_flood(tmp_path: Path) -> None:
    attacks = {
        f"a{n}": {"settings": {f"field{k}": "word " * 8 for k in range(60)}} for n in range(80)
    }
    text = write_yaml({"attacks": attacks})
    assert len(text) > 200_000
    assert load_yaml(write(tmp_path, text)) == {"attacks": attacks}


def test_aliases_that_multiply_are_refused_at_once(tmp_path: Path) -> None:
    rows = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    path = write(tmp_path, "\n".join(rows))
    with pytest.raises(SpecError, match=r"more than 60000 values, with those that aliases repeat"):
        load_yaml(path)
    merged = ["a0: &a0 {x: 1}"]
    merged += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}], y{n}: *a{n - 1}}}" for n in range(1, 40)]
    with pytest.raises(SpecError, match=r"more than 60000 values, with those that aliases repeat"):
        load_yaml(write(tmp_path, "\n".join(merged)))


def test_reading_ends_where_there_are_too_many_values(tmp_path: Path) -> None:
    """What comes behind them is not looked at: a megabyte of small values would take long."""
    path = write(tmp_path, "a: [" + "1, " * 70_000)
    with pytest.raises(SpecError, match="more than 60000 values"):
        load_yaml(path)


def test_a_long_row_of_digits_is_soon_read() -> None:
    """Its time grows with its length: with the square of it, this took minutes."""
    began = time.process_time()
    text = "0" * 40_000 + "x"
    assert parse_yaml(text) == text
    assert time.process_time() - began < 2


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (Path("/dev/zero"), tmp_path / "pipe.yaml"):
        with pytest.raises(SpecError, match="is no regular file"):
            load_yaml(path)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**62), 2**62)
        | st.text()
        | st.floats(-9, 1e300)
        | st.sampled_from(["1e5", "0123", "1:30", "2024-01-02", "1_0", "~", "=", "0o7", ".5e1"]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_what_is_written_is_read_as_the_same(value: object) -> None:
    assert parse_yaml(write_yaml(value)) == value


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: there is no such file"):
        load_yaml(tmp_path / "none.yaml")
    path = tmp_path / "latin.yaml"
    path.write_bytes("a: ü\n".encode("latin-1"))
    with pytest.raises(SpecError, match=r"latin\.yaml: no UTF-8 text, at byte 3"):
        load_yaml(path)


ATTACK = """\
title: An attack
settings:
  train: {lr: 1e-4, steps: 3}
data:
  train:
    path: rows.jsonl
    limit: 0
"""


def test_an_error_names_the_nested_line_and_what_was_given(tmp_path: Path) -> None:
    path = write(tmp_path, ATTACK)
    with pytest.raises(SpecError) as caught:
        validate_spec(AttackSpec, load_yaml(path), source=path)
    assert caught.value.where == f"{path}:7"
    assert caught.value.field == "data.train.limit"
    assert "must be at least 1; given: 0" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ATTACK.replace("limit: 0", "limits: 3"), r"a\.yaml:7: data\.train\.limits: .*'limit'"),
        ("titel: x\n", r"a\.yaml:1: titel: unknown field; did you mean 'title'"),
    ],
)
def test_an_unknown_field_gets_a_did_you_mean(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SpecError, match=message):
        validate_spec(AttackSpec, load_yaml(path), source=path)


def test_an_error_inside_a_list_names_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "name: s\nversion: 1\ntitle: t\nutility:\n  - {label: U, scorer: x, metric: y}\n"
        "  - label: V\n    scorer: x\n    metrics: y\n",
    )
    with pytest.raises(SpecError) as caught:
        validate_spec(SuiteSpec, {"utility": load_yaml(path)["utility"]}, source=path)
    assert caught.value.remedy == "add it"  # the first problem: a field that is missing
    with pytest.raises(ValidationError, match=r"utility\.1\.metric"):
        SuiteSpec.model_validate(load_yaml(path))


def test_a_missing_field_names_the_mapping_that_lacks_it(tmp_path: Path) -> None:
    path = write(tmp_path, "title: x\nfa:\n  label: FA\n  scorer: answer_nll\n")
    with pytest.raises(SpecError, match=r"a\.yaml:2: fa\.metric: is missing; add it"):
        validate_spec(AttackSpec, load_yaml(path), source=path)


def test_a_label_stands_in_for_a_file() -> None:
    with pytest.raises(SpecError, match=r"^the command line: lr: .*; given: 'fast'$"):
        validate_spec(TrainSpec, {"lr": "fast", "steps": 1}, source="the command line")


def test_merge_goes_into_mappings_and_replaces_the_rest() -> None:
    base: dict[str, JsonValue] = {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": 1}}
    over: dict[str, JsonValue] = {"a": {"y": [3]}, "b": {"new": 1}, "c": None}
    assert merge_mappings(base, over) == {"a": {"x": 1, "y": [3]}, "b": {"new": 1}, "c": None}
    assert base == {"a": {"x": 1, "y": [1, 2]}, "b": 1, "c": {"z": 1}}


def test_extends_takes_the_parent_and_puts_its_own_on_top(tmp_path: Path) -> None:
    parent = write(tmp_path, "title: P\nseeds: [1]\ntarget: {model: {path: a}}\n", "p.yaml")
    middle = write(tmp_path, f"extends: {parent}\nseeds: [2]\n", "m.yaml")
    attack = write(tmp_path, "title: A\nsettings: {train: {lr: 1, steps: 2}}\n", "attack.yaml")
    child = write(
        tmp_path,
        f"extends: {middle}\ntitle: C\nattacks:\n  a:\n    extends: {attack}\n"
        "    settings: {train: {lr: 3}}\n",
        "c.yaml",
    )
    values, path = load_suite(str(child))
    assert path == child
    assert values == {
        "title": "C",
        "seeds": [2],
        "target": {"model": {"path": str(tmp_path / "a")}},
        "attacks": {"a": {"title": "A", "settings": {"train": {"lr": 3, "steps": 2}}}},
    }


def test_a_suite_that_extends_itself_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, f"extends: {tmp_path}/loop.yaml\n", "loop.yaml")
    with pytest.raises(SpecError, match="extends itself"):
        load_suite(str(path))


def test_unknown_tasks_get_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown suite 'minni'"):
        task_file("suites", "minni")
    with pytest.raises(SpecError, match=r"nowhere\.yaml: no such file; check the path"):
        task_file("suites", "nowhere.yaml")


def test_task_names_are_files() -> None:
    for kind in ("suites", "attacks"):
        for name in task_names(kind):
            assert task_file(kind, name).is_file()
