"""Losses against hand-computed numbers; the closed-form penalty against double backward."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from ilubench.training.losses import invariance_gradient, npo_loss, sequence_sums, token_nll


def test_nll_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [2.0, 2.0]])
    expected = torch.tensor([math.log(4 / 3), math.log(2.0)])
    torch.testing.assert_close(token_nll(logits, torch.tensor([1, 0])), expected)


def test_nll_is_computed_in_float32() -> None:
    logits = torch.randn(5, 300, dtype=torch.bfloat16)
    found = token_nll(logits, torch.arange(5))
    assert found.dtype is torch.float32
    wide = functional.cross_entropy(logits.float(), torch.arange(5), reduction="none")
    assert torch.equal(found, wide)


def test_sequence_sums_by_hand() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0], requires_grad=True)
    sums = sequence_sums(values, torch.tensor([0, 2, 0, 2]), 4)
    assert sums.tolist() == [5.0, 0.0, 10.0, 0.0]
    (sums * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 3.0, 1.0, 3.0]


@pytest.mark.parametrize(
    ("nll", "reference", "beta", "loss", "slope"),
    [
        # -(2/b) log s(0) = (2/b) log 2; slope -2 (1 - s(0)) = -1
        (3.0, 3.0, 0.1, 20 * math.log(2), -1.0),
        (3.0, 3.0, 2.0, math.log(2), -1.0),
        # b (nll - ref) = log 3: s = 3/4
        (5.0 + math.log(3), 5.0, 1.0, 2 * math.log(4 / 3), -0.5),
        # b (nll - ref) = -log 3: s = 1/4
        (5.0 - 2 * math.log(3), 5.0, 0.5, 4 * math.log(4), -1.5),
    ],
)
def test_npo_by_hand(nll: float, reference: float, beta: float, loss: float, slope: float) -> None:
    value = torch.tensor([nll], dtype=torch.float64, requires_grad=True)
    found = npo_loss(value, torch.tensor([reference], dtype=torch.float64), beta)
    assert found.item() == pytest.approx(loss, rel=1e-9)
    found.sum().backward()
    assert value.grad is not None
    assert value.grad.item() == pytest.approx(slope, rel=1e-9)


def test_npo_stays_finite_far_away() -> None:
    nll = torch.tensor([0.0, 1e4], requires_grad=True)
    found = npo_loss(nll, torch.tensor([1e4, 0.0]), 1.0)
    torch.testing.assert_close(found, torch.tensor([2e4, 0.0]))
    found.sum().backward()
    assert nll.grad is not None
    torch.testing.assert_close(nll.grad, torch.tensor([-2.0, 0.0]))


# ------------------------------------------------------------------------------- penalty


def direct(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return d/dw of the mean CE(w z, y) at w = 1 by autograd, differentiable again."""
    w = torch.ones((), dtype=logits.dtype, requires_grad=True)
    loss = functional.cross_entropy(w * logits, targets)
    (gradient,) = torch.autograd.grad(loss, w, create_graph=True)
    return gradient


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected).norm() / expected.norm())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(2, 200), st.floats(0.1, 8.0), st.integers(0, 10**6))
def test_the_closed_form_agrees_with_double_backward(
    count: int, vocabulary: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, vocabulary, generator=generator)
    targets = torch.randint(vocabulary, (count,), generator=generator)
    exact = logits.double().requires_grad_()
    expected = direct(exact, targets)
    expected.backward()
    closed = logits.clone().requires_grad_()
    found = invariance_gradient(closed, targets).mean()
    found.backward()
    assert exact.grad is not None
    assert closed.grad is not None
    size = float(logits.abs().max())
    assert abs(found.item() - expected.item()) <= 1e-5 * max(abs(expected.item()), size)
    assert relative(closed.grad, exact.grad) < 1e-5


def test_the_definition_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])  # p = 1/4, 3/4
    mean = 0.75 * math.log(3.0)
    found = invariance_gradient(logits.expand(2, 2), torch.tensor([0, 1]))
    torch.testing.assert_close(found, torch.tensor([mean, mean - math.log(3.0)]))


def test_a_shift_of_the_logits_changes_nothing() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(6, 30), torch.randint(30, (6,))
    near = invariance_gradient(logits, targets)
    torch.testing.assert_close(
        invariance_gradient(logits + 100, targets), near, rtol=1e-3, atol=1e-4
    )


def test_the_gradient_has_the_logits_type() -> None:
    logits = torch.randn(4, 50, dtype=torch.bfloat16, requires_grad=True)
    found = invariance_gradient(logits, torch.arange(4))
    assert found.dtype is torch.float32
    found.sum().backward()
    assert logits.grad is not None
    assert logits.grad.dtype is torch.bfloat16


def test_the_environment_may_be_empty_of_tokens() -> None:
    logits = torch.zeros(0, 5, requires_grad=True)
    found = invariance_gradient(logits, torch.zeros(0, dtype=torch.long))
    found.sum().backward()
    assert found.shape == (0,)
