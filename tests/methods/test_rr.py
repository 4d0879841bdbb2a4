"""Representation rerouting: its schedule, its first noise, its settings, what it does."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from cases import Making, data, data_for, fresh, moved, step_batch
from doubles import MemoryState, StepRecorder, differing, gradients, make_context, weights
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ilubench.data.batches import collate
from ilubench.errors import SpecError
from ilubench.interfaces import Batch, Context, Dataset, UnlearnBatch, UnlearnData
from ilubench.interfaces.discovery import create_plugin
from ilubench.methods.activations import hidden_states
from ilubench.specs import PluginRef
from ilubench.testing import TINY, facts, known_model
from ilubench.testing.facts import known
from ilubench.training import LossMethod, trainable_only

TRAIN = {"lr": 1e-3, "steps": 1}


def rr(**settings: Any) -> Any:
    given = {"train": TRAIN, "layers": [0, 1], **settings}
    return create_plugin("methods", PluginRef(use="rr", settings=given))


# ------------------------------------------------------------------------------- the schedule


class Recording(LossMethod):
    """Notes how far the training is, for each batch of each step."""

    def environment_batches(self) -> dict[str, int]:
        return {"one": 2}

    def prepare(self, model: PreTrainedModel, data: UnlearnData, context: Context) -> Any:
        return []

    def loss(self, model: PreTrainedModel, batch: UnlearnBatch, prepared: Any) -> torch.Tensor:
        raise NotImplementedError

    def backward(self, model: PreTrainedModel, step: Any, prepared: Any) -> dict[str, float]:
        batches: list[Batch] = [*step.environments["one"]]
        batches += [part for micro in step.micro for part in (micro.forget, micro.retain)]
        (progress,) = {batch.progress for batch in batches}
        next(model.parameters()).sum().backward()
        return {"loss": 0.0, "progress": progress}


def test_a_batch_knows_how_far_the_training_is(tokenizer: PreTrainedTokenizerBase) -> None:
    train = TINY.model_copy(update={"steps": 4, "micro_batch": 2})
    method, state = Recording(train=train), MemoryState()

    def steps(log: StepRecorder) -> Sequence[float]:
        context = make_context(tokenizer, state=state, log=log)
        method.unlearn(fresh(), data_for(method), context)
        return [metrics["progress"] for _, metrics in log.steps]

    with pytest.raises(KeyboardInterrupt):
        steps(StepRecorder(kill_after=2))
    assert steps(StepRecorder()) == [0.25, 0.5, 0.75]  # the killed step was not saved
    epochs = train.model_copy(update={"steps": None, "epochs": 2.0, "batch_size": 3})
    method, state = Recording(train=epochs), MemoryState()
    assert steps(StepRecorder()) == pytest.approx([step / 6 for step in range(6)])


def test_the_weight_moves_from_rerouting_to_retaining(context: Making) -> None:
    method = rr(alpha=4.0, gamma=1.0)
    model = fresh()
    prepared = method.prepare(model, data(), context())
    model.load_state_dict(moved(method).state_dict())
    (micro,) = step_batch(data(), None).micro

    def terms(progress: float) -> tuple[float, float]:
        forget, retain = (replace(b, progress=progress) for b in (micro.forget, micro.retain))
        rerouted = method.forget_term(model, forget, prepared).item()
        retained = method.retain_term(model, retain, prepared).item()
        whole = method.loss(model, UnlearnBatch(forget, retain), prepared).item()
        assert rerouted + retained == pytest.approx(whole, rel=1e-6)
        return rerouted, retained

    rerouted, nothing = terms(0.0)
    assert 0 < rerouted < 4.0  # alpha times a cosine
    assert nothing == 0
    half, retained = terms(0.5)
    assert half == pytest.approx(0.75 * rerouted, rel=1e-6)
    assert retained > 0
    assert terms(0.75)[1] == pytest.approx(1.5 * retained, rel=1e-6)


# ------------------------------------------------------------------------------- the first noise


def test_the_noise_is_on_the_trained_weights_and_on_no_others(context: Making) -> None:
    method, model = rr(jitter=0.02, layers=[0]), fresh()
    before = weights(model)
    prepared = method.prepare(model, data(), context())
    after = weights(model)
    changed = differing(before, after)
    assert len(changed) == 7
    assert all(name.startswith("model.layers.0.") for name in changed)
    for name in changed:
        ratio = (after[name] - before[name]).square().mean() / before[name].square().mean()
        assert float(ratio) ** 0.5 == pytest.approx(0.02, rel=0.05)
    noise = [(after[name] - before[name]).flatten()[:9000] for name in changed[:2]]
    assert not torch.allclose(noise[0], noise[1])
    with prepared.weights(model):
        assert not differing(before, weights(model))
    again, other = fresh(), fresh()
    method.prepare(again, data(), context())
    method.prepare(other, data(), context(seed=8))
    assert not differing(after, weights(again))
    assert differing(after, weights(other)) == changed


def test_without_noise_there_is_nothing_to_follow(context: Making) -> None:
    sizes = []
    for jitter in (0.0, 0.01):
        method, model = rr(jitter=jitter, gamma=0.0), fresh()
        before = weights(model)
        prepared = method.prepare(model, data(), context())
        assert bool(differing(before, weights(model))) == (jitter > 0)
        with trainable_only(model, method.trainable):
            method.backward(model, step_batch(data(), None), prepared)
        sizes.append(max(float(g.norm()) for g in gradients(model).values()))
    assert sizes[0] < 1e-3 * sizes[1]


# ------------------------------------------------------------------------------- the terms


def test_what_points_away_is_left_alone(context: Making) -> None:
    method = rr(trainable=["*embed_tokens*"], layers=[0], jitter=0.0)
    model = fresh()
    prepared = method.prepare(model, data(), context())
    (micro,) = step_batch(data(), None).micro
    with torch.no_grad():
        (before,) = hidden_states(model, micro.forget, (0,))
        cast("Any", model).model.embed_tokens.weight.mul_(-1.0)
        (after,) = hidden_states(model, micro.forget, (0,))
    cosines = functional.cosine_similarity(before, after, dim=-1)[:, 1:]
    expected = (cosines.relu() * micro.forget.attention_mask[:, 1:]).sum(1)
    assert float((cosines < 0).float().mean()) > 0.7
    counts = micro.forget.attention_mask[:, 1:].sum(1)
    scale = method.alpha * (1 - micro.forget.progress / 2)
    found = method.forget_term(model, micro.forget, prepared).item()
    assert found == pytest.approx(scale * float((expected / counts).mean()), abs=1e-5)


def test_it_reroutes_what_it_forgets_and_keeps_the_rest(tokenizer: PreTrainedTokenizerBase) -> None:
    found = facts()
    train = {"lr": 1e-3, "steps": 40, "batch_size": 4}
    method = rr(layers=[1], tokens="targets", train=train)
    model = method.unlearn(known_model(), found, make_context(tokenizer))

    def cosine(dataset: Dataset) -> float:
        (batch,) = collate(dataset, range(len(dataset)), 0)
        (now,), (before,) = (hidden_states(m, batch, (1,)) for m in (model, known_model()))
        cosines = functional.cosine_similarity(now, before, dim=-1)
        return cosines[batch.loss_mask].mean().item()

    assert cosine(found.forget) < cosine(found.retain) - 0.2
    assert known(model, found.forget) < known(model, found.retain) - 0.5


# ------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        ([], "layers"),
        ([1, 1], "a layer is named twice"),
        ([-1], "layers.0"),
        (["a"], "layers.0"),
    ],
)
def test_layers_that_make_no_sense(layers: Sequence[Any], problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        rr(layers=layers)
