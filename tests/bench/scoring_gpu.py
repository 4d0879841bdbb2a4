"""What the transformers engine makes of a 7B model's arithmetic and bandwidth. UNTESTED ON A GPU:
only the tiny model on a CPU was run.

    python tests/bench/scoring.py --gpu          # random Mistral 7B in bf16, made on the GPU
    python tests/bench/scoring.py --gpu --tiny   # the same path with a tiny model, on any device

Questions: 400 shared and 68 own tokens, answered through `HFEngine.choices`. Their limit is
arithmetic: 2 FLOP a weight and token (the shared prefix once) at the speed of a square torch.mm.
Continuations: 128 of 128 tokens, through `HFEngine.generate`. Their limit is bandwidth: each step
reads all weights once and each row its keys and values, at the speed of a copy on the device.
"""

import random
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import torch
from transformers import MistralConfig, MistralForCausalLM

from ilubench.interfaces import SamplingSpec
from ilubench.scoring.engines.hf import HFEngine

SHARED, OWN, PROMPT, NEW = 400, 68, 128, 128
OPTIONS = (5, 6, 7, 8)
SIZES: dict[str, Any] = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
TINY: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}


def make_model(device: str, *, tiny: bool) -> MistralForCausalLM:
    """Return a random model whose tensors were never anywhere but on the device."""
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 500}
    config = MistralConfig(**(TINY | heads if tiny else SIZES), sliding_window=4096)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = MistralForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    model.train(mode=False)
    return model


def make_engine(model: MistralForCausalLM, batch_size: int) -> HFEngine:
    """Return an engine without a tokenizer: nothing ends a sequence, and ids are not decoded."""
    none = SimpleNamespace(
        model_max_length=4096, eos_token_id=None, decode=lambda ids, **_: str(len(ids))
    )
    model.config.eos_token_id = None
    engine = HFEngine(cast("Any", none), batch_size=batch_size)
    engine.load(model)
    return engine


def timed(run: Callable[[], object], device: str, repetitions: int = 5) -> list[float]:
    """Return seconds of each run after a first one that warms up."""
    seconds = []
    for _ in range(repetitions + 1):
        begin = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    return seconds[1:]


def speeds(device: str, *, tiny: bool) -> tuple[float, float]:
    """Return FLOP/s of a bf16 matrix product and bytes/s read and written by a copy."""
    side = 512 if tiny else 8192
    square = torch.randn(side, side, device=device).bfloat16()
    flops = 2 * side**3 / statistics.median(timed(lambda: square @ square, device))
    source = torch.zeros(2**24 if tiny else 2**31, dtype=torch.uint8, device=device)
    copy = torch.empty_like(source)
    moved = 2 * source.numel() / statistics.median(timed(lambda: copy.copy_(source), device))
    return flops, moved


def show(name: str, unit: str, count: int, seconds: list[float], least: float) -> None:
    middle = statistics.median(seconds)
    print(
        f"  {name}: {count / middle:.0f} {unit}/s, {middle:.3f} s [{min(seconds):.3f}, "
        f"{max(seconds):.3f}]; limit {least:.3f} s, reached {least / middle:.0%}"
    )


def main(*, tiny: bool) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not tiny:
        raise SystemExit("no GPU; --gpu --tiny runs the same path with a tiny model")
    model = make_model(device, tiny=tiny)
    config: Any = model.config
    weights = sum(p.numel() for n, p in model.named_parameters() if "embed" not in n)
    head = config.vocab_size * config.hidden_size
    flops, moved = speeds(device, tiny=tiny)
    print(
        f"{device}, {weights / 1e9:.3f}B weights: "
        f"{flops / 1e12:.2f} TFLOP/s, {moved / 1e9:.0f} GB/s"
    )
    rng = random.Random(0)

    def ids(length: int) -> list[int]:
        return [rng.randrange(3, 500) for _ in range(length)]

    count, rows = (16, 8) if tiny else (2000, 128)
    shared = ids(SHARED)
    questions = [shared + ids(OWN) for _ in range(count)]
    engine = make_engine(model, 64)
    pair = 4 * config.num_attention_heads * config.head_dim * config.num_hidden_layers
    tokens, pairs = SHARED + count * OWN, SHARED**2 / 2 + count * OWN * (SHARED + OWN / 2)
    work = 2 * (weights - head) * tokens + 2 * head * count + pair * pairs
    show("questions", "question", count, timed(lambda: engine.choices(questions, OPTIONS), device),
         work / flops)  # fmt: skip
    prompts = [ids(PROMPT) for _ in range(rows)]
    sampling = SamplingSpec(max_tokens=NEW)
    for size in sorted({min(rows, 32), rows}):
        engine = make_engine(model, size)
        steps = -(-rows // size) * (NEW - 1)
        held = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2
        kept = rows * sum(PROMPT + new for new in range(1, NEW)) * held
        least = (steps * weights * 2 + kept) / moved
        least += 2 * (weights - head) * rows * PROMPT / flops
        seconds = timed(lambda e=engine: e.generate(prompts, sampling), device, 3)  # type: ignore[misc]
        show(f"continuations, {size} at once", "token", rows * NEW, seconds, least)
