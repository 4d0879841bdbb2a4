"""What a job takes on each of its devices; the table of the documentation is made of it."""

from pathlib import Path

import pytest
from markdown_tables import split
from transformers import LlamaConfig

from ilubench.forecast.amounts import Amount
from ilubench.forecast.devices import card_named
from ilubench.forecast.formula import took_assumed
from ilubench.forecast.memory import peak_memory, shape_of
from ilubench.specs import MemorySpec

LARGE = LlamaConfig(
    vocab_size=128_256,
    hidden_size=8192,
    intermediate_size=28_672,
    num_hidden_layers=80,
    num_attention_heads=64,
    num_key_value_heads=8,
    tie_word_embeddings=False,
)
UNLEARN = Amount(steps=125, batch=32, step_tokens=98_304, held=2 * 2048)
ATTACK = Amount(steps=128, batch=32, step_tokens=16_384, held=2 * 2048, checkpoints=5, read=300_000)
DEVICES = Path(__file__).parents[2] / "docs" / "devices.md"
SETTINGS = {
    "memory.update=master": MemorySpec(update="master"),
    "memory.update=master memory.moments=bfloat16": MemorySpec(update="master", moments="bfloat16"),
    "memory.update=stochastic memory.moments=bfloat16": MemorySpec(
        update="stochastic", moments="bfloat16"
    ),
}


def test_the_table_of_the_largest_plan() -> None:
    shape = shape_of(LARGE, "bfloat16")
    assert shape.parameters == pytest.approx(70.6e9, rel=1e-3)
    text = DEVICES.read_text(encoding="utf-8")
    section = text[text.index("## One job on several devices") :]
    lines = [line for line in section.splitlines() if line.startswith("| `memory.")]
    found = []
    for words, memory in SETTINGS.items():
        peak = peak_memory(UNLEARN, memory, shape, "cuda", devices=8)
        parts = (peak.weights, peak.gradients, peak.optimizer)
        rest = peak.activations + peak.logits + peak.context
        figures = [f"{part / 1e9:.1f}" for part in (*parts, rest, sum(parts) + rest)]
        found.append([f"`{words}`", *figures])
    assert [split(line) for line in lines] == found
    card, memory = card_named("h200"), SETTINGS["memory.update=stochastic memory.moments=bfloat16"]
    unlearn, attack = (took_assumed(amount, shape, card, memory, 8) for amount in (UNLEARN, ATTACK))
    for took, told in ((unlearn, "an unlearning job"), (attack, "an attack")):
        assert f"{told} {took.low / 3600:.1f} to {took.high / 3600:.1f} hours" in " ".join(
            text.split()
        )
    low, high = (
        5 * (one + 4 * other) / 3600
        for one, other in ((unlearn.low, attack.low), (unlearn.high, attack.high))
    )
    assert f"25 jobs, {low:.0f} to {high:.0f} hours" in text


def test_each_device_has_its_part_and_what_is_gathered() -> None:
    shape, memory = shape_of(LARGE, "bfloat16"), MemorySpec()
    one, two = (peak_memory(UNLEARN, memory, shape, "cuda", devices=n) for n in (1, 2))
    assert two.optimizer == one.optimizer / 2
    layer, rest = shape.gathered
    assert 80 * layer + rest == shape.parameters
    assert two.weights == one.weights / 2 + 2 * (2 * layer + rest)
