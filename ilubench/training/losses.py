"""Losses as pure functions: NLL, NPO and its kin, KL, activation errors, the invariance penalty.

A *partial* loss is a micro-batch's share of the global batch's loss: partial losses add up.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional

__all__ = [
    "activation_error",
    "dpo_loss",
    "invariance_gradient",
    "kl_divergence",
    "npo_loss",
    "sequence_sums",
    "simnpo_loss",
    "token_nll",
]


def token_nll(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return each token's negative log-likelihood in nats.

    Args:
        logits: [N, V], any float type; computed in float32.
        targets: int64 [N].

    Returns:
        float32 [N].
    """
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def sequence_sums(values: torch.Tensor, sequence: torch.Tensor, count: int) -> torch.Tensor:
    """Sum token values by sequence.

    Args:
        values: [N].
        sequence: int64 [N], the sequence that each token belongs to.
        count: number of sequences B.

    Returns:
        [B].
    """
    return values.new_zeros(count).index_add(0, sequence, values)


def npo_loss(nll: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """Negative preference optimisation, per sequence.

    -(2 / beta) log sigmoid(beta (NLL - NLL_ref)); Zhang et al. 2024, arXiv 2404.05868, eq. 3.

    Args:
        nll: [B], sequence NLL (summed or averaged over its tokens) under the model.
        reference: [B], the same under the original model.
        beta: inverse temperature; towards 0 the loss tends to gradient ascent.

    Returns:
        [B].
    """
    return -(2.0 / beta) * functional.logsigmoid(beta * (nll - reference))


def simnpo_loss(nll: torch.Tensor, beta: float, margin: float) -> torch.Tensor:
    """Simple negative preference optimisation, per sequence; no reference model.

    -(2 / beta) log sigmoid(beta NLL / |y| - margin); Fan et al. 2024, arXiv 2410.07163.

    Args:
        nll: [B], sequence NLL averaged over its tokens.
        beta: inverse temperature.
        margin: reward margin.

    Returns:
        [B].
    """
    return -(2.0 / beta) * functional.logsigmoid(beta * nll - margin)


def dpo_loss(better: torch.Tensor, worse: torch.Tensor, beta: float) -> torch.Tensor:
    """Direct preference optimisation, per pair of answers.

    -(2 / beta) log sigmoid(beta (worse - better)); Rafailov et al. 2023, arXiv 2305.18290, eq. 7,
    times 2 / beta, so that it is NPO where ``better`` is zero.

    Args:
        better: [B], NLL - NLL_ref of the preferred answer.
        worse: [B], NLL - NLL_ref of the other one.
        beta: inverse temperature.

    Returns:
        [B].
    """
    return -(2.0 / beta) * functional.logsigmoid(beta * (worse - better))


def kl_divergence(logits: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return KL(reference || model) of each token's prediction, in nats.

    Args:
        logits: [N, V] of the model, any float type; computed in float32.
        reference: [N, V] of the reference.

    Returns:
        float32 [N].
    """
    ours = functional.log_softmax(logits.float(), dim=-1)
    theirs = functional.log_softmax(reference.float(), dim=-1)
    return functional.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)


def activation_error(
    hidden: torch.Tensor, target: torch.Tensor, chosen: torch.Tensor
) -> torch.Tensor:
    """Return each sequence's squared error: mean over coordinates, then over chosen tokens.

    Args:
        hidden: [B, T, H], any float type; computed in float32.
        target: what can be broadcast to it.
        chosen: bool [B, T]; at least one token a sequence.

    Returns:
        float32 [B].
    """
    errors = (hidden.float() - target.float()).pow(2).mean(-1)
    return (errors * chosen).sum(1) / chosen.sum(1)


class _InvarianceGradient(torch.autograd.Function):
    """E_p[z] - z_y; its derivative is p_k (1 + z_k - E_p[z]) - [k = y]."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:  # noqa: ANN401
        wide = logits.float()
        # kept for the backward pass: exponentials cost more than reading them again
        probabilities = torch.softmax(wide, dim=-1)
        # a product of rows with columns: the terms of the sums are never written out
        expected = torch.bmm(probabilities.unsqueeze(1), wide.unsqueeze(2)).squeeze(2)
        ctx.save_for_backward(logits, targets, probabilities, expected)
        return (expected - wide.gather(-1, targets.unsqueeze(-1))).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:  # noqa: ANN401
        logits, targets, probabilities, expected = ctx.saved_tensors
        grad = logits.float() - (expected - 1.0)
        grad.mul_(probabilities)
        grad.scatter_add_(-1, targets.unsqueeze(-1), grad.new_full((len(targets), 1), -1.0))
        grad.mul_(grads[0].unsqueeze(-1))
        return grad.to(logits.dtype), None


_apply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = _InvarianceGradient.apply


def invariance_gradient(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return d/dw CE(softmax(w z), y) at w = 1, per token: E_p[z] - z_y.

    The scalar predictor of IRMv1 (Arjovsky et al. 2019, arXiv 1907.02893, section 3.1) on the
    logits. Its mean over an environment's tokens, squared, is the environment's penalty; the
    square is taken by the caller, since it is not additive over micro-batches.

    Args:
        logits: [N, V], any float type; computed in float32.
        targets: int64 [N].

    Returns:
        float32 [N]; differentiable once with respect to the logits.
    """
    return _apply(logits, targets)
