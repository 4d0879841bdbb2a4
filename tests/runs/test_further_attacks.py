"""Attacks besides the benign ones: by name, on the suite's own sets, on some of the items."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from runs import TINY, command, made, with_target

from ilubench.attacks.finetune import FineTune
from ilubench.errors import SpecError
from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.specs import TrainSpec
from ilubench.specs.overrides import parse_words
from ilubench.specs.yaml_files import task_names

TRAIN = {"lr": 1e-3, "steps": 2, "batch_size": 4}
AGAIN = {
    "further": True,
    "settings": {"role": "forget", "examples": 5, "train": TRAIN, "fractions": [1.0]},
    "only": {"forget_nll": {"part": "held_out"}},
}


def suite_file(folder: Path, again: dict[str, Any]) -> str:
    suite = {"extends": str(TINY), "attacks": {"again": again}}
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(suite))
    return f"suite={path}"


def resolved(*words: str) -> Experiment:
    return resolve_experiment(parse_words(words))


def names(experiment: Experiment) -> list[str]:
    return [attack.name for attack in experiment.attacks]


def test_a_run_makes_the_benign_ones_unless_others_are_named(tmp_path: Path) -> None:
    suite = suite_file(tmp_path, AGAIN)
    assert names(resolved(suite)) == ["gsm8k", "agnews"]
    assert names(resolved(suite, "attacks=all")) == ["gsm8k", "agnews", "again"]
    assert names(resolved(suite, "attacks=again,agnews")) == ["again", "agnews"]


@pytest.mark.parametrize("word", ["none", "None", "NONE", "null"])
def test_no_attack_is_none_in_any_letters(word: str) -> None:
    assert names(resolved(f"suite={TINY}", f"attacks={word}")) == []


@pytest.mark.parametrize(
    ("attacks", "remedy"), [("agnews", "agnews,gsm8k"), ("none", "gsm8k"), ("noise", "noise,gsm8k")]
)
def test_a_word_on_an_attack_that_is_not_made_is_refused(attacks: str, remedy: str) -> None:
    with pytest.raises(SpecError, match="does not make gsm8k") as told:
        resolved(f"suite={TINY}", f"attacks={attacks}", "attack.gsm8k.train.lr=1e-4")
    assert str(told.value).endswith(f"write attacks={remedy}")


def test_a_shipped_attack_need_not_be_the_suites() -> None:
    shipped = "sst2"
    assert shipped in task_names("attacks")
    (attack,) = resolved(f"suite={TINY}", f"attacks={shipped}").attacks
    assert (attack.name, attack.spec.further) == (shipped, True)
    with pytest.raises(SpecError, match="has no attack 'ssd2'"):
        resolved(f"suite={TINY}", "attacks=ssd2")
    for word in ("all", "none"):
        with pytest.raises(SpecError, match=f"attacks={word} stands alone"):
            resolved(f"suite={TINY}", f"attacks=gsm8k,{word}")


def test_a_further_attack_is_none_of_the_core(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="benign attack 'agnews' is not declared"):
        resolved(suite_file(tmp_path, AGAIN), "suite.attacks.agnews.further=true")


@pytest.mark.parametrize(
    ("role", "read"),
    [
        ("forget", {"forget": "forget_passages"}),
        ("retain", {"retain": "retain_passages"}),
        ("gsm8k", {"gsm8k": "gsm8k.train"}),  # an environment
        ("forget_mc", {"forget_mc": "forget_mc"}),
    ],
)
def test_it_trains_on_what_the_suite_calls_so(
    tmp_path: Path, role: str, read: dict[str, str]
) -> None:
    experiment = resolved(suite_file(tmp_path, AGAIN), "attacks=again", f"attack.again.role={role}")
    assert experiment.attacks[0].reads(experiment.suite) == read


def test_a_set_of_two_roles_is_read_whole(tmp_path: Path) -> None:
    suite = suite_file(tmp_path, AGAIN)
    experiment = resolved(suite, "attacks=again", "suite.forget=forget_passages,forget_mc")
    (attack,) = experiment.attacks
    assert attack.trained(experiment.suite) == {"forget": ("forget_passages", "forget_mc")}
    assert attack.reads(experiment.suite) == {
        "forget_passages": "forget_passages",
        "forget_mc": "forget_mc",
    }


def test_its_length_follows_from_the_examples_that_it_draws() -> None:
    attack = FineTune(train=TrainSpec(lr=1e-3, epochs=3, batch_size=4), examples=8)
    assert attack.checkpoints(100)[-1] == 6
    assert attack.checkpoints(4)[-1] == 3


def test_ra_leaves_it_out_and_the_worst_case_does_not(tmp_path: Path) -> None:
    suite, out = suite_file(tmp_path, AGAIN), with_target(made(), tmp_path / "out")
    done = command("run", suite, "method=npo", "attacks=agnews,again", f"out={out}", "--json")
    assert done.code == 0, done.err
    (path,) = out.glob("*/results.json")
    record = json.loads(path.read_text())
    row = record["rows"]["NLL_f"]
    assert record["further"] == ["again"]
    assert row["ra_attacks"] == ["agnews"]
    agnews, again = row["attacks"]
    assert row["ra"]["value"] == agnews["ra"]["value"]
    assert row["recovery"]["value"] == agnews["recovery"]["value"]
    kept = [s for part in (agnews, again) for s in part["steps"][1:] if s["eligible"]]
    worst = min(s["forget"]["value"] for s in kept) if kept else None
    assert row["worst_case"]["value"] == worst
    samples = pq.read_table(path.with_name("samples.parquet")).to_pylist()

    def items(attack: str, scorer: str) -> set[str]:
        mine = {"who": "method", "attack": attack, "scorer": scorer}
        return {s["item"] for s in samples if s.items() >= mine.items() and s["step"] > 0}

    asked = resolved(suite).tables.rows("forget_mc")
    held = {str(one["id"]) for one in asked if one["part"] == "held_out"}
    assert items("again", "forget_nll") == items("agnews", "forget_nll") & held
    assert items("again", "retain_mc") == items("agnews", "retain_mc")
    table = command("table", str(path.parent))
    assert "RA over {agnews}" in table.out
    assert "lacks" not in table.out
    (by_attack,) = command("table", "--attacks", str(path.parent), "--json").json
    assert by_attack["unseen"] == ["agnews"]
    assert by_attack["rows"][0]["unseen"]["value"] == agnews["ra"]["value"]
    only = command("run", suite, "method=npo", "attacks=again", f"out={out}", "--json")
    assert only.code == 0, only.err
    (row,) = json.loads(only.out)["rows"].values()
    assert row["ra"]["note"]["kind"] == "only-further"
    folder = next(p.parent for p in out.glob("*/results.json") if p != path)
    alone = command("table", str(folder)).out
    assert "| - (no RA_core) | npo | 1 |" in alone
    assert "lacks" not in alone
    spread = command("variance", str(folder), "--json").json
    assert {one["figure"] for one in spread} == {"f_u"}


def test_a_filter_and_a_limit_that_leave_too_few_show_before_any_job(tmp_path: Path) -> None:
    for limit, told in ((4, "no item for NLL_f"), (9, "1 item for NLL_f")):
        again = {**AGAIN, "only": {"forget_nll": {"id": "PLACE"}}}
        suite, out = suite_file(tmp_path, again), with_target(made(), tmp_path / f"o{limit}")
        rows = resolved(suite).tables.rows("forget_mc")
        again["only"] = {"forget_nll": {"id": rows[8]["id"]}}
        suite_file(tmp_path, again)
        limited = f"suite.scorers.forget_nll.settings.limit={limit}"
        done = command("run", suite, "method=npo", "attacks=again", limited, f"out={out}")
        assert done.code == 3, done.err
        assert f"attack again: only.forget_nll leaves too few: {told}" in done.err
        assert not (out / "store" / "unlearn").exists()


@pytest.mark.parametrize(
    ("only", "told"),
    [
        ({"forget_nl": {"part": "given"}}, "no scorer 'forget_nl'; did you mean 'forget_nll'?"),
        ({"retain_mc": {"part": "given"}}, "the scorer measures utility, which counts whole"),
        ({"forget_nll": {"parts": "given"}}, "no column 'parts'; did you mean 'part'?"),
        ({"forget_nll": {"part": "x"}}, "none of its 12 items has part 'x'"),
    ],
)
def test_filters_that_filter_nothing_show_before_any_job(
    tmp_path: Path, only: dict[str, Any], told: str
) -> None:
    suite, out = suite_file(tmp_path, {**AGAIN, "only": only}), with_target(made(), tmp_path / "o")
    done = command("run", suite, "method=npo", "attacks=again", f"out={out}")
    assert done.code == 2
    assert told in " ".join(done.err.split())
    assert not (out / "store" / "unlearn").exists()
