"""Squared gradients of an environment's loss as a penalty, whatever the gradient is taken by.

A *statistic* is such a gradient G: a mean over the environment's target tokens. The penalty is
<G, G>, or <G_a, G_b> of two halves of the batch. Its derivative is 2 <G, dG> or <G_b, dG_a> +
<G_a, dG_b>, and G is known after the last micro-batch only: so one pass over the micro-batches
finds G, another one its derivative's product with it.
"""

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ilubench.data.seeds import seed_for
from ilubench.interfaces import Batch
from ilubench.models.forward import answer_logits, token_values
from ilubench.training.losses import invariance_gradient, token_nll

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Statistic", "add_penalty", "token_shares"]

Statistic: TypeAlias = Literal["logits", "elementwise", "params", "weights"]
"""With respect to what the loss is differentiated, at w = 1 (or at theta).

`logits`: w z, w a scalar. `elementwise`: head(w * h), w a vector on the final hidden state.
`params`: w theta, w a scalar on the trained weights. `weights`: theta itself.
"""

Shares: TypeAlias = Sequence[torch.Tensor]
"""What each token of a row counts, per part of the batch: float32 [B] each."""


def token_shares(batches: Sequence[Batch], *, split: bool) -> list[list[torch.Tensor]]:
    """Return the weights that make sums over micro-batches means over the tokens of each part.

    Args:
        batches: micro-batches of one global batch.
        split: two halves, by sequences, at random; otherwise one part. The split depends on which
            sequences are there, neither on the micro-batches nor on a random state.

    Returns:
        For each micro-batch, and each part: float32 [B].
    """
    indices = [index for batch in batches for index in batch.index.tolist()]
    part = [0] * len(indices)
    if split:
        part = [place % 2 for place in range(len(indices))]
        text = ",".join(map(str, indices))
        random.Random(seed_for(0, "split", text)).shuffle(part)
    tokens = [count for batch in batches for count in batch.loss_mask.sum(1).tolist()]
    parts = sorted(set(part))
    totals = [sum(n for n, mine in zip(tokens, part, strict=True) if mine == one) for one in parts]
    found, start = [], 0
    for batch in batches:
        mine = torch.tensor(part[start : start + len(batch.input_ids)])
        start += len(mine)
        device = batch.input_ids.device
        found.append([((mine == one) / totals[one]).to(device) for one in parts])
    return found


def add_penalty(
    model: "PreTrainedModel",
    batches: Sequence[Batch],
    statistic: Statistic,
    *,
    weight: float,
    split: bool,
) -> float:
    """Add the gradient of weight * penalty into ``.grad``; return the penalty, unweighted.

    `params` and `weights` differentiate twice through the attention, which only its plain kernel
    allows. With ``split`` the penalty can be negative.

    Args:
        model: parameters with ``requires_grad`` count as trained.
        batches: the environment's micro-batches.
        statistic: see `Statistic`.
        weight: of the penalty.
        split: multiply two half-batches' statistics (no upward bias) instead of squaring one.
    """
    shares = token_shares(batches, split=split)
    kept = len(batches) == 1  # then one pass finds both
    first: list[list[torch.Tensor]] = []
    means: list[list[torch.Tensor]] = []
    for batch, share in zip(batches, shares, strict=True):
        first = _statistics(model, batch, share, statistic, graph=kept)
        means = _sum(means, first) if means else [[x.detach() for x in part] for part in first]
    a, b = means[0], means[-1]
    value = sum(float((x * y).sum()) for x, y in zip(a, b, strict=True))
    others = [b, a] if split else [[2.0 * piece for piece in a]]
    for batch, share in zip(batches, shares, strict=True):
        parts = first if kept else _statistics(model, batch, share, statistic, graph=True)
        products = [
            (other * piece).sum()
            for part, fixed in zip(parts, others, strict=True)
            for piece, other in zip(part, fixed, strict=True)
        ]
        (weight * torch.stack(products).sum()).backward()
    return value


def _sum(
    left: list[list[torch.Tensor]], right: list[list[torch.Tensor]]
) -> list[list[torch.Tensor]]:
    return [
        [x + y.detach() for x, y in zip(mine, theirs, strict=True)]
        for mine, theirs in zip(left, right, strict=True)
    ]


def _statistics(
    model: "PreTrainedModel", batch: Batch, shares: Shares, statistic: Statistic, *, graph: bool
) -> list[list[torch.Tensor]]:
    """Return the micro-batch's share of each part's statistic, as a list of tensors.

    What is differentiated twice keeps its logits whole: cut into chunks they would all be kept.
    """
    if statistic == "logits":
        return _of_logits(model, batch, shares, graph=graph)
    if statistic == "elementwise":
        head = cast("torch.nn.Module", model.get_output_embeddings())
        ones = torch.ones(cast("torch.Tensor", head.weight).shape[-1], device=model.device)
        leaves: list[torch.Tensor] = [ones.requires_grad_()]
        around = _scaled_input(head, leaves[0])
    else:
        leaves = [p for p in model.parameters() if p.requires_grad]
        around = sdpa_kernel(SDPBackend.MATH)
    with around:
        answers = answer_logits(model, batch)
        nll = token_nll(answers.logits, answers.targets)
        found = []
        for share in shares:
            loss = (nll * share[answers.sequence]).sum()
            slopes = torch.autograd.grad(
                loss, leaves, create_graph=graph, retain_graph=True, materialize_grads=True
            )
            if statistic == "params":
                pairs = zip(leaves, slopes, strict=True)
                products = [(leaf.float() * slope.float()).sum() for leaf, slope in pairs]
                found.append([torch.stack(products).sum()])
            else:
                found.append([slope.float() for slope in slopes])
    return found


def _of_logits(
    model: "PreTrainedModel", batch: Batch, shares: Shares, *, graph: bool
) -> list[list[torch.Tensor]]:
    with torch.set_grad_enabled(graph):
        invariance = token_values(model, batch, invariance_gradient)
        found = [[(invariance.values * share[invariance.sequence]).sum()] for share in shares]
    if not graph:
        torch.clear_autocast_cache()  # of copies of the weights that have no gradient
    return found


@contextlib.contextmanager
def _scaled_input(head: torch.nn.Module, scale: torch.Tensor) -> Iterator[None]:
    def scaled(
        _head: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        return (inputs[0] * scale.to(inputs[0].dtype), *inputs[1:])

    handle = head.register_forward_pre_hook(scaled)
    try:
        yield
    finally:
        handle.remove()
