"""Stand-ins that tests share besides those of `ilubench.testing`: random data, gradients."""

import random
from collections.abc import Sequence

import torch

from ilubench.interfaces import Example, UnlearnData
from ilubench.testing import (
    MemoryState,
    SilentProgress,
    StepRecorder,
    differing,
    make_context,
    make_tokenizer,
    tiny_llama,
    weights,
)
from ilubench.testing.tiny import SENTENCES

__all__ = [
    "SENTENCES",
    "MemoryState",
    "SilentProgress",
    "StepRecorder",
    "differing",
    "gradients",
    "make_context",
    "make_tokenizer",
    "random_examples",
    "tiny_llama",
    "unlearn_data",
    "weights",
]


def random_examples(count: int, vocabulary: int, seed: int, *, longest: int = 14) -> list[Example]:
    """Return examples of unlike lengths whose first tokens are a prompt."""
    rng = random.Random(seed)
    found = []
    for number in range(count):
        length = rng.randrange(5, longest)
        prompt = rng.randrange(1, 4)
        ids = tuple(rng.randrange(3, vocabulary) for _ in range(length))
        found.append(Example(f"e{number}", ids, tuple(at >= prompt for at in range(length))))
    return found


def unlearn_data(vocabulary: int, *, environments: Sequence[str] = ()) -> UnlearnData:
    return UnlearnData(
        random_examples(9, vocabulary, 1),
        random_examples(7, vocabulary, 2),
        {n: random_examples(11, vocabulary, 3 + k) for k, n in enumerate(environments)},
    )


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
