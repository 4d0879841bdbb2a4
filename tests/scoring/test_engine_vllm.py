"""The vLLM engine, run for real: parity, swapped weights, failures, bystanders."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from doubles import tiny_llama
from engines import VLLM, make_engine
from runs import SUITE, command, environment, made, samples, with_target
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ilubench.errors import DataError, DivergedError, ItemError, JobError, ModelError
from ilubench.interfaces import MAX_OPTIONS, Ids, SamplingSpec
from ilubench.scoring.engines.hf import HFEngine

if not VLLM:
    pytest.skip("vLLM is not installed here", allow_module_level=True)

from ilubench.scoring.engines.vllm import VllmEngine

PREFIX = 40


def ids(rng: random.Random, length: int, vocabulary: int) -> list[int]:
    return [rng.randrange(3, vocabulary) for _ in range(length)]


def questions(vocabulary: int, count: int = 24) -> list[list[int]]:
    """Return prompts with a shared prefix that is longer than a cache block."""
    rng = random.Random(0)
    prefix = ids(rng, PREFIX, vocabulary)
    return [prefix + ids(rng, rng.randrange(1, 30), vocabulary) for _ in range(count)]


def answered(prompts: Sequence[Ids], vocabulary: int) -> list[tuple[Ids, Ids]]:
    rng = random.Random(1)
    return [(p, ids(rng, rng.randrange(1, 8), vocabulary)) for p in prompts for _ in range(4)]


def qwen(vocabulary: int, seed: int) -> PreTrainedModel:
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=128,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.1,
        tie_word_embeddings=True,
        eos_token_id=2,
    )
    return seeded(lambda: Qwen2ForCausalLM(config), seed)


def gpt2(vocabulary: int, seed: int) -> PreTrainedModel:
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=96,
        n_layer=2,
        n_head=2,
        n_positions=128,
        initializer_range=0.1,
        eos_token_id=2,
        bos_token_id=1,
    )
    return seeded(lambda: GPT2LMHeadModel(config), seed)


def seeded(make: Any, seed: int) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = make().eval()
    return model


@pytest.fixture
def vllm(tokenizer: PreTrainedTokenizerBase) -> Iterator[VllmEngine]:
    """An engine without weights, stopped at the end: vLLM takes one at a time in a process."""
    engine = VllmEngine(tokenizer, batch_size=16)
    yield engine
    engine.close()


def flat(engine: Any, prompts: Sequence[Ids], options: Sequence[int]) -> list[float]:
    return [value for row in engine.choices(prompts, options) for value in row]


# --------------------------------------------------------------------------- parity


@pytest.mark.parametrize(
    "kind",
    ["untied", "tied", *(pytest.param(k, marks=pytest.mark.slow) for k in ("qwen2", "gpt2"))],
)
def test_equals_the_transformers_engine(kind: str, tokenizer: PreTrainedTokenizerBase) -> None:
    size = len(tokenizer)
    models = {
        "untied": lambda seed: tiny_llama(size, seed=seed),
        "tied": lambda seed: tiny_llama(size, tied=True, seed=seed),
        "qwen2": lambda seed: qwen(size, seed),
        "gpt2": lambda seed: gpt2(size, seed),
    }
    model = models[kind](0)
    plain = HFEngine(tokenizer, batch_size=16)
    fast = make_engine("vllm", tokenizer, models[kind](1))
    plain.load(model)
    fast.load(model)
    assert fast.max_length == plain.max_length == 128
    prompts = questions(size)
    pairs = answered(prompts, size)
    options = [5, 3, 9, 4]
    assert flat(fast, prompts, options) == pytest.approx(flat(plain, prompts, options), abs=1e-4)
    for ours, theirs in zip(fast.logprobs(pairs), plain.logprobs(pairs), strict=True):
        assert ours.values == pytest.approx(theirs.values, abs=1e-4)
        assert ours.greedy == theirs.greedy
    for sampling in (
        SamplingSpec(max_tokens=32),
        SamplingSpec(max_tokens=32, stop=("a", "\n")),
        SamplingSpec(max_tokens=1),
    ):
        assert fast.generate(prompts, sampling) == plain.generate(prompts, sampling)
    fast.close()


def test_order_company_and_samples(vllm: VllmEngine, tokenizer: PreTrainedTokenizerBase) -> None:
    vllm.load(tiny_llama(len(tokenizer)))
    prompts = questions(len(tokenizer))
    together = vllm.generate(prompts, SamplingSpec(max_tokens=16))
    alone = [vllm.generate([prompt], SamplingSpec(max_tokens=16))[0] for prompt in prompts[::-1]]
    assert together == alone[::-1]
    warm = SamplingSpec(max_tokens=12, temperature=1.0, n=3)
    first = vllm.generate(prompts[:3], warm)
    assert [len(mine) for mine in first] == [3, 3, 3]
    assert len({one.ids for mine in first for one in mine}) == 9
    assert vllm.generate(prompts[2::-1], warm)[::-1] == first
    assert vllm.generate(prompts[:3], warm.model_copy(update={"seed": 1})) != first


# --------------------------------------------------------------------------- swapped weights


@pytest.mark.parametrize(
    ("dtype", "tied"),
    [
        pytest.param("float32", False, marks=pytest.mark.slow),
        pytest.param("float32", True, marks=pytest.mark.slow),
        ("bfloat16", True),
    ],
)
def test_swapped_equals_fresh(
    dtype: str, *, tied: bool, tokenizer: PreTrainedTokenizerBase
) -> None:
    size = len(tokenizer)
    prompts = questions(size)
    pairs = answered(prompts, size)

    def scores(engine: VllmEngine, seed: int) -> Any:
        model = tiny_llama(size, tied=tied, seed=seed)
        engine.load(model.to(getattr(torch, dtype)))
        return (
            engine.choices(prompts, [3, 4, 5]),
            engine.logprobs(pairs),
            engine.generate(prompts, SamplingSpec(max_tokens=16)),
        )

    found = []
    for order in ((0, 1, 0), (1, 0, 1)):  # the first of each is fresh, the others are swapped
        engine = VllmEngine(tokenizer, batch_size=16, dtype=dtype)
        found.append([scores(engine, seed) for seed in order])
        engine.close()
    (fresh_0, swapped_1, again_0), (fresh_1, swapped_0, again_1) = found
    assert fresh_0 == swapped_0 == again_0
    assert fresh_1 == swapped_1 == again_1
    assert fresh_0 != fresh_1


@pytest.mark.slow
def test_every_checkpoint_of_a_run_equals_a_fresh_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (SUITE, "method=npo", "engine=vllm", "attacks=gsm8k", "attack.fractions=1.0")
    found = []
    load = VllmEngine.load
    loads = []

    def fresh(self: VllmEngine, weights: Any) -> None:
        loads.append(weights)
        self._stop()
        load(self, weights)

    for name in ("swapped", "fresh"):
        out = with_target(made(), tmp_path / name)
        done = command("run", *words, f"out={out}")
        assert done.code == 0, done.err
        found.append(samples(out))
        monkeypatch.setattr(VllmEngine, "load", fresh)
    assert found[0] == found[1]
    # the target before training; two unlearned models, and the attack's two checkpoints of each
    assert len(loads) == 7


def test_a_prefix_cache_that_is_not_reset_gives_stale_answers(
    vllm: VllmEngine, tokenizer: PreTrainedTokenizerBase
) -> None:
    size = len(tokenizer)
    prompts = questions(size)
    old, new = (tiny_llama(size, seed=seed) for seed in (0, 1))
    vllm.load(old)
    flat(vllm, prompts, [3, 4, 5])
    vllm._llm.reset_prefix_cache = lambda: True  # the guard taken out
    vllm.load(new)
    stale = flat(vllm, prompts, [3, 4, 5])
    del vllm._llm.reset_prefix_cache
    vllm.load(new)
    plain = HFEngine(tokenizer)
    plain.load(new)
    expected = flat(plain, prompts, [3, 4, 5])
    assert flat(vllm, prompts, [3, 4, 5]) == pytest.approx(expected, abs=1e-4)
    assert np.abs(np.array(stale) - expected).max() > 0.05


def test_a_tied_head_that_is_not_repacked_is_stale(
    vllm: VllmEngine, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(tokenizer)
    prompts = questions(size)
    old, new = (tiny_llama(size, tied=True, seed=seed) for seed in (0, 1))
    plain = HFEngine(tokenizer)
    plain.load(new)
    expected = flat(plain, prompts, [3, 4, 5])
    vllm.load(old)
    vllm.load(new)
    assert flat(vllm, prompts, [3, 4, 5]) == pytest.approx(expected, abs=1e-4)
    vllm.load(old)

    def without_packing(self: Any, folder: str) -> None:
        self.reload_weights(weights_path=folder)

    monkeypatch.setattr(type(worker(vllm)), "swap_weights", without_packing)
    vllm.load(new)
    assert np.abs(np.array(flat(vllm, prompts, [3, 4, 5])) - expected).max() > 0.05


def worker(vllm: VllmEngine) -> Any:
    return vllm._llm.llm_engine.model_executor.driver_worker.worker


def test_other_tensors_are_refused_before_they_are_loaded(
    vllm: VllmEngine, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    size = len(tokenizer)
    prompts = questions(size)
    good = tiny_llama(size, seed=2)
    good.save_pretrained(tmp_path / "good")
    vllm.load(tmp_path / "good")
    expected = vllm.choices(prompts, [3, 4])
    running = vllm._llm
    tensors = load_file(tmp_path / "good" / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.weight"
    broken = {
        "lacks tensor 'model.layers.1.mlp.up_proj.weight'": {
            k: v for k, v in tensors.items() if k != name
        },
        r"'model.layers.1.mlp.up_proj.weight' is \[3, 4\] in the file": {
            **tensors,
            name: torch.zeros(3, 4),
        },
        "no place for tensor 'model.odd'": {**tensors, "model.odd": torch.zeros(2)},
    }
    for message, wrong in broken.items():
        save_file(wrong, tmp_path / "good" / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=message):
            vllm.load(tmp_path / "good")
        assert vllm.choices(prompts, [3, 4]) == expected
    with pytest.raises(ModelError, match="of the live model is bfloat16, not float32"):
        vllm.load(tiny_llama(size).to(torch.bfloat16))  # type: ignore[arg-type]
    assert vllm._llm is running
    other = tiny_llama(size, seed=2, rms_norm_eps=0.5)  # same shapes, another model
    plain = HFEngine(tokenizer)
    plain.load(other)
    vllm.load(other)
    assert flat(vllm, prompts, [3, 4]) == pytest.approx(flat(plain, prompts, [3, 4]), abs=1e-4)
    assert vllm._llm is not running


# --------------------------------------------------------------------------- failures


def test_a_dead_engine_is_replaced_once(
    vllm: VllmEngine, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(tokenizer)
    prompts = questions(size)
    vllm.load(tiny_llama(size))
    vllm.load(tiny_llama(size, seed=1))
    expected = vllm.choices(prompts, [3, 4])
    first = vllm._llm

    def dies(*_: object, **__: object) -> None:
        raise RuntimeError("EngineDeadError: the engine core died")

    monkeypatch.setattr(first, "generate", dies)
    assert vllm.choices(prompts, [3, 4]) == expected
    assert vllm._llm is not first
    monkeypatch.setattr(type(vllm._llm), "generate", dies)
    with pytest.raises(JobError, match="vLLM failed twice: EngineDeadError"):
        vllm.choices(prompts, [3, 4])
    monkeypatch.undo()
    vllm.load(tiny_llama(size, seed=1))  # the next job starts it again
    assert vllm.choices(prompts, [3, 4]) == expected
    vllm.close()
    with pytest.raises(ModelError, match="no weights"):
        vllm.choices(prompts, [3, 4])


def test_bad_input(vllm: VllmEngine, tokenizer: PreTrainedTokenizerBase) -> None:
    size = len(tokenizer)
    model = tiny_llama(size)
    vllm.load(model)
    plain = HFEngine(tokenizer)
    plain.load(model)
    rng = random.Random(4)
    longest = ids(rng, 128, size)
    pair = (longest[:100], ids(rng, 29, size))  # 129 tokens: the last is never fed
    assert vllm.logprobs([pair])[0].values == pytest.approx(
        plain.logprobs([pair])[0].values, abs=1e-4
    )
    assert flat(vllm, [longest], [7]) == pytest.approx(flat(plain, [longest], [7]), abs=1e-4)
    with pytest.raises(ItemError, match="item 1: 129 prompt tokens do not fit max_length=128"):
        vllm.choices([[5], [*longest, 5]], [7])
    with pytest.raises(ItemError, match="item 0: 100 prompt tokens and 29 more"):
        vllm.generate([longest[:100]], SamplingSpec(max_tokens=29))
    with pytest.raises(ItemError, match="item 0: the continuation is empty"):
        vllm.logprobs([(longest, [])])
    with pytest.raises(ItemError, match="item 1: the prompt is empty"):
        vllm.generate([[4], []], SamplingSpec(max_tokens=4))
    with pytest.raises(ItemError, match="embedding rows"):
        vllm.choices([[size]], [7])
    with pytest.raises(DataError, match=r"an answer: .* embedding rows"):
        vllm.choices([[4]], [size])
    with pytest.raises(DataError, match=f"vLLM takes {MAX_OPTIONS}"):
        vllm.choices([[4]], range(MAX_OPTIONS + 1))
    assert vllm.choices([], [7]) == []
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(DivergedError, match="not numbers"):
        vllm.load(model)
    model = tiny_llama(size)
    vllm.load(model)
    assert vllm.choices([[4]], [7])[0][0] < 0
    (one,) = vllm.generate([[5, 9, 12]], SamplingSpec(max_tokens=6))[0]
    ended = SamplingSpec(max_tokens=6, stop_ids=(one.ids[3],))
    assert vllm.generate([[5, 9, 12]], ended)[0][0].ids == one.ids[: one.ids.index(one.ids[3])]
    with torch.no_grad():
        next(model.parameters())[one.ids[1]] = float("nan")  # the embedding of a written token
    vllm.load(model)
    with pytest.raises(DivergedError, match="not numbers"):
        vllm.generate([[5, 9, 12]], SamplingSpec(max_tokens=6))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("suite.target.recipe.config.num_attention_heads=6", "no CPU kernel for attention heads"),
        ("suite.target.recipe.config.model_type=helium", "does not know the architecture Helium"),
    ],
)
def test_a_model_that_it_cannot_run(changes: str, message: str, tmp_path: Path) -> None:
    words = [SUITE, f"out={tmp_path}", changes, "method=npo"]
    if "heads" in changes:
        words.append("suite.target.recipe.config.num_key_value_heads=6")
    asked = command("plan", *words, "engine=vllm")
    assert asked.code == 2
    assert asked.err.count("\n") == 1
    assert message in asked.err
    assert "use engine=hf" in asked.err
    chosen = command("plan", *words, "--json")
    assert chosen.code == 0
    assert chosen.json["engine"] == "hf"
    assert message in chosen.json["engine_reason"]


def test_a_model_that_fails_when_it_runs(
    vllm: VllmEngine, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.models import llama

    def fails(*_: object, **__: object) -> None:
        raise NotImplementedError("no kernel for this")

    monkeypatch.setattr(llama.LlamaModel, "forward", fails)
    with pytest.raises(ModelError, match="vLLM cannot run LlamaForCausalLM: no kernel for this"):
        vllm.load(tiny_llama(len(tokenizer)))


def test_out_of_memory_is_one_line(tokenizer: PreTrainedTokenizerBase) -> None:
    engine = VllmEngine(tokenizer, batch_size=2**21)  # a cache of terabytes
    with pytest.raises(JobError, match="out of memory: vLLM cannot start") as caught:
        engine.load(tiny_llama(len(tokenizer)))
    assert "\n" not in str(caught.value)
    engine.close()


# --------------------------------------------------------------------------- bystanders, whole runs


def process_state() -> tuple[object, ...]:
    return (
        torch.get_rng_state().tolist(),
        random.getstate(),
        str(np.random.get_state()),
        torch.get_num_threads(),
        torch.set_num_threads,
        os.environ.get("LD_PRELOAD"),
        os.sched_getaffinity(0),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
    )


def test_nothing_else_in_the_process_changes(tokenizer: PreTrainedTokenizerBase) -> None:
    size = len(tokenizer)
    torch.manual_seed(11)
    random.seed(12)
    np.random.seed(13)
    model = tiny_llama(size).train()
    before = process_state()
    vllm = make_engine("vllm", tokenizer, model)
    vllm.generate(questions(size), SamplingSpec(max_tokens=4))
    vllm.load(model)
    vllm.close()
    assert process_state() == before
    assert model.training


def test_a_whole_run_equals_that_of_the_other_engine(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    weights = {}
    for engine in ("hf", "vllm"):
        out = with_target(made(), tmp_path / engine)
        words = (SUITE, "method=npo", f"engine={engine}", f"out={out}", "keep=attacked")
        done = command("run", *words, "--json")
        assert done.code == 0, done.err
        assert done.json["engine"] == engine
        found[engine] = samples(out)
        attacked = sorted((out / "store" / "attack").glob("*/changes.safetensors"))
        weights[engine] = sorted(path.read_bytes() for path in attacked)
    assert weights["hf"] == weights["vllm"]  # scoring disturbs no training
    assert len(weights["hf"]) == 4

    def by_content(stored: Any) -> list[Any]:
        values = [
            (path.split("/")[2:], row["scorer"], row["metric"], row["item"], row["value"])
            for path, rows in stored.items()
            for row in rows
        ]
        return sorted(values, key=repr)

    ours, theirs = by_content(found["vllm"]), by_content(found["hf"])
    assert [one[:4] for one in ours] == [one[:4] for one in theirs]
    assert [one[4] for one in ours] == pytest.approx([one[4] for one in theirs], abs=1e-4)


def test_a_killed_run_leaves_no_process_and_resumes(tmp_path: Path) -> None:
    out = with_target(made(), tmp_path / "run")
    others = spools()
    words = [sys.executable, "-m", "ilubench", "run", SUITE, "method=npo", "engine=vllm"]
    running = subprocess.Popen(
        [*words, f"out={out}"], env=environment(), stdout=-3, stderr=-3, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not list((out / "store").glob("score/*/DONE")):
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    members = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(running.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert members.stdout.split() == []
    left = spools() - others
    assert left
    running.send_signal(signal.SIGKILL)
    running.wait()
    for folder in left & spools():  # made long ago
        os.utime(folder, (0, 0))
    done = command("run", SUITE, "method=npo", "engine=vllm", f"out={out}", "--json")
    assert done.code == 0, done.err
    states = {job["state"] for job in done.json["jobs"]}
    assert "cached" in states
    assert not done.json["failures"]
    assert not left & spools()


def spools() -> set[Path]:
    return set(Path("/dev/shm").glob("ilubench-weights-*"))
