"""Folders that hold no model which could be loaded: each is told what is wrong with it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from doubles import tiny_llama
from safetensors.torch import load_file, save_file

from ilubench.errors import ModelError
from ilubench.models.checkpoints import find_folder, load_model
from ilubench.models.configuration import load_config
from ilubench.models.folder import check_folder, weight_files
from ilubench.specs import ModelSource

Change = Callable[[Path], object]
Tensors = dict[str, torch.Tensor]

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "good"
    tiny_llama(80).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def config(**changes: object) -> Change:
    def change(folder: Path) -> None:
        settings = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(settings))

    return change


def file(name: str, text: str | bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(
        text.encode() if isinstance(text, str) else text
    )


def tensors(rewrite: Callable[[Tensors], Tensors]) -> Change:
    def change(folder: Path) -> None:
        save_file(rewrite(load_file(folder / WEIGHTS)), folder / WEIGHTS, {"format": "pt"})

    return change


def called(name: str) -> Change:
    return lambda folder: (folder / WEIGHTS).rename(folder / name)


def each(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def prefixed(prefix: str) -> Change:
    return tensors(lambda found: {prefix + name: tensor for name, tensor in found.items()})


def cast(name: str, dtype: torch.dtype) -> Change:
    return tensors(lambda found: {**found, name: found[name].to(dtype)})


def shortened(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def trained(folder: Path) -> None:
    for step in (20, 100, 50):
        shutil.copytree(folder, folder.parent / f"checkpoint-{step}")
    (folder / WEIGHTS).unlink()
    for step in (20, 100, 50):
        shutil.move(folder.parent / f"checkpoint-{step}", folder)


def integers(folder: Path) -> None:
    """The same bytes under a header that calls them integers."""
    data = (folder / WEIGHTS).read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["lm_head.weight"]["dtype"] = "I32"
    written = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(len(written).to_bytes(8, "little") + written + data[8 + size :])


ADAPTER = file("adapter_config.json", '{"base_model_name_or_path": "org/base"}')
NEST = "[" * 100_000
FIELD = "model.layers.0.self_attn.q_proj"

FAULTS: dict[str, tuple[Change, str]] = {
    # ---- other shapes and names than config.json's
    "vocabulary": (
        config(vocab_size=90),
        r"'model.embed_tokens.weight' is \[80, 96\] in the file, \[90, 96\] by config.json "
        r"\(vocab_size is 90\)$",
    ),
    "width": (
        config(hidden_size=48, head_dim=48),
        r"\[80, 48\] by config.json \(hidden_size is 48",
    ),
    "feed-forward": (config(intermediate_size=64), r"gate_proj.* \(intermediate_size is 64\)$"),
    "layers missing": (
        config(num_hidden_layers=3),
        r"lacks 9 tensors, first 'model.layers.2.input_layernorm.weight'$",
    ),
    "layers too many": (
        config(num_hidden_layers=1),
        r"no place for 9 tensors, first 'model.layers.1.* \(num_hidden_layers is 1, the file has 2",
    ),
    "a far larger model": (
        config(num_hidden_layers=100, intermediate_size=10_000),
        r"makes a model of 2.9e\+08 weights, and the files beside it hold 1.6e\+05; it is another",
    ),
    "a bias too many": (
        tensors(lambda found: {**found, f"{FIELD}.bias": torch.ones(96)}),
        r"no place for tensor 'model.layers.0.self_attn.q_proj.bias'; it would compute something",
    ),
    "a missing tensor": (
        tensors(lambda found: {k: v for k, v in found.items() if k != "model.norm.weight"}),
        r"lacks tensor 'model\.norm\.weight'$",
    ),
    "a classifier": (
        each(
            config(architectures=["LlamaForSequenceClassification"]),
            tensors(
                lambda found: {
                    **{k: v for k, v in found.items() if k != "lm_head.weight"},
                    "score.weight": torch.zeros(1, 96),
                }
            ),
        ),
        "lacks tensor 'lm_head.weight' and has 'score.weight'.*; it is a LlamaForSequenceClass",
    ),
    "compiled": (prefixed("_orig_mod."), "as torch.compile wraps them .'_orig_mod.lm_head"),
    "parallel": (prefixed("module."), "DeepSpeed wraps them .*`ilubench convert .*/model FOLDER`$"),
    "wrapped by peft": (prefixed("base_model.model."), "as peft wraps them"),
    # ---- other numbers than weights
    "integers": (integers, "tensor 'lm_head.weight' is of type I32, and floats are needed"),
    "bytes": (cast(f"{FIELD}.weight", torch.uint8), f"'{FIELD}.weight' is of type U8"),
    "flags": (cast("model.norm.weight", torch.bool), "'model.norm.weight' is of type BOOL"),
    "8-bit floats": (cast("lm_head.weight", torch.float8_e4m3fn), "is of type F8_E4M3"),
    # ---- files
    "cut short": (shortened, r"model\.safetensors \([\d,]+ bytes\) is cut short or damaged"),
    "empty": (file(WEIGHTS, ""), r"\(0 bytes\) is cut short or damaged; copy it again$"),
    "a web page": (file(WEIGHTS, "<html>Sign in</html>"), r"\(20 bytes\) is cut short or damaged"),
    "pointer": (file(WEIGHTS, POINTER), r"model\.safetensors is a Git LFS pointer.*git lfs pull"),
    "pointer of words": (file("tokenizer.json", POINTER), r"tokenizer\.json is a Git LFS pointer"),
    "pointer of settings": (file("config.json", POINTER), r"config\.json is a Git LFS pointer"),
    "pointer of an index": (
        each(called("part"), file(INDEX, POINTER)),
        r"index\.json is a Git LFS pointer",
    ),
    "a part is absent": (
        each(called("part"), file(INDEX, '{"weight_map": {"a": "model-2.safetensors"}}')),
        r"lacks 'model-2\.safetensors', which its index names",
    ),
    "an index without names": (
        each(called("part"), file(INDEX, '{"foo": 1}')),
        r"index\.json: no readable weight_map",
    ),
    "an index of paths": (
        each(called("part"), file(INDEX, '{"weight_map": {"a": "../other.safetensors"}}')),
        r"weight_map: '\.\./other\.safetensors' is not a file's name beside it",
    ),
    "an index without metadata": (
        each(called("part"), file(INDEX, '{"weight_map": {"a": "part"}, "metadata": "x"}')),
        r"index\.json: it has no metadata with fields; copy it again, or write {}$",
    ),
    "a folder for weights": (
        each(called("part"), lambda folder: (folder / WEIGHTS).mkdir()),
        r"model\.safetensors is no regular file; copy it again$",
    ),
    "a nest for an index": (each(called("part"), file(INDEX, NEST)), "no readable weight_map"),
    "parts without an index": (
        called("model-00001-of-00002.safetensors"),
        r"has 'model-00001-of-00002\.safetensors', but neither model\.safetensors nor",
    ),
    "pickles": (
        called("pytorch_model.bin"),
        r"pickles such as 'pytorch_model\.bin' are not .* `ilubench convert .*/model FOLDER`$",
    ),
    "several pickles": (
        each(called("b.pt"), file("a.pt", "")),
        r"pickles such as 'a\.pt' are not .* `ilubench convert .*/model/a\.pt FOLDER`$",
    ),
    "GGUF": (
        called("model-q4.gguf"),
        r"no \.safetensors file, but 'model-q4\.gguf'; .* `ilubench convert .*q4\.gguf FOLDER`$",
    ),
    "a training's other pickles": (called("optimizer.pt"), "no .safetensors file; is it a model's"),
    "shards of a training": (
        each(called("weights"), lambda folder: (folder / "global_step20").mkdir()),
        r"has shards of a training \('global_step20'\), and no model; join them: zero_to_fp32\.py",
    ),
    "no weights": (called("weights"), r"has no \.safetensors file; is it a model's folder\?$"),
    "a training's folder": (trained, r"a training's checkpoints.*give the last one: .*point-100$"),
    "an adapter": (
        each(called("adapter_model.safetensors"), ADAPTER),
        r"is an adapter \(adapter_config\.json\), not a model; merge it into its base 'org/base': "
        r"`ilubench convert .*/model FOLDER`$",
    ),
    "an adapter beside its base": (ADAPTER, "is an adapter"),
    "generation settings": (file("generation_config.json", "null"), "generation_config.json holds"),
    # ---- config.json
    "no config": (lambda folder: (folder / "config.json").unlink(), r"has no config\.json"),
    "null": (file("config.json", "null"), "config.json holds 'None' and no settings"),
    "a list": (file("config.json", "[]"), r"config.json holds '\[\]' and no settings"),
    "half": (file("config.json", '{"a":'), "config.json is no readable JSON"),
    "bytes that are no text": (file("config.json", b"\xff\xfe{}"), "is no readable JSON"),
    "a nest": (file("config.json", NEST), "config.json is no readable JSON"),
    "no type": (file("config.json", "{}"), "config.json names no model_type"),
    "a type of old": (config(model_type="lama"), "no model_type 'lama'; did you mean 'llama'"),
    "own code": (
        config(model_type="own", auto_map={"AutoConfig": "own.Own"}),
        "brings its own code, which is never run; only models of transformers are loaded$",
    ),
    "text for a number": (config(hidden_size="x"), "config.json: hidden_size is 'x', which does"),
    "a list for a number": (config(num_hidden_layers=[2]), "num_hidden_layers is '.2.', which"),
    "no heads": (config(num_attention_heads=0), "num_attention_heads is '0', which does not make"),
    "no groups": (config(num_key_value_heads=0), "num_key_value_heads is '0', which does not make"),
    "layers": (config(num_hidden_layers=501), "layers is 501, and at most 500 makes a model"),
    "labels": (
        config(num_labels=10**9),
        r"num_labels is 1,000,000,000, and at most 10,000 makes a model",
    ),
    "digits": (config(num_labels=10**400), r"num_labels is 10,000,\S+\.\.\., and at most 10,000"),
    "nonsense": (
        config(rms_norm_eps=10**400),
        r"rms_norm_eps is 10,000,\S+\.\.\., which computes nonsense",
    ),
    "nameless": (config(return_dict=False), "config.json: return_dict is 'False', which does not"),
    "nameless by null": (config(return_dict=None), "config.json: return_dict is 'None', which"),
    "no dropout": (config(attention_dropout=None), "config.json: attention_dropout is 'None', whi"),
    "windows of no size": (
        config(layer_types=["sliding_attention"] * 2),
        "config.json: layer_types is .*, which does not make a 'llama' model",
    ),
    "a root of less": (config(rms_norm_eps=-1.0), "rms_norm_eps is -1, which computes nonsense"),
    "a share": (config(attention_dropout=5.0), "dropout is 5, .* lies between 0 and 1"),
    "no rotation": (
        config(rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 0.0}),
        "factor is 0, which computes nonsense",
    ),
    "backwards": (config(rope_theta=-5.0), "rope_theta is -5, which computes nonsense"),
    "no words": (config(vocab_size=0), "vocab_size is 0, which makes no model"),
    "an activation": (config(hidden_act="evil"), "hidden_act is 'evil', which does not make"),
    "positions": (config(rope_parameters={"rope_type": "evil"}), "rope_parameters is .*'evil'"),
    "dtype": (config(dtype="evil"), "dtype is 'evil', which is no dtype of torch"),
    "no dtype": (config(torch_dtype="save"), "torch_dtype is 'save', which is no dtype of torch"),
    "an encoder": (config(model_type="bert"), "type 'bert' is an encoder; give one that writes"),
    "two halves": (config(model_type="bart"), "type 'bart' has an encoder and a decoder"),
    "a translator": (config(model_type="t5"), "type 't5' is no causal language model"),
    "a seer": (config(model_type="vit"), "type 'vit' is no causal language model"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_is_told_what_is_wrong_with_it(fault: str, folder: Path) -> None:
    change, message = FAULTS[fault]
    change(folder)
    with pytest.raises(ModelError, match=message) as caught:
        find_folder(ModelSource(path=str(folder)))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelError, match=message):
        load_model(folder, "cpu")


QUANTISED: dict[str, tuple[dict[str, Any] | str, str]] = {
    "4 bits": ({"load_in_4bit": True, "load_in_8bit": False}, "bitsandbytes, 4 bit"),
    "bnb": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, "bitsandbytes, 8 bit"),
    "gptq": ({"quant_method": "gptq", "bits": 3}, "gptq, 3 bit"),
    "empty": ({}, "method not named"),
    "awq": ({"quant_method": "awq", "bits": 4}, "awq, 4 bit"),
    "fp8": ({"quant_method": "fp8", "fmt": "e4m3"}, "fp8, 8 bit"),
    "mxfp4": ({"quant_method": "mxfp4"}, "mxfp4, 4 bit"),
    "hqq": ({"quant_method": "hqq", "quant_config": {"weights": {"nbits": 2}}}, "hqq, 2 bit"),
    "groups": (
        {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "int"}}},
        },
        "compressed-tensors, 8 bit",
    ),
    "torchao": (
        {"quant_method": "torchao", "quant_type": {"default": {"_type": "Int4WeightOnlyConfig"}}},
        "torchao, 4 bit",
    ),
    "text": ("fp8", "method not named"),
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_weights_are_refused(kind: str, folder: Path) -> None:
    settings, shown = QUANTISED[kind]
    config(quantization_config=settings)(folder)
    with pytest.raises(ModelError, match=rf"is quantised \({shown}\); give the full weights$"):
        check_folder(folder)
    config(quantization_config=None, text_config={"quantization_config": settings})(folder)
    with pytest.raises(ModelError, match=rf"is quantised \({shown}\)"):
        load_config(folder)


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json"])
def test_quantised_weights_with_a_file_of_their_own(name: str, folder: Path) -> None:
    file(name, '{"w_bit": 4}')(folder)
    with pytest.raises(ModelError, match=r"is quantised \(method not named, 4 bit\)"):
        check_folder(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["model.norm.weight", "model.embed_tokens.weight"])
def test_weights_that_are_no_numbers(name: str, value: float, folder: Path) -> None:
    def spoil(found: Tensors) -> Tensors:
        found[name].view(-1)[3] = value
        return found

    tensors(spoil)(folder)
    with pytest.raises(
        ModelError, match=rf"'{name}': 1 of \d+ values are infinite or NaN in float"
    ):
        load_model(folder, "cpu")


def test_weights_beyond_a_dtype(folder: Path) -> None:
    tensors(lambda found: {**found, "model.norm.weight": torch.full((96,), 1e5)})(folder)
    assert load_model(folder, "cpu").dtype is torch.float32
    with pytest.raises(ModelError, match="96 of 96 values are infinite or NaN in float16"):
        load_model(folder, "cpu", torch.float16)


def test_nothing_is_wrong_with_a_good_folder(folder: Path) -> None:
    config(quantization_config=None)(folder)
    file("README.md", "a card")(folder)
    file("pytorch_model.bin", "the same as pickles")(folder)
    file("consolidated.safetensors", "another layout")(folder)
    assert check_folder(folder).model_type == "llama"
    file(INDEX, NEST)(folder)  # not read beside one file, by transformers either
    assert weight_files(folder) == [folder / WEIGHTS]
    state = torch.get_rng_state()
    load_model(folder, "cpu")
    assert torch.equal(state, torch.get_rng_state())


def test_no_weights_are_read(folder: Path) -> None:
    """A tensor's values may be anything; its header counts."""
    data = (folder / WEIGHTS).read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    (folder / WEIGHTS).write_bytes(data[:size] + b"\xff" * (len(data) - size))
    check_folder(folder)


def test_code_in_a_model_folder_is_never_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    code = f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
    (tmp_path / "own.py").write_text(code + "class Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": own}))
    (tmp_path / WEIGHTS).write_bytes(b"")
    for load in (load_config, lambda folder: load_model(folder, "cpu")):
        with pytest.raises(ModelError, match="brings its own code, which is never run"):
            load(tmp_path)
    assert not ran.exists()
