"""Head and loss on a few positions at a time: the same numbers, and never all the logits."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import known_settings
from cases import VOCABULARY, Making, fresh, make, one_step
from doubles import gradients, random_examples, tiny_llama
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel

from ilubench.data.batches import collate
from ilubench.errors import IlubenchError
from ilubench.interfaces import Batch
from ilubench.methods.divergence import mean_divergence
from ilubench.methods.invariance import add_penalty
from ilubench.methods.original import Original
from ilubench.methods.terms import mean_nll, summed_nll
from ilubench.models import forward as models
from ilubench.models.forward import answer_logits, initialise_model, token_values
from ilubench.specs import TrainSpec
from ilubench.training import sequence_nll, trainable_only
from ilubench.training.losses import invariance_gradient, sequence_sums, token_nll

V, H = 500, 96
Tensor = torch.Tensor
Loss = Callable[[PreTrainedModel, Batch], Tensor]


def batch_of(vocabulary: int = V, count: int = 6) -> Batch:
    (batch,) = collate(random_examples(count, vocabulary, 1), range(count), pad=0)
    return batch


N = batch_of().tokens
assert N not in (H, V)

Chunks = Callable[..., None]


@pytest.fixture
def chunks(monkeypatch: pytest.MonkeyPatch) -> Chunks:
    """Return what sets the number of positions at once, for models of either vocabulary."""

    def to(positions: int, vocabulary: int = V) -> None:
        monkeypatch.setattr(models, "LOGITS", positions * vocabulary)

    return to


def divergence(model: PreTrainedModel, batch: Batch) -> Tensor:
    """KL to a model that is elsewhere, its head as well."""
    original = Original(tiny_llama(V, seed=1), ())
    return mean_divergence(model, batch, original)


def closed_form(model: PreTrainedModel, batch: Batch) -> Tensor:
    return token_values(model, batch, invariance_gradient).values.sum() / batch.tokens


def some_sequences(model: PreTrainedModel, batch: Batch) -> Tensor:
    """A loss in which each sequence counts otherwise."""
    nll = token_values(model, batch, token_nll)
    sums = sequence_sums(nll.values, nll.sequence, nll.count)
    return (sums * torch.arange(1.0, 1.0 + len(sums))).sum() / batch.tokens


LOSSES: dict[str, Loss] = {
    "nll": mean_nll,
    "sequences": some_sequences,
    "irm": closed_form,
    "kl": divergence,
}


def both(model: PreTrainedModel, loss: Loss, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Return a loss and its gradients."""
    model.zero_grad(set_to_none=True)
    value = loss(model, batch)
    value.backward()
    return value.detach(), gradients(model)


def assert_near(
    found: tuple[Tensor, dict[str, Tensor]],
    expected: tuple[Tensor, dict[str, Tensor]],
    tolerance: float = 1e-5,
) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=0)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        error = float((found[1][name] - gradient).norm())
        assert error <= tolerance * float(gradient.norm()), name


@pytest.mark.parametrize("size", [1, 3, N, N + 1])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_those_of_all_logits(name: str, size: int, chunks: Chunks) -> None:
    model, batch = tiny_llama(V), batch_of()
    expected = both(model, LOSSES[name], batch)
    chunks(size)
    found = both(model, LOSSES[name], batch)
    assert_near(found, expected)
    if size >= N:  # the plain path
        assert torch.equal(found[0], expected[0])
        assert all(torch.equal(found[1][key], value) for key, value in expected[1].items())


def test_the_plain_path_is_that_of_the_logits() -> None:
    model, batch = tiny_llama(V), batch_of()
    answers = answer_logits(model, batch)
    found = token_values(model, batch, token_nll)
    assert torch.equal(found.values, token_nll(answers.logits, answers.targets))
    assert torch.equal(found.targets, answers.targets)
    assert torch.equal(found.sequence, answers.sequence)
    assert found.count == answers.count
    cut = token_values(model, batch, token_nll, chunk=4)
    torch.testing.assert_close(cut.values, found.values, rtol=1e-5, atol=1e-6)
    assert torch.equal(cut.sequence, found.sequence)


def test_what_stands_beside_is_cut_alike_and_differentiated() -> None:
    model, batch = tiny_llama(V), batch_of()
    weight = torch.rand(N, requires_grad=True)

    def weighted(logits: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
        return weight * token_nll(logits, targets)

    token_values(model, batch, weighted, beside=(weight,), chunk=4).values.sum().backward()
    assert weight.grad is not None
    expected = token_values(model, batch, token_nll).values.detach()
    torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(IlubenchError, match=rf"beside has 3 rows, the batch {N} target tokens"):
        token_values(model, batch, weighted, beside=(weight[:3],))


@pytest.mark.parametrize("size", [3, N])
def test_a_batch_without_targets_has_no_values(size: int) -> None:
    whole = batch_of()
    none = Batch(
        whole.input_ids, whole.attention_mask, torch.zeros_like(whole.loss_mask), whole.index, 6, 0
    )
    assert token_values(tiny_llama(V), none, token_nll, chunk=size).values.shape == (0,)


# ------------------------------------------------------------------------------- heads


def test_a_tied_head_gets_the_gradients_of_both_uses(chunks: Chunks) -> None:
    model, batch = tiny_llama(V, tied=True), batch_of()
    expected = both(model, mean_nll, batch)
    assert "lm_head.weight" not in expected[1]
    chunks(3)
    assert_near(both(model, mean_nll, batch), expected)


def test_a_tied_head_of_the_original_is_the_originals(chunks: Chunks) -> None:
    model, batch = tiny_llama(V, tied=True), batch_of()
    original = Original(tiny_llama(V, tied=True, seed=1), ())

    def kl(model: PreTrainedModel, batch: Batch) -> Tensor:
        return mean_divergence(model, batch, original)

    expected = both(model, kl, batch)
    assert float(expected[0]) > 0.1
    chunks(3)
    assert_near(both(model, kl, batch), expected)
    model.load_state_dict(tiny_llama(V, tied=True, seed=1).state_dict())
    assert abs(float(kl(model, batch).detach())) < 1e-6


@pytest.mark.parametrize(
    ("kind", "more"),
    [("phi", {}), ("gemma2", {}), ("cohere", {})],
    ids=["bias", "capped", "scaled"],
)
def test_other_heads(kind: str, more: dict[str, Any], chunks: Chunks) -> None:
    config: dict[str, Any] = {
        "hidden_size": H,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "head_dim": 48,
    }
    config |= {"num_attention_heads": 2, "num_key_value_heads": 2, "pad_token_id": 0}
    config = {"model_type": kind, **known_settings(kind, config), **more}
    model, batch = initialise_model(config, V, 0).eval(), batch_of()
    expected = both(model, mean_nll, batch)
    assert kind != "phi" or "lm_head.bias" in expected[1]
    chunks(3)
    assert_near(both(model, mean_nll, batch), expected)


def test_the_head_is_called_as_a_module_for_each_chunk() -> None:
    model, batch, seen = tiny_llama(V), batch_of(), []
    token_values(model, batch, token_nll)  # looks at the head
    head = model.get_output_embeddings()
    assert head is not None
    handle = head.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    token_values(model, batch, token_nll, chunk=4)
    handle.remove()
    assert seen == [4] * (N // 4) + [N % 4] * (N % 4 > 0)


# ------------------------------------------------------------------------------- precision


@pytest.mark.parametrize("name", ["nll", "irm", "kl"])
def test_under_autocast_chunks_are_as_precise_as_the_whole(name: str, chunks: Chunks) -> None:
    """The head's gradient is summed over chunks in float32, each rounded once as the whole is."""
    model, batch, loss = tiny_llama(V), batch_of(), LOSSES[name]
    exact = both(model, loss, batch)[1]

    def error(size: int) -> dict[str, float]:
        chunks(size)
        with torch.autocast("cpu", torch.bfloat16):
            found = both(model, loss, batch)[1]
        return {
            key: float((found[key] - value).norm() / value.norm()) for key, value in exact.items()
        }

    whole, cut = error(N), error(1)
    assert 1e-4 < whole["lm_head.weight"] < 0.05
    for key, value in whole.items():
        assert cut[key] < 1.05 * value + 1e-4, key


def test_the_backward_pass_may_run_outside_autocast(chunks: Chunks) -> None:
    model, batch = tiny_llama(V), batch_of()

    def value(size: int) -> dict[str, Tensor]:
        model.zero_grad(set_to_none=True)
        chunks(size)
        with torch.autocast("cpu", torch.bfloat16):
            loss = mean_nll(model, batch)
        loss.backward()
        return gradients(model)

    whole, cut = value(N), value(3)
    for key, gradient in whole.items():
        assert float((cut[key] - gradient).norm()) < 0.02 * float(gradient.norm()), key


# ------------------------------------------------------------------------------- methods


@pytest.mark.parametrize(
    "name",
    [
        "npo-batch_mean",
        "npo-kl",
        "simnpo",
        "dpo",
        "elm-fluency",
        "sam",
        "lat",
        "ilu-batch_mean",
        "ilu-control",
        "ilu-split",
        "ilu-elementwise",
        "ilu-params",
    ],
)
def test_a_methods_step_is_the_same(name: str, context: Making, chunks: Chunks) -> None:
    method = make(name)
    expected, metrics, _ = one_step(method, context(), None)
    chunks(7, VOCABULARY)
    found, same, _ = one_step(method, context(), None)
    assert_near((torch.tensor(0.0), found), (torch.tensor(0.0), expected), 1e-4)
    assert dict(same) == pytest.approx(dict(metrics), rel=1e-5)


def test_the_entropy_of_tar_is_the_same(chunks: Chunks) -> None:
    method, model, batch = make("tar"), fresh(), batch_of(VOCABULARY)
    expected = both(model, method._tamper_loss, batch)
    logs = torch.log_softmax(answer_logits(model, batch).logits, -1)
    torch.testing.assert_close(expected[0], (logs.exp() * logs).sum(-1).mean())
    chunks(3, VOCABULARY)
    assert_near(both(model, method._tamper_loss, batch), expected)


def test_chunks_may_be_differentiated_twice() -> None:
    model, batch = tiny_llama(V), batch_of()

    def squared_gradient(size: int) -> tuple[Tensor, dict[str, Tensor]]:
        model.zero_grad(set_to_none=True)
        values = token_values(model, batch, token_nll, chunk=size).values
        head = model.get_output_embeddings().weight
        (slope,) = torch.autograd.grad(values.mean(), head, create_graph=True)
        value = slope.square().sum()
        value.backward()
        return value.detach(), gradients(model)

    assert_near(squared_gradient(3), squared_gradient(N))


# ------------------------------------------------------------------------------- memory


class Widest(TorchDispatchMode):
    """Sees every tensor that is made: the most positions of a tensor with a side of V."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.positions = 0
        self.heads = 0
        """Tensors of the head's shape: its weights and gradients."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and V in leaf.shape:
                others = leaf.numel() // V
                self.heads += others == H
                self.positions = max(self.positions, others if others != H else 0)
        return out


def widest(run: Callable[[], object]) -> Widest:
    seen = Widest()
    with seen:
        run()
    return seen


def erasing(model: PreTrainedModel, batch: Batch) -> Tensor:
    """ELM's forget term: four sets of logits."""
    from ilubench.methods.contexts import Contrast
    from ilubench.methods.elm import ELM, _Prepared

    contrast = Contrast((5, 6), (7,), 2.0, None, 0)
    prepared = _Prepared(Original(model, ()), contrast, random_examples(6, V, 1), ())
    return ELM(train=TrainSpec(lr=1e-3, steps=1, batch_size=6)).forget_term(model, batch, prepared)


def penalty(model: PreTrainedModel, batch: Batch) -> Tensor:
    """The penalty with two halves, whose gradient it takes by itself."""
    add_penalty(model, [batch], "logits", weight=1.0, split=True)
    return summed_nll(model, batch).sum()


@pytest.mark.parametrize("loss", [*LOSSES.values(), erasing, penalty])
def test_no_tensor_has_all_logits(loss: Loss, chunks: Chunks) -> None:
    model, batch = tiny_llama(V), batch_of()
    mean_nll(model, batch)  # looks at the head

    def run() -> None:
        loss(model, batch).backward()

    assert widest(run).positions >= N  # the plain path, and that it is seen
    chunks(4)
    assert widest(run).positions == 4


@pytest.mark.parametrize("loss", [*LOSSES.values(), erasing])
def test_no_logits_wait_for_the_backward_pass(loss: Loss, chunks: Chunks) -> None:
    model, batch = tiny_llama(V), batch_of()
    mean_nll(model, batch)  # looks at the head

    def kept() -> int:
        found = 0

        def keep(tensor: Tensor) -> Tensor:
            nonlocal found
            if V in tensor.shape and H not in tensor.shape:
                found += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss(model, batch).backward()
        return found

    assert kept() >= N * V
    chunks(4)
    assert kept() == 0


def test_references_have_no_more_logits_at_once(context: Making, chunks: Chunks) -> None:
    model, dataset = tiny_llama(V), random_examples(6, V, 1)
    spec = TrainSpec(lr=1e-3, steps=1, batch_size=6)
    plain = sequence_nll(model, dataset, context(), spec, mean=False)
    chunks(4)

    def run() -> None:
        torch.testing.assert_close(
            sequence_nll(model, dataset, context(), spec, mean=False), plain, rtol=1e-5, atol=1e-5
        )

    assert widest(run).positions == 4


def test_a_frozen_head_has_no_gradient_buffer(chunks: Chunks) -> None:
    frozen, batch = tiny_llama(V), batch_of()

    def buffers(model: PreTrainedModel) -> int:
        return widest(mean_nll(model, batch).backward).heads

    views = 2 * -(-N // 4)  # of the weights, transposed: two a chunk
    with trainable_only(frozen, ("*.mlp.*",)):
        expected = both(frozen, mean_nll, batch)
        assert all("mlp" in name for name in expected[1])
        chunks(4)
        assert_near(both(frozen, mean_nll, batch), expected)
        assert buffers(frozen) <= views
    assert buffers(tiny_llama(V)) > views
