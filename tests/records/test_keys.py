"""Keys: equal for equal content, different for anything else; closures of code."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

from ilubench.data.seeds import seed_for
from ilubench.records.keys import canonical, digest, file_sha256, library_versions

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
