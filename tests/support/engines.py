"""The engines that can run here, each made over a live model in the same way."""

import importlib.util
from typing import TYPE_CHECKING, Literal, cast

from ilubench.scoring.engines.choice import make_engine as _make

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from ilubench.interfaces import Engine

VLLM = importlib.util.find_spec("vllm") is not None

ENGINES: tuple[str, ...] = ("hf", "vllm") if VLLM else ("hf",)
"""vLLM's tests run where it is installed; `.ci/run` does so in an environment of its own."""


def make_engine(
    name: str, tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel"
) -> "Engine":
    """Return an engine with the live model loaded."""
    known = cast("Literal['hf', 'vllm']", name)
    dtype = str(model.dtype).removeprefix("torch.")
    engine = _make(known, tokenizer, batch_size=16, dtype=dtype, device="cpu")
    engine.load(model)
    return engine
