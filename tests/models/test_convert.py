"""Models in other forms become a folder that computes the same; whatever cannot is told why."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conversions import PICKLE, TEXT, WEIGHTS, check_same
from hub_server import ask_only, served
from safetensors.torch import load_file, save_file

from ilubench.errors import ModelError, UsageError
from ilubench.models import convert as converting
from ilubench.models.checkpoints import find_folder
from ilubench.models.convert import convert
from ilubench.models.tokenizers import load_tokenizer
from ilubench.specs import ModelSource


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
