"""A model's shape: its parameters by name, and the arithmetic of a pass through it."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = ["Anatomy", "anatomy_of"]

_LLAMA_LIKE = ("llama", "mistral", "qwen2")
"""Model types whose parameters are written down here; others are built without memory, which
imports their code: seconds."""

_LAYER = re.compile(r"\.(?:layers|h|blocks|block)\.(\d+)\.")


@dataclass(frozen=True)
class Anatomy:
    """What determines the cost of a model's passes.

    Attributes:
        model_type: as transformers names it.
        sizes: parameter -> its numbers; a head that is tied to the embeddings is not there twice.
        layers: how many.
        hidden: width H of the hidden states.
        inner: width of the MLP.
        keys: width of a token's keys (its values have the same).
        vocabulary: V.
        head: numbers in the head's matrix, tied or not.
        apart: numbers that no token is multiplied with: embeddings, and an untied head.
    """

    model_type: str
    sizes: Mapping[str, int]
    layers: int
    hidden: int
    inner: int
    keys: int
    vocabulary: int
    head: int
    apart: int

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(self.sizes.values())

    @property
    def body(self) -> int:
        """Parameters that every token goes through: neither embeddings nor head."""
        return self.parameters - self.apart

    def trained(self, patterns: Sequence[str]) -> int:
        """Return the parameters whose names match one of the patterns; all, where none is given."""
        return sum(size for name, size in self.sizes.items() if _matches(name, patterns))

    def lowest(self, patterns: Sequence[str]) -> int:
        """Return the lowest layer (from 0) with a trained parameter; 0 where none has one."""
        found = [
            int(layer[1])
            for name in self.sizes
            if _matches(name, patterns) and (layer := _LAYER.search(name))
        ]
        below = any(_matches(n, patterns) and not _LAYER.search(n) for n in self.sizes)
        return 0 if below or not found else min(found)

    def flops(self, tokens: float, squares: float, answers: float) -> float:
        """Return the floating-point operations of a forward pass.

        Two a parameter and token; attention 4 H a pair of positions, half of which a causal one
        needs; the head's product where a token is predicted. A backward pass takes twice these.

        Args:
            tokens: positions through the whole model, padding included.
            squares: sum over sequences of their squared length.
            answers: positions through the head.
        """
        attention = 2.0 * self.hidden * self.layers * squares
        return 2.0 * self.body * tokens + attention + 2.0 * self.head * answers


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def anatomy_of(config: "PretrainedConfig") -> Anatomy:
    """Return the anatomy of the model that a configuration describes; no weights are made."""
    text: Any = config.get_text_config()
    heads = int(text.num_attention_heads)
    size = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    keys = int(getattr(text, "num_key_value_heads", None) or heads) * size
    inner = int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size)
    tied = bool(getattr(text, "tie_word_embeddings", False))
    hidden, vocabulary = int(text.hidden_size), int(text.vocab_size)
    written = config.model_type in _LLAMA_LIKE
    sizes = _llama(text, heads * size, keys) if written else _built(config)
    matrix = vocabulary * hidden
    apart = matrix if tied else 2 * matrix
    return Anatomy(
        config.model_type,
        sizes,
        int(text.num_hidden_layers),
        hidden,
        inner,
        keys,
        vocabulary,
        matrix,
        min(apart, sum(sizes.values())),
    )


def _llama(text: Any, queries: int, keys: int) -> dict[str, int]:  # noqa: ANN401
    hidden, inner = int(text.hidden_size), int(text.intermediate_size)
    biased = text.model_type == "qwen2" or bool(getattr(text, "attention_bias", False))
    found = {"model.embed_tokens.weight": int(text.vocab_size) * hidden}
    for layer in range(int(text.num_hidden_layers)):
        at = f"model.layers.{layer}"
        for name, width in (("q", queries), ("k", keys), ("v", keys)):
            found[f"{at}.self_attn.{name}_proj.weight"] = hidden * width
            if biased:
                found[f"{at}.self_attn.{name}_proj.bias"] = width
        found[f"{at}.self_attn.o_proj.weight"] = queries * hidden
        for name in ("gate", "up", "down"):
            found[f"{at}.mlp.{name}_proj.weight"] = hidden * inner
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}.{name}.weight"] = hidden
    found["model.norm.weight"] = hidden
    if not bool(getattr(text, "tie_word_embeddings", False)):
        found["lm_head.weight"] = int(text.vocab_size) * hidden
    return found


def _built(config: "PretrainedConfig") -> dict[str, int]:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model: torch.nn.Module = AutoModelForCausalLM.from_config(config)
    return {name: parameter.numel() for name, parameter in model.named_parameters()}
