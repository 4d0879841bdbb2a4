"""What is said of an attack's settings is not said of others."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from places import FIXTURES

from ilubench.experiments.suites import read_suite
from ilubench.specs import SuiteSpec
from ilubench.specs.overrides import parse_words

MEASURED = {"kind": "measured", "note": "3 epochs of it on the original"}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a suite whose attack has a protocol, of settings in a file of the attack's own."""
    raw = yaml.safe_load((FIXTURES / "tiny.yaml").read_text())
    attack = {**raw["attacks"]["gsm8k"], "protocol": MEASURED}
    (tmp_path / "attack.yaml").write_text(yaml.safe_dump(attack))
    raw["attacks"]["gsm8k"] = {"extends": "attack.yaml"}
    path = tmp_path / "base.yaml"
    path.write_text(yaml.safe_dump(raw))
    return path


def protocol(suite: SuiteSpec) -> tuple[str, str]:
    found = suite.attacks["gsm8k"].protocol
    assert found is not None
    return found.kind, found.note


@pytest.mark.parametrize(
    ("own", "changed"),
    [
        ({}, ""),
        ({"title": "T", "settings": {"fractions": [1.0]}}, ""),
        ({"settings": {"train": {"lr": 1.0e-3, "micro_batch": 2}}}, ""),  # the lr as it was
        ({"data": {"eval": {"limit": 3}}}, ""),
        ({"settings": {"train": {"lr": 2.0e-3}}}, "train.lr"),
        ({"settings": {"train": {"epochs": 1}}}, "train.steps, train.epochs"),
        ({"settings": {"train": {"batch_size": 2}}}, "train.batch_size"),
        ({"data": {"train": {"limit": 3}}}, "data.train"),
        (
            {"settings": {"train": {"lr": 2.0e-3}}, "protocol": {"kind": "default", "note": "m"}},
            "m",
        ),
    ],
)
@pytest.mark.parametrize("how", ["attack", "suite"])
def test_what_a_suite_sets_has_no_protocol_of_others(
    base: Path, own: dict[str, Any], changed: str, how: str
) -> None:
    path = base.with_name("own.yaml")
    if how == "suite":
        path.write_text(yaml.safe_dump({"extends": "base.yaml", "attacks": {"gsm8k": own}}))
    else:
        raw = yaml.safe_load(base.read_text())
        raw["attacks"]["gsm8k"] |= own
        path.write_text(yaml.safe_dump(raw))
    kind, note = protocol(read_suite(str(path))[0])
    if not changed:
        assert {"kind": kind, "note": note} == MEASURED
    else:
        assert kind == "default"
        assert note.removesuffix(" are other than those that were chosen for it") == changed


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        ("suite.attacks.gsm8k.settings.train.lr=0.5", "default"),
        ("suite.attacks.gsm8k.title=T", "measured"),
        ("data.gsm8k.train.limit=3", "default"),
        ("data.gsm8k.train=rows.jsonl", "default"),
        ("data.gsm8k.eval=rows.jsonl", "measured"),
        ("data.retain_mc.limit=3", "measured"),
    ],
)
def test_what_words_set_has_no_protocol_of_others(base: Path, word: str, kind: str) -> None:
    (override,) = parse_words([word])
    sides: dict[str, Any] = {"suite": (), "data": ()}
    sides[override.path[0]] = (override.below(),)
    assert protocol(read_suite(str(base), sides["suite"], sides["data"])[0])[0] == kind
