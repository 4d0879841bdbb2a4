"""Attacks on the original and the retrained model that come with a suite: when they are used."""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from finished_runs import edit_record, edit_samples, edit_suite
from places import MEASURED, ROOT
from runs import SUITE, Outcome, command, environment, made, planned, target_folder, with_target
from scipy import stats

from ilubench.errors import SpecError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.leaderboard.check import figures
from ilubench.leaderboard.records.prediction import NUMERICS
from ilubench.records.finished import read_run
from ilubench.records.keys import file_sha256
from ilubench.records.reference_sets import METHODS, find_set, read_set
from ilubench.records.results import RunRecord, Who
from ilubench.records.scores import SCHEMA
from ilubench.runs import references
from ilubench.runs.plan import Plan, make_plan
from ilubench.specs.overrides import parse_words

WITH = "references=shipped"
ASK = ("method=npo", "seeds=0,1")
NAMES = ("none", "retrain")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `out` folder of finished runs of none, retrain and npo; tests only read it.

    The retrained model is the target itself: what it knows does not matter here.
    """
    place = with_target(made(), tmp_path_factory.mktemp("references") / "out")
    for method in ("none", "retrain", "npo"):
        done = command("run", *words(place, f"method={method}", "references=run"))
        assert done.code == 0, done.err
    return place


@pytest.fixture
def sets(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The result sets that the tiny suite comes with, to be changed by a test."""
    for name in NAMES:
        (run,) = out.glob(f"tiny-{name}-*")
        for file in ("results.json", "samples.parquet", "config.yaml", "env.json"):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(run / file, tmp_path / name / file)

    def find(suite: str, who: Who) -> Path | None:
        folder = tmp_path / METHODS[who]
        return folder if suite == "tiny" and folder.is_dir() else None

    monkeypatch.setattr(references, "find_set", find)
    monkeypatch.setattr(figures, "find_set", find)
    return tmp_path


def words(out: Path, *more: str) -> tuple[str, ...]:
    """Return the words of a run; a later one takes the place of one of its key."""
    model = f"suite.retrain.model.path={target_folder(out)}"
    found = {word.partition("=")[0]: word for word in (SUITE, model, f"out={out}", *ASK, *more)}
    return tuple(found.values())


def run(out: Path, *more: str) -> Outcome:
    done = command("run", *words(out, *more), "--json")
    assert done.code == 0, done.err
    return done


def plan(out: Path, *more: str) -> Plan:
    return planned(*words(out, *more)[1:])


def left(found: Plan) -> set[tuple[str, str, int]]:
    """Whose attacks are jobs: (who, attack, seed), but for the method's."""
    cells = [(str(job.who), job.attack, job.seed) for job in found.jobs if job.attack]
    return {cell for cell in cells if cell[0] != "method"}


def sorted_samples(folder: Path) -> pa.Table:
    return pq.read_table(folder / "samples.parquet").sort_by(
        [(n, "ascending") for n in SCHEMA.names]
    )


# --------------------------------------------------------------------------- used


@pytest.mark.usefixtures("sets")
def test_a_row_with_shipped_references_is_the_row_measured_here(out: Path) -> None:
    """Sets of this very machine: not only within the interval, but the same bits."""
    here, shipped = (RunRecord.model_validate(run(out, w).json) for w in ("references=run", WITH))
    assert here.run != shipped.run
    assert shipped.rows == here.rows
    assert sorted_samples(out / shipped.run).equals(sorted_samples(out / here.run))
    assert not here.references
    jobs = {(job.stage, job.label) for job in shipped.jobs}
    assert jobs == {(j.stage, j.label) for j in here.jobs if "retrain" not in j.label} - {
        ("attack", f"attack none with {attack}, seed {seed}")
        for attack in ("gsm8k", "agnews")
        for seed in (0, 1)
    }
    by_metric = ("who", "seed", "scorer", "metric")
    for a, b in zip(
        *(
            sorted(r.scores, key=lambda s: [getattr(s, n) for n in by_metric])
            for r in (here, shipped)
        ),
        strict=True,
    ):
        assert a == b
    tables = [pq.read_table(out / r.run / "metrics.parquet").to_pylist() for r in (here, shipped)]
    means = [
        {tuple(m[n] for n in (*by_metric, "stage", "attack", "step")): m["value"] for m in table}
        for table in tables
    ]
    assert means[0].keys() == means[1].keys()
    assert all(means[1][where] == pytest.approx(value) for where, value in means[0].items())


def test_what_was_not_measured_is_said(out: Path, sets: Path) -> None:
    found = plan(out)
    assert not left(found)
    done = run(out)
    record = RunRecord.model_validate(done.json)
    assert record.run == found.run_id
    assert record.references.keys() == {"reference", "retrain"}
    for who, told in record.references.items():
        shipped = read_set(sets / METHODS[who], who)
        assert (told.run, told.samples) == (shipped.run.record.run, shipped.sha256)
        assert (told.attacks, told.seeds) == (("gsm8k", "agnews"), (0, 1))
        assert told.scored is (who == "retrain")
        assert told.machine.endswith(", cpu")
        assert told.libraries["torch"]
        line = f"{METHODS[who]} under gsm8k, agnews, seeds 0, 1: of {told.run} (torch "
        assert line in done.err
        assert any(line in note for note in record.notes)
        shown = command("plan", *words(out))
        assert told.run in shown.out
    (row,) = command("plan", *words(out), "--json").json["rows"]
    assert row["references"]["shipped"]["retrain"]["run"] == record.references["retrain"].run
    old = json.loads((out / record.run / "results.json").read_text())
    del old["references"]
    assert not RunRecord.model_validate({**old, "schema_version": 3}).references


@pytest.mark.usefixtures("sets")
def test_a_reference_measures_itself(out: Path) -> None:
    none, retrain = (plan(out, f"method={name}") for name in NAMES)
    assert {cell[0] for cell in left(none)} == {"reference"}
    assert [one.source.who for one in none.references.taken] == ["retrain"]
    assert not left(retrain)
    assert [one.source.who for one in retrain.references.taken] == ["reference"]
    assert not plan(out, "attacks=none").references.taken
    assert not plan(out, "references=run").references.taken


def test_a_suite_without_sets_says_nothing(out: Path) -> None:
    found = plan(out)
    assert len(left(found)) == 8
    assert not found.references.refused
    with pytest.raises(SpecError, match="references: none, retrain: no result set comes with the"):
        plan(out, WITH)


# --------------------------------------------------------------------------- what must match


CELLS = {
    (who, a, s) for who in ("reference", "retrain") for a in ("gsm8k", "agnews") for s in (0, 1)
}
GSM8K = {cell for cell in CELLS if cell[1] == "gsm8k"}

ASKED: dict[str, tuple[str, set[tuple[str, str, int]], str]] = {
    "a suite's version": ("suite.version=2", CELLS, "suite version (1 in the set, 2 here)"),
    "devices": ("devices_per_job=2", CELLS, "world size (1 in the set, 2 here)"),
    "an attack's settings": (
        "attack.gsm8k.train.lr=2e-3",
        GSM8K,
        "gsm8k: train.lr (0.001 in the set, 0.002 here)",
    ),
    "all attacks' settings": (
        "attack.train.steps=4",
        CELLS,
        "none, retrain: train.steps (8 in the set, 4 here)",
    ),
    "an attack's data": (
        "data.gsm8k.train.limit=20",
        GSM8K,
        "gsm8k: attacks.gsm8k.data.train.limit",
    ),
    "the data of all": (
        "data.retain_mc.limit=11",
        CELLS,
        "data.retain_mc.limit (12 in the set, 11",
    ),
    "a scorer": ("suite.scorers.retain_mc.settings.limit=5", CELLS, "scorers.retain_mc.settings"),
    "an FA task": (
        "suite.attacks.agnews.fa.chance=0.25",
        CELLS - GSM8K,
        "agnews: attacks.agnews.fa",
    ),
    "the weights' type": (
        "suite.dtype=bfloat16",
        CELLS,
        "dtype (float32 in the set, bfloat16 here)",
    ),
    "batches": ("suite.score_batch=8", CELLS, "score batch (16 in the set, 8 here)"),
    "memory": ("memory.moments=bfloat16", CELLS, "memory."),
    "length": ("suite.max_length=120", CELLS, "max_length (128 in the set, 120 here)"),
    "seeds": (
        "seeds=1,7",
        {(who, attack, 7) for who, attack, _ in CELLS},
        "seed 7 (the set has seeds 0, 1)",
    ),
}


@pytest.mark.parametrize("what", ASKED)
def test_what_is_asked_otherwise_is_measured_here(out: Path, sets: Path, what: str) -> None:
    word, cells, reason = ASKED[what]
    found = plan(out, word)
    assert left(found) == cells
    assert any(reason in line for line in found.references.refused), found.references.refused
    own = {job.who for job in found.jobs if job.stage == "unlearn"}
    assert ("retrain" in own) == any(who == "retrain" for who, *_ in cells)


def test_what_was_asked_for_and_does_not_match_is_an_error(out: Path, sets: Path) -> None:
    edit_record(sets / "none", engine="vllm")
    done = command("run", *words(out, "attack.gsm8k.train.lr=2e-3", "seeds=1,7", WITH))
    assert done.code == 2
    for reason in (
        "references: none: engine (vllm in the set, hf here); retrain: gsm8k: train.lr (0.001 in",
        "retrain: seed 7 (the set has seeds 0, 1); references=auto measures here what does not",
    ):
        assert reason in done.err
    assert done.err.count("\n") == 1


def _failed(folder: Path) -> None:
    edit_record(folder, failures=[{"label": "attack", "kind": "JobError", "message": "m"}])


def _no_gsm8k(folder: Path) -> None:
    edit_record(folder, attacks=["agnews"], rows={})
    edit_samples(folder, lambda t: t.filter(pc.not_equal(t["attack"], "gsm8k")))


def _better(samples: pa.Table) -> pa.Table:
    """The original's multiple choice, one item of six answered otherwise."""
    asked = pc.and_(pc.equal(samples["who"], "reference"), pc.equal(samples["attack"], ""))
    asked = pc.and_(asked, pc.equal(samples["scorer"], "retain_mc"))
    (first, *_) = np.flatnonzero(asked.to_numpy())
    values = samples["value"].to_numpy().copy()
    values[first] = 1.0 - values[first]
    place = samples.column_names.index("value")
    return samples.set_column(place, "value", pa.array(values))


def _other_scores(folder: Path) -> None:
    edit_samples(folder, _better)
    edit_record(folder, rows={})


MEASURED_OTHERWISE: dict[str, tuple[Callable[[Path], object], str]] = {
    "engine": (lambda f: edit_record(f, engine="vllm"), "engine (vllm in the set, hf here)"),
    "weights of the target": (
        lambda f: edit_record(f, target="0" * 32),
        "the target model's weights",
    ),
    "unknown weights": (
        lambda f: edit_record(f, target=""),
        "are not known to be those of the set",
    ),
    "rows": (lambda f: edit_record(f, data={"retain_mc": "0"}), "the rows of retain_mc (0 in the"),
    "world size": (
        lambda f: edit_record(f, conditions={"world_size": 2}),
        "world size (2 in the set, 1 here)",
    ),
    "version": (
        lambda f: edit_record(f, method_version=9),
        "the method's version (9 in the set, 1",
    ),
    "failures": (_failed, "some of its jobs failed"),
    "no such attack": (_no_gsm8k, "gsm8k: the set does not have it"),
    "another suite": (
        lambda f: edit_suite(f, lambda s: s.update(max_length=99)),
        "max_length (99 in",
    ),
    "the original's scores": (_other_scores, "the original model's acc of retain_mc ("),
}


@pytest.mark.parametrize("what", MEASURED_OTHERWISE)
def test_a_set_of_something_else_is_not_used(out: Path, sets: Path, what: str) -> None:
    change, reason = MEASURED_OTHERWISE[what]
    change(sets / "none")
    found = plan(out)
    assert {who for who, *_ in left(found)} == {"reference"}
    (line,) = found.references.refused
    assert line.startswith("none: ")
    assert reason in line


def test_another_retrained_model_is_not_used(out: Path, sets: Path) -> None:
    copied = shutil.copytree(target_folder(out), sets / "model")
    found = plan(out, f"suite.retrain.model.path={copied}")
    assert {who for who, *_ in left(found)} == {"retrain"}
    assert found.references.refused[0].startswith("retrain: model.path (")


# --------------------------------------------------------------------------- found out on the way


def test_an_original_that_scores_otherwise_is_measured(
    out: Path, sets: Path, tmp_path: Path
) -> None:
    """Its score is known only in the run: it is planned again before anything is attacked."""
    for name in NAMES:
        _other_scores(sets / name)
    fresh = with_target(made(), tmp_path / "fresh")
    few = ("attacks=gsm8k", "seeds=0", f"out={fresh}", "never_knew=false")
    assert not left(plan(out, *few))
    done = command("run", *words(out, *few, WITH), "--json")
    assert done.code == 2
    assert "references: none: the original model's acc of retain_mc (" in done.err
    assert not list(fresh.glob("tiny-*"))
    assert not list((fresh / "store" / "attack").glob("*"))
    shutil.rmtree(fresh / "store" / "score")
    record = RunRecord.model_validate(run(out, *few).json)
    assert not record.references
    assert any("not taken as shipped: none: the original" in note for note in record.notes)
    assert [folder.name for folder in fresh.glob("tiny-*")] == [record.run]


@pytest.mark.usefixtures("sets")
def test_a_leaderboard_knows_the_samples_that_were_shipped(out: Path, tmp_path: Path) -> None:
    (folder,) = (f.parent for f in out.glob("tiny-npo-*/results.json") if _has_references(f))
    copied = shutil.copytree(folder, tmp_path / "copied")
    assert not list(figures.figure_problems(read_run(copied)))

    def regroup(samples: pa.Table) -> pa.Table:  # changes no figure
        groups = samples["group"].to_pylist()
        groups[samples["who"].to_pylist().index("retrain")] = "given"
        place = samples.column_names.index("group")
        return samples.set_column(place, "group", pa.array(groups, pa.string()))

    edit_samples(copied, regroup)
    (problem,) = figures.figure_problems(read_run(copied))
    assert problem.startswith("references.retrain: other samples than those of 'tiny-retrain-")
    edit_record(copied, references={})
    assert not list(figures.figure_problems(read_run(copied)))


def _has_references(file: Path) -> bool:
    return bool(json.loads(file.read_text())["references"])


# --------------------------------------------------------------------------- what is shipped


def test_the_mini_suite_comes_with_its_references() -> None:
    """The first command of the README: nothing of the original and the retrained is attacked."""
    found = make_plan(resolve_experiment(parse_words(["method=ilu", WITH])))
    assert {one.source.who for one in found.references.taken} == {"reference", "retrain"}
    assert len(found.jobs) == 11
    assert {job.who for job in found.jobs if job.attack} == {"method"}


@pytest.mark.slow
def test_an_attack_done_again_is_as_shipped(tmp_path: Path) -> None:
    """Every mean lies in the prediction interval of the shipped seeds; all together, 95 %."""
    asked = ("method=none", "attacks=sst2", "seeds=0", "never_knew=false", f"out={tmp_path}")
    ends = ("attack.fractions=1.0", "attack.each_epoch=false")  # scoring changes no training
    done = command("run", *asked, *ends, "--json")
    assert done.code == 0, done.err
    again = pq.read_table(tmp_path / done.json["run"] / "samples.parquet")
    folder = find_set("mini", "reference")
    assert folder is not None
    shipped = pq.read_table(folder / "samples.parquet")
    means = [_means(table) for table in (again, shipped)]
    steps = {min(means[1])[0], max(means[1])[0]}
    assert means[0].keys() == {where for where in means[1] if where[0] in steps}
    assert len(means[0]) > 8
    for where, (now,) in means[0].items():
        before = means[1][where]
        n = len(before)
        spread = np.std(before, ddof=1) * np.sqrt(1 + 1 / n)
        half = stats.t.ppf(1 - 0.025 / len(means[0]), n - 1) * spread
        assert abs(now - np.mean(before)) <= max(NUMERICS, half), where


def _means(samples: pa.Table) -> dict[tuple[int, str, str], list[float]]:
    """(step, scorer, metric) -> the mean of each seed, of the original under sst2."""
    own = samples.filter(
        pc.and_(pc.equal(samples["who"], "reference"), pc.equal(samples["attack"], "sst2"))
    )
    names = ["step", "scorer", "metric", "seed"]
    found: dict[tuple[int, str, str], list[float]] = {}
    for line in own.group_by(names).aggregate([("value", "mean")]).to_pylist():
        where = (line["step"], line["scorer"], line["metric"])
        found.setdefault(where, []).append(line["value_mean"])
    return found


def test_every_reference_set_of_a_clone_is_carried_by_the_package() -> None:
    import tomllib

    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"][
        "targets"
    ]
    carried = build["wheel"]["force-include"]
    for folder in sorted(MEASURED.parents[1].glob("*/measured/*")):
        suite, name = folder.parts[-3], folder.name
        who = next((who for who, method in METHODS.items() if method == name), None)
        if who is not None and find_set(suite, who) is not None:
            source = str(folder.relative_to(ROOT))
            assert carried[source] == f"ilubench/_references/{suite}/{name}"
            assert source in build["sdist"]["include"]
            assert sorted(path.name for path in folder.iterdir()) == [
                *("config.yaml", "env.json", "results.json", "samples.parquet"),
            ]


def test_a_wheel_finds_its_reference_sets(tmp_path: Path) -> None:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    (wheel,) = builder.build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    code = """
from ilubench.records.keys import file_sha256
from ilubench.records.reference_sets import find_set, read_set
for who in ("reference", "retrain"):
    print(find_set("mini", who), read_set(find_set("mini", who), who).sha256)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**environment(), "PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for line, name in zip(done.stdout.splitlines(), NAMES, strict=True):
        place, sha256 = line.split()
        assert place == str(tmp_path / "site" / "ilubench" / "_references" / "mini" / name)
        assert sha256 == file_sha256(MEASURED / name / "samples.parquet")
