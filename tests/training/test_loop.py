"""The training loop: schedule, guards, resume, what scoring beside it leaves alone."""

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from cases import make
from doubles import (
    MemoryState,
    StepRecorder,
    differing,
    make_context,
    random_examples,
    tiny_llama,
    weights,
)
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ilubench.attacks.finetune import FineTune
from ilubench.data import batches
from ilubench.errors import DivergedError, SpecError
from ilubench.interfaces import Context, UnlearnData
from ilubench.records.store import FolderState
from ilubench.specs import PackSpec, RecipeSpec, TokenizerSpec, TrainSpec
from ilubench.training import (
    fine_tune,
    learning_rate,
    optimize,
    pretrain,
    sequence_nll,
    trainable_only,
)

VOCABULARY = 80
Making = Callable[..., Context]


def fresh(seed: int = 0) -> PreTrainedModel:
    return tiny_llama(VOCABULARY, seed=seed)


@pytest.mark.parametrize("mean", [True, False])
def test_sequence_nll_is_in_the_data_sets_order(context: Making, *, mean: bool) -> None:
    model, dataset = fresh(), random_examples(9, VOCABULARY, 1)
    found = sequence_nll(model, dataset, context(), spec(micro_batch=4), mean=mean)
    for index, item in enumerate(dataset):
        ids = torch.tensor(item.input_ids)
        with torch.no_grad():
            logits = model(input_ids=ids[None]).logits[0, :-1]
        losses = functional.cross_entropy(logits, ids[1:], reduction="none")
        losses = losses[torch.tensor(item.loss_mask)[1:]]
        expected = losses.mean() if mean else losses.sum()
        assert found[index].item() == pytest.approx(expected.item(), rel=1e-4)
    assert not model.training


# ------------------------------------------------------------------------------- loop


def spec(**fields: Any) -> TrainSpec:
    return TrainSpec.model_validate({"lr": 1.0, "steps": 10, **fields})


def test_schedules() -> None:
    assert [learning_rate(spec(), step, 10) for step in (0, 9)] == [1.0, 1.0]
    warm = spec(warmup_steps=4, schedule="linear")
    assert [learning_rate(warm, step, 10) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert [learning_rate(warm, step, 10) for step in (4, 7, 9)] == pytest.approx([1, 0.5, 1 / 6])
    cosine = spec(schedule="cosine")
    assert [learning_rate(cosine, step, 10) for step in (0, 5)] == pytest.approx([1.0, 0.5])
    assert 0 < learning_rate(cosine, 9, 10) < 0.05
    assert learning_rate(spec(warmup_steps=20, schedule="cosine"), 9, 10) == 0.5


def run_fine_tune(context: Context, **train: Any) -> PreTrainedModel:
    model = fresh()
    settings = TrainSpec.model_validate({"lr": 1e-3, "steps": 6, "batch_size": 4, **train})
    for _ in fine_tune(model, random_examples(10, VOCABULARY, 5), settings, context):
        pass
    return model


def test_training_lowers_the_loss(context: Making) -> None:
    log = StepRecorder()
    model = run_fine_tune(context(log=log), steps=30, lr=3e-3)
    assert log.losses[-1] < 0.5 * log.losses[0]
    assert [step for step, _ in log.steps] == list(range(1, 31))
    assert log.steps[0][1]["lr"] == 3e-3
    assert log.steps[0][1]["tokens"] > 0
    assert not model.training


@pytest.mark.parametrize("use", ["finetune", "npo"])
def test_groups_of_like_lengths_change_only_the_order_of_sums(
    context: Making, monkeypatch: pytest.MonkeyPatch, use: str
) -> None:
    dataset = random_examples(12, VOCABULARY, 5, longest=50)
    train = {"lr": 1e-3, "steps": 3, "batch_size": 8}
    found: dict[int, tuple[int, list[float]]] = {}
    for saving in (64, 10**9):
        monkeypatch.setattr(batches, "PASS", saving)
        positions: list[int] = []
        model, log = fresh(), StepRecorder()
        model.get_input_embeddings().register_forward_hook(
            lambda _module, given, _made, seen=positions: seen.append(given[0].numel())
        )
        if use == "npo":
            data = UnlearnData(dataset[:8], dataset[2:])
            make("npo-batch_mean", **train).unlearn(model, data, context(log=log))
        else:
            for _ in fine_tune(model, dataset, TrainSpec.model_validate(train), context(log=log)):
                pass
        found[saving] = sum(positions), log.losses
    (fewer, grouped), (more, whole) = found[64], found[10**9]
    assert fewer < 0.9 * more
    assert grouped == pytest.approx(whole, rel=1e-4)


def test_the_update_is_adamw_on_clipped_gradients(context: Making) -> None:
    log = StepRecorder()
    fields: dict[str, Any] = {"steps": 1, "clip": 0.01, "weight_decay": 0.1}
    found = run_fine_tune(context(log=log), **fields)
    (step,) = [metrics for _, metrics in log.steps]
    assert step["grad_norm"] > 0.01  # reported as it was before clipping
    free = run_fine_tune(context(), **{**fields, "clip": None})
    start = fresh()
    name = "model.layers.0.mlp.down_proj.weight"
    # Adam's first step is lr * sign(g), whatever the clip, up to eps
    before, after = start.state_dict()[name], found.state_dict()[name]
    moved = (before * (1 - 1e-3 * 0.1) - after).abs()
    assert float(moved.median()) == pytest.approx(1e-3, rel=0.05)
    torch.testing.assert_close(free.state_dict()[name], after, rtol=1e-2, atol=2e-3)


def test_clipping_bounds_the_norm(context: Making) -> None:
    model = fresh()
    seen: list[float] = []

    def gradients_of(step: int) -> dict[str, float]:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 3.0)
        return {"loss": 1.0}

    original = torch.optim.AdamW.step

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        seen.append(float(torch.stack([g.norm() for g in grads]).norm()))
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        for _ in optimize(model, spec(steps=1, clip=0.5), 1, gradients_of, context()):
            pass
    assert seen == pytest.approx([0.5], rel=1e-3)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_what_is_not_finite_stops_the_job(context: Making, what: str) -> None:
    model = fresh()

    def step(number: int) -> dict[str, float]:
        bad = math.nan if number == 2 else 1.0
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, bad if what == "gradient" else 1.0)
        return {"loss": bad if what == "loss" else 1.0}

    with pytest.raises(DivergedError, match=r"step 3: .*not finite.*; lower the lr"):
        list(optimize(model, spec(), 10, step, context()))
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_weights_that_became_nan_stop_the_job(context: Making) -> None:
    with pytest.raises(DivergedError, match="step 2"):
        run_fine_tune(context(), lr=1e30, clip=None)


def test_stops_are_yielded_once_each(context: Making) -> None:
    model = fresh()
    dataset = random_examples(5, VOCABULARY, 1)
    settings = spec(lr=1e-3, steps=4)
    assert list(fine_tune(model, dataset, settings, context(), (0, 2, 4))) == [0, 2, 4]
    assert list(fine_tune(model, dataset, settings, context(), (3,))) == [3]


# ------------------------------------------------------------------------------- trainable


def test_a_pattern_that_matches_nothing(model: PreTrainedModel) -> None:
    with (
        pytest.raises(SpecError, match=r"trainable: no parameter matches 'lm_hed.weight'; did you"),
        trainable_only(model, ["lm_hed.weight"]),
    ):
        pass
    assert all(p.requires_grad for p in model.parameters())


# ------------------------------------------------------------------------------- resume


class Killing:
    """Runs a job until it is killed after a step, then again with the same state."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __call__(
        self, job: Callable[[Context], PreTrainedModel], kill_at: Sequence[int]
    ) -> tuple[PreTrainedModel, MemoryState, list[int]]:
        state = MemoryState()
        steps: list[int] = []
        for kill in kill_at:
            log = StepRecorder(kill)
            with pytest.raises(KeyboardInterrupt):
                job(make_context(self.tokenizer, state=state, log=log))
            steps += [step for step, _ in log.steps]
        log = StepRecorder()
        model = job(make_context(self.tokenizer, state=state, log=log))
        return model, state, steps + [step for step, _ in log.steps]


@pytest.fixture
def killing(tokenizer: PreTrainedTokenizerBase) -> Killing:
    return Killing(tokenizer)


@pytest.mark.parametrize("kill_at", [(1,), (2, 3), (6,)])
def test_a_killed_job_ends_with_the_same_bits(
    killing: Killing, context: Making, kill_at: Sequence[int]
) -> None:
    def job(ctx: Context) -> PreTrainedModel:
        more: dict[str, Any] = {"micro_batch": 3, "schedule": "cosine", "warmup_steps": 2}
        return run_fine_tune(ctx, save_every_s=0, **more)

    resumed, state, steps = killing(job, kill_at)
    assert state.saves > 0
    assert not differing(weights(job(context())), weights(resumed))
    assert len(steps) == 6 + len(kill_at)  # only the step that was killed is done again


def test_without_saved_state_a_killed_job_starts_again(killing: Killing, context: Making) -> None:
    def job(ctx: Context) -> PreTrainedModel:
        return run_fine_tune(ctx, save_every_s=1000)

    resumed, state, steps = killing(job, (4,))
    assert state.saves == 0
    assert steps == [1, 2, 3, 4, 1, 2, 3, 4, 5, 6]
    assert not differing(weights(job(context())), weights(resumed))


def test_a_resumed_attack_does_not_repeat_saved_checkpoints(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    state = MemoryState()
    attack = FineTune.model_validate(
        {"train": {"lr": 1e-3, "steps": 8, "save_every_s": 0}, "each_epoch": False}
    )
    data = {"train": random_examples(10, VOCABULARY, 5)}

    def course(log: StepRecorder) -> Iterator[int | None]:
        context = make_context(tokenizer, state=state, log=log)
        for checkpoint in attack.tamper(fresh(), data, context):
            yield checkpoint.step

    seen: list[int | None] = []
    with pytest.raises(KeyboardInterrupt):
        seen.extend(step for step in course(StepRecorder(5)))
    assert list(course(StepRecorder())) == [6, 8]


def test_a_kill_while_a_checkpoint_is_scored_repeats_it(tokenizer: PreTrainedTokenizerBase) -> None:
    state = MemoryState()
    settings = spec(lr=1e-3, steps=4, save_every_s=0)
    dataset = random_examples(10, VOCABULARY, 5)

    def course() -> Iterator[int]:
        return fine_tune(fresh(), dataset, settings, make_context(tokenizer, state=state), (2, 4))

    running = course()
    assert next(running) == 2
    assert isinstance(running, Generator)
    running.close()
    assert list(course()) == [2, 4]


def test_state_in_a_file_and_tied_weights_in_half_precision(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    settings = spec(lr=1e-2, steps=5, save_every_s=0)
    dataset = random_examples(10, VOCABULARY, 5)

    def job(folder: Path, log: StepRecorder) -> PreTrainedModel:
        folder.mkdir(exist_ok=True)
        model = tiny_llama(VOCABULARY, tied=True)
        model.to(torch.bfloat16)  # type: ignore[arg-type]
        context = make_context(tokenizer, state=FolderState(folder), log=log)
        for _ in fine_tune(model, dataset, settings, context):
            pass
        return model

    unbroken = job(tmp_path / "a", StepRecorder())
    with pytest.raises(KeyboardInterrupt):
        job(tmp_path / "b", StepRecorder(4))
    log = StepRecorder()
    resumed = job(tmp_path / "b", log)
    assert [step for step, _ in log.steps] == [4, 5]
    assert not differing(weights(unbroken), weights(resumed))


# ------------------------------------------------------------------------------- repeatability


def test_scoring_does_not_change_a_model_with_dropout(context: Making) -> None:
    def job(stops: Sequence[int]) -> PreTrainedModel:
        model = tiny_llama(VOCABULARY, attention_dropout=0.3)
        for _ in fine_tune(
            model, random_examples(8, VOCABULARY, 5), spec(lr=1e-3, steps=4), context(), stops
        ):
            torch.manual_seed(123)
            model.eval()
            with torch.no_grad():
                ids = torch.tensor([[1, 5, 9]])
                cast("Any", model).generate(ids, max_new_tokens=4, do_sample=True, pad_token_id=0)
        return model

    assert not differing(weights(job(())), weights(job((0, 1, 2, 3, 4))))


def test_the_first_autocast_step_reaches_every_weight(context: Making) -> None:
    """Looking at the head must not leave half-precision copies without gradients behind."""
    before = weights(fresh())
    after = weights(run_fine_tune(context(), precision="bfloat16", steps=1))
    assert differing(before, after) == list(before)


# ------------------------------------------------------------------------------- pretraining


def recipe(**train: Any) -> RecipeSpec:
    return RecipeSpec(
        config={"model_type": "llama"},
        tokenizer=TokenizerSpec(kind="word"),
        text=("a",),
        pack=(
            PackSpec(length=16, share=0.5, batch_size=4),
            PackSpec(length=32, share=0.5, batch_size=2),
        ),
        train=TrainSpec.model_validate({"lr": 1e-3, "steps": 4, **train}),
    )


def test_pretraining_is_resumable_and_independent_of_micro_batches(
    killing: Killing, context: Making
) -> None:
    documents = random_examples(12, VOCABULARY, 9)

    def job(ctx: Context, **train: Any) -> PreTrainedModel:
        model = fresh()
        pretrain(model, documents, recipe(save_every_s=0, **train), ctx)
        return model

    log = StepRecorder()
    whole = job(context(log=log))
    resumed, _, _ = killing(job, (2,))
    assert not differing(weights(whole), weights(resumed))
    small = StepRecorder()
    job(context(log=small, state=MemoryState()), micro_batch=1)
    assert small.losses == pytest.approx(log.losses, rel=1e-4)
    assert log.steps[0][1]["tokens"] == 64


# ------------------------------------------------------------------------------- attack


@pytest.mark.parametrize("settings", [{"steps": 40}, {"epochs": 3}, {"epochs": 0.3}, {"steps": 1}])
@pytest.mark.parametrize("examples", [1, 7, 64])
def test_checkpoints_begin_at_zero_and_end_at_the_end(
    settings: dict[str, Any], examples: int
) -> None:
    attack = FineTune.model_validate({"train": {"lr": 1e-3, **settings}})
    found = attack.checkpoints(examples)
    total = attack.train.total_steps(examples)
    assert found[0] == 0
    assert found[-1] == total
    assert list(found) == sorted(set(found))


def test_an_attack_ends_where_it_says(context: Making) -> None:
    attack = FineTune.model_validate({"train": {"lr": 1e-3, "epochs": 2, "batch_size": 4}})
    data = {"train": random_examples(8, VOCABULARY, 5)}
    model = fresh()
    found = [checkpoint.name for checkpoint in attack.tamper(model, data, context())]
    assert found == [f"step-{step:06d}" for step in (0, 1, 2, 3, 4)]


def test_an_epoch_leaves_no_item_out(context: Making) -> None:
    """Ten items in batches of four: three full steps, the last with the next epoch's first two."""
    from ilubench.training import fine_tuning

    attack = FineTune.model_validate({"train": {"lr": 1e-3, "epochs": 1, "batch_size": 4}})
    assert attack.checkpoints(10) == (0, 1, 2, 3)
    seen: list[list[int]] = []
    step = fine_tuning._nll_step

    def noting(model: Any, batches: Any, device: str) -> Any:
        seen.append([int(index) for batch in batches for index in batch.index])
        return step(model, batches, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fine_tuning, "_nll_step", noting)
        list(attack.tamper(fresh(), {"train": random_examples(10, VOCABULARY, 5)}, context()))
    assert [len(batch) for batch in seen] == [4, 4, 4]
    assert {index for batch in seen for index in batch} == set(range(10))
    two = FineTune.model_validate({"train": {"lr": 1e-3, "epochs": 2, "batch_size": 4}})
    assert two.checkpoints(10) == (0, 1, 2, 3, 4, 5)


def test_a_frozen_model_is_attacked_as_a_whole(context: Making) -> None:
    model = fresh()
    before = weights(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    attack = FineTune.model_validate({"train": {"lr": 1e-3, "steps": 2}})
    list(attack.tamper(model, {"train": random_examples(8, VOCABULARY, 5)}, context()))
    assert differing(before, weights(model)) == list(before)
