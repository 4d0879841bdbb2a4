"""Keys: equal for equal content, different for anything else; closures of code."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from ilubench.records.keys import (
    canonical,
    code_closure,
    digest,
    file_sha256,
    library_versions,
    seed_for,
    source_file,
)

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


def typed(value: JsonValue) -> object:
    """Return a value whose equality tells 1, 1.0, -0.0 and True apart, and ignores dict order."""
    if isinstance(value, dict):
        return frozenset((key, typed(inner)) for key, inner in value.items())
    if isinstance(value, list):
        return tuple(typed(inner) for inner in value)
    return (type(value).__name__, repr(value))


@given(values, values)
def test_the_key_changes_if_and_only_if_the_content_does(left: JsonValue, right: JsonValue) -> None:
    assert (digest([left]) == digest([right])) == (typed(left) == typed(right))


@given(st.dictionaries(st.text(max_size=4), values, min_size=2))
def test_the_order_of_a_mapping_does_not_matter(value: dict[str, JsonValue]) -> None:
    assert digest(value) == digest(dict(reversed(value.items())))


@given(values)
def test_the_key_survives_a_file(value: JsonValue) -> None:
    assert digest([json.loads(json.dumps(value))]) == digest([value])


def test_frozen_hashes() -> None:
    """Pinned: a change here makes every stored result unreachable."""
    value: dict[str, JsonValue] = {"b": [1, 2.5, None], "a": {"ü": True}}
    assert canonical(value) == b'{"a":{"\\u00fc":true},"b":[1,2.5,null]}'
    assert digest(value) == "1d44e843f260da50c7436a2f8f04b511"
    assert seed_for(0, "attack", "gsm8k") == 368132013


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"x": number})


@given(st.integers(0, 10**6), st.text(max_size=8), st.text(max_size=8))
def test_seeds_depend_on_seed_role_and_name_alone(seed: int, role: str, name: str) -> None:
    assert seed_for(seed, role, name) == seed_for(seed, role, name)
    assert 0 <= seed_for(seed, role, name) < 2**31
    assert seed_for(seed, role, name) != seed_for(seed + 1, role, name)
    assert seed_for(seed, role + "x", name) != seed_for(seed, role, name + "x")


def test_a_file_has_one_hash(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_versions_of_absent_libraries_are_named() -> None:
    found = library_versions(["pydantic", "no-such-library"])
    assert found["no-such-library"] == "absent"
    assert found["pydantic"][0].isdigit()
    assert "python" in found


# ------------------------------------------------------------------------------- code


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that writes a module of the package `closurepkg`."""
    monkeypatch.syspath_prepend(tmp_path)
    stamp = [1_000_000_000]

    def write(name: str, code: str) -> None:
        path = tmp_path / "closurepkg" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        stamp[0] += 10
        os.utime(path, (stamp[0], stamp[0]))

    write("__init__.py", "")
    write("leaf.py", "X = 1\n")
    yield write
    for name in [name for name in sys.modules if name.startswith("closurepkg")]:
        del sys.modules[name]


ROOT = (
    '"""A module."""\nfrom closurepkg import leaf\n\ndef f():\n    """Doc."""\n    return leaf.X\n'
)


def test_the_closure_follows_imports(package: Callable[..., None]) -> None:
    package("root.py", ROOT)
    package("other.py", "Y = 1\n")
    assert set(code_closure(["closurepkg.root"])) == {
        "closurepkg",
        "closurepkg.leaf",
        "closurepkg.root",
    }


@pytest.mark.parametrize(
    "line",
    [
        "from .leaf import X",
        "from . import leaf",
        "from .deep.module import Z",
        "import closurepkg.leaf",
        "def f():\n    from closurepkg.leaf import X",
    ],
)
def test_every_form_of_import_is_followed(package: Callable[..., None], line: str) -> None:
    package("root.py", line + "\n")
    package("deep/__init__.py", "")
    package("deep/module.py", "from ..leaf import X as Z\n")
    assert "closurepkg.leaf" in code_closure(["closurepkg.root"])


def test_relative_imports_of_a_package_itself(package: Callable[..., None]) -> None:
    package("__init__.py", "from .leaf import X\n")
    assert "closurepkg.leaf" in code_closure(["closurepkg"])


@pytest.mark.parametrize(
    ("code", "same"),
    [
        ("# a comment\n" + ROOT, True),
        (ROOT.replace("Doc.", "Another."), True),
        (ROOT.replace('"""A module."""\n', ""), True),
        (ROOT.replace("    return", "\n\n    return"), True),
        (ROOT.replace("leaf.X", "leaf.X + 1"), False),
        (ROOT.replace("def f", "def g"), False),
        (ROOT.replace('"""Doc."""', 'x = """Doc."""'), False),
    ],
)
def test_comments_and_docstrings_do_not_count(
    package: Callable[..., None], code: str, *, same: bool
) -> None:
    package("root.py", ROOT)
    before = code_closure(["closurepkg.root"])
    package("root.py", code)
    assert (code_closure(["closurepkg.root"]) == before) is same


def test_a_change_of_an_imported_module_counts(package: Callable[..., None]) -> None:
    package("root.py", ROOT)
    before = code_closure(["closurepkg.root"])
    package("leaf.py", "X = 2\n")
    assert code_closure(["closurepkg.root"]) != before


def test_a_file_may_be_a_root(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("from ilubench.errors import DataError\n")
    found = code_closure([path])
    assert set(found) == {"mine.py", "ilubench.errors"}


def test_modules_without_source_are_left_out() -> None:
    assert source_file("math") is None
    assert source_file("no_such_package.module") is None
    assert code_closure(["no_such_package"]) == {}


def test_the_closure_of_ilu_has_its_losses_and_not_the_scorers() -> None:
    found = code_closure(["ilubench.methods.ilu"])
    assert {"ilubench.training.losses", "ilubench.training", "ilubench.data.batches"} <= set(found)
    assert {"ilubench.specs", "ilubench.specs.base", "ilubench.specs.training"} <= set(found)
    assert not any(
        name.startswith(("ilubench.scoring.scorers", "ilubench.statistics.aggregate"))
        for name in found
    )
