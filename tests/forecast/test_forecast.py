"""What `ilubench plan` says a run will cost: arithmetic by hand, then the command."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from cases import make
from pydantic import JsonValue
from runs import SUITE, command, made

from ilubench.experiments.experiment import resolve_experiment
from ilubench.forecast import amounts
from ilubench.forecast.amounts import Amount
from ilubench.forecast.devices import CARDS, card_named, card_of
from ilubench.forecast.finished import Finished, finished_jobs, took_finished
from ilubench.forecast.formula import took_assumed
from ilubench.forecast.memory import Shape, fit_cards, leaner_settings, peak_memory, shape_of
from ilubench.forecast.outlook import offline
from ilubench.forecast.probe import Probed
from ilubench.models.configuration import recipe_config
from ilubench.records.verified import seal
from ilubench.specs import LoraSpec, MemorySpec, ModelSource, RunSpec, SuiteSpec
from ilubench.specs.overrides import parse_words
from ilubench.specs.suite_files import load_suite

ZEPHYR: dict[str, Any] = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


@pytest.fixture(scope="module")
def zephyr() -> Shape:
    return shape_of(recipe_config(ZEPHYR), "bfloat16")


# --------------------------------------------------------------------------- time

SMALL = Shape({"a": 600, "layers.1.b": 400}, 2, 8, 16, 4, 50, "float32", "float32")


def test_the_formula_by_hand() -> None:
    """6 operations a parameter and trained token, 2 a scored one, at 40 % of the card's peak."""
    card = card_named("h100")
    rate = 0.4 * card.float32
    training, scoring = 6 * 1000 * 10 * 1e9 / rate, 3 * 2 * 1000 * 1e9 / rate
    amount = Amount(steps=10, step_tokens=1e9, checkpoints=3, read=1e9)
    took = took_assumed(amount, SMALL, card, MemorySpec())
    assert took.seconds == pytest.approx(training + scoring, rel=1e-3)
    assert (took.low, took.high) == (took.seconds / 2, took.seconds * 3)
    again = took_assumed(amount, SMALL, card, MemorySpec(checkpointing=True))
    assert again.seconds == pytest.approx(training * 8 / 6 + scoring, rel=1e-3)
    writing = took_assumed(Amount(checkpoints=2, read=1.0, written=40), SMALL, card, MemorySpec())
    assert writing.seconds == pytest.approx(2 * 40 * 0.025, rel=1e-3)


def attacked(seconds: float, training: float, name: str = "gsm8k") -> Finished:
    return Finished("attack", name, seconds, training, steps=8, tokens=800, batch=4, checkpoints=4)


def test_medians_of_finished_jobs() -> None:
    some = [attacked(seconds, 2.0) for seconds in (10.0, 11.0, 18.0)]
    same = Amount(steps=8, batch=4, step_tokens=90.0, checkpoints=4)
    took = took_finished(some, "attack", "gsm8k", same)
    assert took is not None
    assert (took.seconds, took.high, took.origin) == (11.0, 18.0, "finished")
    assert took.low == pytest.approx(0.85 * 11.0)
    # twice the steps of twice the batch, half the checkpoints: 4 x 2 s and half of the rest
    longer = Amount(steps=16, batch=8, step_tokens=180.0, checkpoints=2)
    took = took_finished(some, "attack", "gsm8k", longer)
    assert took is not None
    assert took.seconds == pytest.approx(4 * 2.0 + 9.0 / 2)
    # another attack: by its tokens, and it says so
    other = Amount(steps=8, batch=4, step_tokens=200.0, checkpoints=4)
    took = took_finished(some, "attack", "agnews", other)
    assert took is not None
    assert took.seconds == pytest.approx(2 * 2.0 + 9.0)
    assert took.origin == "like"
    # another stage: by what a token and a checkpoint took, where both are known
    took = took_finished(some, "unlearn", "npo", replace(other, checkpoints=0))
    assert took is not None
    assert took.seconds == pytest.approx(2 * 2.0)
    took = took_finished(some, "score", "", Amount(checkpoints=1))
    assert took is not None
    assert took.seconds == pytest.approx(9.0 / 4)
    taught = [Finished("target", "", 10.0, 10.0, steps=8, tokens=800, batch=4)]
    assert took_finished(taught, "attack", "gsm8k", same) is None
    assert took_finished(taught, "unlearn", "none", Amount()) is None


def test_a_probe_is_scaled_to_a_job() -> None:
    timed = {("unlearn", "npo"): (0.5, 2.0), ("attack", "gsm8k"): (0.1, 0.0)}
    found = Probed(timed, {"": 7.0, "gsm8k": 3.0, "prefix": 9.0}, load=1.0, peak=0.0)
    job = Amount(steps=20, checkpoints=4)

    def seconds(stage: str, name: str, amount: Amount) -> float:
        took = found.took(stage, name, amount)
        assert took is not None
        return took.seconds

    assert seconds("unlearn", "npo", Amount(steps=20)) == 1.0 + 2.0 + 20 * 0.5
    assert seconds("unlearn", "none", Amount()) == 1.0
    assert seconds("score", "", Amount(checkpoints=1)) == 1.0 + 7.0
    # before the attack only its own task is scored
    assert seconds("attack", "gsm8k", job) == pytest.approx(1.0 + 20 * 0.1 + 4 * 3.0 + 3 * 7.0)
    assert seconds("attack", "prefix", Amount(checkpoints=1)) == 1.0 + 9.0
    assert found.took("unlearn", "rmu", Amount(steps=20)) is None
    # levels: all that was changed, and each of them scored
    levels = Probed({("attack", "prune"): (0.2, 0.0)}, {"": 7.0, "prune": 0.0}, load=1.0, peak=0.0)
    took = levels.took("attack", "prune", Amount(checkpoints=6))
    assert took is not None
    assert took.seconds == pytest.approx(1.0 + 3 * 0.2 + 5 * 7.0)


def test_only_runs_of_the_suite_on_the_device_are_looked_at(tmp_path: Path) -> None:
    for name, device, key in (
        ("s-npo-1", "cpu", "a"),
        ("s-npo-2", "H200", "b"),
        ("t-x-3", "cpu", "c"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "env.json").write_text(json.dumps({"device": device}))
        plan = {"jobs": [{"stage": "attack", "key": key}, {"stage": "attack", "key": "broken"}]}
        (tmp_path / name / "plan.json").write_text(json.dumps(plan))
        attacks = {"qqp": {"train": {"batch_size": 16}}}
        config = {"run": {"method": {"use": "npo"}}, "method": {}, "attacks": attacks}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(config))
        folder = tmp_path / "store" / "attack" / key
        folder.mkdir(parents=True)
        cost = {"train_seconds": 1.5, "steps": 8, "tokens": 640}
        meta = {"stage": "attack", "attack": "qqp", "seconds": 2.5, "cost": cost}
        files: JsonValue = {"scores/step-0.json": "", "scores/step-0.parquet": "", "log.jsonl": ""}
        (folder / "DONE").write_text(json.dumps(seal({"meta": meta, "files": files})))
    broken = tmp_path / "store" / "attack" / "broken"
    broken.mkdir()
    (broken / "DONE").write_text("{")
    (found,) = finished_jobs(tmp_path, "s", "cpu")
    assert found == Finished("attack", "qqp", 2.5, 1.5, 8, 640, batch=16, checkpoints=1)
    assert finished_jobs(tmp_path / "nowhere", "s", "cpu") == []


def test_cards_are_known_by_their_device_names() -> None:
    for told, name in (
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
    ):
        found = card_of(told)
        assert found is not None
        assert found.name == name
    assert card_of("Tesla T4") is None
    assert all(card_named(card.name) is card for card in CARDS)


# --------------------------------------------------------------------------- memory

TRAINED = Amount(steps=1, held=4 * 512, precision="bfloat16", checkpoints=1, read=1.0)


def test_memory_by_hand() -> None:
    """Two layers of width 8, MLP 16, keys 4, a vocabulary of 50; 10 tokens at once, in float32."""
    found = peak_memory(Amount(steps=1, held=10, trainable=("*.b",)), MemorySpec(), SMALL, "cpu")
    assert (found.weights, found.gradients) == (4 * 1000, 4 * 400)
    assert found.optimizer == pytest.approx(8 * 400)
    assert found.activations == 10 * 2 * 4 * (8 * 8 + 3 * 4 + 4 * 16)
    assert found.logits == 10 * 50 * (4 + 12)
    assert found.total == pytest.approx(8800 + found.activations + found.logits)
    less = peak_memory(Amount(steps=1, held=10), MemorySpec(checkpointing=True), SMALL, "cpu")
    assert less.activations == 10 * 4 * (2 * 8 + 8 * 8 + 3 * 4 + 4 * 16)


@pytest.mark.parametrize(
    ("name", "longest"),
    [("npo-kl", 96), ("dpo", 2 * 96), ("ilu-control", 96), ("sam", 96), ("tar", 96 + 80)],
)
def test_what_is_kept_for_the_way_back_together(name: str, longest: int) -> None:
    sizes = amounts._Size(9, 50.0, 96), amounts._Size(9, 50.0, 80)
    assert amounts._longest(make(name), *sizes) == longest


def test_memory_of_a_7b_model(zephyr: Shape) -> None:
    assert zephyr.parameters == 7_241_732_096
    found = peak_memory(TRAINED, MemorySpec(), zephyr, "cuda", 16)
    assert found.weights == found.gradients == pytest.approx(14.48e9, rel=1e-3)
    assert found.optimizer == pytest.approx(86.9e9, rel=1e-3)
    assert 116e9 < found.total < 125e9
    # without checkpointing the layers keep what they computed
    kept = peak_memory(TRAINED, MemorySpec(checkpointing=False), zephyr, "cuda")
    assert kept.activations > 10 * found.activations
    off = peak_memory(TRAINED, MemorySpec(offload=True), zephyr, "cuda")
    assert off.host == pytest.approx(86.9e9, rel=1e-3)
    assert off.total < 40e9
    # bfloat16 weights that are scored in float32 are read at twice their size meanwhile
    both = [replace(zephyr, scored=dtype) for dtype in ("bfloat16", "float32")]
    amount = Amount(checkpoints=1, read=1.0)
    one, two = (peak_memory(amount, MemorySpec(), shape, "cuda", 16).total for shape in both)
    assert 14.48e9 < two - one < 20e9  # and so are its keys and values
    # nothing is trained: the model alone, and the engine
    assert (
        peak_memory(Amount(checkpoints=1, read=1.0), MemorySpec(), zephyr, "cuda", 16).total < 24e9
    )


def test_memory_of_adapters_by_hand(zephyr: Shape) -> None:
    """Rank 16 on q_proj and v_proj of 32 layers: 16 * (4096 + 4096) + 16 * (4096 + 1024) each."""
    lora = LoraSpec(rank=16, targets=("q_proj", "v_proj"))
    beside, layers = 32 * 16 * (4096 + 4096 + 4096 + 1024), 32 * 4096 * (4096 + 1024)
    assert zephyr.adapted(lora) == (beside, layers)
    amount = replace(TRAINED, lora=lora)
    found = peak_memory(amount, MemorySpec(), zephyr, "cuda", 16)
    assert found.weights == pytest.approx(14.48e9 + 4 * beside, rel=1e-3)
    assert (found.gradients, found.optimizer) == (4 * beside, 8 * beside)
    assert zephyr.changed(amount) == layers
    assert zephyr.saved(amount, MemorySpec()) == 12 * beside
    # all layers of a 7B model go onto a small card
    every = replace(TRAINED, lora=LoraSpec())
    fits = {fit.card: fit.words for fit in fit_cards([every], MemorySpec(), zephyr, 8)}
    assert fits["24 GB"] == ""
    card = card_named("h100")
    long = [replace(one, steps=100, step_tokens=1e5) for one in (TRAINED, every)]
    full, less = (took_assumed(one, zephyr, card, MemorySpec()).seconds for one in long)
    assert 0.7 * full < less < 0.8 * full  # 6 operations of 8


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_words_that_take_less_are_words_of_a_run(dtype: str) -> None:
    shape = shape_of(recipe_config(ZEPHYR), dtype)  # type: ignore[arg-type]
    before = math.inf
    for words, settings in leaner_settings(MemorySpec(), dtype):
        run = resolve_experiment(parse_words(["suite=mini", *words.split()])).run
        told = {name.split(".")[1].split("=")[0] for name in words.split()}
        assert isinstance(run, RunSpec)
        assert all(getattr(run.memory, name) == getattr(settings, name) for name in told)
        total = peak_memory(TRAINED, settings, shape, "cuda").total
        assert total <= before
        before = total
    found = {fit.card: fit.words for fit in fit_cards([TRAINED], MemorySpec(), shape, 16)}
    assert found["24 GB"] is None


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
    assert {job["origin"] for job in todo} == {"finished"}
    found = told["forecast"]
    assert found["seconds"] == pytest.approx(sum(job["seconds"] for job in todo))
    assert found["low"] < found["seconds"] < found["high"]
    assert found["origins"]["finished"]["jobs"] == len(todo)
    assert found["stages"]["attack"]["jobs"] == 4
    assert found["disk"]["stays"] == pytest.approx(found["memory"]["gradients"])
    attack = next(job for job in todo if job["label"] == "attack ilu with gsm8k, seed 1")
    assert (attack["amount"]["steps"], attack["amount"]["checkpoints"]) == (8, 4)
    nothing = command("plan", SUITE, "method=ilu", out, "--json").json["forecast"]
    assert (nothing["seconds"], nothing["memory"], nothing["stages"]) == (0, None, {})


def test_plan_is_readable() -> None:
    shown = command("plan", SUITE, "method=ilu", "seeds=0,1", f"out={made()}")
    assert shown.code == 0
    for part in ("to do, about", "medians of finished jobs", "at the peak", "24 GB fits", "stay,"):
        assert part in shown.out
    alone = command("plan", SUITE, "method=ilu")
    assert "unknown for 8 of 9 jobs on cpu" in alone.out


def test_a_probe_times_the_model(tmp_path: Path) -> None:
    out = f"out={tmp_path}"
    made_target = next((made() / "store" / "target").glob("*/model.safetensors")).parent
    words = (SUITE, "method=ilu", f"suite.target.model.path={made_target}", out)
    done = command("plan", *words, "--probe", "--json")
    assert done.code == 0, done.err
    told = done.json["forecast"]
    assert told["origins"]["probe"]["jobs"] == 8
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
    assert list(cost["origins"]) == ["assumed"]
    # an attack of 250 steps x 32 x 200 tokens: 6 N a token, and 2 N to compute layers again
    attack = next(job for job in found["jobs"] if job["stage"] == "attack")
    assert attack["amount"]["step_tokens"] == 32 * 200
    flops = 8 * 7.24e9 * 250 * 32 * 200
    assert flops / (989e12 * 0.4) < attack["seconds"] < 2 * flops / (989e12 * 0.4)
    stated_roles = {"suite.target.model", "forget", "retain", "questions", "again.train"}
    assert set(cost["stated"]) == stated_roles
    fits = {fit["card"]: fit["words"] for fit in cost["cards"]}
    assert fits["141 GB"] == ""
    assert "stochastic" in fits["80 GB"]
    assert fits["24 GB"] is None
    # the forget text is cut: not 5,000 tokens
    unlearn = next(job for job in found["jobs"] if job["label"] == "unlearn npo, seed 0")
    assert unlearn["amount"]["step_tokens"] == 4 * (512 + 100)
    assert unlearn["amount"]["held"] == 4 * 512  # one term after the other
    assert cost["disk"]["stays"] == pytest.approx(2 * 7_241_732_096)


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


SILENT = """
from ilubench.interfaces import Method
from ilubench.specs import TrainSpec


class Silent(Method):
    train: TrainSpec

    def unlearn(self, model, data, context):
        return model
"""


def test_a_plugin_that_says_nothing_is_planned(far: str, tmp_path: Path) -> None:
    """By its training settings: a pass over a forget and a retain batch in each step."""
    path = tmp_path / "silent.py"
    path.write_text(SILENT)
    words = (far, f"method={path}:Silent", "method.train.steps=10", "method.train.batch_size=2")
    told = command("plan", *words, "--card", "h100", "--json")
    assert told.code == 0, told.err
    first, unlearn = (job for job in told.json["jobs"] if job["stage"] == "unlearn")
    assert first["label"] == "unlearn none"
    assert unlearn["amount"]["steps"] == 10
    assert unlearn["amount"]["step_tokens"] == 2 * (512 + 100)
    assert unlearn["seconds"] > 6 * 7.2e9 * 10 * 2 * 612 / (989e12 * 0.4)


def test_a_loop_after_its_base_has_the_steps_of_both(far: str) -> None:
    """As a finished job counts them; a wrapper's steps are its base's."""
    words = (far, "--card", "h100", "--json", "method.base=npo")
    for method, steps in (("undo", 125 + 7), ("sam", 125)):
        given = ["method.base.train.steps=7"] if method == "undo" else []
        told = command("plan", *words, f"method={method}", *given)
        assert told.code == 0, told.err
        assert told.json["jobs"][3]["amount"]["steps"] == steps


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
