"""Pickled weights: read where no code runs, or refused in one sentence."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conversions import PICKLE, WEIGHTS, check_same, model, pickled, written
from safetensors.torch import load_file, save_file

from ilubench.errors import ModelError
from ilubench.models import pickles
from ilubench.models.checkpoints import find_folder
from ilubench.models.convert import PROVENANCE, convert
from ilubench.records.keys import file_sha256
from ilubench.specs import ModelSource


class Evil:
    """A pickle of it writes a file when it is loaded as pickles are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


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
