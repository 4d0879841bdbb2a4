"""Chance levels that a run measures: what the model scores that the target was taught from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import transformers
import yaml
from finished_runs import edit_row
from runs import TINY, Outcome, command, made, target_folder

from ilubench.errors import SpecError
from ilubench.records.finished import read_run
from ilubench.specs import SuiteSpec
from ilubench.specs.yaml_files import validate_spec
from leaderboards import edit_json

MEASURED = {"of": "untouched"}
TRAIN = {"lr": 1.0e-3, "steps": 6, "batch_size": 4}


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model with the tiny target's shape and tokenizer, never trained, and sure of it."""
    folder = tmp_path_factory.mktemp("untouched")
    shutil.copytree(target_folder(made()), folder, dirs_exist_ok=True)
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.set_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.lm_head.weight.mul_(10.0)
    model.save_pretrained(folder)
    return folder


def suite(folder: Path, **fields: Any) -> str:
    """Return the words of a tiny suite, target given, both of whose chance levels are measured."""
    raw = yaml.safe_load(TINY.read_text())
    raw["target"] = {"model": {"path": str(target_folder(made()))}}
    scorer = raw["scorers"]["forget_nll"]
    raw["scorers"]["retain_nll"] = {
        **scorer,
        "settings": {**scorer["settings"], "data": "retain_mc"},
    }
    raw["primary_forget"][0]["chance"] = MEASURED
    raw["utility"] = [{**raw["primary_forget"][0], "label": "NLL_r", "scorer": "retain_nll"}]
    raw["attacks"].pop("agnews")
    raw |= {"core_unseen": ["gsm8k"], "environments": {}, "methods": {"default": {"train": TRAIN}}}
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({**raw, **fields}))
    return f"suite={path}"


@pytest.fixture(scope="module")
def ran(untouched: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a finished run's folder."""
    folder = tmp_path_factory.mktemp("measured")
    own = suite(folder, untouched={"path": str(untouched)})
    words = (own, "method=npo", f"out={folder / 'out'}")
    assert "score the untouched model" in command("plan", *words).out
    done = command("run", *words, "allow_weak_target=false")
    assert done.code == 0, done.err
    (record,) = (folder / "out").glob("*/results.json")
    return record.parent


def means(folder: Path, who: str) -> dict[str, float]:
    rows = pq.read_table(folder / "samples.parquet").to_pylist()
    own = [row for row in rows if row["who"] == who and not row["attack"]]
    return {
        name: sum(of) / len(of)
        for name in {row["scorer"] for row in own}
        for of in [[row["value"] for row in own if row["scorer"] == name]]
    }


def test_a_chance_level_is_the_untouched_models_score(ran: Path) -> None:
    run, level = read_run(ran), means(ran, "untouched")
    row = run.rows["NLL_f"]
    assert level["forget_nll"] > 1 + means(ran, "reference")["forget_nll"]
    assert row.forget_chance == pytest.approx(level["forget_nll"])
    kept = (level["retain_nll"] - means(ran, "method")["retain_nll"]) / (
        level["retain_nll"] - means(ran, "reference")["retain_nll"]
    )
    assert row.utility.kept[0].value == pytest.approx(kept)
    stated = run.suite
    assert stated is not None
    assert stated.primary_forget[0].model_dump()["chance"] == {**MEASURED, "scorer": None}
    told = json.loads((ran / "results.json").read_text())
    assert {
        score["scorer"]: score["value"] for score in told["scores"] if score["who"] == "untouched"
    } == pytest.approx(level)


def test_its_score_is_made_once(ran: Path, untouched: Path, tmp_path: Path) -> None:
    own = suite(tmp_path, untouched={"path": str(untouched)})
    words = ("method=none", "attacks=none", f"out={ran.parent}", "--json")
    plan = command("plan", own, *words).json
    mine = [job for job in plan["jobs"] if job["label"] == "score the untouched model"]
    assert [job["cached"] for job in mine] == [True]
    assert command("show", str(ran)).code == 0


def test_a_record_with_another_level_is_refused(ran: Path, tmp_path: Path) -> None:
    folder = tmp_path / ran.name
    shutil.copytree(ran, folder)
    edit_row(folder, forget_chance=3.0)
    done = command("show", str(folder))
    assert done.code == 3
    assert "forget_chance of NLL_f is 3 by its record" in done.err


def test_a_board_checks_it_by_its_samples(ran: Path, tmp_path: Path) -> None:
    board = tmp_path / "boards"
    done = command("leaderboard", "submit", str(ran), "--by", "A", "--to", str(board))
    assert done.code == 0, done.err
    assert command("leaderboard", "check", str(board)).code == 0

    def change(entry: Any) -> None:
        (first, *_) = (one for one in entry["run"]["scores"] if one["who"] == "untouched")
        first["value"] += 1

    edit_json(next(board.glob("tiny/*.json")), change)
    done = command("leaderboard", "check", str(board))
    assert done.code != 0
    assert "run.scores." in done.out + done.err


def refused(own: str, tmp_path: Path, *words: str) -> Outcome:
    done = command("run", own, "method=npo", f"out={tmp_path / 'out'}", *words)
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert not list(tmp_path.glob("out/store/unlearn/*"))
    return done


def test_nothing_says_what_the_untouched_model_is(tmp_path: Path) -> None:
    done = refused(suite(tmp_path), tmp_path)
    assert done.code == 2
    assert "NLL_f: its chance level is the untouched model's score" in done.err
    assert "untouched: {hub: ORG/NAME}" in done.err


def test_it_is_what_the_recipe_begins_with(untouched: Path, tmp_path: Path) -> None:
    own = suite(tmp_path, target=_recipe(untouched))
    plan = command("plan", own, "method=npo", f"out={tmp_path / 'out'}", "--json").json
    assert "score the untouched model" in [job["label"] for job in plan["jobs"]]
    given = {"path": str(target_folder(made()))}
    known = _recipe(untouched) | {"model": given}
    assert validate_spec(SuiteSpec, _raw(own) | {"target": known}).untouched_model is not None
    other = validate_spec(SuiteSpec, _raw(own) | {"untouched": given}).untouched_model
    assert other is not None
    assert other.path == given["path"]


def _raw(own: str) -> Any:
    return yaml.safe_load(Path(own.removeprefix("suite=")).read_text())


def _recipe(init: Path) -> dict[str, Any]:
    return {"recipe": {"init": {"path": str(init)}, "text": ["pretrain"], "train": TRAIN}}


def test_an_untouched_model_that_is_not_there(tmp_path: Path) -> None:
    done = refused(suite(tmp_path, untouched={"path": str(tmp_path / "none")}), tmp_path)
    assert done.code == 3
    assert "suite.untouched" in done.err or str(tmp_path / "none") in done.err


@pytest.mark.parametrize(
    ("chance", "words"),
    [
        ({"of": "retrain"}, "'untouched'"),
        ({"off": "untouched"}, "chance.measured"),
        ({"scorer": "retain_mc"}, "is missing"),
        ({"of": "untouched", "scorer": "mc"}, "scorer 'mc' is not declared"),
        ("untouched", "chance"),
    ],
)
def test_chance_that_says_nothing(chance: Any, words: str) -> None:
    raw = yaml.safe_load(TINY.read_text())
    raw["primary_forget"][0]["chance"] = chance
    with pytest.raises(SpecError) as caught:
        validate_spec(SuiteSpec, raw)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_scorers_level_is_asked_for_wherever_the_metric_is(
    untouched: Path, tmp_path: Path
) -> None:
    own = suite(tmp_path, untouched={"path": str(untouched)})
    path = Path(own.removeprefix("suite="))
    raw = yaml.safe_load(path.read_text())
    raw["scorers"]["other"] = raw["scorers"]["retain_nll"]
    raw["utility"][0]["chance"] = {**MEASURED, "scorer": "other"}
    path.write_text(yaml.safe_dump(raw))
    out = f"out={tmp_path / 'out'}"
    tuned = command("tune", own, "method=npo", "budget=1", "allow_weak_target=true", out)
    assert tuned.code == 0, tuned.err
    some = command("score", str(target_folder(made())), own, "scorers=retain_nll", out)
    assert some.code == 0, some.err


def test_an_untouched_model_of_other_tokens(untouched: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(untouched, other)
    words = json.loads((other / "tokenizer.json").read_text())
    words["model"]["vocab"]["more"] = len(words["model"]["vocab"])
    (other / "tokenizer.json").write_text(json.dumps(words))
    done = refused(suite(tmp_path, untouched={"path": str(other)}), tmp_path)
    assert done.code == 3
    assert "has other tokens than the target model; suite.untouched names" in done.err
    assert not list(tmp_path.glob("out/store/*/*"))


def test_a_scorer_without_the_metric_measures_no_chance(tmp_path: Path) -> None:
    own = suite(tmp_path)
    path = Path(own.removeprefix("suite="))
    raw = yaml.safe_load(path.read_text())
    raw["utility"][0]["chance"] = {**MEASURED, "scorer": "retain_mc"}
    path.write_text(yaml.safe_dump(raw))
    done = refused(own, tmp_path)
    assert done.code == 2
    assert "no metric 'nll'" in done.err
