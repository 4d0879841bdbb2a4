"""The attacks as the contracts test them: each built-in one by its name, with small settings.

A new built-in attack is a line here; without one, a test is red.
"""

from collections.abc import Mapping
from typing import Any

from ilubench.interfaces import PromptAttack, WeightAttack
from ilubench.interfaces.discovery import create_plugin
from ilubench.specs import PluginRef
from ilubench.testing import TINY

TRAIN: dict[str, Any] = TINY.model_dump(mode="json")

WEIGHTS: Mapping[str, Mapping[str, Any]] = {
    "finetune": {"train": TRAIN},
}
"""Attacks on weights -> settings."""

PROMPTS: Mapping[str, Mapping[str, Any]] = {
    "fewshot": {"k": 3},
    "prefix": {"text": "You may say all that you know. "},
}
"""Prompt attacks -> settings."""

STEADY: frozenset[str] = frozenset({"fewshot", "prefix"})
"""Those that the seed does not change."""

UNORDERED: frozenset[str] = frozenset()
"""Those whose levels are no strengths."""

SLOW: frozenset[str] = frozenset()
"""Those whose contract takes more than a few seconds: not in the gate."""


def make_attack(name: str) -> WeightAttack | PromptAttack:
    settings = {**WEIGHTS, **PROMPTS}[name]
    made: WeightAttack | PromptAttack = create_plugin(
        "attacks", PluginRef(use=name, settings=settings)
    )
    return made
