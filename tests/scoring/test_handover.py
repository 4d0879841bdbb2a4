"""Weights on their way to an engine: where they lie, and who frees them."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from doubles import tiny_llama

from ilubench.errors import ModelError
from ilubench.models.checkpoints import load_model
from ilubench.models.configuration import load_config
from ilubench.scoring.engines.handover import Spool, same_model, write_live


@pytest.mark.parametrize("tied", [False, True])
def test_a_live_model_is_written_whole(*, tied: bool, tmp_path: Path) -> None:
    model = tiny_llama(300, tied=tied, seed=4)
    spool = write_live(model, "float32")
    again = load_model(spool.folder, "cpu")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    spool.free()
    assert not spool.folder.exists()
    with pytest.raises(ModelError, match="of the live model is float32, not bfloat16"):
        write_live(model, "bfloat16")


def test_what_a_killed_process_left_is_freed_and_nothing_else() -> None:
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os; from ilubench.scoring.engines.handover import Spool\n"
            "print(Spool(10).folder, flush=True); os.kill(os.getpid(), 9)",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    left = Path(killed.stdout.strip())
    assert left.is_dir()
    mine, fresh = Spool(10), left.parent / "ilubench-weights-just-made"
    assert left.is_dir()  # it may have been made a moment ago
    fresh.mkdir()
    for folder in (left, mine.folder):
        os.utime(folder, (0, 0))
    other = Spool(10)
    assert not left.exists()
    assert mine.folder.is_dir()
    assert fresh.is_dir()
    for spool in (mine, other):
        spool.free()
    fresh.rmdir()


def test_without_room_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spool = Spool(2**60)
    assert spool.folder.parent == tmp_path
    spool.free()


def test_the_same_model(tmp_path: Path) -> None:
    one, other = tiny_llama(300, seed=1), tiny_llama(300, seed=2)
    third = tiny_llama(300, rms_norm_eps=0.5)
    folders = []
    for number, model in enumerate((one, other, third)):
        folder = tmp_path / str(number)
        model.save_pretrained(folder)
        folders.append(folder)
    configs = [load_config(folder) for folder in folders]
    assert same_model(configs[0], configs[1])
    assert same_model(configs[0], one.config)
    assert not same_model(configs[0], configs[2])
