"""The exception tree: exit codes, composed messages, remedies."""

import pytest

from ilubench import errors
from ilubench.errors import SpecError, did_you_mean


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("IlubenchError", 5),
        ("UsageError", 2),
        ("SpecError", 2),
        ("PluginError", 2),
        ("DataError", 3),
        ("AccessError", 3),
        ("ModelError", 3),
        ("PathError", 3),
        ("JobError", 4),
        ("DivergedError", 4),
        ("StoreError", 5),
    ],
)
def test_exit_codes(name: str, code: int) -> None:
    found = getattr(errors, name)
    assert issubclass(found, errors.IlubenchError)
    assert found.exit_code == code


def test_every_class_is_in_the_docstring_and_public() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}
    classes -= {"Iterable"}
    assert classes | {"closest_word", "did_you_mean", "lacks_memory"} == set(errors.__all__)
    for name in classes:
        assert name in (errors.__doc__ or "")


def test_spec_error_leaves_out_what_is_empty() -> None:
    assert str(SpecError("bad")) == "bad"
    full = SpecError("bad", where="a.yaml:3", field="train.lr", remedy="mend it")
    assert str(full) == "a.yaml:3: train.lr: bad; mend it"
    assert str(SpecError("bad", field="x").at("b.yaml")) == "b.yaml: x: bad"


def test_did_you_mean_names_the_closest_word() -> None:
    assert did_you_mean("gsm8", ["agnews", "gsm8k"]) == "did you mean 'gsm8k'?"


def test_did_you_mean_lists_the_choices_when_none_is_close() -> None:
    assert did_you_mean("zzz", ["b", "a", "a"]) == "choose from: a, b"
    many = did_you_mean("zzz", [f"n{number:02}" for number in range(20)])
    assert many.endswith("n11, ...")
    assert did_you_mean("x", []) == "there is none to choose from"
