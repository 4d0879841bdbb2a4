"""Forward passes: many prompts in one row after a shared prefix; then token by token, a row each.

Prompts that are read together stand one after the other in a single row, without padding, and a
mask keeps them apart. So a shared prefix's keys and values are neither computed nor copied for each
of them. What they have read is laid out as one row each only where they go on.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import torch
from transformers.cache_utils import Cache, DynamicLayer

from ilubench.errors import DivergedError, ModelError
from ilubench.interfaces import Ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Reading",
    "State",
    "Tree",
    "check_numbers",
    "embedding",
    "lay_out",
    "read_tokens",
    "read_trees",
    "select_rows",
]

Mask: TypeAlias = torch.Tensor | Mapping[str, torch.Tensor] | None


class _Room(DynamicLayer):
    """One layer's keys and values, with room for more: a token is written, the rest stays."""

    def __init__(self, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.room, self.used = room, 0
        self.all_keys, self.all_values = torch.empty(0), torch.empty(0)

    def fill(self, keys: torch.Tensor, values: torch.Tensor, used: int) -> None:
        """Take tensors [B, heads, room, width] of which ``used`` columns are read."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
        self.all_keys, self.all_values = keys, values
        self.cut(used)

    def cut(self, used: int) -> None:
        """Forget what comes after the first ``used`` columns."""
        self.used = used
        self.keys, self.values = self.all_keys[:, :, :used], self.all_values[:, :, :used]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.fill(_empty(key_states, self.room), _empty(value_states, self.room), 0)
        begin, end = self.used, self.used + key_states.shape[-2]
        self.all_keys[:, :, begin:end] = key_states
        self.all_values[:, :, begin:end] = value_states
        self.cut(end)
        return self.all_keys[:, :, :end], self.all_values[:, :, :end]


def _empty(like: torch.Tensor, room: int, rows: int | None = None) -> torch.Tensor:
    """Return zeros [rows, heads, room, width]: what a mask hides must still be numbers."""
    rows = like.shape[0] if rows is None else rows
    return like.new_zeros((rows, like.shape[1], room, like.shape[3]))


def _layers(cache: Cache) -> list[_Room]:
    return [layer for layer in cache.layers if isinstance(layer, _Room)]


def embedding(model: PreTrainedModel) -> torch.Tensor:
    """Return the input embedding, [vocabulary, hidden]: its device is where ids must go."""
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, torch.Tensor)
    return weight


def _mask(model: PreTrainedModel, visible: torch.Tensor, distance: torch.Tensor) -> Mask:
    """Return what to add to attention scores, [B, 1, Q, K]; one for each kind of layer if need be.

    Args:
        model: the model.
        visible: bool [B, Q, K], whether a query may see a key.
        distance: int64, same shape: how many tokens the query stands after the key.

    Raises:
        ModelError: the model's attention cannot be told what to see.
    """
    config = model.config.get_text_config()
    attention = config._attn_implementation
    kinds = set(getattr(config, "layer_types", None) or ())
    odd = kinds - {"full_attention", "sliding_attention"}
    if odd or attention not in {"sdpa", "eager"}:
        what = f"layers of kind {min(odd)!r}" if odd else f"attention {attention!r}"
        raise ModelError(f"{what}: the transformers engine cannot score this model")
    window = getattr(config, "sliding_window", None)

    def added(seen: torch.Tensor) -> torch.Tensor:
        dtype = embedding(model).dtype
        zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return zeros.masked_fill_(~seen, torch.finfo(dtype).min).unsqueeze(1)

    near = visible if window is None else visible & (distance < window)
    if window is None or kinds == {"full_attention"} or torch.equal(near, visible):
        return added(visible)
    if kinds:
        return {"full_attention": added(visible), "sliding_attention": added(near)}
    return added(near)


@functools.cache
def _cache_argument(forward: Callable[..., object]) -> str:
    """How a kind of model calls its cache: transformers 5.24 gave it another name."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


def _forward(
    model: PreTrainedModel,
    ids: torch.Tensor,
    positions: torch.Tensor,
    mask: Mask,
    state: tuple[Cache, int | torch.Tensor],
) -> torch.Tensor:
    """Run the model; float32 logits of the last n positions, or of those in a tensor."""
    cache, keep = state
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=keep,
        **{_cache_argument(type(model).forward): cache},
    )
    return out.logits.float()  # type: ignore[no-any-return]


# ------------------------------------------------------------------ many prompts in one row


@dataclass(frozen=True)
class Tree:
    """A prompt and continuations that each follow it.

    Attributes:
        stem: the prompt's tokens, without the shared prefix; at least one.
        branches: non-empty continuations, without the last token (nothing is asked after it).
    """

    stem: Ids
    branches: tuple[Ids, ...] = ()

    @property
    def size(self) -> int:
        """Tokens to read."""
        return len(self.stem) + self.asked - 1

    @property
    def asked(self) -> int:
        """Places whose logits are asked for."""
        return 1 + sum(map(len, self.branches))


@dataclass
class Reading:
    """What the model has read in one row.

    Attributes:
        cache: keys and values of the prefix and, after it, of all trees.
        prefix: tokens of the prefix.
        spans: where each tree's stem stands among the cache's columns.
        logits: of each tree, float32 [1 + tokens in branches, V]: after the stem, then after each
            token of the first branch, of the second...
    """

    cache: Cache
    prefix: int
    spans: list[slice]
    logits: tuple[torch.Tensor, ...]


def read_trees(
    model: PreTrainedModel, trees: Sequence[Tree], prefix: Reading | None = None, room: int = 0
) -> Reading:
    """Read trees in one pass over one row.

    Args:
        model: the model.
        trees: one or more.
        prefix: what was read before all of them; what it had read after its own tokens is lost.
        room: tokens that may be read after these.

    Raises:
        ModelError: the model's attention cannot be told what to see.
        DivergedError: logits are not numbers.
    """
    shared = prefix.spans[-1].stop if prefix else 0
    device = embedding(model).device
    row = _Row.of(trees, shared)
    if prefix is None:
        rooms = [_Room(len(row.ids) + room) for _ in range(_depth(model))]
        cache = Cache(layers=list(rooms))
    else:
        cache = prefix.cache
        for layer in _layers(cache):
            layer.cut(shared)
    layout = torch.tensor([row.positions, row.segments, row.parents], device=device)
    # one causal sequence needs no mask, and attention without one skips what is not seen
    alone = not shared and len(set(row.segments)) == 1
    logits = _forward(
        model,
        torch.tensor([row.ids], device=device),
        layout[:1],
        None if alone else _own(model, layout, shared),
        (cache, torch.tensor(row.asked, device=device)),
    )[0]
    check_numbers(logits)
    return Reading(cache, shared, row.spans, logits.split([tree.asked for tree in trees]))


def check_numbers(logits: torch.Tensor) -> None:
    """Raise DivergedError where logits are not numbers."""
    if logits.isnan().any():
        raise DivergedError("the model's logits are not numbers; its weights diverged")


@dataclass
class _Row:
    """Trees one after the other; a segment is a stem or a branch.

    Attributes:
        ids: tokens.
        positions: of each token in its own sequence.
        segments: of each token.
        parents: the segment that each token's segment follows, -1 for none but the prefix.
        asked: places whose logits are needed: each stem's last token and the branches' tokens.
        spans: the stems' places, counted from the prefix's start.
    """

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    spans: list[slice] = field(default_factory=list)

    @classmethod
    def of(cls, trees: Sequence[Tree], shared: int) -> _Row:
        """Lay out trees that follow ``shared`` tokens."""
        row = cls()
        for tree in trees:
            stem = row._add(tree.stem, shared, -1)
            end = len(row.ids)
            row.asked.append(end - 1)
            row.spans.append(slice(shared + end - len(tree.stem), shared + end))
            for branch in tree.branches:
                row._add(branch, shared + len(tree.stem), stem)
            row.asked += range(end, len(row.ids))
        return row

    def _add(self, tokens: Ids, position: int, parent: int) -> int:
        """Put a segment at the end and return its number."""
        segment = self.segments[-1] + 1 if self.segments else 0
        self.ids += tokens
        self.positions += range(position, position + len(tokens))
        self.segments += [segment] * len(tokens)
        self.parents += [parent] * len(tokens)
        return segment


def _depth(model: PreTrainedModel) -> int:
    return int(model.config.get_text_config().num_hidden_layers)


def _own(model: PreTrainedModel, layout: torch.Tensor, shared: int) -> Mask:
    """Return the mask of tokens that see the prefix, their stem, and what precedes them in a part.

    Args:
        model: the model.
        layout: int64 [3, N]: each token's position, its segment, and the segment that it follows.
        shared: tokens of the prefix, at positions from 0.
    """
    positions, segments, parents = layout
    same = segments.unsqueeze(-1) == segments
    before = same & (positions.unsqueeze(-1) >= positions)
    seen = before | (parents.unsqueeze(-1) == segments)
    visible = torch.cat([seen.new_ones(len(positions), shared), seen], dim=-1)
    keys = torch.cat([torch.arange(shared, device=layout.device), positions])
    return _mask(model, visible.unsqueeze(0), (positions.unsqueeze(-1) - keys).unsqueeze(0))


# ------------------------------------------------------------------ one row a prompt


@dataclass
class State:
    """Sequences that the model goes on with, one row each, aligned on the right.

    Attributes:
        cache: keys and values.
        padding: int64 [B], columns before each row's first token.
        logits: float32 [B, V], of the next token.
    """

    cache: Cache
    padding: torch.Tensor
    logits: torch.Tensor


def lay_out(
    readings: Iterator[tuple[Sequence[int], Reading]], lengths: Sequence[int], room: int
) -> State:
    """Give each prompt a row.

    Args:
        readings: (rows, what was read of them); taken one by one, since a reading may overwrite
            the one before.
        lengths: tokens of each row's prompt, prefix included.
        room: tokens that will follow.
    """
    width = max(lengths)
    cache: Cache | None = None
    logits: list[torch.Tensor] = [torch.empty(0)] * len(lengths)
    for rows, reading in readings:
        source = _layers(reading.cache)
        if cache is None:
            cache = Cache(layers=[_Room(width + room) for _ in source])
            for layer, kept in zip(_layers(cache), source, strict=True):
                keys, values = (
                    _empty(like, width + room, len(lengths))
                    for like in (kept.all_keys, kept.all_values)
                )
                layer.fill(keys, values, width)
        for layer, kept in zip(_layers(cache), source, strict=True):
            for row, span in zip(rows, reading.spans, strict=True):
                begin, own = width - lengths[row], span.stop - span.start
                for to, given in (
                    (layer.all_keys, kept.all_keys),
                    (layer.all_values, kept.all_values),
                ):
                    to[row, :, begin : width - own] = given[0, :, : reading.prefix]
                    to[row, :, width - own : width] = given[0, :, span]
        for row, rest in zip(rows, reading.logits, strict=True):
            logits[row] = rest[0]
    assert cache is not None
    stacked = torch.stack(logits)
    return State(cache, width - torch.tensor(lengths, device=stacked.device), stacked)


def select_rows(state: State, rows: torch.Tensor) -> State:
    """Return a state with the given rows (int64 [N], repeats allowed); the old one stays."""
    kept = _layers(state.cache)
    cache = Cache(layers=[_Room(layer.room) for layer in kept])
    for layer, old in zip(_layers(cache), kept, strict=True):
        place = rows.to(old.all_keys.device)
        layer.fill(old.all_keys[place], old.all_values[place], old.used)
    return State(cache, state.padding[rows], state.logits[rows])


def read_tokens(model: PreTrainedModel, state: State, tokens: Sequence[int]) -> None:
    """Let each row read one more token; the state's cache grows and its logits are renewed.

    Raises:
        DivergedError: logits are not numbers.
    """
    device = state.padding.device
    used = _layers(state.cache)[0].used
    columns = torch.arange(used + 1, device=device)
    padding = state.padding.unsqueeze(-1)
    visible = (columns >= padding).unsqueeze(1)
    mask = _mask(model, visible, (used - columns).expand_as(visible))
    ids = torch.tensor(tokens, device=device).unsqueeze(-1)
    state.logits = _forward(model, ids, used - padding, mask, (state.cache, 1))[:, -1]
    check_numbers(state.logits)
