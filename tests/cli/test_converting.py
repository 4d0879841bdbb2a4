"""`ilubench convert`: what it prints can be pasted, and what is wrong is one line."""

import json
import shlex
from pathlib import Path

import pytest
from doubles import make_tokenizer, tiny_llama
from runs import command
from safetensors.torch import load_file, save_file

from ilubench.models.checkpoints import save_model
from ilubench.records.keys import file_sha256


def test_convert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_model(tiny_llama(len(make_tokenizer())), make_tokenizer(), Path("model"), "float32")
    weights = Path("model/model.safetensors")
    wrapped = {f"module.{name}": tensor for name, tensor in load_file(weights).items()}
    save_file(wrapped, weights, {"format": "pt"})

    refused = command("score", "model", "suite=mini")
    assert refused.code == 3
    assert "convert the weights: `ilubench convert model FOLDER`" in refused.err

    Path("weights.bin").touch()
    refused = command("score", "weights.bin", "suite=mini")
    assert "is a file; convert the weights: `ilubench convert weights.bin FOLDER`" in refused.err

    done = command("convert", "model", "out")
    sha256 = file_sha256(Path("out/model.safetensors"))
    assert done.code == 0
    assert done.out.split() == [
        "suite.target.model.path=out",
        f"suite.target.model.sha256={sha256}",
    ]
    assert "prefix 'module.' taken off every name" in done.err
    assert "weights in float32" in done.err

    Path("model").rename("a model's")
    shown = command("score", "a model's", "suite=mini").err.partition("`")[2].partition("`")[0]
    printed = shlex.split(shown.replace("FOLDER", "'its folder'"))
    assert printed == ["ilubench", "convert", "a model's", "its folder"]
    done = command(*printed[1:])
    assert shlex.split(done.out)[0] == "suite.target.model.path=its folder"
    Path("a model's").rename("model")

    again = command("convert", "model", "out")
    assert (again.code, again.out) == (2, "")
    assert again.err.splitlines()[-1].endswith("out is not empty; choose another folder")

    Path("model/tokenizer.json").unlink()
    bare = command("convert", "model", "bare", "--dtype", "bfloat16", "--json")
    assert json.loads(bare.out)["dtype"] == "bfloat16"
    assert "note: the source has no tokenizer; name one" in bare.err

    for words, code, problem in (
        (("model", "x", "--dtype", "int8"), 2, "float32"),
        (("model", "x", "--base", "model"), 2, "is no adapter, and needs no base"),
        (("none/at/all", "x"), 3, "no model folder 'none/at/all'"),
    ):
        done = command("convert", *words)
        assert (done.code, done.out) == (code, "")
        assert problem in done.err
    assert not Path("x").exists()
