"""Training in less memory: small updates kept, state in fewer bits, layers run twice, steps that
did not fit done again."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from cases import data_for, make, step_batch
from cases import fresh as large_vocabulary
from doubles import (
    MemoryState,
    SilentProgress,
    StepRecorder,
    differing,
    make_context,
    random_examples,
    tiny_llama,
    weights,
)
from places import MEASURED
from runs import planned
from transformers import PreTrainedTokenizerBase

from ilubench.errors import JobError, SpecError
from ilubench.interfaces import Context, Room
from ilubench.records.run_files import read_config
from ilubench.records.store import FolderState
from ilubench.runs.stages.cost import Passes, StepLog
from ilubench.specs import MemorySpec, RunSpec, TrainSpec
from ilubench.specs.memory import memory_per_parameter
from ilubench.specs.yaml_files import load_yaml
from ilubench.training import fine_tune, optimize, sequence_nll, trainable_only
from ilubench.training import optimizer as optimizers
from ilubench.training.optimizer import LeanAdamW, make_optimizer
from ilubench.training.rounding import stochastic_bfloat16, to_float8, to_float8_root

Making = Callable[..., Context]
Gradient = Callable[[int], torch.Tensor]
SIZE = 700
"""Weights of a model that is one row of them: two blocks of float8 and most of a third."""

OPTIONS = [
    {"update": "master"},
    {"update": "stochastic"},
    {"update": "plain", "moments": "bfloat16"},
    {"update": "master", "moments": "float8"},
    {"update": "stochastic", "moments": "float8", "offload": True},
    {"update": "master", "moments": "bfloat16", "offload": True},
]


def spec(**fields: Any) -> TrainSpec:
    return TrainSpec.model_validate({"lr": 1e-3, "steps": 10, "clip": None, **fields})


class Row(torch.nn.Module):
    """A model that is one row of weights."""

    def __init__(self, start: torch.Tensor) -> None:
        super().__init__()
        self.row = torch.nn.Parameter(start.clone())


def start(count: int = SIZE) -> torch.Tensor:
    """Return weights that bfloat16 can hold."""
    return torch.randn(count, generator=torch.Generator().manual_seed(1)).bfloat16()


def noisy(step: int, count: int = SIZE) -> torch.Tensor:
    """Return a step's gradients, of sizes over four orders of magnitude; bfloat16 can hold them."""
    generator = torch.Generator().manual_seed(100 + step)
    sizes = torch.logspace(-5, -1, count)
    return (torch.randn(count, generator=generator) * sizes).bfloat16()


def trained(
    context: Context,
    memory: Mapping[str, Any],
    dtype: torch.dtype,
    gradient: Gradient,
    **train: Any,
) -> torch.Tensor:
    """Return the row after training by given gradients, from `begin` or `start`."""
    model = Row(train.pop("begin", start(len(gradient(0)))).to(dtype))

    def gradients(step: int) -> dict[str, float]:
        model.row.grad = gradient(step).to(dtype)
        return {"loss": 0.0}

    settings = spec(**train)
    own = replace(context, memory=MemorySpec.model_validate(memory))
    for _ in optimize(cast("Any", model), settings, settings.total_steps(1), gradients, own):
        pass
    return model.row.detach()


# --------------------------------------------------------------------------- rounding


def test_random_rounding_is_right_in_the_mean_and_repeatable() -> None:
    sizes = torch.logspace(-6, 2, 16)[:, None]
    values = torch.randn(16, 256, generator=torch.Generator().manual_seed(0)) * sizes
    noise = torch.Generator().manual_seed(3)
    draws = 200
    means = {name: torch.zeros_like(values) for name in ("bfloat16", "float8", "root")}
    for _ in range(draws):
        means["bfloat16"] += stochastic_bfloat16(values, noise).float() / draws
        codes, scales = to_float8(values, noise)
        means["float8"] += codes.float() * scales / draws
        codes, scales = to_float8_root(values.square(), noise)
        means["root"] += (codes.float() * scales).square() / draws
    # the standard deviation of one rounding is half of the neighbours' distance at most
    for name, distance in (("bfloat16", 2.0**-7), ("float8", 2.0**-3)):
        bias = (means[name] - values).sum(1)
        spread = 0.5 * distance * values.norm(dim=1) / math.sqrt(draws)
        assert bool((bias.abs() < 3 * spread).all()), name
    squares = values.square()
    spread = 0.25 * squares.norm(dim=1) / math.sqrt(draws)
    assert bool(((means["root"] - squares).sum(1).abs() < 3 * spread).all())
    first, second = (
        stochastic_bfloat16(values, torch.Generator().manual_seed(seed)) for seed in (5, 5)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, stochastic_bfloat16(values, torch.Generator().manual_seed(6)))


def test_float8_keeps_to_its_grid_and_a_root_never_vanishes() -> None:
    noise = torch.Generator().manual_seed(0)
    values = torch.tensor([[0.0, 1e-30, 1.0, 448.0**2]])
    for _ in range(20):
        codes, scales = to_float8_root(values, noise)
        found = codes.float() * scales
        assert found[0, 0] == 0
        assert found[0, 1] == 2.0**-9
        assert found[0, 2:].tolist() == [1.0, 448.0]
    # what was on the grid stays as it is when the block's scale changes
    for largest in (447.0, 449.0, 3000.0):
        block = torch.tensor([[0.875, 30.0, -52.0, largest]])
        codes, scales = to_float8(block, noise)
        assert (codes.float() * scales)[0, :3].tolist() == block[0, :3].tolist()


# --------------------------------------------------------------------------- updates


def test_master_copies_take_what_float32_weights_take(context: Making) -> None:
    train = {"steps": 50, "lr": 1e-5, "weight_decay": 0.1}
    exact = trained(context(), {}, torch.float32, noisy, **train)
    ours = trained(context(), {}, torch.bfloat16, noisy, **train)
    assert torch.equal(ours, exact.bfloat16())
    assert not torch.equal(ours, start())


@pytest.mark.parametrize(("update", "moves"), [("plain", 0), ("master", 1), ("stochastic", 1)])
def test_small_updates_are_lost_by_rounding_to_the_nearest(
    context: Making, update: str, moves: int
) -> None:
    def upwards(_step: int) -> torch.Tensor:
        return -torch.ones(SIZE, dtype=torch.bfloat16)

    before = torch.full((SIZE,), 0.02).bfloat16()  # its last digit is 1.2e-4
    train = {"steps": 100, "lr": 1e-6, "begin": before}
    found = trained(context(), {"update": update}, torch.bfloat16, upwards, **train)
    moved = found.float() - before.float()
    if not moves:
        assert bool((moved == 0).all())
    elif update == "master":
        assert bool((moved == 2.0**-13).all())
    else:
        assert moved.mean().item() == pytest.approx(1e-4, rel=0.1)


def test_float32_weights_take_torchs_own_step(context: Making) -> None:
    parameters = [torch.nn.Parameter(torch.ones(3))]
    for memory in ({}, {"update": "master"}, {"update": "stochastic"}, {"checkpointing": True}):
        made = make_optimizer(parameters, spec(), MemorySpec.model_validate(memory), 0)
        assert type(made) is torch.optim.AdamW
        assert made.defaults["fused"]
    exact = trained(context(), {}, torch.float32, noisy, weight_decay=0.1)
    for update in ("auto", "stochastic"):  # nothing is rounded
        lean = {"offload": True, "update": update}
        found = trained(context(), lean, torch.float32, noisy, weight_decay=0.1)
        assert torch.equal(found, exact)


@pytest.mark.parametrize("memory", OPTIONS[:5])
def test_where_the_state_lies_and_how_it_is_cut_changes_no_bit(
    context: Making, memory: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, other = (
        trained(context(), {**memory, "offload": offload}, torch.bfloat16, noisy)
        for offload in (False, True)
    )
    assert torch.equal(plain, other)
    if memory == {"update": "master"}:  # the others draw in another order
        monkeypatch.setattr(optimizers, "_PIECE", 256)
        assert torch.equal(trained(context(), memory, torch.bfloat16, noisy), plain)


def test_float16_weights_are_not_rounded_at_random() -> None:
    half = [torch.nn.Parameter(torch.ones(3, dtype=torch.float16))]
    with pytest.raises(SpecError, match=r"memory\.update: float16 .*; use master"):
        make_optimizer(half, spec(), MemorySpec(update="stochastic"), 0)


# --------------------------------------------------------------------------- moments


@pytest.mark.parametrize("moments", ["bfloat16", "float8"])
def test_second_moments_in_few_bits_grow_on(moments: str) -> None:
    """Rounded to the nearest, they stop when a thousandth is less than their last digit."""
    steps, count = 600, 1024
    row = torch.nn.Parameter(torch.zeros(count))
    made = make_optimizer([row], spec(lr=1e-4), MemorySpec.model_validate({"moments": moments}), 0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        row.grad = torch.randn(count, generator=generator).sign()
        made.step()
    assert isinstance(made, LeanAdamW)
    _, second = made._moments.read(made.state[row], slice(0, count), row.device)
    expected = 1 - 0.999**steps
    assert second.mean().item() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize(
    ("memory", "distance"),
    [
        ({"moments": "bfloat16"}, 0.02),
        ({"moments": "float8"}, 0.1),
        ({"update": "stochastic"}, 0.1),
        ({"update": "stochastic", "moments": "float8"}, 0.1),
    ],
)
def test_the_loss_ends_where_that_of_float32_state_does(
    memory: Mapping[str, Any], distance: float, losses_of: Callable[..., list[float]]
) -> None:
    exact, found = losses_of({}), losses_of(memory)
    assert exact[-1] < 0.6 * exact[0]
    assert found != exact
    assert found[-1] == pytest.approx(exact[-1], rel=distance)


@pytest.fixture(scope="module")
def losses_of(tokenizer: PreTrainedTokenizerBase) -> Callable[..., list[float]]:
    """Return a function: memory -> losses of fine-tuning in bfloat16; each is trained once."""
    known: dict[str, list[float]] = {}

    def of(memory: Mapping[str, Any]) -> list[float]:
        settings = MemorySpec.model_validate(memory)
        name = settings.model_dump_json()
        if name not in known:
            log = StepRecorder()
            context = make_context(tokenizer, log=log, memory=settings)
            model = tiny_llama(80)
            model.to(torch.bfloat16)  # type: ignore[arg-type]
            dataset = random_examples(4, 80, 5)
            for _ in fine_tune(model, dataset, spec(steps=25, lr=2e-3), context):
                pass
            known[name] = log.losses
        return known[name]

    return of


@pytest.mark.parametrize("memory", OPTIONS)
def test_a_killed_job_ends_with_the_same_bits(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, memory: Mapping[str, Any]
) -> None:
    def job(folder: str, log: StepRecorder) -> torch.Tensor:
        (tmp_path / folder).mkdir(exist_ok=True)
        context = make_context(tokenizer, state=FolderState(tmp_path / folder), log=log)
        return trained(context, memory, torch.bfloat16, noisy, save_every_s=0)

    whole = job("whole", StepRecorder())
    with pytest.raises(KeyboardInterrupt):
        job("killed", StepRecorder(6))
    log = StepRecorder()
    resumed = job("killed", log)
    assert [step for step, _ in log.steps] == [6, 7, 8, 9, 10]
    assert torch.equal(whole, resumed)


def test_the_state_has_the_bytes_that_are_documented() -> None:
    table = {
        ("master", "float32"): 16.0,
        ("master", "bfloat16"): 12.0,
        ("master", "float8"): 10.03,
        ("stochastic", "float32"): 12.0,
        ("stochastic", "bfloat16"): 8.0,
        ("stochastic", "float8"): 6.03,
    }
    count = 256 * 40
    for (update, moments), total in table.items():
        memory = MemorySpec.model_validate({"update": update, "moments": moments})
        told = memory_per_parameter(memory, "bfloat16")
        assert told.device == pytest.approx(total, abs=0.005)
        assert f"| {update}, {moments} ".ljust(25) + "| 2 " in (MemorySpec.__doc__ or "")
        assert f"| {total:<5g} | {total * 7.24:<6.0f} |" in (MemorySpec.__doc__ or "")
        row = torch.nn.Parameter(start(count))
        made = make_optimizer([row], spec(), memory, 0)
        row.grad = noisy(0, count)
        made.step()
        sizes = {name: value.nbytes / count for name, value in made.state[row].items()}
        assert sizes.pop("step") * count == 4
        assert sizes.pop("master", 0.0) == told.master
        assert sum(sizes.values()) == told.moments
    lean = memory_per_parameter(MemorySpec(offload=True), "bfloat16", 0.5)
    assert (lean.device, lean.host) == (3.0, 6.0)
    exact = memory_per_parameter(MemorySpec(), "float32", 0.25)
    assert (exact.device, exact.host, exact.master) == (7.0, 0.0, 0.0)
    with pytest.raises(ValueError, match=r"trained=1\.5"):
        memory_per_parameter(MemorySpec(), "float32", 1.5)


def test_weights_that_do_not_change_get_no_gradient_and_no_state(context: Making) -> None:
    method, model, state = make("rmu", save_every_s=0), large_vocabulary(), MemoryState()
    model.to(torch.bfloat16)  # type: ignore[arg-type]
    data, ctx = data_for(method), context(state=state)
    chosen = {f"model.layers.{layer}.mlp.down_proj.weight" for layer in (0, 1)}
    prepared = method.prepare(model, data, ctx)
    with trainable_only(model, method.trainable):
        method.backward(model, step_batch(data, None), prepared)
        assert {n for n, p in model.named_parameters() if p.grad is not None} == chosen
    model.zero_grad(set_to_none=True)
    method.unlearn(model, data, ctx)
    tensors, _ = state.phases["train"]
    trained_count = sum(p.numel() for n, p in model.named_parameters() if n in chosen)
    held = {name: tensor for name, tensor in tensors.items() if name.startswith("optimizer/")}
    assert {name.split("/")[1] for name in tensors} == chosen
    assert sum(tensor.nbytes for tensor in held.values()) == trained_count * 12 + 4 * len(chosen)


# --------------------------------------------------------------------------- clipping


def test_the_norm_of_half_precision_gradients_is_float32(context: Making) -> None:
    log = StepRecorder()
    whole = torch.full((SIZE,), 0.1).bfloat16()
    exact = whole.double().norm().item()
    assert float(whole.norm()) != pytest.approx(exact, rel=1e-4)
    trained(context(log=log), {}, torch.bfloat16, lambda _step: whole, steps=1)
    assert log.steps[0][1]["grad_norm"] == pytest.approx(exact, rel=1e-6)


def test_half_precision_gradients_are_clipped(context: Making) -> None:
    seen: list[float] = []
    original = LeanAdamW.step

    def spy(self: LeanAdamW, closure: None = None) -> None:
        seen.append(self.param_groups[0]["params"][0].grad.double().norm().item())
        original(self, closure)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeanAdamW, "step", spy)
        trained(context(), {}, torch.bfloat16, lambda _step: start(), steps=1, clip=0.5)
    assert seen == pytest.approx([0.5], rel=5e-3)


# --------------------------------------------------------------------------- what does not fit


@contextmanager
def small_device(model: Any, fits: int = 10**9, *, once: int | None = None) -> Iterator[list[int]]:
    """Refuse batches of more than ``fits`` sequences, and any batch in the call number ``once``.

    Yields the sizes of the batches that went through, and those refused as negative numbers.
    """
    sizes: list[int] = []
    calls = 0

    def refuse(_body: object, args: Sequence[Any], inputs: Mapping[str, Any]) -> None:
        nonlocal calls
        calls += 1
        size = len(inputs.get("input_ids", *args[:1]))
        if size > fits or calls == once:
            sizes.append(-size)
            raise torch.OutOfMemoryError(f"CUDA out of memory: {size} sequences")
        sizes.append(size)

    handle = model.base_model.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield sizes
    finally:
        handle.remove()


CLOSE: dict[str, Any] = {"rtol": 2e-3, "atol": 1e-5}


@pytest.mark.parametrize("name", ["npo-kl", "ilu-batch_mean", "ilu-params-split", "tar"])
def test_steps_that_do_not_fit_are_done_again_in_smaller_parts(name: str, context: Making) -> None:
    logs, found = [], []
    for fits in (10**9, 1):
        log, method, model = StepRecorder(), make(name, steps=2, eps=1e-4), large_vocabulary()
        with small_device(model, fits) as sizes:
            model = method.unlearn(model, data_for(method), context(log=log))
        assert (max(sizes) > 1) == (fits > 1)
        logs.append(log.steps)
        found.append(model.state_dict())
    plain, small = logs
    assert [step for step, _ in small] == [step for step, _ in plain] == [1, 2]
    assert all("micro_batch" not in metrics for _, metrics in plain)
    for (_, expected), (_, metrics) in zip(plain, small, strict=True):
        assert metrics.pop("micro_batch") == 1.0
        assert metrics == pytest.approx(expected, rel=1e-3, abs=1e-6)
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, **CLOSE)


@pytest.mark.parametrize("once", [4, 9])
def test_nothing_of_a_failed_try_is_left(once: int, context: Making) -> None:
    """It fails in the middle of a step, after gradients were accumulated and put aside."""
    found, logs = [], []
    for fails in (None, once):
        log, model = StepRecorder(), large_vocabulary()
        method = make("ilu-batch_mean", steps=3, micro_batch=2, eps=1e-4)
        with small_device(model, once=fails):
            model = method.unlearn(model, data_for(method), context(log=log))
        found.append(model.state_dict())
        logs.append([metrics["loss"] for _, metrics in log.steps])
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, **CLOSE)


def test_the_smaller_size_is_remembered_also_by_a_resumed_job(context: Making) -> None:
    def job(ctx: Context) -> list[int]:
        model = tiny_llama(80)
        with small_device(model, 3) as sizes:
            for _ in fine_tune(model, random_examples(8, 80, 5), spec(batch_size=8, **train), ctx):
                pass
        return sizes

    train = {"steps": 3, "save_every_s": 0}
    state, log = MemoryState(), StepRecorder(2)
    with pytest.raises(KeyboardInterrupt):
        job(context(state=state, log=log))
    assert [metrics["micro_batch"] for _, metrics in log.steps] == [2.0, 2.0]
    ctx = context(state=state)
    sizes = job(ctx)
    assert sizes[-4:] == [2] * 4
    assert min(sizes) > 0
    assert ctx.room.limit == 2


def test_what_never_fits_says_what_to_try(context: Making) -> None:
    model = tiny_llama(80)
    dataset = random_examples(4, 80, 5)
    memory = MemorySpec(moments="float8", checkpointing=True)
    with small_device(model, 0), pytest.raises(JobError) as caught:
        list(fine_tune(model, dataset, spec(), context(memory=memory)))
    told = str(caught.value)
    assert told == (
        "step 1 does not fit into the device's memory; try memory.update=stochastic, "
        "memory.offload=true, a lower suite.max_length"
    )
    with small_device(model, 0), pytest.raises(JobError, match="an example's likelihood does not"):
        sequence_nll(model, dataset, context(), spec(), mean=True)
    model.eval()
    with small_device(model, 0), pytest.raises(JobError):
        sequence_nll(model, dataset, context(), spec(), mean=True)
    assert not model.training

    def uncut(_step: int) -> dict[str, float]:
        raise torch.OutOfMemoryError

    with pytest.raises(JobError, match=r"step 1 does not fit .* try a lower micro_batch, memory"):
        list(optimize(model, spec(), 1, uncut, context()))

    def no_room(_self: LeanAdamW, _closure: None = None) -> None:
        raise torch.OutOfMemoryError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LeanAdamW, "step", no_room)
        with pytest.raises(JobError, match="step 1: the optimizer's state does not fit"):
            trained(context(), {}, torch.bfloat16, noisy)


def test_room_is_asked_for_what_was_cut() -> None:
    room = Room()
    assert [room.micro(None, 8), room.micro(3, 8), room.micro(None, 0)] == [8, 3, 1]
    assert room.shrink()
    assert (room.limit, room.micro(None, 9), room.micro(2, 9)) == (4, 4, 2)
    room.largest = 0
    assert not room.shrink(), "nothing was cut: there is nothing to halve"


# --------------------------------------------------------------------------- layers run twice


def _counting(model: Any, calls: list[int]) -> Any:
    """Count how often a part of a layer begins to run."""
    return model.model.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))


@pytest.mark.parametrize(
    "name",
    [
        "npo-kl",
        "rmu",
        "sam",
        "lat",
        "lat-rmu",
        "ilu-elementwise",
        "ilu-params",
        "ilu-grad_norm-split",
    ],
)
def test_layers_that_run_twice_change_no_bit(name: str, context: Making) -> None:
    found, counted, runs = [], [], []
    for on in (False, True):
        method, model, passes = make(name, steps=2, micro_batch=3), large_vocabulary(), Passes()
        before = [dict(layer.__dict__) for layer in model.model.layers]
        memory = MemorySpec(checkpointing=on)
        calls: list[int] = []
        inner = _counting(model, calls)
        with passes.counting(model):
            model = method.unlearn(model, data_for(method), context(memory=memory))
        inner.remove()
        assert [set(layer.__dict__) for layer in model.model.layers] == list(map(set, before))
        found.append(weights(model))
        counted.append(passes.take())
        runs.append(len(calls))
    assert not differing(*found)
    assert counted[0] == counted[1], "what runs again is not counted again"
    assert runs[1] > runs[0]


def test_layers_that_run_twice_drop_the_same(context: Making) -> None:
    found = []
    for on in (False, True):
        model = tiny_llama(80, attention_dropout=0.3)
        ctx = context(memory=MemorySpec(checkpointing=on))
        for _ in fine_tune(model, random_examples(8, 80, 5), spec(steps=3), ctx, (1,)):
            model.eval()
            torch.rand(3)
        found.append(weights(model))
    assert not differing(*found)


def test_large_models_run_their_layers_twice(
    context: Making, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ilubench.training import checkpointing

    model, dataset = tiny_llama(80), random_examples(4, 80, 5)
    sequence_nll(model, dataset, context(), spec(), mean=True)  # what is looked at once a model
    count = sum(p.numel() for p in model.parameters())
    for bound, expected in ((count, 1), (count - 1, 2)):
        monkeypatch.setattr(checkpointing, "LARGE", bound)
        calls: list[int] = []
        inner = _counting(model, calls)
        for _ in fine_tune(model, dataset, spec(steps=1), context()):
            pass
        inner.remove()
        assert len(calls) == expected


def test_layers_that_cannot_be_found_are_an_error(context: Making) -> None:
    model = tiny_llama(80)
    model.config.num_hidden_layers = 3
    asked = context(memory=MemorySpec(checkpointing=True))
    with pytest.raises(
        SpecError, match=r"memory\.checkpointing: the layers of a LlamaForC.*=false"
    ):
        list(fine_tune(model, random_examples(4, 80, 5), spec(), asked))


# --------------------------------------------------------------------------- runs


def test_keys_have_what_changes_a_result_and_nothing_else() -> None:
    def keys(*words: str) -> dict[str, str]:
        return {job.label: job.key for job in planned("method=npo", *words).jobs}

    plain = keys()
    # the weights are float32
    assert keys("memory.offload=true", "memory.checkpointing=true", "memory.update=master") == plain
    changed = {label for label, key in keys("memory.moments=float8").items() if key != plain[label]}
    assert changed == set(plain) - {"make the target model of tiny", "unlearn none", "score none"}
    half = keys("suite.dtype=bfloat16")
    assert keys("suite.dtype=bfloat16", "memory.update=stochastic") != half


def test_a_runs_jobs_get_its_memory_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerBase
) -> None:
    bench = planned("method=npo", "memory.update=stochastic").bench
    monkeypatch.setitem(vars(bench), "tokenizer", tokenizer)
    log = StepLog(tmp_path / "log.jsonl")
    found = bench.context(tmp_path, log, SilentProgress(), 3)
    assert found.memory == MemorySpec(update="stochastic")
    assert found.seed == 3


def test_words_for_memory_and_records_without_them(tmp_path: Path) -> None:
    experiment = planned("memory.moments=float8", "memory.offload=true").bench.experiment
    assert experiment.run.memory == MemorySpec(moments="float8", offload=True)
    with pytest.raises(SpecError, match=r"memory\.momments.*did you mean 'moments'"):
        planned("memory.momments=float8")
    with pytest.raises(SpecError, match="did you mean 'float8'"):
        planned("memory.moments=float7")
    older = MEASURED / "npo"
    run = load_yaml(older / "config.yaml")["run"]
    assert isinstance(run, dict)
    assert "memory" not in run
    assert RunSpec.model_validate(run).memory == MemorySpec()
    found = read_config(older / "config.yaml")
    assert found.suite
    assert found.attacks
    assert found.memory == MemorySpec()
