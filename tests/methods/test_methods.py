"""Every method: its gradients against its equation written plainly, autocast, runs.

What holds for any method whatever its equation is checked by the contract (`tests/testing`).
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from cases import CASES, OWN_LOOP, Making, Tensor, data, data_for, fresh, make, one_step, step_batch
from doubles import MemoryState, StepRecorder, differing, gradients, weights
from objectives import Plain
from runs import SUITE, command, made
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ilubench.interfaces import UnlearnBatch
from ilubench.interfaces.discovery import list_entries
from ilubench.methods.graddiff import GradDiff
from ilubench.specs import TrainSpec
from ilubench.training import trainable_only


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> str:
    return cast("str", request.param)


@pytest.fixture(params=[*CASES, *OWN_LOOP])
def any_case(request: pytest.FixtureRequest) -> str:
    return cast("str", request.param)


# ------------------------------------------------------------------------------- gradients
def close(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    """Return the largest difference of two sets of gradients, relative to the largest gradient."""
    assert left.keys() == right.keys()
    size = max(float(gradient.norm()) for gradient in right.values())
    assert size > 1e-3
    return max(float((left[name] - right[name]).norm()) for name in left) / size


def test_the_gradient_is_that_of_the_whole_objective(
    case: str, context: Making, tokenizer: PreTrainedTokenizerBase
) -> None:
    method = make(case)
    found, metrics, prepared = one_step(method, context(), 2)
    plain = Plain(method, tokenizer)
    plain.prepared = prepared
    plain.target = getattr(prepared, "target", plain.target).double()
    loss = plain.objective(method, plain.theta)
    assert metrics["loss"] == pytest.approx(loss.item(), rel=1e-5)
    with trainable_only(cast("PreTrainedModel", plain.model), method.trainable):
        plain.objective(method, plain.theta).backward()
    expected = gradients(plain.model)
    assert close({n: g.double() for n, g in found.items()}, expected) < 1e-4


class WithItsOwnLoss(GradDiff):
    def loss(self, model: PreTrainedModel, batch: UnlearnBatch, prepared: Any) -> Tensor:
        return 3.0 * super().loss(model, batch, prepared)


def test_a_loss_that_is_overridden_is_what_is_trained() -> None:
    """The terms of the class below run one by one only where their sum is the loss."""
    train = TrainSpec(lr=1e-3, steps=1, batch_size=4)
    found = []
    for method in (GradDiff(train=train), WithItsOwnLoss(train=train)):
        model = fresh()
        method.backward(model, step_batch(data(), 2), None)
        found.append(gradients(model))
    plain, tripled = found
    assert close(tripled, {name: 3.0 * gradient for name, gradient in plain.items()}) < 1e-5


# ------------------------------------------------------------------------------- training


def test_autocast_to_bfloat16(any_case: str, context: Making) -> None:
    """Every trained weight moves, and in the direction that float32 gives."""
    precisions = ("bfloat16", "float32")
    method, exact = (make(any_case, precision=p, steps=1, micro_batch=2) for p in precisions)
    log = StepRecorder()
    model = method.unlearn(fresh(), data_for(method), context(log=log))
    before, after = weights(fresh()), weights(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(math.isfinite(value) for value in log.steps[0][1].values())
    changed = differing(before, after)
    expected = weights(exact.unlearn(fresh(), data_for(exact), context(state=MemoryState())))
    assert changed == differing(before, expected)
    left, right = (
        torch.cat([(found[name] - before[name]).flatten() for name in changed])
        for found in (after, expected)
    )
    # a step of Adam is lr * sign(g): the signs of most coordinates agree
    assert float((left.sign() == right.sign()).float().mean()) > 0.85


# ------------------------------------------------------------------------------- whole runs

RUNS: dict[str, Sequence[str]] = {
    "graddiff": ("method=graddiff",),
    "npo": ("method=npo", "method.reduction=batch_mean", "method.retain=kl"),
    "simnpo": ("method=simnpo",),
    "rmu": ("method=rmu", "method.layer=1", "method.gamma=100"),
    "dpo": ("method=dpo", "method.refusals=no report", "data.forget_passages.prompt=Question:"),
    "idk": ("method=idk", "method.refusals=no report", "data.forget_passages.prompt=Question:"),
    "rr": ("method=rr", "method.layers=1"),
    "lat": ("method=lat", "method.layers=0", "method.inner_steps=2"),
    "elm": ("method=elm", "method.novice=Question:", "method.expert=Answer:", "method.eta=2"),
    "tar": ("method=tar", "method.inner_data=gsm8k,forget", "method.inner_steps=2"),
    "undo": ("method=undo", "method.base=npo", "method.base.beta=0.2", "method.alpha=0.1"),
    "sam": ("method=sam", "method.base=npo", "method.base.beta=0.2", "method.rho=0.1"),
    "task_vector": ("method=task_vector", "method.scale=0.5"),
    "ilu": ("method=ilu", "method.predictor=params", "method.environments=gsm8k,forget"),
    "ilu-rmu": ("method=ilu", "method.base=rmu", "method.base.layer=1"),
}


def test_every_method_is_run() -> None:
    untrained = {"none", "checkpoint", "retrain"}
    assert {name.partition("-")[0] for name in RUNS} == set(list_entries("methods")) - untrained


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose store has the target, and the original model's jobs."""
    folder = tmp_path_factory.mktemp("runs") / "out"
    shutil.copytree(made() / "store", folder / "store")
    return folder


# the contract has every method; the whole way is the same for all
WHOLE = ("npo", "rmu", "ilu", "tar", "sam")


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=() if one in WHOLE else pytest.mark.slow) for one in RUNS]
)
def test_a_whole_run(name: str, out: Path) -> None:
    words = (*RUNS[name], "method.train.steps=2", "attacks=none", "seeds=0")
    done = command("run", SUITE, *words, f"out={out}", "--json")
    assert done.code == 0, done.err
    record = done.json
    assert record["failures"] == []
    (unlearn,) = [j for j in record["jobs"] if j["stage"] == "unlearn" and "none" not in j["label"]]
    assert unlearn["state"] == "done"
