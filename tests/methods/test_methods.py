"""Every method: its gradients against its equation written plainly, resume, repeatability, runs."""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
from cases import CASES, OWN_LOOP, TWO_LOOPS, Making, Tensor, data_for, fresh, make, one_step
from doubles import MemoryState, StepRecorder, differing, gradients, make_context, weights
from objectives import Plain
from runs import SUITE, command, made
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ilubench.interfaces.discovery import entries
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


def test_one_and_eight_micro_batches_agree(case: str, context: Making) -> None:
    whole, whole_metrics, _ = one_step(make(case), context(), None)
    assert all(bool(gradient.isfinite().all()) for gradient in whole.values())
    for micro in (1, 3):
        parts, metrics, _ = one_step(make(case), context(), micro)
        assert close(parts, whole) < 2e-4
        assert metrics == pytest.approx(whole_metrics, rel=2e-4, abs=2e-5)


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


# ------------------------------------------------------------------------------- training


@pytest.mark.parametrize("kill_at", [(2, 3)])
def test_a_killed_method_ends_with_the_same_bits(
    any_case: str, tokenizer: PreTrainedTokenizerBase, kill_at: Sequence[int]
) -> None:
    method = make(any_case, save_every_s=0, micro_batch=3, schedule="cosine", warmup_steps=2)

    def job(state: MemoryState, log: StepRecorder) -> dict[str, Tensor]:
        ctx = make_context(tokenizer, state=state, log=log)
        return weights(method.unlearn(fresh(), data_for(method), ctx))

    whole = StepRecorder()
    unbroken = job(MemoryState(), whole)
    last = 8 if any_case in TWO_LOOPS else 4
    assert [step for step, _ in whole.steps] == list(range(1, last + 1))
    state, log = MemoryState(), StepRecorder()
    for kill in kill_at:
        with pytest.raises(KeyboardInterrupt):
            job(state, StepRecorder(kill))
    resumed = job(state, log)
    assert [step for step, _ in log.steps] == list(range(kill_at[-1], last + 1))
    assert not differing(unbroken, resumed)


def test_a_repeated_run_is_bit_identical(any_case: str, context: Making) -> None:
    method = make(any_case)

    def job(noise: int, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(noise)
        ctx = context(seed=seed, state=MemoryState())
        return weights(method.unlearn(fresh(), data_for(method), ctx))

    first = job(1, 7)
    assert not differing(first, job(2, 7))
    assert differing(first, job(1, 8))


def test_only_the_declared_weights_change(any_case: str, context: Making) -> None:
    method = make(any_case)
    settings = method.model_dump(mode="json")
    if not settings["trainable"]:
        settings["trainable"] = ["*.1.mlp.*_proj.weight", "*.1.self_attn.q_proj.weight"]
        method = type(method).model_validate(settings)
    model = fresh()
    before = weights(model)
    method.unlearn(model, data_for(method), context())
    changed = differing(before, weights(model))
    if "rr" in any_case:
        last = 0 if any_case == "rr-targets" else 1
        assert all(name.endswith("_proj.weight") for name in changed)
        assert len(changed) == 7 * (last + 1)
    elif "rmu" in any_case:
        assert changed == [f"model.layers.{index}.mlp.down_proj.weight" for index in (0, 1)]
    else:
        parts = ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj", "self_attn.q_proj"]
        assert sorted(changed) == [f"model.layers.1.{part}.weight" for part in parts]
    assert all(p.requires_grad for p in model.parameters())


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


def test_weights_in_bfloat16(any_case: str, context: Making) -> None:
    method = make(any_case, lr=1e-2, steps=2)
    model = fresh().to(torch.bfloat16)  # type: ignore[arg-type]
    before = weights(model)
    log = StepRecorder()
    method.unlearn(model, data_for(method), context(log=log))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(math.isfinite(loss) for loss in log.losses)
    assert differing(before, weights(model))


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
    assert {name.partition("-")[0] for name in RUNS} == set(entries("methods")) - untrained


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder whose store has the target, and the original model's jobs."""
    folder = tmp_path_factory.mktemp("runs") / "out"
    shutil.copytree(made() / "store", folder / "store")
    return folder


@pytest.mark.parametrize("name", RUNS)
def test_a_whole_run(name: str, out: Path) -> None:
    words = (*RUNS[name], "method.train.steps=2", "attacks=agnews", "attack.train.steps=2")
    done = command("run", SUITE, *words, f"out={out}", "--json")
    assert done.code == 0, done.err
    record = done.json
    assert record["failures"] == []
    (unlearn,) = [j for j in record["jobs"] if j["stage"] == "unlearn" and "none" not in j["label"]]
    assert unlearn["state"] == "done"
