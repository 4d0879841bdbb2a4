"""UNDO's three phases: the base, the noise, the distillation; and what runs a base first."""

import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from cases import Making, Tensor, data, fresh, make
from doubles import MemoryState, StepRecorder, differing, make_context, weights
from torch.func import functional_call
from transformers import PreTrainedTokenizerBase

from ilubench.data.batches import Stream
from ilubench.interfaces import Example, StateStore
from ilubench.interfaces.discovery import create_plugin
from ilubench.methods.undo import UNDO
from ilubench.records.store import FolderState
from ilubench.specs import PluginRef
from ilubench.training import trainable_only

TRAIN: dict[str, Any] = {"lr": 1e-3, "steps": 3, "batch_size": 4}
DOWN = "model.layers.1.mlp.down_proj.weight"


def undo(**settings: Any) -> UNDO:
    train = {**TRAIN, **settings.pop("train", {})}
    ref = PluginRef(use="undo", settings={"base": "none", **settings, "train": train})
    return cast("UNDO", create_plugin("methods", ref))


# ------------------------------------------------------------------------------- the noise


@pytest.mark.parametrize(("alpha", "beta"), [(0.25, 0.0), (0.4, 0.5), (1.0, 1.0)])
def test_shrink_and_perturb(alpha: float, beta: float) -> None:
    model = fresh()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with trainable_only(model, ()):
        undo(alpha=alpha, beta=beta).corrupt(model, 7)
    for name, parameter in model.named_parameters():
        noise = parameter.detach() - (1 - alpha) * before[name]
        if parameter.dim() == 1 or beta == 0:
            assert float(noise.abs().max()) < 1e-6
            continue
        bound = alpha * beta * math.sqrt(6 / sum(parameter.shape))
        assert 0.98 * bound < float(noise.abs().max()) <= bound + 1e-6
        # of a uniform number: mean 0, standard deviation bound / sqrt(3)
        assert float(noise.std()) == pytest.approx(bound / math.sqrt(3), rel=0.03)
        assert abs(float(noise.mean())) < 0.03 * bound


def test_the_noise_of_each_tensor_is_its_own_and_the_seeds() -> None:
    def noised(seed: int) -> dict[str, Tensor]:
        model = fresh()
        torch.manual_seed(seed + 1)
        undo(alpha=1.0, beta=1.0).corrupt(model, seed)
        return weights(model)

    first = noised(7)
    assert not differing(first, noised(7))
    matrices = [name for name, tensor in first.items() if tensor.dim() > 1]
    assert differing(first, noised(8)) == matrices
    left, right = (first[f"model.layers.{layer}.mlp.down_proj.weight"] for layer in (0, 1))
    assert abs(float((left * right).mean() / left.square().mean())) < 0.05


def test_only_what_is_trained_is_noised() -> None:
    model = fresh()
    with trainable_only(model, (DOWN,)):
        undo().corrupt(model, 7)
    assert differing(weights(fresh()), weights(model)) == [DOWN]


# ------------------------------------------------------------------------------- distillation


def divergence(theta: Any, teacher: Any, items: list[Example], *, content: bool) -> Tensor:
    """Return the mean KL(teacher || theta), item by item."""
    model, found = cast("torch.nn.Module", fresh()).double(), []
    for item in items:
        ids = torch.tensor([item.input_ids])
        p = torch.softmax(functional_call(model, teacher, (ids,)).logits[0, :-1], -1)
        q = torch.softmax(functional_call(model, theta, (ids,)).logits[0, :-1], -1)
        chosen = torch.ones(len(p), dtype=torch.bool)
        if not content:
            chosen = torch.tensor(item.loss_mask)[1:]
        found.append((p * (p / q).log()).sum(-1)[chosen])
    return torch.cat(found).mean()


@pytest.mark.parametrize(
    "settings",
    [{}, {"text": "both"}, {"tokens": "targets"}, {"trainable": [DOWN]}],
)
def test_a_step_is_that_of_the_equation(context: Making, settings: dict[str, Any]) -> None:
    """One step of AdamW with an eps so large that it hardly normalises: lr g / (|g| + eps)."""
    train = {"lr": 50.0, "steps": 1, "eps": 100.0, "clip": None, "micro_batch": 3}
    method = undo(alpha=0.3, beta=0.5, train=train, **settings)
    log = StepRecorder()
    begun = fresh(1)
    found = weights(method.unlearn(begun, data(), context(log=log)))

    teacher = {name: p.detach().double() for name, p in fresh(1).named_parameters()}
    student = fresh(1)
    with trainable_only(student, method.trainable):
        method.corrupt(student, 7)
    theta = {name: p.detach().double() for name, p in student.named_parameters()}
    trained = [DOWN] if method.trainable else list(theta)
    leaves = {**theta, **{name: theta[name].requires_grad_() for name in trained}}
    items = [*data().retain, *(data().forget if method.text == "both" else [])]
    chosen = [items[i] for i in Stream(len(items), 7, "distil").step(0, 4)]
    loss = divergence(leaves, teacher, chosen, content=method.tokens == "content")
    assert log.losses == [pytest.approx(loss.item(), rel=1e-4)]
    slopes = torch.autograd.grad(loss, [leaves[name] for name in trained])
    for name, slope in zip(trained, slopes, strict=True):
        expected = theta[name].detach() - 50.0 * slope / (slope.abs() + 100.0)
        step = (expected - theta[name].detach()).norm()
        assert step > 1e-6
        assert (found[name].double() - expected).norm() < 1e-3 * step + 1e-6
    assert set(differing(weights(fresh(1)), found)) == set(trained)


def test_the_student_comes_back_to_the_teacher(context: Making) -> None:
    log = StepRecorder()
    method = undo(alpha=0.2, beta=0.1, train={"steps": 60, "lr": 3e-3})
    method.unlearn(fresh(), data(), context(log=log))
    assert log.losses[0] > 0.05
    assert sum(log.losses[-5:]) < 0.5 * sum(log.losses[:5])


# ------------------------------------------------------------------------------- phases


@pytest.mark.parametrize("case", ["undo", "tar-npo"])
def test_a_kill_in_the_second_loop(
    case: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    kills = (3, 6, 7)
    method = make(case, save_every_s=0)

    def job(state: StateStore, log: StepRecorder) -> dict[str, Tensor]:
        ctx = make_context(tokenizer, state=state, log=log)
        return weights(method.unlearn(fresh(), data(), ctx))

    log = StepRecorder()
    for kill in kills:
        with pytest.raises(KeyboardInterrupt):
            job(FolderState(tmp_path), StepRecorder(kill))
    own = "train-distil" if case == "undo" else "train"
    saved = FolderState(tmp_path)
    for phase, step in (("train-base", 3), (own, kills[-1] - 5)):
        found = saved.load(phase)
        assert found is not None
        assert found[1] == {"step": step, "total": 4}
    resumed = job(FolderState(tmp_path), log)
    assert not differing(job(MemoryState(), StepRecorder()), resumed)
    # the base's last step is never saved; the second loop's state is
    assert [step for step, _ in log.steps] == [4, *range(kills[-1], 9)]


@pytest.mark.parametrize("case", ["undo", "tar-npo"])
def test_a_base_trains_what_its_holder_does_unless_it_says_so(case: str, context: Making) -> None:
    for own, expected in (([], [DOWN]), (["lm_head*"], [DOWN, "lm_head.weight"])):
        settings = make(case).model_dump(mode="json")
        settings["trainable"] = [DOWN]
        settings["base"]["settings"]["trainable"] = own
        method = type(make(case)).model_validate(settings)
        model = method.unlearn(fresh(), data(), context(state=MemoryState()))
        assert sorted(differing(weights(fresh()), weights(model))) == sorted(expected)


def test_the_teacher_is_what_the_base_made(context: Making) -> None:
    """Without noise worth the name, what comes out is what the base alone makes."""
    base = make("graddiff")
    method = UNDO.model_validate(
        {"base": base, "alpha": 1e-9, "beta": 0.0, "train": {"lr": 1e-9, "steps": 1}}
    )
    expected = base.unlearn(fresh(), data(), context(state=MemoryState()))
    made = method.unlearn(fresh(), data(), context(state=MemoryState()))
    for name, tensor in weights(made).items():
        torch.testing.assert_close(tensor, weights(expected)[name], rtol=1e-5, atol=1e-7)


def test_environments_are_the_bases() -> None:
    assert undo().environment_names() == ()
    ilu = {"use": "ilu", "settings": {"base": {"use": "npo", "settings": {"train": TRAIN}}}}
    assert undo(base=ilu).environment_names() == ("gsm8k",)
