"""The transformers engine against plain forward passes, one sequence at a time."""

import gc
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import tiny_llama
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ilubench.errors import DataError, DivergedError, ModelError
from ilubench.interfaces import SamplingSpec
from ilubench.models.tokenizers import build_tokenizer
from ilubench.scoring.engines.batching import common_prefix, group_prompts, packs
from ilubench.scoring.engines.hf import HFEngine

WORDS = [f"{a}{b}" for a in "abcdefgh" for b in "klmnopqr"]
SIZE = 128


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer([" ".join(WORDS), " " + " ".join(WORDS)])


def _settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": SIZE,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.15,
    }


def _ready(model: LlamaForCausalLM) -> LlamaForCausalLM:
    model.train(mode=False)
    return model


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return _ready(LlamaForCausalLM(LlamaConfig(**_settings(tokenizer))))


@pytest.fixture(scope="module")
def engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> HFEngine:
    engine = HFEngine(tokenizer, batch_size=4)
    engine.load(model)
    return engine


def _prompts(count: int, *, shared: int = 20, seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    head = [1, *(rng.randrange(4, len(WORDS)) for _ in range(shared))]
    return [
        head + [rng.randrange(4, len(WORDS)) for _ in range(rng.randrange(1, 12))]
        for _ in range(count)
    ]


def _rows(model: Any, context: list[int], continuation: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.tensor([context + continuation])).logits[0]
    rows: torch.Tensor = logits.log_softmax(-1)[len(context) - 1 :]
    return rows


# ------------------------------------------------------------------ equal to one at a time


@pytest.mark.parametrize("shared", [0, 20])
@pytest.mark.parametrize("share_prefix", [True, False])
def test_choices(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, shared: int, *, share_prefix: bool
) -> None:
    engine = HFEngine(tokenizer, batch_size=4, share_prefix=share_prefix)
    engine.load(model)
    prompts = _prompts(11, shared=shared)
    found = engine.choices(prompts, [9, 4, 30])
    for prompt, row in zip(prompts, found, strict=True):
        assert row == pytest.approx(_rows(model, prompt, [])[0, [9, 4, 30]].tolist(), abs=1e-4)


@pytest.mark.parametrize("share_prefix", [True, False])
def test_logprobs(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    monkeypatch: pytest.MonkeyPatch,
    *,
    share_prefix: bool,
) -> None:
    engine = HFEngine(tokenizer, batch_size=3, share_prefix=share_prefix)
    engine.load(model)
    rng = random.Random(1)
    pairs = [
        (prompt, [rng.randrange(4, len(WORDS)) for _ in range(rng.randrange(1, 7))])
        for prompt in [*_prompts(5), *_prompts(3, shared=0, seed=9)]
        for _ in range(4)
    ]
    best = int(_rows(model, pairs[0][0], [])[0].argmax())
    pairs.append((pairs[0][0], [best]))
    rng.shuffle(pairs)
    found = engine.logprobs(pairs)
    for (context, continuation), scored in zip(pairs, found, strict=True):
        rows = _rows(model, context, continuation)
        expected = [rows[n, token].item() for n, token in enumerate(continuation)]
        assert scored.values == pytest.approx(expected, abs=1e-4)
        assert scored.greedy == tuple(
            int(rows[n].argmax()) == token for n, token in enumerate(continuation)
        )
    assert any(all(scored.greedy) for scored in found)
    monkeypatch.setattr("ilubench.scoring.engines.hf._LOGITS", 1)  # one continuation at a time
    for scored, again in zip(found, engine.logprobs(pairs), strict=True):
        assert scored.values == pytest.approx(again.values, abs=1e-4)


@pytest.mark.parametrize("shared", [0, 20])
def test_generate_equals_transformers(
    model: Any, tokenizer: PreTrainedTokenizerFast, shared: int
) -> None:
    prompts = _prompts(9, shared=shared)
    ends = set()
    for batch_size in (1, 4):
        engine = HFEngine(tokenizer, batch_size=batch_size)
        engine.load(model)
        found = engine.generate(prompts, SamplingSpec(max_tokens=40))
        for prompt, (written,) in zip(prompts, found, strict=True):
            ids = torch.tensor([prompt])
            whole = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False
            )[0, len(prompt) :].tolist()
            ends.add(tokenizer.eos_token_id in whole)
            kept = [token for token in whole if token != tokenizer.eos_token_id]
            assert list(written.ids) == kept
            assert written.text == tokenizer.decode(kept, skip_special_tokens=True)


def test_rows_end_at_different_times(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(1)
    model = _ready(LlamaForCausalLM(LlamaConfig(**_settings(tokenizer))))
    prompts = _prompts(8)
    plain = HFEngine(tokenizer, batch_size=8)
    plain.load(model)
    whole = [row[0].ids for row in plain.generate(prompts, SamplingSpec(max_tokens=12))]
    model.config.eos_token_id = [tokenizer.eos_token_id, *{ids[3] for ids in whole[:3]}]
    ends = set(model.config.eos_token_id)
    cut = [row[0].ids for row in plain.generate(prompts, SamplingSpec(max_tokens=12))]
    for ids, short in zip(whole, cut, strict=True):
        place = next((n for n, token in enumerate(ids) if token in ends), len(ids))
        assert short == ids[:place]
    assert len({len(ids) for ids in cut}) > 1


def test_generation_config_is_ignored(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, engine: HFEngine
) -> None:
    before = engine.generate(_prompts(3), SamplingSpec(max_tokens=8))
    model.generation_config.do_sample = True
    model.generation_config.temperature = 5.0
    try:
        assert engine.generate(_prompts(3), SamplingSpec(max_tokens=8)) == before
    finally:
        model.generation_config.do_sample = False
        model.generation_config.temperature = 1.0


def test_stop_strings(engine: HFEngine, tokenizer: PreTrainedTokenizerFast) -> None:
    prompts = _prompts(5)
    whole = [row[0] for row in engine.generate(prompts, SamplingSpec(max_tokens=20))]
    stop = tuple(str(tokenizer.decode(ids)) for ids in (list(whole[0].ids[5:7]), whole[1].ids[2]))
    found = engine.generate(prompts, SamplingSpec(max_tokens=20, stop=stop))
    for free, (cut,) in zip(whole, found, strict=True):
        places = [free.text.find(string) for string in stop if string in free.text]
        assert cut.text == free.text[: min(places, default=None)]
        assert free.ids[: len(cut.ids)] == cut.ids
    assert len(found[0][0].ids) <= 7


# ------------------------------------------------------------------ order, samples, sliding windows


def test_order_does_not_matter(engine: HFEngine) -> None:
    prompts = [*_prompts(9), *_prompts(4, shared=0, seed=3)]
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    shuffled = [prompts[place] for place in order]
    one, two = engine.choices(prompts, [4, 5]), engine.choices(shuffled, [4, 5])
    for place, row in zip(order, two, strict=True):
        assert row == pytest.approx(one[place], abs=1e-5)
    sampling = SamplingSpec(max_tokens=10, temperature=0.8, n=3, seed=4)
    drawn, again = engine.generate(prompts, sampling), engine.generate(shuffled, sampling)
    assert again == [drawn[place] for place in order]


def test_samples(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, engine: HFEngine
) -> None:
    prompts = _prompts(6)
    sampling = SamplingSpec(max_tokens=10, temperature=1.0, n=3, seed=4)
    drawn = engine.generate(prompts, sampling)
    assert [len(row) for row in drawn] == [3] * 6
    assert len({written.ids for row in drawn for written in row}) > 12
    wide = HFEngine(tokenizer, batch_size=64)
    wide.load(model)
    assert wide.generate(prompts, sampling) == drawn
    assert wide.generate(prompts, sampling.model_copy(update={"seed": 5})) != drawn
    greedy = engine.generate(prompts, SamplingSpec(max_tokens=10, n=2))
    assert all(row[0] == row[1] for row in greedy)
    cold = engine.generate(prompts, sampling.model_copy(update={"temperature": 1e-4}))
    assert [row[0] for row in cold] == [row[0] for row in greedy]


def test_sampled_tokens_follow_the_distribution(model: LlamaForCausalLM, engine: HFEngine) -> None:
    prompt = _prompts(1)[0]
    drawn = engine.generate([prompt], SamplingSpec(max_tokens=1, temperature=1.0, n=3000))
    counts = torch.zeros(model.config.vocab_size)
    for written in drawn[0]:
        if written.ids:
            counts[written.ids[0]] += 1
    expected = _rows(model, prompt, [])[0].exp()
    assert (counts / 3000 - expected).abs().max() < 0.04


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_layers_with_and_without_a_window(
    tokenizer: PreTrainedTokenizerFast, attention: str
) -> None:
    torch.manual_seed(3)
    config = Qwen2Config(
        **_settings(tokenizer), use_sliding_window=True, sliding_window=8, max_window_layers=1
    )
    assert config.layer_types == ["full_attention", "sliding_attention"]
    model = Qwen2ForCausalLM(config)
    model.set_attn_implementation(attention)
    model.train(mode=False)
    engine = HFEngine(tokenizer, batch_size=4)
    engine.load(model)
    pairs = [(prompt, [7, 9, 30]) for prompt in _prompts(6)]
    for (context, rest), scored in zip(pairs, engine.logprobs(pairs), strict=True):
        rows = _rows(model, context, rest)
        expected = [rows[n, token].item() for n, token in enumerate(rest)]
        assert scored.values == pytest.approx(expected, abs=1e-4)
    for (context, _), (written,) in zip(
        pairs, engine.generate([c for c, _ in pairs], SamplingSpec(max_tokens=12)), strict=True
    ):
        rows = _rows(model, context, list(written.ids))
        assert list(written.ids) == rows[: len(written.ids)].argmax(-1).tolist()


def test_a_model_that_takes_no_masks_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    model = _ready(LlamaForCausalLM(LlamaConfig(**_settings(tokenizer))))
    engine = HFEngine(tokenizer)
    engine.load(model)
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(ModelError, match="attention 'flex_attention'"):
        engine.choices(_prompts(3), [4])
    model.config._attn_implementation = "sdpa"
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(ModelError, match="layers of kind 'linear_attention'"):
        engine.choices(_prompts(3), [4])


def test_prefixes_of_several_subjects(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast
) -> None:
    prompts = [
        [1, 5, 6, *subject[5:], *own]
        for seed in range(3)
        for subject in _prompts(1, shared=60, seed=seed)
        for own in _prompts(5, shared=0, seed=seed + 10)
    ]
    assert len({group.prefix for group in group_prompts(prompts)}) == 3
    engine = HFEngine(tokenizer, batch_size=7)
    engine.load(model)
    found = engine.generate(prompts, SamplingSpec(max_tokens=9))
    for prompt, row, (written,) in zip(prompts, engine.choices(prompts, [9]), found, strict=True):
        rows = _rows(model, prompt, list(written.ids))
        assert row == pytest.approx(rows[0, [9]].tolist(), abs=1e-4)
        assert list(written.ids) == rows[: len(written.ids)].argmax(-1).tolist()


def test_bfloat16(tokenizer: PreTrainedTokenizerFast, model: LlamaForCausalLM) -> None:
    half: Any = LlamaForCausalLM(model.config)
    half.to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    engine = HFEngine(tokenizer, batch_size=4)
    engine.load(half)
    options = list(range(len(tokenizer)))
    for row in engine.choices(_prompts(4), options):
        assert torch.tensor(row).exp().sum().item() == pytest.approx(1.0, abs=1e-5)


# ------------------------------------------------------------------ refusals


def test_too_long_is_an_error(engine: HFEngine) -> None:
    assert engine.max_length == SIZE
    fits, long = [4] * SIZE, [4] * (SIZE + 1)
    assert len(engine.choices([fits], [5])) == 1
    with pytest.raises(DataError, match=r"item 1: 129 prompt tokens .* max_length=128"):
        engine.choices([fits, long], [5])
    assert len(engine.logprobs([([4], [4] * SIZE)])[0].values) == SIZE
    with pytest.raises(DataError, match=r"item 0: 129 prompt tokens"):
        engine.logprobs([([4], [4] * (SIZE + 1))])
    with pytest.raises(DataError, match=r"item 0: 120 prompt tokens and 9 more"):
        engine.generate([[4] * 120], SamplingSpec(max_tokens=9))
    assert len(engine.generate([[4] * 120], SamplingSpec(max_tokens=8))) == 1


def test_empty_inputs(engine: HFEngine) -> None:
    assert engine.choices([], [4]) == []
    assert engine.logprobs([]) == []
    assert engine.generate([], SamplingSpec()) == []
    with pytest.raises(DataError, match="item 1: the prompt is empty"):
        engine.choices([[4], []], [4])
    with pytest.raises(DataError, match="item 0: the prompt is empty"):
        engine.generate([[]], SamplingSpec())
    with pytest.raises(DataError, match="item 1: the prompt is empty"):
        engine.logprobs([([4], [5]), ([], [4])])
    with pytest.raises(DataError, match="item 0: the continuation is empty"):
        engine.logprobs([([4], [])])
    unknown = r"it has the id 10000, and the model has \d+ embedding rows"
    with pytest.raises(DataError, match=unknown):
        engine.choices([[10_000]], [4])
    with pytest.raises(DataError, match=f"an answer: {unknown}"):
        engine.choices([[4]], [10_000])
    with pytest.raises(DataError, match="no options"):
        engine.choices([[4]], [])
    with pytest.raises(DataError, match=unknown):
        engine.logprobs([([4], [10_000])])


def test_a_diverged_model_has_no_scores(tokenizer: PreTrainedTokenizerFast) -> None:
    model = LlamaForCausalLM(LlamaConfig(**_settings(tokenizer)))
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    engine = HFEngine(tokenizer)
    engine.load(model)
    with pytest.raises(DivergedError):
        engine.choices([[4]], [4])
    with pytest.raises(DivergedError):
        engine.logprobs([([4], [4])])
    with pytest.raises(DivergedError):
        engine.generate([[4]], SamplingSpec(max_tokens=2))


def test_folders(model: Any, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    fresh = HFEngine(tokenizer)
    with pytest.raises(ModelError, match=r"load\(\)"):
        fresh.choices([[4]], [4])
    with pytest.raises(ModelError, match=r"no \.safetensors"):
        fresh.load(tmp_path / "nowhere")
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    model.float()
    state = torch.get_rng_state()
    fresh.load(tmp_path)
    assert torch.equal(state, torch.get_rng_state())
    rounded = _ready(LlamaForCausalLM(model.config))
    rounded.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})
    engine_ = HFEngine(tokenizer)
    engine_.load(rounded)
    prompts = _prompts(3)
    assert fresh.choices(prompts, [4, 5]) == engine_.choices(prompts, [4, 5])
    assert fresh.max_length == SIZE
    short = HFEngine(tokenizer, max_length=16)
    short.load(tmp_path)
    assert short.max_length == 16
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ModelError, match="is cut short or damaged"):
        fresh.load(tmp_path)


def test_a_live_model_is_not_kept_alive(tokenizer: PreTrainedTokenizerFast) -> None:
    model = LlamaForCausalLM(LlamaConfig(**_settings(tokenizer)))
    engine = HFEngine(tokenizer)
    engine.load(model)
    engine.choices([[4]], [4])
    del model
    gc.collect()
    with pytest.raises(ModelError, match="gone"):
        engine.choices([[4]], [4])


# ------------------------------------------------------------------ live training


def _train(tokenizer: PreTrainedTokenizerFast, *, score: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    config = LlamaConfig(**_settings(tokenizer), attention_dropout=0.2)
    model = LlamaForCausalLM(config).train()
    model.model.layers[0].eval()
    engine = HFEngine(tokenizer, batch_size=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    flags = [module.training for module in model.modules()]
    for step in range(4):
        ids = torch.randint(4, len(WORDS), (2, 24))
        loss = model(input_ids=ids, labels=ids).loss
        if score:
            state = torch.get_rng_state()
            engine.load(model)
            engine.choices(_prompts(5), [4, 5])
            engine.logprobs([(prompt, [4, 5, 6]) for prompt in _prompts(5)])
            sampling = SamplingSpec(max_tokens=6, temperature=float(step % 2), n=2)
            engine.generate(_prompts(5), sampling)
            with pytest.raises(DataError):
                engine.choices([[]], [4])
            assert torch.equal(state, torch.get_rng_state())
            assert [module.training for module in model.modules()] == flags
            assert torch.is_grad_enabled()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_live_training_is_undisturbed(tokenizer: PreTrainedTokenizerFast) -> None:
    plain, scored = _train(tokenizer, score=False), _train(tokenizer, score=True)
    assert plain.keys() == scored.keys()
    assert all(torch.equal(plain[name], scored[name]) for name in plain)


# ------------------------------------------------------------------ planning


def test_common_prefix() -> None:
    assert common_prefix([[1, 2, 3], [1, 2, 4], [1, 2]]) == (1,)
    assert common_prefix([[1, 2, 3], [1, 2, 4, 5]]) == (1, 2)
    assert common_prefix([[5], [5]]) == ()


def test_plan() -> None:
    one, two = list(range(20)), list(range(50, 70))
    prompts = [*([*one, n] for n in range(5)), *(two + [n] * (n + 1) for n in range(5)), [3], [4]]
    prompts = [[1, *prompt] for prompt in prompts]  # all share a token, which saves nothing
    groups = group_prompts(prompts)
    assert [len(group.prefix) for group in groups] == [21, 21, 0]
    assert groups[1].members == (9, 8, 7, 6, 5)
    assert sorted(index for group in groups for index in group.members) == list(range(12))
    assert [group.prefix for group in group_prompts(prompts, share_prefix=False)] == [()]
    # two that start alike: worth a pass only where they share much
    strangers = [[n] * 20 for n in range(100, 138)]
    assert len(group_prompts([*strangers, [*one, 1], [*one, 2]])) == 1
    assert len(group_prompts([*strangers, [*one * 5, 1], [*one * 5, 2]])) == 2
    # each is the start of the next: no deeper recursion than is worth it
    assert group_prompts([[7] * n for n in range(1, 1500)])
    assert group_prompts([]) == []


def test_packs() -> None:
    assert list(packs([5, 5, 5, 20, 1, 1], 10, 9)) == [(0, 1), (2,), (3,), (4, 5)]
    assert list(packs([1, 1, 1], 10, 2)) == [(0, 1), (2,)]
    assert list(packs([], 10, 2)) == []


NAIVE: dict[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 64, "n_layer": 2, "n_head": 2},
    "falcon": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "alibi": True},
    "mpt": {"d_model": 64, "n_layers": 2, "n_heads": 2, "max_seq_len": 64},
    "mamba": {"hidden_size": 64, "num_hidden_layers": 2},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gemma3_text": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "sliding_window": 16,
    },
    "llama": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 10.0, "factor": 8.0},
    },
}
ALONE = {"bloom", "falcon", "mpt", "mamba", "llama"}
"""Positions by ALiBi, or from the batch's longest prompt, and states do not stand packing."""


@pytest.mark.parametrize("kind", sorted(NAIVE))
def test_whatever_a_model_does_with_masks(kind: str, tokenizer: PreTrainedTokenizerFast) -> None:
    size = len(tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape: dict[str, Any] = {"vocab_size": size, "initializer_range": 0.5, **NAIVE[kind]}
        config = AutoConfig.for_model(kind, **shape, eos_token_id=2, bos_token_id=1)
        model = AutoModelForCausalLM.from_config(config).eval()
    engine = HFEngine(tokenizer, max_length=64)
    engine.load(model)
    assert engine._alone == (kind in ALONE)
    prompts = [[5, 9, 12, 40, 7, 9], [5, 9, 12], [5, 9, 12, *range(3, 40)]]

    def naive(ids: Sequence[int]) -> torch.Tensor:
        with torch.no_grad():
            out: Any = model(input_ids=torch.tensor([list(ids)]), use_cache=False)
        logits: torch.Tensor = out.logits[0].float()
        return logits

    for prompt, row in zip(prompts, engine.choices(prompts, [3, 4, 5]), strict=True):
        expected = naive(prompt)[-1].log_softmax(-1)[[3, 4, 5]]
        assert row == pytest.approx(expected.tolist(), abs=1e-4)
    pairs = [(prompt, [7, 30, 11]) for prompt in prompts]
    for (prompt, rest), found in zip(pairs, engine.logprobs(pairs), strict=True):
        logits = naive([*prompt, *rest[:-1]])[len(prompt) - 1 :].log_softmax(-1)
        expected = logits[torch.arange(3), torch.tensor(rest)]
        assert found.values == pytest.approx(expected.tolist(), abs=1e-4)
        assert found.greedy == tuple((logits.argmax(-1) == torch.tensor(rest)).tolist())
    written = engine.generate(prompts, SamplingSpec(max_tokens=6))
    for prompt, (one,) in zip(prompts, written, strict=True):
        ids = list(prompt)
        while len(ids) < len(prompt) + 6 and (token := int(naive(ids)[-1].argmax())) != 2:
            ids.append(token)
        assert list(one.ids) == ids[len(prompt) :]
    warm = SamplingSpec(max_tokens=5, temperature=1.0, n=2)
    assert engine.generate(prompts, warm)[0] == engine.generate(prompts[:1], warm)[0]


def test_numbers_that_vanish_while_writing(tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_llama(len(tokenizer))
    engine = HFEngine(tokenizer)
    engine.load(model)
    (one,) = engine.generate([[5, 9, 12]], SamplingSpec(max_tokens=6))[0]
    with torch.no_grad():
        next(model.parameters())[one.ids[1]] = float("nan")  # the embedding of a written token
    engine.load(model)
    with pytest.raises(DivergedError, match="not numbers"):
        engine.generate([[5, 9, 12]], SamplingSpec(max_tokens=6))


def test_tokens_that_end_a_text(engine: HFEngine) -> None:
    (whole,) = engine.generate([[5, 9, 12]], SamplingSpec(max_tokens=8))[0]
    at = whole.ids.index(whole.ids[3])
    (cut_off,) = engine.generate(
        [[5, 9, 12]], SamplingSpec(max_tokens=8, stop_ids=(whole.ids[3],))
    )[0]
    assert cut_off.ids == whole.ids[:at]
