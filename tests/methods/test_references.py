"""The original model's likelihoods, which losses compare with: of which examples, and whose."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import data_for, fresh, make
from doubles import StepRecorder
from transformers import PreTrainedModel

from ilubench.data.batches import collate
from ilubench.errors import DivergedError, PluginError
from ilubench.interfaces import Context, Metrics, StepBatch, UnlearnBatch, UnlearnData
from ilubench.training import LossMethod, optimize, sequence_nll

Making = Callable[..., Context]

SHORT: dict[str, Any] = {"steps": 2, "batch_size": 2}
ODD = 2
"""Position of a forget example that no step of these would see."""


class Around(LossMethod):
    """A wrapper as a plugin may write one: it hands all to its base."""

    base: LossMethod

    def prepare(self, model: PreTrainedModel, data: UnlearnData, context: Context) -> Any:
        return self.base.prepare(model, data, context), data

    def loss(self, model: PreTrainedModel, batch: UnlearnBatch, prepared: Any) -> torch.Tensor:
        return self.base.loss(model, batch, prepared[0])


class Backwards(Around):
    """Steps over the forget set from its end, in a loop of its own."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        prepared = self.base.prepare(model, data, context)

        def gradients(step: int) -> Metrics:
            last = len(data.forget) - 2 * step
            (forget,) = collate(data.forget, (last - 1, last - 2), 0)
            (retain,) = collate(data.retain, (0, 1), 0)
            return self.base.backward(model, StepBatch([UnlearnBatch(forget, retain)]), prepared)

        for _ in optimize(model, self.train, len(data.forget) // 2, gradients, context):
            pass
        return model


class Swaps(Around):
    """Puts the example `ODD` into the place of each batch's first."""

    def backward(self, model: PreTrainedModel, step: StepBatch, prepared: Any) -> Metrics:
        data = prepared[1]
        changed = []
        for micro in step.micro:
            (forget,) = collate(data.forget, [ODD, *micro.forget.index[1:].tolist()], 0)
            changed.append(replace(micro, forget=forget))
        return self.base.backward(model, replace(step, micro=changed), prepared[0])


class SwapsAndSays(Swaps):
    """The same, and says so."""

    def forget_seen(self, data: UnlearnData, context: Context) -> frozenset[int]:
        return super().forget_seen(data, context) | {ODD}


def around(kind: type[Around], name: str) -> Around:
    base = make(name, **SHORT)
    assert isinstance(base, LossMethod)
    return kind(base=base, train=base.train)


@pytest.mark.parametrize("name", ["npo-kl", "dpo"])
def test_references_are_those_of_the_examples_to_come(name: str, context: Making) -> None:
    method, model = make(name, **SHORT), fresh()
    assert isinstance(method, LossMethod)
    data = data_for(method)
    seen = method.forget_seen(data, context())
    assert len(seen) == 4 < len(data.forget)
    told = replace(data, forget_seen=seen)
    few, many = (method.prepare(model, given, context()) for given in (told, data))
    fields = ("reference",) if name == "npo-kl" else ("worse", "better")
    for field in fields:
        partly, whole = getattr(few, field), getattr(many, field)
        assert not whole.isnan().any(), "where nothing is known, all are ready"
        there = ~partly.isnan()
        assert there.any()
        assert not there.all()
        torch.testing.assert_close(partly[there], whole[there])
    if name == "npo-kl":
        assert set((~few.reference.isnan()).nonzero()[:, 0].tolist()) == seen
    log = StepRecorder()
    method.unlearn(model, data, context(log=log))
    assert all(map(math.isfinite, log.losses))


@pytest.mark.parametrize("name", ["npo-kl", "npo-batch_mean", "dpo"])
def test_a_method_with_an_order_of_its_own_finds_all_references(name: str, context: Making) -> None:
    method = around(Backwards, name)
    log = StepRecorder()
    method.unlearn(fresh(), data_for(method.base), context(log=log))
    assert len(log.losses) == 4
    assert all(map(math.isfinite, log.losses))


@pytest.mark.parametrize("name", ["npo-kl", "npo-batch_mean", "dpo"])
def test_an_example_that_was_left_out_is_an_error_with_its_remedy(
    name: str, context: Making
) -> None:
    method = around(Swaps, name)
    data = data_for(method.base)
    assert ODD not in method.forget_seen(data, context())
    with pytest.raises(PluginError, match=rf"^forget example {ODD} was .* override forget_seen"):
        method.unlearn(fresh(), data, context())
    log = StepRecorder()
    around(SwapsAndSays, name).unlearn(fresh(), data, context(log=log))
    assert len(log.losses) == 2
    assert all(map(math.isfinite, log.losses))


def test_a_model_that_gives_no_likelihood_is_not_taken_for_an_example_left_out(
    context: Making,
) -> None:
    model = fresh()
    with torch.no_grad():
        next(model.parameters()).fill_(math.inf)
    method = make("npo-kl", **SHORT)
    assert isinstance(method, LossMethod)
    data = data_for(method)
    with pytest.raises(DivergedError, match="the likelihood of example 'e0' is not finite"):
        sequence_nll(model, data.forget, context(), method.train, mean=True)
