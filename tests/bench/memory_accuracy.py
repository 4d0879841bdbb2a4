"""How near the plan's memory comes: bytes that torch holds at the peak of training, on a CPU.

    python tests/bench/memory_accuracy.py            # some methods, on two models
    python tests/bench/memory_accuracy.py sam npo    # these

Counted is what torch's allocator hands out and takes back (its profiler tells) while a method runs,
and the weights: neither the libraries' own memory, which a process grows by in its first job, nor
what an allocator keeps for later. Random weights and text, since memory does not depend on them.
The models: of the shape of the mini suite's, and the same with a vocabulary of 32,000 words.
"""

import random
import sys
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM, PreTrainedModel

from ilubench.forecast.amounts import Amount
from ilubench.forecast.memory import DType, Peak, peak_memory, shape_of
from ilubench.interfaces import Dataset, Example, Method, UnlearnData
from ilubench.interfaces.discovery import create_plugin
from ilubench.models.configuration import recipe_config
from ilubench.specs import MemorySpec, PluginRef
from ilubench.testing import make_tokenizer
from ilubench.testing.job import make_context
from ilubench.training import LossMethod

TRAIN: dict[str, Any] = {"lr": 1e-4, "steps": 2, "batch_size": 8}
BASE: dict[str, Any] = {"base": {"use": "npo", "settings": {"train": TRAIN}}}
METHODS: dict[str, dict[str, Any]] = {
    "npo": {},
    "sam": BASE,
    "ilu": {**BASE, "environments": ["benign"], "environment_batch": 8},
    "rmu": {"layer": 2},
    "undo": BASE,
    "tar": {"inner_steps": 2},
}


def model(vocabulary: int, dtype: torch.dtype) -> PreTrainedModel:
    """Return a model of the mini suite's shape."""
    shape: dict[str, Any] = {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 512}
    ends: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": vocabulary,
        "tie_word_embeddings": False,
    }
    made: PreTrainedModel = AutoModelForCausalLM.from_config(
        recipe_config({**shape, **heads, **ends}), dtype=dtype
    )
    return made


def texts(count: int, vocabulary: int, length: int, seed: int) -> Dataset:
    """Return random sequences, the last two thirds of each to be predicted."""
    rng, asked = random.Random(seed), length // 3
    return [
        Example(
            f"{place}",
            tuple(rng.randrange(3, vocabulary) for _ in range(length)),
            tuple(at >= asked for at in range(length)),
        )
        for place in range(count)
    ]


def held(method: Method, vocabulary: int, dtype: torch.dtype) -> tuple[float, Peak]:
    """Return the bytes at the peak, and what the plan says."""
    made = model(vocabulary, dtype)
    sets = [texts(32, vocabulary, length, seed) for seed, length in enumerate((96, 80, 64))]
    data = UnlearnData(sets[0], sets[1], {"benign": sets[2]})
    context = make_context(make_tokenizer(), memory=MemorySpec())
    before = sum(p.numel() * p.element_size() for p in made.parameters())
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        method.unlearn(made, data, context)
    now = most = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    name = cast("DType", str(dtype).removeprefix("torch."))
    trainable = tuple(getattr(method, "trainable", ()))
    # a loss of two terms runs one after the other; what has a loop of its own is planned as both
    longest = 96 if isinstance(method, LossMethod) else 96 + 80
    amount = Amount(steps=2, held=8 * longest, trainable=trainable, precision=name)
    return float(before + most), peak_memory(
        amount, MemorySpec(), shape_of(made.config, name), "cpu"
    )


def main(names: Sequence[str]) -> None:
    """Compare, method by method."""
    torch.set_num_threads(1)
    for vocabulary, dtype in (
        (730, torch.float32),
        (32_000, torch.float32),
        (32_000, torch.bfloat16),
    ):
        print(f"vocabulary {vocabulary}, {str(dtype).removeprefix('torch.')}: planned / held, MB")
        for name in names:
            settings = {"train": TRAIN, **METHODS.get(name, {})}
            method = create_plugin(
                "methods", PluginRef.model_validate({"use": name, "settings": settings})
            )
            actual, told = held(method, vocabulary, dtype)
            training = told.total - told.context
            parts = f"weights {told.weights / 1e6:.1f}, gradients {told.gradients / 1e6:.1f}, "
            parts += f"optimizer {told.optimizer / 1e6:.1f}, "
            parts += f"activations {told.activations / 1e6:.1f}, logits {told.logits / 1e6:.1f}"
            ratio = training / actual
            print(
                f"  {name:8} {training / 1e6:8.1f} / {actual / 1e6:8.1f} = {ratio:.2f}   ({parts})",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:] or list(METHODS))
