"""A model that is divided among ranks: the same training as in one process."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from sharded import TRAININGS, Trained, in_ranks, train

TWO = [name for name in TRAININGS if not name.endswith("killed")]
THREE = ("rmu-targets", "ilu-batch_mean", "finetune-tied")
ASKED = [*((2, name) for name in TWO), *((3, name) for name in THREE)]


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a training in two ranks that was killed has left its state."""
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def sharded(
    state: Path, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[tuple[int, str], Trained]:
    """Return what so many ranks made; "resumed" is what three made of what two had begun."""
    asked = [(count, name, tmp_path_factory.mktemp("state")) for count, name in ASKED]
    killed, resumed = (2, "finetune-killed", state), (3, "finetune", state)
    found = in_ranks([*asked[: len(TWO)], killed, resumed, *asked[len(TWO) :]])
    made = [*found[: len(TWO)], *found[len(TWO) + 2 :]]
    return {**dict(zip(ASKED, made, strict=True)), (3, "resumed"): found[len(TWO) + 1]}


def near(one: Trained, other: Trained, tolerance: float = 1e-5) -> None:
    assert len(one.steps) == len(other.steps) > 0
    for mine, theirs in zip(one.steps, other.steps, strict=True):
        assert mine == pytest.approx(theirs, rel=tolerance, abs=tolerance)
    assert len(one.seen) == len(other.seen)
    for left, right in zip(one.seen, other.seen, strict=True):
        assert float((left - right).abs().mean()) < 10 * tolerance
    assert one.weights.keys() == other.weights.keys()
    for name, weight in one.weights.items():
        # where a gradient is nearly zero Adam makes steps of its rounding: few weights, so a mean
        assert float((weight - other.weights[name]).abs().mean()) < tolerance


@pytest.mark.parametrize(("count", "name"), ASKED)
def test_ranks_train_as_one_process_does(
    sharded: Mapping[tuple[int, str], Trained], tmp_path: Path, count: int, name: str
) -> None:
    # bfloat16 rounds sums of another order to its next number
    near(sharded[count, name], train(name, tmp_path), 5e-3 if "bfloat16" in name else 1e-5)


def test_a_killed_training_goes_on_in_any_number_of_ranks(
    sharded: Mapping[tuple[int, str], Trained], state: Path, tmp_path: Path
) -> None:
    whole = train("finetune", tmp_path / "whole")
    rest = Trained(whole.steps[3:], whole.seen[2:], whole.weights)
    near(sharded[3, "resumed"], rest)
    shutil.copytree(state, tmp_path / "copy")
    near(train("finetune", tmp_path / "copy"), rest)
