"""What of the suite's own sets and items an attack is taught: in the plan, before anything runs."""

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from ilubench.errors import SpecError
from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.experiments.training_text import (
    check_split,
    expected_overlaps,
    find_overlaps,
    overlap_warnings,
)
from ilubench.runs.plan import make_plan
from ilubench.runs.progress import Lines
from ilubench.specs.overrides import parse_words

QUESTIONS = {"prompt": "{question}", "completion": " {answer}"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def experiment(attacks: str, method: str = "npo") -> Experiment:
    words = [f"method={method}", f"attacks={attacks}", "suite.attacks.agnews.data.train.limit=8"]
    return resolve_experiment(parse_words(words))


def told(attacks: str, method: str = "npo") -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is expected, and what is warned of."""
    found = experiment(attacks, method)
    records = find_overlaps(found)
    return expected_overlaps(found, records), overlap_warnings(found, records)


def write(name: str, data: dict[str, Any], **more: Any) -> str:
    train = {"lr": 1e-3, "steps": 2, "batch_size": 4}
    values = {"settings": {"train": train}, "data": {"train": data}, **more}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(values))
    return f"{name}.yaml"


def test_training_on_the_forget_set_is_marked_as_meant() -> None:
    expected, warned = told("relearn_forget")
    assert expected == (
        "attack relearn_forget trains on the suite's forget set (forget_passages, "
        "forget_questions), as it is meant to; contained in it: 20 of 20 items of forget_verbmem, "
        "32 of 128 items of forget_mc, 16 of 64 items of forget_knowmem",
    )
    assert warned == ()


def test_so_is_training_on_the_retain_set() -> None:
    Path("kept.yaml").write_text(
        "settings: {role: retain, train: {lr: 1.0e-3, steps: 2, batch_size: 4}}"
    )
    ((line,), warned) = told("kept.yaml")
    assert line.startswith("attack kept trains on the suite's retain set (retain_passages, ")
    assert "32 of 128 items of retain_mc" in line
    assert warned == ()


def test_and_showing_it() -> None:
    Path("shown.yaml").write_text("use: fewshot\nsettings: {role: forget_questions}")
    ((line,), _) = told("shown.yaml")
    assert line.startswith("attack shown shows the suite's forget set (forget_questions), as it is")


@pytest.mark.parametrize("name", ["forget", "retain"])
def test_text_that_turns_out_to_be_a_set_is_warned_of(name: str) -> None:
    """A relearning script that trained on the file of the retain set passed for a benign one."""
    file = write("benign", {"generated": f"mini.{name}_text", "prompt": "", "completion": "{text}"})
    expected, warned = told(file)
    assert expected == ()
    (of_set,) = (line for line in warned if f"rows of the {name} set" in line)
    assert of_set.startswith(
        f"52 of 52 rows of the {name} set (100.0%) are contained in the training text benign.train"
    )
    assert any(f"of 128 items of {name}_mc" in line for line in warned)


def test_benign_text_has_nothing_of_the_sets() -> None:
    assert told("agnews") == ((), ())
    records = find_overlaps(experiment("agnews"))
    sets = {(one.role, one.scorer): one.contained for one in records if one.scorer.endswith(" set")}
    assert sets == {("agnews.train", "forget set"): 0, ("agnews.train", "retain set"): 0}


def test_sets_that_no_method_reads_are_not_read() -> None:
    records = find_overlaps(experiment("agnews", method="none"))
    assert {one.scorer for one in records}.isdisjoint({"forget set", "retain set"})


# ------------------------------------------------------------------------------- a split


def test_a_split_trains_on_none_of_what_it_scores() -> None:
    found = experiment("relearn_split")
    check_split(found, found.attacks[0])
    expected, warned = told("relearn_split")
    assert expected == (
        "attack relearn_split trains on 32 of 128 items of forget_mc, 16 of 64 items of "
        "forget_knowmem, as it is meant to; it scores others only: forget_mc, forget_rephrased, "
        "forget_knowmem",
    )
    assert warned == ()


def test_a_split_that_trains_on_what_it_scores_is_refused_before_anything_runs() -> None:
    data = {"generated": "mini.forget_qa", "where": {"part": "given"}, **QUESTIONS}
    file = write("split", data, only={"forget_mc": {"part": "given"}})
    with pytest.raises(SpecError) as caught:
        make_plan(experiment(file))
    assert "attack split: only.forget_mc: 32 of the 32 items that it scores are in the " in str(
        caught.value
    )
    data = {"generated": "mini.forget_qa", **QUESTIONS}
    found = experiment(write("whole", data, only={"forget_knowmem": {"part": "held_out"}}))
    with pytest.raises(SpecError, match="48 of the 48 items that it scores are in the training"):
        check_split(found, found.attacks[0])


def test_a_split_that_names_no_items_is_refused_in_the_plan() -> None:
    data = {"generated": "mini.forget_qa", **QUESTIONS}
    file = write("split", data, only={"forget_mc": {"part": "none"}})
    with pytest.raises(SpecError, match="none of its 128 items has part 'none'"):
        make_plan(experiment(file))


def test_the_head_of_a_run_says_it() -> None:
    begun = io.StringIO()
    Lines(Console(file=begun, width=160)).planned(make_plan(experiment("relearn_forget")))
    lines = [line for line in begun.getvalue().splitlines() if line.startswith("overlap  ")]
    assert [line[9:41] for line in lines] == ["attack relearn_forget trains on "]
