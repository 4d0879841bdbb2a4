"""What `ilubench plan` says a run will cost: work against what jobs counted, then the rest."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import SUITE, command, made
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from ilubench.attacks.prefix import Prefix
from ilubench.experiments.experiment import resolve
from ilubench.forecast.anatomy import _built, anatomy_of
from ilubench.forecast.asking import CountingEngine, asked_of
from ilubench.forecast.inputs import offline
from ilubench.forecast.memory import Load, leaner, peak
from ilubench.forecast.work import Asking
from ilubench.interfaces import (
    BoundPromptAttack,
    Item,
    PromptAttack,
    PromptContext,
    Row,
    SamplingSpec,
)
from ilubench.models.forward import recipe_config
from ilubench.scoring.scorers.nll import AnswerNLL
from ilubench.specs import MemorySpec, ModelSource, RunSpec, SuiteSpec
from ilubench.specs.overrides import parse
from ilubench.specs.suite_files import load_suite
from ilubench.testing import make_tokenizer

ZEPHYR: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


# --------------------------------------------------------------------------- the model


@pytest.mark.parametrize("kind", [LlamaConfig, MistralConfig, Qwen2Config])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_model(kind: type[LlamaConfig], *, tied: bool) -> None:
    config = kind(
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        tie_word_embeddings=tied,
    )
    found = anatomy_of(config)
    assert found.sizes == _built(config)
    assert found.body == found.parameters - (1 if tied else 2) * 24 * 50
    assert found.lowest(["*layers.1.mlp*"]) == 1
    assert found.lowest(["*layers.1.mlp*", "*embed*"]) == 0


def test_a_7b_model_has_7b_parameters() -> None:
    found = anatomy_of(recipe_config(ZEPHYR))
    assert found.parameters == 7_241_732_096
    # the usual 2 N a token, and attention beside it
    assert found.flops(1, 0, 0) == pytest.approx(2 * 6.98e9, rel=0.01)
    assert found.flops(512, 512**2, 0) / found.flops(512, 0, 0) == pytest.approx(1.01, abs=0.005)


# --------------------------------------------------------------------------- scoring


def test_a_shared_prefix_is_asked_once() -> None:
    engine = CountingEngine(make_tokenizer(), 4)
    shared = tuple(range(100))
    engine.logprobs([((*shared, n), (1, 2, 3)) for n in range(6)])
    assert engine.asked.tokens == 100 + 6 + 6 * 2  # the last token of a continuation is not fed
    assert engine.asked.items == 6
    engine.generate([(1, 2), (3,)], SamplingSpec(max_tokens=10))
    assert (engine.asked.written, engine.asked.steps) == (20, 10)


class Twice(PromptAttack):
    """Asks each item in two ways."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        return [Item(item.id, item.fields, f"{way} {item.before}") for way in ("the", "a a")]

    def reduce(self, scores: Sequence[float]) -> float:
        return max(scores)


def test_a_prompt_attack_asks_more() -> None:
    """Longer prompts, or several in an item's place."""
    rows: list[Row] = [{"id": str(n), "q": "the " * (n + 1), "a": "a"} for n in range(3)]
    scorer = AnswerNLL(data="d", prompt="{q}", completion=" {a}")

    def asked(attack: PromptAttack | None) -> Asking:
        bound = BoundPromptAttack("told", attack, PromptContext({}, 0)) if attack else None
        return asked_of(scorer, lambda _: rows, make_tokenizer(), 4, 100, bound)

    plain, longer, twice = (asked(one) for one in (None, Prefix(text="a " * 20), Twice()))
    assert longer.items == plain.items
    assert longer.tokens > plain.tokens + 15
    assert twice.items == 2 * plain.items


# --------------------------------------------------------------------------- memory


def load(**changes: Any) -> Load:
    fields: dict[str, Any] = {
        "trained": 7_241_732_096,
        "copies": 0.0,
        "tokens": 4 * 512,
        "answers": 4 * 512,
        "dtype": "bfloat16",
        "precision": "bfloat16",
        "batch": 16,
        "prompt": 600.0,
    }
    return Load(**{**fields, **changes})


def test_memory_of_a_7b_model() -> None:
    anatomy = anatomy_of(recipe_config(ZEPHYR))
    found = peak(load(), MemorySpec(), anatomy, "cuda")
    assert found.weights == found.gradients == pytest.approx(14.48e9, rel=1e-3)
    assert found.optimizer == pytest.approx(86.9e9, rel=1e-3)
    assert 116e9 < found.total < 125e9
    # without checkpointing the layers keep what they computed
    kept = peak(load(), MemorySpec(checkpointing=False), anatomy, "cuda")
    assert kept.activations > 10 * found.activations
    off = peak(load(), MemorySpec(offload=True), anatomy, "cuda")
    assert off.host == pytest.approx(86.9e9, rel=1e-3)
    assert off.total < 40e9
    copied = peak(load(copies=1.0), MemorySpec(), anatomy, "cuda")
    assert copied.weights == 2 * found.weights
    # nothing is trained: the model alone, and the engine
    assert peak(load(trained=0, tokens=0, answers=0), MemorySpec(), anatomy, "cuda").total < 24e9


def test_an_attack_within_a_step_has_an_optimizer_of_its_own() -> None:
    anatomy = anatomy_of(recipe_config(ZEPHYR))
    few = peak(load(trained=10**9), MemorySpec(), anatomy, "cuda")
    both = peak(load(trained=10**9, simulated=7_241_732_096), MemorySpec(), anatomy, "cuda")
    assert few.optimizer == pytest.approx(12e9, rel=1e-3)
    assert both.optimizer == pytest.approx(12e9 + 86.9e9, rel=1e-3)
    assert both.gradients == pytest.approx(14.48e9, rel=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_words_that_take_less_are_words_of_a_run(dtype: str) -> None:
    anatomy = anatomy_of(recipe_config(ZEPHYR))
    before = math.inf
    for words, settings in leaner(MemorySpec(), dtype):
        run = resolve(parse(["suite=mini", *words.split()])).run
        told = {name.split(".")[1].split("=")[0] for name in words.split()}
        assert isinstance(run, RunSpec)
        assert all(getattr(run.memory, name) == getattr(settings, name) for name in told)
        total = peak(load(dtype=dtype), settings, anatomy, "cuda").total
        assert total <= before
        before = total


# --------------------------------------------------------------------------- records


def test_what_is_stated_is_in_no_record() -> None:
    raw, _ = load_suite("mini")
    about = {"rows": 5, "tokens": 10.0}
    told = json.loads(json.dumps(raw))
    told["data"]["forget_mc"]["about"] = about
    told["target"]["model"]["about"] = {"config": ZEPHYR}
    plain, stating = SuiteSpec.model_validate(raw), SuiteSpec.model_validate(told)
    assert stating.data["forget_mc"].about is not None
    assert stating.model_dump(mode="json") == plain.model_dump(mode="json")
    assert "about" not in ModelSource(hub="a/b").model_dump()


# --------------------------------------------------------------------------- the command


def test_plan_tells_what_open_jobs_cost() -> None:
    """From the finished jobs of the same suite; what is cached costs nothing."""
    out = f"out={made()}"
    told = command("plan", SUITE, "method=ilu", "seeds=0,1", out, "--json").json
    done = [job for job in told["jobs"] if job["cached"]]
    todo = [job for job in told["jobs"] if not job["cached"]]
    assert len(done) == 9
    assert {job["stage"] for job in todo} == {"unlearn", "score", "attack"}
    assert all(job["seconds"] is None for job in done)
    assert all(job["seconds"] > 0 and job["peak_bytes"] > 0 for job in todo)
    found = told["forecast"]
    assert found["seconds"] == pytest.approx(sum(job["seconds"] for job in todo))
    assert found["low"] < found["seconds"] < found["high"]
    assert found["rates"]["training"]["kind"] == "measured"
    assert "finished jobs" in found["rates"]["training"]["origin"]
    assert found["stages"]["attack"]["jobs"] == 4
    assert found["disk"]["stays"] == pytest.approx(found["memory"]["gradients"])
    # a finished job of the same kind took about as long: other work on the machine scatters
    attack = next(job for job in todo if job["label"] == "attack ilu with gsm8k, seed 1")
    assert attack["training"]["steps"] == 8
    nothing = command("plan", SUITE, "method=ilu", out, "--json").json["forecast"]
    assert (nothing["seconds"], nothing["memory"], nothing["stages"]) == (0, None, {})


def test_plan_is_readable() -> None:
    shown = command("plan", SUITE, "method=ilu", "seeds=0,1", f"out={made()}")
    assert shown.code == 0
    for part in ("to do, about", "What the open jobs will cost", "at the peak", "24 GB fits"):
        assert part in shown.out
    alone = command("plan", SUITE, "method=ilu")
    assert "unknown for 9 jobs on cpu: no finished job tells the speed" in alone.out


def test_a_probe_times_the_model(tmp_path: Path) -> None:
    out = f"out={tmp_path}"
    made_target = next((made() / "store" / "target").glob("*/model.safetensors")).parent
    words = (SUITE, "method=ilu", f"suite.target.model.path={made_target}", out)
    done = command("plan", *words, "--probe", "--json")
    assert done.code == 0, done.err
    told = done.json["forecast"]
    assert told["rates"]["training"]["kind"] == "probed"
    assert all(rate >= 0 for rate in told["rates"]["training"]["rates"])
    assert 0 < told["low"] < told["seconds"] < told["high"] < 600


def test_an_unknown_card_is_an_error() -> None:
    done = command("plan", SUITE, "--card", "h10")
    assert done.code == 2
    assert "did you mean 'h100'" in done.err or "h100" in done.err


@pytest.fixture
def far(tmp_path: Path) -> str:
    """A suite whose model and data are on a hub, and not here."""
    text = {
        "name": "far",
        "version": 1,
        "title": "Far away",
        "target": {
            "model": {"hub": "org/model", "about": {"config": ZEPHYR, "bytes": 14_500_000_000}}
        },
        "data": {
            "forget": {
                "hub": "org/forget",
                "gated": True,
                "overlong": "truncate",
                "about": {"rows": 20000, "tokens": 5000, "bytes": 2_000_000_000},
            },
            "retain": {
                "hub": "org/retain",
                "license": "MIT",
                "about": {"rows": 4000, "tokens": 100},
            },
            "questions": {"hub": "org/mc", "subset": "all", "about": {"rows": 1000, "tokens": 80}},
        },
        "forget": ["forget"],
        "retain": ["retain"],
        "scorers": {
            "nll": {
                "use": "answer_nll",
                "settings": {"data": "questions", "prompt": "{q}", "completion": " {a}"},
            }
        },
        "primary_forget": [{"label": "F", "scorer": "nll", "metric": "nll"}],
        "utility": [{"label": "U", "scorer": "nll", "metric": "nll"}],
        "attacks": {
            "again": {
                "settings": {
                    "train": {"lr": 1e-5, "steps": 250, "batch_size": 32, "micro_batch": 4}
                },
                "data": {"train": {"hub": "org/benign", "about": {"rows": 7000, "tokens": 200}}},
            }
        },
        "dtype": "bfloat16",
        "methods": {"default": {"train": {"lr": 5e-6, "steps": 125, "batch_size": 4}}},
    }
    path = tmp_path / "far.yaml"
    path.write_text(yaml.safe_dump(text))
    return f"suite={path}"


def test_plan_without_data_or_network(far: str) -> None:
    told = command("plan", far, "method=npo", "--card", "h100", "--json")
    assert told.code == 0, told.err
    found = told.json
    assert "suite.target.model" in found["missing"]
    assert found["run"] is None
    assert [job["cached"] for job in found["jobs"]] == [True, *[False] * 6]
    assert {job["key"] for job in found["jobs"]} == {None}
    cost = found["forecast"]
    assert cost["rates"]["training"]["kind"] == "assumed"
    assert "ASSUMED" in cost["rates"]["training"]["origin"]
    # 2 attacks of 250 steps x 32 x 201 tokens: 6 N a token, and 2 N to compute layers again
    attack = next(job for job in found["jobs"] if job["stage"] == "attack")
    assert attack["training"]["backward_tokens"] == 250 * 32 * 201
    assert attack["training"]["forward_tokens"] == 2 * 250 * 32 * 201
    flops = 8 * 7.0e9 * 250 * 32 * 201
    assert attack["seconds"] > flops / (989e12 * 0.4)
    assert attack["seconds"] < 3 * flops / (989e12 * 0.4)
    stated_roles = {"suite.target.model", "forget", "retain", "questions", "again.train"}
    assert set(cost["stated"]) == stated_roles
    fits = {fit["card"]: fit["words"] for fit in cost["cards"]}
    assert fits["141 GB"] == ""
    assert "stochastic" in fits["80 GB"]
    assert fits["24 GB"] is None
    # the forget text is cut: not 5,000 tokens
    unlearn = next(job for job in found["jobs"] if job["label"] == "unlearn npo, seed 0")
    assert unlearn["training"]["backward_tokens"] == 125 * 4 * (512 + 101)


@pytest.mark.parametrize(
    ("words", "each"),
    [
        ((), 2 + 4 + 8),
        (("memory.moments=bfloat16",), 2 + 4 + 4),
        (("memory.update=stochastic", "memory.moments=bfloat16"), 2 + 4),
    ],
)
def test_saved_state_is_what_the_optimizer_keeps(
    far: str, words: tuple[str, ...], each: int
) -> None:
    told = command("plan", far, "method=npo", "--card", "h100", "--json", *words).json
    assert told["forecast"]["disk"]["scratch"] == pytest.approx(each * 7_241_732_096)


@pytest.mark.parametrize("suite", ["wmdp-cyber", "muse-books"])
def test_the_large_suites_are_planned_from_what_they_state(suite: str) -> None:
    """Both extend another one, so that all four are read."""
    done = command("plan", f"suite={suite}", "method=rmu", "--card", "h200", "--json")
    assert done.code == 0, done.err
    found = done.json["forecast"]
    assert 0 < found["low"] < found["seconds"] < found["high"]
    assert {fit["card"]: fit["words"] for fit in found["cards"]}["141 GB"] == ""
    sources = {source["name"]: source for source in done.json["sources"]}
    assert {"nyu-mll/glue", "allenai/winogrande", "openai/gsm8k"} <= set(sources)
    assert all(source["license"] for source in sources.values())


def test_sources_are_named_with_their_terms(far: str) -> None:
    told = command("plan", far, "method=npo", "--json").json
    assert told["forecast"]["seconds"] is None  # no card, no finished job: nothing is made up
    sources = {source["name"]: source for source in told["sources"]}
    assert set(sources) == {"org/model", "org/forget", "org/retain", "org/mc", "org/benign"}
    assert sources["org/forget"]["gated"]
    assert sources["org/retain"]["license"] == "MIT"
    assert sources["org/model"]["bytes"] == 14_500_000_000
    assert not any(source["cached"] for source in sources.values())
    shown = command("plan", far, "method=npo")
    assert shown.code == 0
    for part in ("not at hand", "org/forget@main", "5 to fetch, 16.5 GB as far as known"):
        assert part in shown.out


def test_sizes_that_nobody_states_are_asked_for(far: str) -> None:
    done = command("plan", far, "suite.target.model.about=null", "--json")
    if done.code == 0:
        assert done.json["forecast"] is None
        assert "about has `config`" in done.json["unknown"]


def test_the_hub_is_not_asked() -> None:
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    try:
        with offline():
            assert constants.HF_HUB_OFFLINE
        assert not constants.HF_HUB_OFFLINE
    finally:
        constants.HF_HUB_OFFLINE = before


def test_the_random_state_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    command("plan", SUITE, "method=ilu", "--json")
    assert torch.equal(torch.random.get_rng_state(), before)
