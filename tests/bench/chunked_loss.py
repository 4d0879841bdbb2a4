"""What head and loss cost in chunks of positions, against all logits at once.

    python tests/bench/chunked_loss.py [--positions 1024] [--vocabularies 32000,128256]
                                       [--hidden 32] [--chunk 256] [--bfloat16] [--repetitions 1]

A random Llama of one layer, so that the head is nearly all there is; on a GPU where there is one
(there `--hidden 4096 --positions 8000 --bfloat16` is a step of a 7B model). Memory is what a
forward and a backward pass held beside the weights: on a CPU what the process grew by;
beside it the same in tensors of [positions, vocabulary] in float32. `ilubench` itself cuts where
`ilubench.models.forward.LOGITS` is exceeded: 2,097 positions of 32,000, 523 of 128,256.

Then what the mask of the padding costs: the layers forwards and backwards, on sequences of unlike
lengths, with and without it. The two take turns.
"""

import argparse
import contextlib
import ctypes
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from pydantic import JsonValue

from ilubench.data.batches import collate, to_device
from ilubench.interfaces import Batch, Example
from ilubench.models.forward import body_inputs, initialise_model, token_values
from ilubench.runs.stages.cost import StepLog
from ilubench.training.losses import invariance_gradient, npo_loss, sequence_sums, token_nll

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTH = 512


def make(vocabulary: int, hidden: int, layers: int = 1) -> "PreTrainedModel":
    config: dict[str, JsonValue] = {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // 64),
        "num_key_value_heads": max(1, hidden // 64),
        "max_position_embeddings": LENGTH,
        "tie_word_embeddings": False,
    }
    model = initialise_model(config, vocabulary, 0)
    module: torch.nn.Module = model
    module.to(DEVICE)
    return model


def batch_of(positions: int, vocabulary: int, *, shortest: int = LENGTH) -> Batch:
    """Sequences of `shortest` to 512 tokens, every token but the first a target."""
    rng, left = random.Random(0), positions
    items: list[Example] = []
    while left > 0:
        length = min(rng.randint(shortest, LENGTH), left + 1)
        ids = tuple(rng.randrange(3, vocabulary) for _ in range(length))
        items.append(Example(f"e{len(items)}", ids, tuple(at > 0 for at in range(length))))
        left -= length - 1
    (batch,) = collate(items, range(len(items)), 0)
    return to_device(batch, DEVICE)


def nll(model: "PreTrainedModel", batch: Batch, chunk: int) -> torch.Tensor:
    return token_values(model, batch, token_nll, chunk=chunk).values.sum() / batch.tokens


def forget(model: "PreTrainedModel", batch: Batch, chunk: int) -> torch.Tensor:
    found = token_values(model, batch, token_nll, chunk=chunk)
    sums = sequence_sums(found.values, found.sequence, found.count)
    return npo_loss(sums, sums.detach(), 0.1).sum() / batch.sequences


def irm(model: "PreTrainedModel", batch: Batch, chunk: int) -> torch.Tensor:
    return token_values(model, batch, invariance_gradient, chunk=chunk).values.sum() / batch.tokens


LOSSES = {"NLL": nll, "NPO": forget, "ILU": irm}


@dataclass(frozen=True)
class Cost:
    """Of a forward and a backward pass: seconds, and bytes beside the weights."""

    seconds: float
    memory: int


def cost(model: "PreTrainedModel", loss: Callable[[], torch.Tensor], *, half: bool) -> Cost:
    model.zero_grad(set_to_none=True)
    log = StepLog(Path("none.jsonl"))
    begun = time.perf_counter()
    with torch.autocast(DEVICE, torch.bfloat16, enabled=half):
        value = loss()
        value.backward()
    float(value.detach())
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - begun
    return Cost(seconds, int(cast("int", log.cost()["grown_bytes"])))


def compare(vocabulary: int, given: argparse.Namespace) -> None:
    model, batch = make(vocabulary, given.hidden), batch_of(given.positions, vocabulary)
    sizes = {"plain": batch.tokens, "chunked": given.chunk}
    whole = 4 * batch.tokens * vocabulary
    print(
        f"\nvocabulary {vocabulary:,}, {batch.tokens:,} positions: all logits {whole / 2**20:,.0f} "
        f"MiB; chunks of {sizes['chunked']:,}"
    )
    cost(model, partial(nll, model, batch, 64), half=given.bfloat16)  # warms up
    for name, loss in LOSSES.items():
        found: dict[str, list[Cost]] = {kind: [] for kind in sizes}
        runs = {kind: partial(loss, model, batch, size) for kind, size in sizes.items()}
        for repetition in range(given.repetitions):
            for kind in sorted(sizes, reverse=bool(repetition % 2)):
                found[kind].append(cost(model, runs[kind], half=given.bfloat16))
        memory = {kind: max(one.memory for one in costs) for kind, costs in found.items()}
        seconds = {
            kind: statistics.median(one.seconds for one in costs) for kind, costs in found.items()
        }
        for kind in sizes:
            print(
                f"  {name} {kind:8} {memory[kind] / 2**20:7,.0f} MiB "
                f"({memory[kind] / whole:.2f} of all logits)  {seconds[kind]:6.2f} s"
            )
        print(
            f"  {name} plain / chunked: memory {memory['plain'] / max(1, memory['chunked']):.2f}, "
            f"time {seconds['plain'] / seconds['chunked']:.2f}"
        )


def masks(given: argparse.Namespace) -> None:
    vocabulary = 1000
    model = make(vocabulary, max(256, given.hidden), layers=2)
    batch = batch_of(2000, vocabulary, shortest=LENGTH // 4)
    real = batch.attention_mask.bool()
    inputs = {
        "with": {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask},
        "without": body_inputs(model, batch),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in inputs}

    def states(kind: str) -> torch.Tensor:
        hidden = model.base_model(**inputs[kind], use_cache=False).last_hidden_state
        return cast("torch.Tensor", hidden[real].float().square().sum())

    for _ in range(6):
        for kind in inputs:
            took = cost(model, partial(states, kind), half=given.bfloat16)
            seconds[kind].append(took.seconds)
    with_mask, without = (statistics.median(seconds[kind][1:]) for kind in inputs)
    print(
        f"\nmask of the padding ({float((~real).float().mean()):.0%} of {tuple(real.shape)}): "
        f"{1000 * with_mask:.0f} ms with, {1000 * without:.0f} ms without; "
        f"ratio {with_mask / without:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--positions", type=int, default=1024)
    parser.add_argument("--vocabularies", default="32000,128256")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--bfloat16", action="store_true", help="autocast")
    parser.add_argument("--repetitions", type=int, default=1)
    given = parser.parse_args()
    with contextlib.suppress(AttributeError):  # glibc: give back every tensor's memory at once
        ctypes.CDLL(None).mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD, else up to 32 MiB are kept
    print(f"device {DEVICE}, {torch.get_num_threads()} threads")
    for vocabulary in given.vocabularies.split(","):
        compare(int(vocabulary), given)
    masks(given)


if __name__ == "__main__":
    main()
