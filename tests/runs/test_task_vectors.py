"""`ilubench analyse task-vectors`: streamed cosines equal naive ones; missing weights are named."""

import re
from pathlib import Path

import pytest
import torch
from doubles import weights
from runs import SUITE, command, made, target_folder, with_target

from ilubench.models.checkpoints import apply_changes, load_model
from ilubench.runs.task_vectors import Cosines, task_vectors

WORDS = (SUITE, "method=npo", "attacks=agnews", "seeds=0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = with_target(made(), tmp_path_factory.mktemp("kept") / "out")
    done = command("run", *WORDS, "keep=attacked", "references=run", f"out={out}")
    assert done.code == 0, done.err
    (folder,) = out.glob("tiny-npo-*")
    return folder


def model(base: Path, *changes: Path) -> torch.Tensor:
    found = load_model(base, "cpu")
    for folder in changes:
        apply_changes(found, folder)
    return torch.cat([tensor.double().flatten() for tensor in weights(found).values()])


def test_the_whole_models_cosines_are_those_of_its_weights(run: Path) -> None:
    store, base = run.parent / "store", target_folder(run.parent)
    found = [one for one in task_vectors(run) if one.part == "model"]
    (told,) = found
    made_by = (store / "unlearn").glob("*/changes.safetensors")
    (u,) = (file.parent for file in made_by if file.stat().st_size > 999)  # none changes nothing
    attacked = [p.parent for p in (store / "attack").glob("*/changes.safetensors")]
    o, theta_u = model(base), model(base, u)
    cosine = torch.nn.functional.cosine_similarity
    seen = []
    for uft in attacked:
        for ft in attacked:
            tau = (theta_u - o, model(base, ft) - o, model(base, uft) - theta_u)
            pairs = ((tau[0], tau[1]), (tau[2], tau[0]), (tau[2], tau[1]))
            seen.append([float(cosine(a, b, dim=0)) for a, b in pairs])
    assert any(told.values == pytest.approx(values, abs=1e-9) for values in seen)
    assert told.attack == "agnews"
    assert min(told.lengths) > 0


def test_layers_and_kinds_make_up_the_model(run: Path) -> None:
    found = {one.part: one for one in task_vectors(run)}
    layers = [one for name, one in found.items() if name.startswith("layer ")]
    kinds = [one for name, one in found.items() if name != "model" and one not in layers]
    assert len(layers) == 2
    assert {"q_proj", "down_proj", "lm_head", "embed_tokens"} <= {one.part for one in kinds}

    def square(parts: list[Cosines], place: int) -> float:
        return sum(one.lengths[place] ** 2 for one in parts)

    for place in range(3):
        whole = found["model"].lengths[place] ** 2
        assert square(kinds, place) == pytest.approx(whole)
        assert square(layers, place) < whole


def test_the_command_shows_them_beside_the_published_ones(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "cosines.svg"
    done = command("analyse", "task-vectors", str(run), "--out", str(out))
    assert done.code == 0, done.err
    assert re.search(r"^\| agnews \| model \|( -?\d\.\d{3} \|){3}$", done.out, re.M)
    assert "| published: NPO | model | -0.92 | -0.41 | 0.16 |" in done.out
    assert "unverified transcription" in done.out
    assert out.stat().st_size > 1000


def test_weights_that_were_not_kept_are_named(tmp_path: Path) -> None:
    (folder,) = made().glob("tiny-ilu-*")
    done = command("analyse", "task-vectors", str(folder))
    assert done.code == 2
    assert "keep=attacked" in done.err
    done = command("analyse", "task-vectors", str(tmp_path))
    assert done.code == 2
    assert "no planned run" in done.err
