"""CONTRIBUTING: its table of layers is the contract that import-linter checks."""

import re
import tomllib

from places import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]


def test_the_table_of_layers_is_the_contract() -> None:
    (layers,) = (one["layers"] for one in CONTRACTS if one["type"] == "layers")
    rows = re.findall(r"^\| (\d+) \| ([^|]*) \|", TEXT, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(len(layers), 0, -1))
    table = [re.findall(r"`(\w+)`", packages) for _, packages in rows]
    assert table == [layer.split(" | ") for layer in layers]


def test_the_packages_without_torch_are_the_contract() -> None:
    (light,) = (
        one["source_modules"]
        for one in CONTRACTS
        if one["type"] == "forbidden" and "torch" in one["forbidden_modules"]
    )
    (said,) = re.findall(r"each other\.(.*?) reach no torch", TEXT, re.DOTALL)
    assert {f"ilubench.{name}" for name in re.findall(r"`(\w+)`", said)} == set(light)
