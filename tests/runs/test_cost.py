"""What unlearning costs: passes counted by hand, kept over kills, memory."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from cases import Making, data_for, fresh, make
from runs import SUITE, command, made, with_target

from ilubench.interfaces import Batch
from ilubench.methods.activations import hidden_state
from ilubench.records.store import FolderState
from ilubench.runs.stages.cost import Passes, StepLog

STEPS = 4
FORGET, RETAIN, ITEMS, PROBE = 2, 2, 9, 2
"""Passes of a step's forget and retain micro-batches of two; items of the forget set; the two short
forwards, once a model, by which `answer_logits` finds out what its head does."""


def cost_of(name: str, context: Making, path: Path, **train: int) -> dict[str, float]:
    """Return the cost of a whole run of a method on two layers, micro-batches of 2."""
    method, model, passes = make(name, micro_batch=2, **train), fresh(), Passes()
    path.mkdir(exist_ok=True)
    log = StepLog(path / "log.jsonl", passes)
    with passes.counting(model):
        method.unlearn(model, data_for(method), context(log=log))
    return {key: float(str(value)) for key, value in log.cost().items()}


def test_a_difference_of_losses_goes_once_forwards_and_backwards(
    context: Making, tmp_path: Path
) -> None:
    cost = cost_of("graddiff", context, tmp_path)
    assert cost["steps"] == STEPS
    assert cost["backward_passes"] == STEPS * (FORGET + RETAIN)
    assert cost["forward_passes"] == cost["backward_passes"] + PROBE
    assert 0 < cost["forward_tokens"] - cost["backward_tokens"] < 10
    assert cost["tokens"] <= cost["forward_tokens"] < 2 * cost["tokens"]  # padding is computed


def test_a_reference_adds_forwards_of_the_whole_forget_set(context: Making, tmp_path: Path) -> None:
    cost = cost_of("npo-kl", context, tmp_path)
    reference = -(-ITEMS // 2)  # once, in micro-batches
    original = STEPS * RETAIN  # the KL term asks the original model in each step
    assert cost["forward_passes"] == STEPS * (FORGET + RETAIN) + reference + original + PROBE
    assert cost["backward_passes"] == STEPS * (FORGET + RETAIN)


def test_layers_that_are_not_computed_do_not_count(context: Making, tmp_path: Path) -> None:
    model, passes = fresh(), Passes()
    ids = torch.ones(3, 5, dtype=torch.long)
    with passes.counting(model), torch.no_grad():
        batch = Batch(ids, torch.ones_like(ids), ids.bool(), torch.arange(3), 3, 15)
        hidden_state(model, batch, 0)
    assert passes.take() == {
        "forward_passes": 0.5,
        "backward_passes": 0.0,
        "forward_tokens": 7.5,
        "backward_tokens": 0.0,
    }
    model(ids)
    assert set(passes.take().values()) == {0.0}, "counted after the context"


@pytest.mark.parametrize("name", ["ilu-rmu", "ilu-grad_norm", "task_vector", "tar", "lat"])
def test_counting_changes_no_bit(name: str, context: Making, tmp_path: Path) -> None:
    method, counted, plain, passes = make(name), fresh(), fresh(), Passes()
    with passes.counting(counted):
        counted = method.unlearn(counted, data_for(method), context())
    plain = method.unlearn(plain, data_for(method), context())
    theirs = plain.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in counted.state_dict().items())
    assert passes.take()["backward_passes"] > 0


def test_the_penalty_costs_what_the_control_costs(context: Making, tmp_path: Path) -> None:
    """IRM's closed form: one forward and one backward of the environment's batch."""
    with_penalty = cost_of("ilu-batch_mean", context, tmp_path)
    assert with_penalty["backward_passes"] == STEPS * (FORGET + RETAIN + 8 // 2)
    second = cost_of("ilu-params", context, tmp_path / "second")
    assert second["backward_passes"] > STEPS * (FORGET + RETAIN + 8 // 2)


def test_a_killed_job_keeps_what_it_had_counted(tmp_path: Path) -> None:
    model, passes = fresh(), Passes()
    ids = torch.ones(2, 3, dtype=torch.long)
    log = StepLog(tmp_path / "log.jsonl", passes)
    with passes.counting(model):
        for step in (1, 2):
            model(ids).logits.sum().backward()
            log(step, {"tokens": 6.0})
        FolderState(tmp_path).save("train", {}, {"step": 2})
        model(ids).logits.sum().backward()
        log(3, {"tokens": 7.0})  # killed before it is saved: it is made again
    again = Passes()
    resumed = StepLog(tmp_path / "log.jsonl", again)
    with again.counting(model):
        model(ids).logits.sum().backward()
        resumed(3, {"tokens": 6.0})
    cost = resumed.cost()
    assert (cost["steps"], cost["tokens"]) == (3, 18)
    assert (cost["forward_passes"], cost["backward_passes"]) == (3, 3)
    assert (cost["forward_tokens"], cost["backward_tokens"]) == (18, 18)


def test_memory_is_that_of_the_job(tmp_path: Path) -> None:
    """A large tensor of an earlier job must not show in a later one's peak."""

    def memory(elements: int) -> Mapping[str, float]:
        log = StepLog(tmp_path / "none.jsonl")
        held = torch.ones(elements)
        assert held.sum() == elements
        del held
        return {key: float(str(value)) for key, value in log.cost().items()}

    large, small = memory(50_000_000), memory(1000)  # 200 MB
    assert large["grown_bytes"] > 150e6
    if Path("/proc/self/clear_refs").exists():
        assert small["grown_bytes"] < 50e6
        assert small["peak_bytes"] < large["peak_bytes"]


def test_a_record_has_the_passes(tmp_path: Path) -> None:
    with_target(made(), tmp_path)
    done = command("run", SUITE, "method=npo", "attacks=none", f"out={tmp_path}", "--json")
    assert done.code == 0, done.err
    cost = json.loads(done.out)["cost"]
    assert cost["forward_passes"] > cost["backward_passes"] > 0
    assert cost["forward_tokens"] > cost["tokens"] / 2
