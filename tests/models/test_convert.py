"""Models in other forms become a folder that computes the same; whatever cannot is told why."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from architectures import make_model
from doubles import make_tokenizer, tiny_llama
from hub_server import ask_only, go_offline, served
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from ilubench.errors import ModelError, NotCachedError, UsageError
from ilubench.models import convert as converting
from ilubench.models import pickles
from ilubench.models.checkpoints import find_folder, load_model, save_model
from ilubench.models.convert import PROVENANCE, convert
from ilubench.models.tokenizers import load_tokenizer
from ilubench.records.keys import file_sha256
from ilubench.specs import ModelSource

Tensors = dict[str, torch.Tensor]

WEIGHTS, PICKLE = "model.safetensors", "pytorch_model.bin"
TEMPLATE = "{% for one in messages %}<s>{{ one['content'] }}</s>{% endfor %}"
TEXT = "<s>The naïve miller counts 12 sacks.</s>"


class Evil:
    """A pickle of it writes a file when it is loaded as pickles are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def model(*, tied: bool = False) -> PreTrainedModel:
    return tiny_llama(len(make_tokenizer()), tied=tied)


def written(folder: Path, *, tied: bool = False) -> Path:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    save_model(model(tied=tied), tokenizer, folder, "float32")
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("models") / "good")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "source"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(40)[None]).logits
    return found


def pickled(folder: Path, name: str = PICKLE, **how: Any) -> Tensors:
    """Put a pickle of the weights into their place."""
    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    torch.save(tensors, folder / name, **how)
    return tensors


def check_same(out: Path, expected: Path) -> None:
    """The folder computes the same as another, bit for bit, and reads texts as it."""
    assert torch.equal(logits(load_model(out, "cpu")), logits(load_model(expected, "cpu")))
    old, new = load_tokenizer(expected), load_tokenizer(out)
    assert new(TEXT).input_ids == old(TEXT).input_ids
    assert new.get_vocab() == old.get_vocab()
    assert new.special_tokens_map == old.special_tokens_map
    assert new.chat_template == old.chat_template
    assert sorted(one.name for one in out.parent.iterdir() if one.name[0] == ".") == []


# --------------------------------------------------------------------------- pickles


def test_a_trainers_checkpoint_with_wrapped_pickled_weights(folder: Path, tmp_path: Path) -> None:
    """The tokenizer lies beside it, and the training's own pickles are not even opened."""
    checkpoint = folder / "checkpoint-20"
    checkpoint.mkdir()
    tensors = {f"module._orig_mod.{k}": v for k, v in load_file(folder / WEIGHTS).items()}
    torch.save(tensors, checkpoint / PICKLE)
    shutil.copy(folder / "config.json", checkpoint)
    (checkpoint / "generation_config.json").write_text('{"temperature": 0.5}')
    for name in ("optimizer.pt", "training_args.bin", "rng_state.pth"):
        torch.save(Evil(tmp_path / "ran"), checkpoint / name)
    done = convert(checkpoint, tmp_path / "out")
    check_same(tmp_path / "out", folder)
    assert done.source == {PICKLE: file_sha256(checkpoint / PICKLE)}
    assert [step.split(" ")[0] for step in done.steps] == ["pickle", "prefix", "prefix"]
    assert (done.dtype, done.weights) == ("float32", sum(p.numel() for p in model().parameters()))
    assert done.sha256 == file_sha256(tmp_path / "out" / WEIGHTS)
    assert find_folder(ModelSource(path=str(tmp_path / "out"), sha256=done.sha256))
    told = yaml.safe_load((tmp_path / "out" / PROVENANCE).read_text())
    assert told == done.model_dump(mode="json")
    assert "0.5" in (tmp_path / "out" / "generation_config.json").read_text()
    assert not (tmp_path / "ran").exists()


def test_pickles_in_parts_of_tied_weights(tmp_path: Path) -> None:
    """As older versions of transformers wrote them: a tied tensor twice."""
    source = written(tmp_path / "source", tied=True)
    expected = Path(shutil.copytree(source, tmp_path / "expected"))
    tensors = pickled(source, "gone.bin")
    (source / "gone.bin").unlink()
    names = sorted(tensors)
    parts = {"part-1.bin": names[:5], "part-2.bin": names[5:]}
    for name, held in parts.items():
        torch.save({key: tensors[key] for key in held}, source / name)
    embedding = {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    torch.save({**torch.load(source / "part-1.bin"), **embedding}, source / "part-1.bin")
    index = {key: name for name, held in parts.items() for key in held}
    (source / f"{PICKLE}.index.json").write_text(json.dumps({"weight_map": index}))
    done = convert(source, tmp_path / "out")
    check_same(tmp_path / "out", expected)
    assert sorted(done.source) == ["part-1.bin", "part-2.bin"]
    assert "lm_head.weight" not in load_file(tmp_path / "out" / WEIGHTS)
    (source / "part-2.bin").unlink()
    with pytest.raises(ModelError, match=r"source lacks 'part-2\.bin', which its index names$"):
        convert(source, tmp_path / "other")
    index["model.norm.weight"] = "../part-1.bin"
    (source / f"{PICKLE}.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(ModelError, match=r"'\.\./part-1\.bin' is not a file's name beside it"):
        convert(source, tmp_path / "other")


def test_code_in_a_pickle_is_never_run(folder: Path, tmp_path: Path) -> None:
    tensors = pickled(folder)
    torch.save({**tensors, "x": Evil(tmp_path / "ran")}, folder / PICKLE)
    problem = r"pytorch_model\.bin has code in it \(\w+\.system\), which is never run; save its"
    with pytest.raises(ModelError, match=problem):
        convert(folder, tmp_path / "out")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["source"]


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "code, in the old format": (
        lambda path: torch.save(Evil(path / "ran"), path, _use_new_zipfile_serialization=False),
        "has more in it than tensors, perhaps code",
    ),
    "a list": (lambda path: torch.save([torch.ones(1)], path), "holds a list, and no tensors by"),
    "nothing": (lambda path: torch.save({}, path), "holds no tensors"),
    "a number": (
        lambda path: torch.save({"a": torch.ones(1), "step": 5}, path),
        "holds 'step', a int, and no tensor",
    ),
    "sparse": (lambda path: torch.save({"a": torch.eye(2).to_sparse()}, path), "holds 'a' sparse"),
    "numbers for names": (lambda path: torch.save({1: torch.ones(1)}, path), "a tensor by 1, wh"),
}


@pytest.mark.parametrize("kind", ODD)
def test_pickles_of_something_else(kind: str, tmp_path: Path) -> None:
    write, problem = ODD[kind]
    write(tmp_path / "a.bin")
    with pytest.raises(pickles._RefusedError, match=problem):
        pickles._separate(pickles._tensors_of(pickles._loaded(tmp_path / "a.bin"))[1])


def test_tensors_below_a_trainers_key_and_views(tmp_path: Path) -> None:
    """Views of one storage come out as tensors of their own, in the old format as well."""
    whole = torch.arange(12.0).view(3, 4)
    tensors = {"a": whole, "b": whole[1], "c": whole.T, "d": torch.nn.Parameter(torch.ones(2))}
    for new in (True, False):
        path = tmp_path / f"{new}.pt"
        nest = {"epoch": 3, "state_dict": tensors}
        torch.save(nest, path, _use_new_zipfile_serialization=new)
        within, found = pickles._tensors_of(pickles._loaded(path))
        assert within == "state_dict"
        save_file(pickles._separate(found), tmp_path / "out.safetensors")
        back = load_file(tmp_path / "out.safetensors")
        assert all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_the_process_that_reads_pickles(folder: Path, tmp_path: Path) -> None:
    """It reaches no network and no program, has bounded memory, and tells which file is damaged."""
    tensors = pickled(folder)
    data = (folder / PICKLE).read_bytes()
    (tmp_path / "cut.bin").write_bytes(data[: len(data) // 2])
    told, plain = tmp_path / "told.json", tmp_path / "0.safetensors"
    paths = [folder / PICKLE, plain, tmp_path / "cut.bin", tmp_path / "1.safetensors"]
    program = (
        "import socket, subprocess, sys\nfrom pathlib import Path\n"
        "from ilubench.models import pickles\n"
        "pickles._main(Path(sys.argv[1]), [Path(one) for one in sys.argv[2:]])\n"
        "for call in (lambda: socket.create_connection(('127.0.0.1', 9)),\n"
        "             lambda: subprocess.run(['true']), lambda: bytes(1 << 33)):\n"
        "    try:\n        call()\n"
        "    except (pickles._RefusedError, MemoryError):\n        print('refused')\n"
    )
    command = [sys.executable, "-c", program, str(told), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout.split() == [b"refused"] * 3
    assert json.loads(told.read_text()) == {"within": [""], "problem": pickles._DAMAGED}
    assert load_file(plain).keys() == tensors.keys()


# --------------------------------------------------------------------------- names and types


def prefixed(prefix: str, only: str = "") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = load_file(folder / WEIGHTS)
        named = {(prefix if only in name else "") + name: found[name] for name in found}
        save_file(named, folder / WEIGHTS, {"format": "pt"})

    return change


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.module.module.", "base_model.model."])
def test_names_of_wrapped_models(prefix: str, good: Path, folder: Path, tmp_path: Path) -> None:
    prefixed(prefix)(folder)
    convert(folder / WEIGHTS, tmp_path / "out")
    check_same(tmp_path / "out", good)


def test_a_prefix_that_some_names_lack(folder: Path, tmp_path: Path) -> None:
    prefixed("module.", only="norm")(folder)
    problem = r"lacks \d tensors, first 'model\..*norm.weight' and has 'module\..*', which the mod"
    with pytest.raises(ModelError, match=problem):
        convert(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_type_is_the_sources_or_the_asked(folder: Path, tmp_path: Path) -> None:
    found = {name: one.bfloat16() for name, one in load_file(folder / WEIGHTS).items()}
    save_file(found, folder / WEIGHTS, {"format": "pt"})
    assert convert(folder, tmp_path / "own").dtype == "bfloat16"
    kept = load_file(tmp_path / "own" / WEIGHTS)
    assert all(torch.equal(kept[name], found[name]) for name in found)
    assert json.loads((tmp_path / "own" / "config.json").read_text())["dtype"] == "bfloat16"
    assert convert(folder, tmp_path / "wide", dtype="float32").dtype == "float32"
    save_file({**found, "model.norm.weight": torch.full((96,), 1e5)}, folder / WEIGHTS)
    assert convert(folder, tmp_path / "mixed").dtype == "float32"
    with pytest.raises(ModelError, match=r"'model.norm.weight': 96 of 96 values are infinite"):
        convert(folder, tmp_path / "narrow", dtype="float16")


def test_a_tokenizer_of_a_vocabulary_and_merges(folder: Path, tmp_path: Path) -> None:
    """As models of the time of pickles have it: a tokenizer.json is made of them."""
    state = json.loads((folder / "tokenizer.json").read_text())["model"]
    old = load_tokenizer(folder)
    for path in folder.glob("*token*"):
        path.unlink()
    merges = "\n".join(" ".join(pair) for pair in state["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "vocab.json").write_text(json.dumps(state["vocab"]))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<pad>"}
    kind = {"tokenizer_class": "GPT2Tokenizer", **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(kind))
    assert convert(folder, tmp_path / "out").tokenizer
    assert (tmp_path / "out" / "tokenizer.json").is_file()
    assert load_tokenizer(tmp_path / "out")(TEXT).input_ids == old(TEXT).input_ids
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.json").unlink()
    assert not convert(folder, tmp_path / "bare").tokenizer


# --------------------------------------------------------------------------- adapters


def adapter(base: Path, folder: Path, **settings: Any) -> torch.Tensor:
    """Write a LoRA adapter; return the logits of the base with it."""
    peft: Any = pytest.importorskip("peft")
    modules = settings.pop("target_modules", ["q_proj", "down_proj"])
    config = peft.LoraConfig(r=4, lora_alpha=16, target_modules=modules, **settings)
    loaded = load_model(base, "cpu")
    loaded.config._name_or_path = str(base)
    with torch.random.fork_rng([]), warnings.catch_warnings(action="ignore"):
        torch.manual_seed(1)
        wrapped = peft.get_peft_model(loaded, config).eval()
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1)
            elif "modules_to_save" in name:
                parameter.data += 0.1
        wrapped.save_pretrained(folder)
    return logits(wrapped)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "of the embeddings": {"target_modules": ["embed_tokens", "v_proj"]},
    "that changed its base": {"init_lora_weights": "pissa"},
    "scaled, and by layer": {"use_rslora": True, "rank_pattern": {"down_proj": 2}},
    "DoRA": {"use_dora": True},
    "with a whole module": {"modules_to_save": ["lm_head"]},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_an_adapter_and_its_base(kind: str, good: Path, tmp_path: Path) -> None:
    expected = adapter(good, tmp_path / "lora", **SETTINGS[kind])
    done = convert(tmp_path / "lora", tmp_path / "out")
    found = logits(load_model(tmp_path / "out", "cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, logits(load_model(good, "cpu")), atol=0.01)
    assert sorted(done.source) == ["adapter_model.safetensors", WEIGHTS]
    assert load_tokenizer(tmp_path / "out").chat_template == TEMPLATE


def test_an_adapter_without_its_base(good: Path, tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    adapter(good, lora)
    settings = json.loads((lora / "adapter_config.json").read_text())

    def refused(problem: str, base: Path | None = None, **changes: Any) -> None:
        (lora / "adapter_config.json").write_text(json.dumps(settings | changes))
        given = ModelSource(path=str(base)) if base else None
        with pytest.raises(ModelError, match=problem) as caught:
            convert(lora, tmp_path / "out", base=given)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()

    remedy = "give it: --base FOLDER$"
    refused(f"names no base; {remedy}", base_model_name_or_path=None)
    refused(
        f"its base is '/no/such', and there is .*; {remedy}", base_model_name_or_path="/no/such"
    )
    refused(r"no model folder '.*/none'; check the path \(--base\)", base=tmp_path / "none")
    refused("peft_type is 'IA3', and only adapters of type 'LORA' can be merged", peft_type="IA3")
    megatron: dict[str, Any] = {"megatron_config": {"a": 1}, "megatron_core": "this"}
    refused("adapters of Megatron's layers are not merged", **megatron)
    refused("has no place for 4 tensors, first", target_modules=["q_proj"])
    refused("lacks 4 tensors, first", target_modules=["q_proj", "down_proj", "up_proj"])
    refused("its settings, its tensors and the base do not go together", target_modules=["x_proj"])
    small = tmp_path / "small"
    save_model(make_model("llama"), make_tokenizer(), small, "float32")
    refused("its settings, its tensors and the base do not go together", base=small)
    with pytest.raises(UsageError, match="is no adapter, and needs no base; leave --base out"):
        convert(good, tmp_path / "out", base=ModelSource(path=str(good)))


def test_an_adapter_that_repeats_layers(good: Path, tmp_path: Path) -> None:
    adapter(good, tmp_path / "lora", layer_replication=[(0, 2), (0, 2)])
    with pytest.raises(ModelError, match="merged it computes something else than beside its base"):
        convert(tmp_path / "lora", tmp_path / "out")


def test_an_adapter_of_one_of_two_tied_tensors(tmp_path: Path) -> None:
    base = written(tmp_path / "base", tied=True)
    adapter(base, tmp_path / "lora", target_modules=["lm_head"])
    with pytest.raises(
        ModelError, match=r"computes something else .* \(it changes one of two tens"
    ):
        convert(tmp_path / "lora", tmp_path / "out")


# --------------------------------------------------------------------------- GGUF


def gguf_file(path: Path, *, extra: bool = False, **changes: Any) -> PreTrainedModel:
    """Write a tiny Llama as llama.cpp's converter does; return the model."""
    gguf: Any = pytest.importorskip("gguf")
    made, tokenizer = model(), make_tokenizer()
    config: Any = made.config
    writer = gguf.GGUFWriter(path, changes.get("arch", "llama"))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if "scaling" in changes:
        writer.add_rope_scaling_type(gguf.RopeScalingType(changes["scaling"]))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = sorted(tokenizer.get_vocab().items(), key=lambda one: one[1])
    writer.add_tokenizer_model(changes.get("tokenizer", "gpt2"))
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([3 if number < 3 else 1 for _, number in words])
    writer.add_token_merges([" ".join(pair) for pair in state["model"]["merges"]])
    for name, number in {"bos": 1, "eos": 2, "pad": 0}.items():
        getattr(writer, f"add_{name}_token_id")(number)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, tensor in made.state_dict().items():
        values = tensor.numpy()
        if "q_proj" in name or "k_proj" in name:  # llama.cpp turns pairs that lie side by side
            heads = values.reshape(config.num_attention_heads, 2, -1, values.shape[1])
            values = heads.swapaxes(1, 2).reshape(values.shape)
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(values)
        )
    if extra:
        writer.add_tensor("rope_freqs.weight", np.ones(24, np.float32))
    for write in ("header", "kv_data", "tensors"):
        getattr(writer, f"write_{write}_to_file")()
    writer.close()
    return made


def test_gguf(folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    made = gguf_file(alone / "tiny.gguf")
    done = convert(alone, tmp_path / "out")
    assert torch.equal(logits(load_model(tmp_path / "out", "cpu")), logits(made))
    check_same(tmp_path / "out", folder)
    assert done.source == {"tiny.gguf": file_sha256(alone / "tiny.gguf")}
    assert "quantization_config" not in (tmp_path / "out" / "config.json").read_text()


GGUF_FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "architecture": ({"arch": "clip"}, "makes no model of its architecture 'clip' and its settin"),
    "factors of positions": (
        {"extra": True},
        r"holds [\d,]+ weights, and the .*place for 'rope_freqs.weight'\); it would compute some",
    ),
    "scaled positions": ({"scaling": "yarn"}, r"its positions are scaled \(yarn\), which transf"),
    "tokenizer": ({"tokenizer": "rwkv"}, r"its tokenizer \('rwkv'\) cannot be read"),
}


@pytest.mark.parametrize("fault", GGUF_FAULTS)
def test_gguf_that_would_be_another_model(fault: str, tmp_path: Path) -> None:
    changes, problem = GGUF_FAULTS[fault]
    gguf_file(tmp_path / "tiny.gguf", **changes)
    with pytest.raises(ModelError, match=problem) as caught:
        convert(tmp_path / "tiny.gguf", tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_damaged_gguf(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    gguf_file(path)
    data = path.read_bytes()
    for spoiled in (data[:-100], data[:300], b"", b"<html>Sign in</html>", b"\0" * 64):
        path.write_bytes(spoiled)
        with pytest.raises(ModelError, match=r"is no GGUF file, or cut short or damaged; copy it"):
            convert(path, tmp_path / "out")


@pytest.mark.parametrize("extra", ["gguf", "lora"])
def test_a_missing_library_is_named(
    extra: str, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, {"gguf": "gguf", "lora": "peft"}[extra], None)
    source = tmp_path / "source"
    source.mkdir()
    if extra == "gguf":
        (source / "a.gguf").write_bytes(b"GGUF")
    else:
        about = {"peft_type": "LORA", "base_model_name_or_path": str(good)}
        (source / "adapter_config.json").write_text(json.dumps(about))
        save_file({"a": torch.ones(1)}, source / "adapter_model.safetensors")
    with pytest.raises(ModelError, match=rf"`pip install .*` \(the extra ilubench\[{extra}\]\)$"):
        convert(source, tmp_path / "out")


# --------------------------------------------------------------------------- sources and targets


def test_a_hubs_weights(
    folder: Path, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefixed("module.")(folder)
    with served() as hub:
        hub.add("model", "org/new", {one.name: one.read_bytes() for one in folder.iterdir()})
        hub.add("model", "org/old", {"config.json": b"{}", PICKLE: b""})
        ask_only(hub, str(tmp_path / "cache"), monkeypatch)
        with pytest.raises(ModelError, match=r"`ilubench convert org/old@main FOLDER`\), and give"):
            find_folder(ModelSource(hub="org/old"))
        convert(ModelSource(hub="org/new"), tmp_path / "out")
    check_same(tmp_path / "out", good)


def test_an_adapter_and_its_base_of_a_hub(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = tmp_path / "lora"
    expected = adapter(good, lora)
    about = lora / "adapter_config.json"
    about.write_text(about.read_text().replace(str(good), "org/base"))
    with served() as hub:
        for name, folder in (("org/lora", lora), ("org/base", good)):
            files = {one.name: one.read_bytes() for one in folder.iterdir()}
            hub.add("model", name, files)
        ask_only(hub, str(tmp_path / "cache"), monkeypatch)
        go_offline(monkeypatch)
        problem = r"model org/base@main: offline, and .* or give a local folder: --base FOLDER$"
        with pytest.raises(NotCachedError, match=problem):
            convert(lora, tmp_path / "out")
        monkeypatch.undo()
        ask_only(hub, str(tmp_path / "cache"), monkeypatch)
        convert(ModelSource(hub="org/lora"), tmp_path / "out")
    found = logits(load_model(tmp_path / "out", "cpu"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_folders_without_one_model(folder: Path, tmp_path: Path) -> None:
    def refused(problem: str, source: Path = folder) -> None:
        with pytest.raises(ModelError, match=problem):
            convert(source, tmp_path / "out")

    refused("no file or folder '.*/none'; check the path", tmp_path / "none")
    refused(r"config\.json is no file of weights \(\.gguf, ", folder / "config.json")
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).unlink()
    refused(r"source has no \.safetensors file; is it a model's folder\?$")
    for name in ("a.pt", "b.pt"):
        (folder / name).write_bytes(data)
    refused(r"source has several models' weights \('a\.pt', 'b\.pt'\); give one file$")
    (folder / WEIGHTS).write_bytes(data)
    (folder / "config.json").unlink()
    refused(r"source has no config\.json; is it a model's folder\?$")


def test_a_folder_that_is_taken(good: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note").touch()
    for place, problem in (("taken", "is not empty"), ("taken/note", "is a file")):
        with pytest.raises(UsageError, match=f"{problem}; choose another folder"):
            convert(good, tmp_path / place)
    (tmp_path / "empty").mkdir()
    convert(good, tmp_path / "empty")
    check_same(tmp_path / "empty", good)


def test_killed_in_the_middle(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is where the model is to be, and the same command makes it."""
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom ilubench.models import convert\n"
        "convert.check_folder = lambda part: time.sleep(60)\n"
        "convert.convert(Path(sys.argv[1]), Path(sys.argv[2]))\n"
    )
    out, aside = tmp_path / "out", tmp_path / ".out.partial"
    with subprocess.Popen([sys.executable, "-c", program, str(good), str(out)]) as process:
        while process.poll() is None and not (aside / "model" / "tokenizer.json").is_file():
            time.sleep(0.05)
        with pytest.raises(UsageError, match=r"another process writes .*/out; choose another"):
            convert(good, out)
        process.send_signal(signal.SIGKILL)
    assert aside.is_dir()
    assert not out.exists()
    convert(good, out)
    check_same(out, good)
    with monkeypatch.context() as interrupted:
        interrupted.setattr(converting, "check_folder", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            convert(good, tmp_path / "other")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out"]


def _interrupt(_folder: Path) -> None:
    raise KeyboardInterrupt
