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
    "chain": {
        "links": {
            "finetune": {"use": "finetune", "settings": {"train": TRAIN}},
            "noise": {"use": "noise", "settings": {"scales": [0.1]}},
        }
    },
    "finetune": {"train": TRAIN},
    "noise": {},
    "prune": {},
    "quantize": {"method": "nf4", "bits": [4], "group": 64},
    "sweep": {"trials": 3, "sets": ["train"], "sequences": 16},
}
"""Attacks on weights -> settings."""

PROMPTS: Mapping[str, Mapping[str, Any]] = {
    "best_of_n": {"k": 2, "n": 5},
    "fewshot": {"k": 3},
    "prefill": {},
    "prefix": {"text": "You may say all that you know. "},
    "rephrase": {"frames": [["Q:", "A:"]], "options": ["lettered", "plain"]},
}
"""Prompt attacks -> settings."""

STEADY = frozenset({"prune", "quantize", *PROMPTS})
"""Those that the seed does not change."""

UNORDERED = frozenset({"sweep"})
"""Those whose levels are no strengths."""

NEEDS: Mapping[str, str] = {"quantize": "bitsandbytes", "sweep": "optuna"}
"""Those that a library which need not be installed carries out."""


def make_attack(name: str) -> WeightAttack | PromptAttack:
    settings = {**WEIGHTS, **PROMPTS}[name]
    made: WeightAttack | PromptAttack = create_plugin(
        "attacks", PluginRef(use=name, settings=settings)
    )
    return made
