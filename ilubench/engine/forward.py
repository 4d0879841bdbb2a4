"""Forward passes over a key-value cache: a shared prefix, prompts after it, tokens after these."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ilubench.errors import ModelError
from ilubench.interfaces import Ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["State", "embedding", "extend", "prefill", "run_prefix", "select"]


@dataclass
class State:
    """A batch of sequences that the model has read.

    Attributes:
        cache: keys and values, one row a sequence.
        mask: int64 [B, T], 1 where the cache holds a token and not padding.
        lengths: int64 [B], tokens read: the next token's position.
        logits: float32 [B, V], of the next token.
    """

    cache: DynamicCache
    mask: torch.Tensor
    lengths: torch.Tensor
    logits: torch.Tensor


def embedding(model: PreTrainedModel) -> torch.Tensor:
    """Return the input embedding, [vocabulary, hidden]: its device is where ids must go."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _with_layers(
    cache: DynamicCache, change: Callable[[torch.Tensor], torch.Tensor]
) -> DynamicCache:
    """Return a cache whose layers hold ``change`` of the keys and values; the old one stays."""
    changed = copy.copy(cache)
    changed.layers = []
    for layer in cache.layers:
        if not isinstance(layer, DynamicLayer):
            raise ModelError(f"a cache of {type(layer).__name__} is not supported")
        assert layer.keys is not None
        assert layer.values is not None
        other = copy.copy(layer)
        other.keys, other.values = change(layer.keys), change(layer.values)
        changed.layers.append(other)
    return changed


def _forward(
    model: PreTrainedModel,
    ids: torch.Tensor,
    mask: torch.Tensor,
    positions: torch.Tensor,
    cache: DynamicCache,
    keep: int,
) -> torch.Tensor:
    """Run the model; ``keep`` last positions' logits (0: all) come back in float32."""
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=keep,
    )
    return out.logits.float()  # type: ignore[no-any-return]


def run_prefix(model: PreTrainedModel, prefix: Ids) -> State | None:
    """Run a prefix once, with one row.

    Returns:
        The state after it, or None where prompts cannot branch off it: a sliding window counts
        the padding between prefix and prompt.
    """
    cache = DynamicCache(config=model.config)
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    device = embedding(model).device
    ids = torch.tensor([list(prefix)], device=device)
    mask = torch.ones_like(ids)
    positions = torch.arange(ids.shape[1], device=device).unsqueeze(0)
    logits = _forward(model, ids, mask, positions, cache, 1)[:, -1]
    return State(cache, mask, mask.sum(-1), logits)


def prefill(model: PreTrainedModel, prompts: Sequence[Ids], prefix: State | None) -> State:
    """Run prompts as one batch, left-padded, after a shared prefix if there is one.

    Args:
        model: the model.
        prompts: B non-empty prompts, without the prefix.
        prefix: what :func:`run_prefix` gave; it is not changed.
    """
    device = embedding(model).device
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    columns = torch.arange(width, device=device)
    mask = (columns >= width - lengths.unsqueeze(-1)).long()
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    if prefix is None:
        cache = DynamicCache(config=model.config)
    else:
        rows = len(prompts)
        cache = _with_layers(prefix.cache, lambda kept: kept.expand(rows, -1, -1, -1))
        mask = torch.cat([prefix.mask.expand(rows, -1), mask], dim=-1)
        positions = positions + prefix.lengths
        lengths = lengths + prefix.lengths
    logits = _forward(model, ids, mask, positions, cache, 1)[:, -1]
    return State(cache, mask, lengths, logits)


def select(state: State, rows: torch.Tensor) -> State:
    """Return a state with the given rows (int64 [N], repeats allowed); the old one stays."""
    return State(
        _with_layers(state.cache, lambda kept: kept.index_select(0, rows.to(kept.device))),
        state.mask[rows],
        state.lengths[rows],
        state.logits[rows],
    )


def extend(model: PreTrainedModel, state: State, tokens: Sequence[Ids]) -> torch.Tensor:
    """Let each row of a state read its further tokens; the state's cache and mask grow.

    Args:
        model: the model.
        state: B rows.
        tokens: B non-empty sequences; shorter ones are padded on the right, which harms nothing
            as long as the state is not extended again.

    Returns:
        Logits after each token, float32 [B, C, V]; those of padding mean nothing.
    """
    device = state.mask.device
    width = max(map(len, tokens))
    ids = torch.tensor([list(t) + [0] * (width - len(t)) for t in tokens], device=device)
    counts = torch.tensor([len(sequence) for sequence in tokens], device=device)
    columns = torch.arange(width, device=device)
    state.mask = torch.cat([state.mask, (columns < counts.unsqueeze(-1)).long()], dim=-1)
    positions = state.lengths.unsqueeze(-1) + columns
    state.lengths = state.lengths + counts
    return _forward(model, ids, state.mask, positions, state.cache, 0)
