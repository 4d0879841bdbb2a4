"""What a plugin's tests need: contracts, and public stand-ins for a run's parts.

Everything is small, seeded, and works without network, files or a GPU. pytest is imported by the
contracts only where it is needed, so that the stand-ins serve other test runners too.
"""

from ilubench.testing.attack_contract import AttackContract
from ilubench.testing.contract import MethodContract
from ilubench.testing.engine import FakeEngine
from ilubench.testing.facts import facts, known_model
from ilubench.testing.guards import DeclaredOnly, no_network
from ilubench.testing.job import MemoryState, SilentProgress, StepRecorder, make_context
from ilubench.testing.prompt_contract import PromptAttackContract
from ilubench.testing.tiny import TINY, differing, make_tokenizer, tiny_llama, weights

__all__ = [
    "TINY",
    "AttackContract",
    "DeclaredOnly",
    "FakeEngine",
    "MemoryState",
    "MethodContract",
    "PromptAttackContract",
    "SilentProgress",
    "StepRecorder",
    "differing",
    "facts",
    "known_model",
    "make_context",
    "make_tokenizer",
    "no_network",
    "tiny_llama",
    "weights",
]
