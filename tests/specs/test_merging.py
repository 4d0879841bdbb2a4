"""What replaces what: a suite's YAML over another's, `<<`, words; paths beside the file."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from places import FIXTURES
from runs import command

from ilubench.errors import SpecError
from ilubench.experiments.suites import read_suite
from ilubench.specs.merging import merge_mappings
from ilubench.specs.overrides import from_file, parse_words
from ilubench.specs.suite_files import load_suite, suite_files
from ilubench.specs.yaml_files import load_yaml

HUB = {"hub": "o/n", "revision": "a" * 40, "subset": "s", "limit": 3}
MODEL = {"hub": "o/n", "revision": "main", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        (HUB, {"path": "a.csv"}, {"path": "a.csv", "limit": 3}),
        (MODEL, {"path": "f"}, {"path": "f"}),
        (MODEL, {"packaged": "f", "sha256": "1" * 64}, {"packaged": "f", "sha256": "1" * 64}),
        (HUB, {"hub": "p/n"}, {"hub": "p/n", "subset": "s", "limit": 3}),  # a commit of another
        (HUB, {"hub": "o/n"}, HUB),
        (HUB, {"limit": 4}, {**HUB, "limit": 4}),
        ({"path": "a", "limit": 3}, {"generated": "m.t"}, {"generated": "m.t", "limit": 3}),
        ({"lr": 1.0, "steps": 6}, {"epochs": 2}, {"lr": 1.0, "epochs": 2}),
        ({"epochs": 2}, {"steps": 6}, {"steps": 6}),
        ({"epochs": 2}, {"steps": None}, {"epochs": 2, "steps": None}),
        ({"train": {"steps": 6}}, {"train": {"epochs": 1}}, {"train": {"epochs": 1}}),
        # names of roles, no fields
        (
            {"hub": {"path": "a"}},
            {"path": {"path": "b"}},
            {"hub": {"path": "a"}, "path": {"path": "b"}},
        ),
    ],
)
def test_what_a_mapping_replaces_in_another(
    base: dict[str, Any], over: dict[str, Any], merged: dict[str, Any]
) -> None:
    assert merge_mappings(base, over) == merged


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "a: &a {hub: o/n, revision: r, limit: 3}\nb: {<<: *a, path: f}",
            {"path": "f", "limit": 3},
        ),
        ("a: &a {steps: 3, lr: 1}\nb:\n  epochs: 2\n  <<: *a", {"lr": 1, "epochs": 2}),
        ("a: &a {x: 1}\nc: &c {x: 2, y: 3}\nb: {<<: [*a, *c], z: 4}", {"x": 1, "y": 3, "z": 4}),
        ("a: &a {x: {y: 1}}\nb: {<<: *a, x: {z: 2}}", {"x": {"z": 2}}),  # YAML's merge is shallow
        ("a: &a {x: 1}\nc: &c {<<: *a, y: 2}\nb: {<<: *c, x: 3}", {"x": 3, "y": 2}),
        ("a: &a {x: 1, y: 1}\nb: {<<: *a, x: null}", {"x": None, "y": 1}),
        ("b: &b {x: &a {y: 1, hub: h}, z: {<<: *a, path: p}}", None),
    ],
)
def test_merges(tmp_path: Path, text: str, found: dict[str, Any] | None) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    expected = found or {"x": {"y": 1, "hub": "h"}, "z": {"y": 1, "path": "p"}}
    assert load_yaml(path)["b"] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 3\nb: {<<: 4}", "a.yaml:2: not valid YAML: `<<` needs a mapping"),
        ("a: &a {x: 1}\nb: {<<: [*a, 3]}", "a.yaml:2: not valid YAML: `<<` needs a mapping"),
        ("a: &a\n  x: 1\n  <<: *a", "not valid YAML: an alias names what it stands in"),
        ("a: &a {x: 1}\nb: {<<: *a,\n  <<: *a}", "a.yaml:3: not valid YAML: `<<` is given twice"),
        ("a: &a {x: 1}\nb: {<<: *a, y: 1,\n  y: 2}", "a.yaml:3: not valid YAML: the key 'y'"),
        ("b: {<<: *a}", "found undefined alias"),
    ],
)
def test_merges_of_nothing(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_yaml(path)
    assert words in str(caught.value)


def test_merges_in_a_file_of_words(tmp_path: Path) -> None:
    path = tmp_path / "words.yaml"
    path.write_text("method: npo\nattack:\n  a: &t {steps: 3, lr: 0.1}\n  b: {<<: *t, epochs: 2}\n")
    found = {word.key: word.text for word in from_file(path)}
    assert found["attack.b.epochs"] == "2"
    assert found["attack.b.lr"] == "0.1"
    assert "attack.b.steps" not in found


def suite(folder: Path, file: str = "own.yaml", /, **changes: Any) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(changes))
    return path


def test_a_suite_over_another(tmp_path: Path) -> None:
    path = suite(
        tmp_path,
        extends=str(FIXTURES / "tiny.yaml"),
        data={"retain_mc": {"path": "rows.jsonl"}},
        attacks={"gsm8k": {"settings": {"train": {"epochs": 1}}}},
        methods={"npo": {"train": {"epochs": 2}}},
    )
    found, _ = read_suite(str(path))
    assert found.data["retain_mc"].path == str(tmp_path / "rows.jsonl")
    assert found.data["retain_mc"].generated is None
    assert found.attacks["gsm8k"].settings["train"] == {"lr": 1.0e-3, "epochs": 1, "batch_size": 4}


def test_null_takes_an_attacks_rows_away_and_nothing_more(tmp_path: Path) -> None:
    lost = {"gsm8k": {"data": {"eval": None}}}
    found, _ = read_suite(str(suite(tmp_path, extends=str(FIXTURES / "tiny.yaml"), attacks=lost)))
    assert list(found.attacks["gsm8k"].data) == ["train"]
    told = command("plan", f"suite={tmp_path / 'own.yaml'}", "method=none", f"out={tmp_path}")
    assert "attack gsm8k: unknown data role 'eval'" in told.err


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (["retain_mc=b.jsonl"], {"path": "b.jsonl", "limit": 12}),
        (["retain_mc.path=b.jsonl"], {"path": "b.jsonl", "limit": 12}),
        (["retain_mc.hub=o/n", "retain_mc.subset=s"], {"hub": "o/n", "subset": "s", "limit": 12}),
    ],
)
def test_words_replace_alike(words: list[str], kept: dict[str, Any]) -> None:
    found, _ = read_suite(str(FIXTURES / "tiny.yaml"), (), parse_words(words))
    assert found.data["retain_mc"].model_dump(exclude_defaults=True) == kept


def test_words_below_suite_replace_alike() -> None:
    words = parse_words(["data.retain_mc.path=b.jsonl", "untouched.hub=o/n"])
    found, _ = read_suite(str(FIXTURES / "tiny.yaml"), words)
    assert found.data["retain_mc"].generated is None
    assert found.untouched is not None


def test_paths_are_beside_the_file_that_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite(
        tmp_path,
        "base/base.yaml",
        data={"a": {"path": "rows.csv", "where": {"path": "x/y"}}, "b": {"path": "/tmp/b.csv"}},
        target={"model": {"path": "../model"}, "recipe": {"config": {"path": "kept"}}},
        scorers={"s": {"use": "./code.py:Mine", "settings": {"task": "t.yaml"}}, "t": "c.py:T"},
        environments={"path": "role"},
    )
    suite(
        tmp_path,
        "own/own.yaml",
        extends="../base/base.yaml",
        data={"c": {"path": "rows.csv"}, "d": {"path": "~/d.csv"}},
        methods={"./m.py:M": {"train": {"steps": 1}}, "v": {"use": "m.py:M"}},
    )
    found: Any = load_suite("own/own.yaml")[0]
    sources = {name: source["path"] for name, source in found["data"].items()}
    assert sources == {
        "a": "own/../base/rows.csv",
        "b": "/tmp/b.csv",
        "c": "own/rows.csv",
        "d": str(Path.home() / "d.csv"),
    }
    assert found["data"]["a"]["where"] == {"path": "x/y"}
    assert found["environments"] == {"path": "role"}
    assert found["target"] == {
        "model": {"path": "own/../base/../model"},
        "recipe": {"config": {"path": "kept"}},
    }
    settings = {"task": "own/../base/t.yaml"}
    assert found["scorers"]["s"] == {"use": "own/../base/code.py:Mine", "settings": settings}
    assert found["scorers"]["t"] == "own/../base/c.py:T"
    assert found["methods"] == {
        "own/m.py:M": {"train": {"steps": 1}},
        "v": {"use": "own/m.py:M"},
    }
    assert [str(path) for path in suite_files("own/own.yaml")] == [
        "own/own.yaml",
        "own/../base/base.yaml",
    ]


def test_beside_the_working_directory_a_path_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite(tmp_path, data={"a": {"path": "./rows.csv"}}, methods={"./m.py:M": {}})
    found: Any = load_suite("own.yaml")[0]
    assert found == {"data": {"a": {"path": "./rows.csv"}}, "methods": {"./m.py:M": {}}}


def test_what_an_anchor_stands_for_is_changed_where_words_say(tmp_path: Path) -> None:
    raw = yaml.safe_load((FIXTURES / "tiny.yaml").read_text())
    shared = {"generated": "mini.retain_mc", "limit": 12}
    raw["data"] |= {"forget_mc": shared, "retain_mc": shared}
    path = suite(tmp_path, **raw)
    assert "&id" in path.read_text()
    found, _ = read_suite(str(path), (), parse_words(["retain_mc.limit=3"]))
    assert (found.data["retain_mc"].limit, found.data["forget_mc"].limit) == (3, 12)
