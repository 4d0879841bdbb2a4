"""`attacks=FILE.yaml` and `attacks=FILE.py:Class`: an attack of one's own beside the suite's."""

from pathlib import Path
from typing import Any

import pytest

from ilubench.errors import IlubenchError
from ilubench.experiments.describe import describe
from ilubench.experiments.experiment import Experiment, resolve_experiment, restore_experiment
from ilubench.interfaces import PromptAttack
from ilubench.specs.overrides import parse_words

CODE = '''
from ilubench.attacks.prefix import Prefix


class MyOwn2(Prefix):
    """Asks politely."""

    text: str = "Please. "
'''


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("below").mkdir()
    Path("below/own.py").write_text(CODE)
    Path("below/own.yaml").write_text("use: own.py:MyOwn2\nsettings: {text: 'Now. '}\n")


def resolved(attacks: str, *words: str) -> Experiment:
    return resolve_experiment(parse_words(["method=none", f"attacks={attacks}", *words]))


def texts(experiment: Experiment) -> dict[str, str]:
    return {attack.name: getattr(attack.plugin, "text", "") for attack in experiment.attacks}


def test_a_file_s_attack_is_called_as_the_file_or_class() -> None:
    found = resolved("below/own.yaml,agnews,below/own.py:MyOwn2", "attack.my_own2.text=Go. ")
    assert texts(found) == {"own": "Now. ", "agnews": "", "my_own2": "Go. "}
    assert isinstance(found.attacks[0].plugin, PromptAttack)
    assert {"own", "my_own2"}.isdisjoint(found.suite.benign_attacks)
    assert found.suite.attacks["own"].use == "below/own.py:MyOwn2"  # beside the YAML


def test_a_run_s_configuration_has_it_whole() -> None:
    found = resolved("below/own.yaml")
    Path("below/own.yaml").unlink()
    config: dict[str, Any] = {
        "run": found.run.model_dump(mode="json"),
        "use": "none",
        "seeds": [0],
        "attacks": {"own": {"text": "Now. "}},
        "suite": found.suite.model_dump(mode="json"),
    }
    assert texts(restore_experiment(config, Path("config.yaml"))) == {"own": "Now. "}


@pytest.mark.parametrize(
    ("attacks", "files", "problem"),
    [
        ("gsm8k.yaml", {"gsm8k.yaml": "use: prefix"}, "there is an attack 'gsm8k' besides gsm8k"),
        # it ships with ilubench, though the suite does not have it
        ("noise.yaml", {"noise.yaml": "use: prefix"}, "there is an attack 'noise' besides noise"),
        (
            "own.yaml,below/own.yaml",
            {"own.yaml": "title: a"},
            "there is an attack 'own' besides below/own",
        ),
        ("My.Own.yaml", {"My.Own.yaml": ""}, "'My.Own', after My.Own.yaml, cannot be an attack's"),
        ("a.yaml", {"a.yaml": "title: a\nsttings: {}"}, "a.yaml:2: sttings: unknown field"),
        ("a.yaml", {}, "a.yaml: no such file"),
        ("below/own.py", {}, "below/own.py names no class; write below/own.py:ClassName"),
        ("below/own.py:Own", {}, "below/own.py has no class 'Own'"),
        ("below/own.py:_Own", {}, "'_own', after below/own.py:_Own, cannot be an attack's name"),
        ("no.py:Own", {}, "no such file 'no.py'"),
        ("m.py:M", {"m.py": "class M: pass"}, "is not an ilubench plugin class"),
        (
            "m.py:M",
            {"m.py": "from ilubench.methods.npo import NPO as M"},
            "'m.py:M' is no WeightAttack and no PromptAttack",
        ),
    ],
)
def test_what_a_file_cannot_be(attacks: str, files: dict[str, str], problem: str) -> None:
    for name, text in files.items():
        Path(name).write_text(text)
    with pytest.raises(IlubenchError) as caught:
        resolved(attacks)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_s_class_is_described_as_what_it_is() -> None:
    (found,) = describe("below/own.py:MyOwn2")
    assert (found.kind, found.prefix) == ("attacks", "attack.")
