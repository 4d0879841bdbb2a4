"""docs/governance.md: its example of an attack can be run; the issue forms are complete."""

import re
from pathlib import Path

import pytest
import yaml
from places import ROOT

from ilubench.experiments.experiment import resolve_experiment
from ilubench.specs.overrides import parse_words

TEXT = (ROOT / "docs" / "governance.md").read_text(encoding="utf-8")


def test_the_example_of_an_attack_can_be_run(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    (tmp_path / "longer.yaml").write_text(example)
    (asked,) = re.findall(r"^ilubench run (.*attacks=longer.*)$", TEXT, re.MULTILINE)
    words = asked.replace("./longer.yaml", str(tmp_path / "longer.yaml")).split()
    found = resolve_experiment(parse_words(words))
    assert (found.suite.name, [attack.name for attack in found.attacks]) == ("mini", ["longer"])
    # the attack is all that it adds
    shipped = resolve_experiment(parse_words(["suite=mini", "method=npo"])).suite
    rest = found.suite.model_copy(update={"attacks": shipped.attacks})
    assert rest == shipped
    assert found.suite.attacks.keys() - shipped.attacks.keys() == {"longer"}


@pytest.mark.parametrize(
    "file", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")), ids=str
)
def test_issue_forms_have_a_head(file: Path) -> None:
    head = yaml.safe_load(file.read_text().split("---")[1])
    assert head.keys() == {"name", "about", "labels"}
