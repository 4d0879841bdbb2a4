"""Runs in the formats of others, held against their own schemas and validator."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from places import FIXTURES, LEADERBOARDS
from runs import command

SCHEMAS = FIXTURES / "every_eval_ever"  # of the package, version 0.3.0
MEASURED = LEADERBOARDS / "mini" / "measured" / "npo"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: of a measured one, with one attack and two of its seeds."""
    folder = Path(shutil.copytree(MEASURED, tmp_path_factory.mktemp("exports") / "npo"))
    table = pq.read_table(folder / "samples.parquet")
    two = pc.and_(pc.equal(table["attack"], "gsm8k"), pc.less(table["seed"], 2))
    kept = pc.or_(pc.equal(table["attack"], ""), two)
    pq.write_table(table.filter(kept), folder / "samples.parquet")
    return folder


def export(run: Path, out: Path, *words: str) -> list[Path]:
    done = command("export", str(run), str(out), *words)
    assert done.code == 0, done.err
    files = sorted(path for path in out.rglob("*") if path.is_file())
    assert done.out == f"wrote {len(files)} files below {out}\n"
    return files


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eee")
    export(run, out, "--to", "every-eval-ever", "--samples", "--organization", "A lab")
    return out


def read(exported: Path, model: str) -> Any:
    (file,) = (exported / "data" / "ilubench-mini" / model).glob("*.json")
    return json.loads(file.read_text())


def test_every_file_keeps_the_schema(exported: Path) -> None:
    draft7 = pytest.importorskip("jsonschema").Draft7Validator
    whole = draft7(json.loads((SCHEMAS / "eval.schema.json").read_text()))
    lines = draft7(json.loads((SCHEMAS / "instance_level_eval.schema.json").read_text()))
    files = [*exported.rglob("*.json")]
    assert len(files) == 3 * (1 + 4)  # models before the attack, and at its checkpoints
    for file in files:
        found = json.loads(file.read_text())
        assert [*whole.iter_errors(found)] == []
        samples = (exported / found["detailed_evaluation_results"]["file_path"]).read_text()
        rows = [json.loads(line) for line in samples.splitlines()]
        assert len(rows) == found["detailed_evaluation_results"]["total_rows"]
        assert [*lines.iter_errors(rows[0])] == []


def test_the_packages_own_validator_passes_every_file(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package needs Python 3.12."""
    validate = pytest.importorskip("every_eval_ever.validator.validate")
    monkeypatch.chdir(exported)
    assert validate.main(["data/*/*/*/*.json", "data/*/*/*/*.jsonl"]) == 0


def test_figures_are_those_of_the_samples(run: Path, exported: Path) -> None:
    model = "ilubench/mini-npo-1db9cbe0da.gsm8k.step-128"
    found = read(exported, model)
    assert found["model_info"]["id"] == model
    assert found["source_metadata"]["source_organization_name"] == "A lab"
    results = {one["evaluation_result_id"]: one for one in found["evaluation_results"]}
    samples = pq.read_table(run / "samples.parquet").to_pylist()
    for scorer, name in (("forget_mc", "forget_mc.acc"), ("fa", "gsm8k/fa.exact_match")):
        values = [
            one["value"]
            for one in samples
            if (one["who"], one["attack"], one["step"], one["scorer"])
            == ("method", "gsm8k", 128, scorer)
        ]
        score = results[name]["score_details"]
        assert score["score"] == pytest.approx(sum(values) / len(values))
        interval = score["uncertainty"]["confidence_interval"]
        assert interval["lower"] < score["score"] < interval["upper"]
        assert score["details"]["seeds"] == "0, 1"
        assert not results[name]["metric_config"]["lower_is_better"]


def test_the_fine_tuning_task_before_the_attack_is_the_unlearned_models(exported: Path) -> None:
    found = read(exported, "ilubench/mini-npo-1db9cbe0da")
    names = {one["evaluation_result_id"] for one in found["evaluation_results"]}
    assert {"forget_mc.acc", "retain_mc.acc", "gsm8k/fa.exact_match"} <= names


def gated(run: Path, out: Path, *roles: str) -> Path:
    folder = Path(shutil.copytree(run, out))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for role in roles:
        config["suite"]["data"][role]["gated"] = True
        config["suite"]["data"][role].pop("publish_text", None)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_items_of_gated_rows_are_never_written(run: Path, tmp_path: Path) -> None:
    secret = gated(run, tmp_path / "run", "forget_mc")
    out = tmp_path / "out"
    files = export(secret, out, "--to", "every-eval-ever", "--samples")
    text = "".join(path.read_text() for path in files if path.suffix == ".jsonl")
    assert '"gsm8k/fa.exact_match"' in text
    assert '"forget_mc.acc"' not in text
    found = read(out, "ilubench/mini-npo-1db9cbe0da")
    (one,) = (
        r for r in found["evaluation_results"] if r["evaluation_result_id"] == "forget_mc.acc"
    )
    assert one["source_data"]["additional_details"]["gated"] == "true"


def test_without_samples_there_are_none(run: Path, tmp_path: Path) -> None:
    files = export(run, tmp_path, "--to", "every-eval-ever")
    assert {path.suffix for path in files} == {".json"}


def on_the_hub(run: Path, out: Path, **source: object) -> Path:
    """The run, as if its FA had been asked of GSM8K."""
    folder = Path(shutil.copytree(run, out))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    told = {"hub": "openai/gsm8k", "split": "test", "revision": "abc", "license": "MIT", **source}
    config["suite"]["attacks"]["gsm8k"]["data"]["eval"] = told
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_hub_results_lie_where_they_go_in_a_models_repository(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(on_the_hub(run, tmp_path / "run"), out, "--to", "hf-eval-results")
    model = out / "ilubench" / "mini-npo-1db9cbe0da.gsm8k.step-128"
    (entry,) = yaml.safe_load((model / ".eval_results" / "gsm8k.yaml").read_text())
    assert entry["dataset"] == {"id": "openai/gsm8k", "task_id": "gsm8k", "revision": "abc"}
    values = [
        one["value"]
        for one in pq.read_table(run / "samples.parquet").to_pylist()
        if (one["who"], one["step"], one["scorer"]) == ("method", 128, "fa")
    ]
    assert entry["value"] == pytest.approx(100 * sum(values) / len(values), abs=0.005)
    assert "the unlearned model, then gsm8k for 128 steps" in entry["notes"]


@pytest.mark.parametrize("part", [{"limit": 100}, {"split": "train"}, {"hub": "else/where"}])
def test_a_part_of_a_benchmark_is_no_result_of_it(
    part: dict[str, object], run: Path, tmp_path: Path
) -> None:
    folder = on_the_hub(run, tmp_path / "run", **part)
    done = command("export", str(folder), str(tmp_path / "out"), "--to", "hf-eval-results")
    assert done.code == 3
    assert "nothing to export" in done.err
