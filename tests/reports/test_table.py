"""`ilubench table`: ranks from the samples, names, notes, and what cannot stand in one table."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml
from finished_runs import SUITE, Told, edit_record, edit_row, edit_suite, write_run
from markdown_tables import rows_of, split
from measured import RESULT_SETS
from places import LEADERBOARDS
from runs import command, made

from ilubench.errors import DataError
from ilubench.records.finished import FinishedRun, read_run
from ilubench.records.markdown import cell, table
from ilubench.records.results import RunRecord
from ilubench.records.run_names import run_names
from ilubench.reports.ranking import rank_runs, ranking_text
from ilubench.statistics.notes import Note, NoteKind

COLUMNS = 10


def run_table(*paths: Path | str, code: int = 0) -> str:
    done = command("table", *map(str, paths))
    assert done.code == code, done.err
    return done.out if code == 0 else done.err


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Two alike, one better, the original and the retrained model."""
    told = {
        "low": Told("graddiff", end=0.5, noise=1),
        "none": Told("none"),
        "top": Told("ilu", end=0.7, noise=2),
        "tie": Told("npo", end=0.502, noise=3),
        "never": Told("retrain", end=0.8, noise=4),
    }
    return {name: write_run(tmp_path / name, one) for name, one in told.items()}


# --------------------------------------------------------------------------- ranks


def test_ranks_of_known_means(runs: dict[str, Path]) -> None:
    shown = run_table(*runs.values())
    rows = rows_of(shown)
    assert list(rows) == ["ilu", "npo", "graddiff", "retrain", "none"]
    assert [row["rank"] for row in rows.values()] == ["1", "2-3", "2-3", *["- (reference)"] * 2]
    assert rows["ilu"]["RA_core over {core}"].startswith("0.700 [")
    assert rows["ilu"]["RA over {seen, core}"].startswith("0.650 [")
    assert rows["ilu"]["recovery"].startswith(f"{(0.8 - 0.65) / (0.8 - 0.1):.3f} [")
    assert rows["ilu"]["worst case"].startswith("0.600 [")
    assert rows["ilu"]["utility kept"].startswith("1.000 [")
    assert rows["ilu"]["FA difference"].startswith("-0.100 [")
    assert rows["ilu"]["FA difference"].endswith("] (core)")
    task = rows_of(shown, 1)["ilu"]
    assert re.sub(r" \[.*?\]", "", task["core"]) == "0.200 -> 0.600"
    assert rows["npo"]["seeds"] == "5"
    assert max(map(len, rows.values())) <= COLUMNS
    assert "not told apart: npo from graddiff" in shown
    assert "retrain and none are references: listed, never ranked" in shown
    assert "Smallest difference of RA_core that this table could have shown" in shown
    assert "over 3 pairs" in shown


def test_pairs_are_shown_when_asked(runs: dict[str, Path]) -> None:
    given = [str(path) for path in runs.values()]
    plain, asked = command("table", *given).out, command("table", *given, "--pairs").out
    assert "Holm" not in plain
    lines = [line for line in asked.splitlines() if "Holm" in line]
    assert len(lines) == 3
    assert sum("not told apart" in line for line in lines) == 1
    assert any(line.startswith("- graddiff - ilu: -0.200 [") for line in lines)


def test_json(runs: dict[str, Path]) -> None:
    done = command("table", *map(str, runs.values()), "--json")
    assert done.code == 0, done.err
    assert (done.json["suite"], done.json["engine"]) == ("known", "hf")
    (one,) = done.json["tables"]
    assert one["metric"] == "FQ"
    found = {row["name"]: (row["rank"], row["ties"], row["note"]) for row in one["rows"]}
    assert found["ilu"] == (1, [], None)
    assert found["npo"] == (2, ["graddiff"], None)
    assert found["none"][:2] == (None, [])
    assert found["none"][2]["kind"] == "reference"
    assert len(one["pairs"]) == 3
    low, high = one["detectable"]
    assert 0 < low <= high < 0.2
    assert one["rows"][0]["figures"]["ra_core"]["value"] == pytest.approx(0.7)


def bar_by(tmp_path: Path, told: Told, **row: Any) -> dict[str, dict[str, str]]:
    """The table of that run, of two that can be ranked, and of the retrained model."""
    folders = [
        write_run(tmp_path / "a", Told("npo", noise=1)),
        write_run(tmp_path / "b", Told("simnpo", end=0.5, noise=2)),
        write_run(tmp_path / "barred", told),
        write_run(tmp_path / "never", Told("retrain", end=0.95, noise=4)),
    ]
    if row:  # only the record says why something is missing
        edit_row(folders[2], **row)
    rows = rows_of(run_table(*folders))
    assert [rows["npo"]["rank"], rows["simnpo"]["rank"]] == ["1", "2"]
    return rows


@pytest.mark.parametrize(
    ("told", "row", "note"),
    [
        (Told("ilu", seen=("core",)), {}, "- (trained on core)"),
        (Told("ilu", utility=0.4), {}, "- (collapsed: U 23%)"),
        (Told("ilu", end=0.9, lost=[("core", 2)]), {}, "- (incomplete)"),
        (Told("ilu", end=0.9, lost=[("core", 2)]), {"status": "diverged"}, "- (diverged)"),
        (Told("ilu", seeds=(0,)), {}, "- (1 seed: a rank needs two shared seeds)"),
        (Told("ilu", seeds=(8, 9)), {}, "- (fewer than two seeds shared with npo, simnpo)"),
    ],
)
def test_listed_and_not_ranked(tmp_path: Path, told: Told, row: Any, note: str) -> None:
    rows = bar_by(tmp_path, told, **row)
    assert list(rows)[-2:] == ["ilu", "retrain"]
    assert rows["ilu"]["rank"] == note


def test_an_attack_that_is_no_core_attack_may_be_seen(tmp_path: Path) -> None:
    told = Told("ilu", end=0.4, noise=5, seen=("seen",))
    assert bar_by(tmp_path, told)["ilu"]["rank"] == "3"


def test_few_seeds_are_a_note(tmp_path: Path) -> None:
    few = [
        write_run(tmp_path / use, Told(use, noise=k, seeds=(0, 1)))
        for k, use in enumerate(("npo", "ilu"))
    ]
    assert "some ranks rest on 2 seeds" in run_table(*few)
    more = [
        write_run(tmp_path / f"{use} more", Told(use, noise=k))
        for k, use in enumerate(("npo", "ilu"))
    ]
    assert "some ranks rest on" not in run_table(*more)


def test_without_core_attacks_nothing_is_ranked(tmp_path: Path) -> None:
    told = {"npo": 1, "ilu": 2}
    one = [write_run(tmp_path / u, Told(u, noise=n, attacks=("seen",))) for u, n in told.items()]
    shown = run_table(*one)
    assert [row["rank"] for row in rows_of(shown).values()] == ["- (no RA_core)"] * 2
    assert "without a rank: " in shown
    assert "of the suite's core_unseen attacks, core not run" in shown
    assert "Nothing could be ranked: no two rows" in shown
    none = [
        write_run(tmp_path / f"{u} none", Told(u, noise=n, suite={"core_unseen": []}))
        for u, n in told.items()
    ]
    assert "the suite names no core_unseen attacks" in run_table(*none)


# --------------------------------------------------------------------------- without samples


def test_a_bare_record_is_listed_and_says_why(runs: dict[str, Path], tmp_path: Path) -> None:
    bare = tmp_path / "only.json"
    shutil.move(runs["top"] / "results.json", bare)
    shown = run_table(bare, runs["low"], runs["tie"])
    rows = rows_of(shown)
    ilu = rows["ilu (not recomputed)"]
    assert ilu["rank"] == "- (not recomputed)"
    assert ilu["worst case"].startswith("0.600 [")
    assert rows["npo"]["rank"] == "1-2"
    assert "without a rank: ilu (not recomputed) (no samples.parquet beside it)" in shown
    assert "Nothing could be ranked: no two rows" in run_table(bare)


def test_a_collapsed_record_without_samples_says_so_too(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    record = json.loads((runs["top"] / "results.json").read_text())
    for row in record["rows"].values():
        row["status"] = "collapsed"
    (tmp_path / "only.json").write_text(json.dumps(record))
    shown = run_table(tmp_path / "only.json", runs["low"])
    assert rows_of(shown)["ilu (not recomputed)"]["rank"] == "- (collapsed)"
    assert "(no samples.parquet beside it); figures are as recorded, not checked" in shown


def test_the_record_s_path_is_as_good_as_its_folder(runs: dict[str, Path]) -> None:
    folders = run_table(runs["top"], runs["low"])
    files = run_table(*(runs[name] / "results.json" for name in ("top", "low")))
    assert files == folders


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("\n  version: 1", "\n  version: 2", "on known version 1, and what is at hand is known 2"),
        ("\n  title: Scores", "\n  title: 5 # Scores", "suite: title"),
        ("\n  version: 1", "\n  verzion: 1", "config.yaml: suite"),
        ("\nsuite:", "\nsweet:", "unknown suite"),
    ],
)
def test_what_a_configuration_hides_is_not_shown(
    old: str, new: str, says: str, runs: dict[str, Path]
) -> None:
    """One letter of it, and nothing could be recomputed: the record may say whatever it likes."""
    config = runs["top"] / "config.yaml"
    told = config.read_text()
    assert old in told
    config.write_text(told.replace(old, new, 1))
    for words in (("table", str(runs["low"])), ("show",), ("report",), ("show", "--json")):
        done = command(*words, str(runs["top"]))
        assert done.code == 3
        assert done.out == ""
        assert "nothing can be recomputed" in done.err
        assert says in done.err


def test_what_is_not_recomputed_says_so_wherever_it_stands(runs: dict[str, Path]) -> None:
    """An edited record alone: in its row, its page, its screen, its picture, a paper's table."""
    (runs["top"] / "samples.parquet").unlink()
    for words in (("show",), ("show", "--json")):
        assert "as recorded, not recomputed: no samples" in command(*words, str(runs["top"])).err
    assert command("report", str(runs["top"])).code == 0
    page = (runs["top"] / "report.html").read_text()
    assert "ilu (not recomputed) on known" in page
    assert "ilu (not recomputed): no samples.parquet beside it" in page
    (row,) = command(
        "table", str(runs["top"]), "--layout", "wmdp", "--columns", "FQ,RA", "--json"
    ).json
    assert (row["method"], row["source"]) == ("ilu (not recomputed)", "as recorded (known)")
    assert "not recomputed" not in run_table(runs["low"], runs["tie"])


def test_without_a_configuration_the_shipped_suite_is_asked(runs: dict[str, Path]) -> None:
    (runs["top"] / "config.yaml").unlink()
    shown = run_table(runs["top"], runs["low"], runs["tie"])
    assert rows_of(shown)["ilu (not recomputed)"]["rank"] == "- (not recomputed)"
    assert "unknown suite 'known'" in shown


def test_samples_of_another_run_are_refused(runs: dict[str, Path]) -> None:
    shutil.copy(runs["low"] / "samples.parquet", runs["top"] / "samples.parquet")
    error = run_table(runs["top"], runs["tie"], code=3)
    assert f"{runs['top']}: forget_unlearned.low of FQ is 0.7" in error
    assert "by its samples; the record was edited, or one of the two files is another run" in error


def deeper(name: str) -> Any:
    """Change a figure of a row that is shown."""

    def change(row: dict[str, Any]) -> None:
        *parts, last = name.split(".")
        for part in parts:
            row = row[int(part)] if isinstance(row, list) else row[part]
        row[last] += 0.01

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row.update(status="ok"), "status of FQ is ok by its record and collapsed by"),
        (deeper("worst_case.value"), "worst_case.value of FQ is 0.71"),
        (
            lambda row: row["ra"].update(value=1e300, high=1e300),
            "ra.value of FQ is 1e+300 by its record and 0.75",
        ),
        (deeper("recovery.value"), "recovery.value of FQ is 0.08"),
        (deeper("recovery.low"), "recovery.low of FQ is "),
        (deeper("forget_unlearned.value"), "forget_unlearned.value of FQ is 0.81"),
        (deeper("utility.kept.0.value"), "utility.kept.0.value of FQ is "),
        (deeper("attacks.1.fa_difference.value"), "attacks.1.fa_difference.value of FQ is -0.09"),
        (lambda row: row.update(worst_at=["core", 50]), "worst_at.0 of FQ is core"),
    ],
)
def test_an_edited_row_is_refused(tmp_path: Path, change: Any, says: str) -> None:
    """A record that says otherwise than its samples, of a run whose model collapsed."""
    forged = write_run(tmp_path / "a", Told("ilu", end=0.8, utility=0.4))
    other = write_run(tmp_path / "b", Told("npo", noise=2))
    assert rows_of(run_table(forged, other))["ilu"]["rank"].startswith("- (collapsed: U ")
    record = json.loads((forged / "results.json").read_text())
    change(record["rows"]["FQ"])
    edit_record(forged, rows=record["rows"])
    error = run_table(forged, other, code=3)
    assert str(forged) in error
    assert says in error


def test_an_attack_cannot_be_left_out(tmp_path: Path) -> None:
    told = Told("ilu")
    forged = write_run(tmp_path / "a", told)
    short = write_run(tmp_path / "b", replace(told, attacks=("core",)))
    shutil.copy(short / "results.json", forged)
    assert "attack: seen, which the record does not name" in run_table(forged, code=3)


def test_what_a_method_trained_on_cannot_be_left_out(tmp_path: Path) -> None:
    """Of the attacks that it saw, the record tells; of the environments, its settings do, too."""
    data = {
        "core": {"fa": {"scorer": "nothing", "metric": "acc"}, "data": {"train": {"path": "a"}}}
    }
    seen = {**SUITE["attacks"], **data}
    told = Told(
        "ilu",
        settings={"base": {"use": "npo", "settings": {"environments": ["core"]}}},
        suite={"attacks": seen, "environments": {"core": "core.train"}},
        seen=("core",),
    )
    run = write_run(tmp_path / "a", told)
    assert "trained on" in run_table(run)
    edit_record(run, seen=[])
    assert "seen: core is missing, on whose data the method trained" in run_table(run, code=3)


def test_a_seed_cannot_be_left_out(tmp_path: Path) -> None:
    forged = write_run(tmp_path / "a", Told("ilu"))
    edit_record(forged, seeds=[0, 1, 2])
    assert "seed: 3, 4, which the record does not name" in run_table(forged, code=3)


@pytest.mark.parametrize(
    ("text", "found"),
    [("{", "no JSON"), ('{"run": 1}', "is no run's record"), (None, "give a run's")],
)
def test_bad_records(tmp_path: Path, text: str | None, found: str) -> None:
    if text is not None:
        (tmp_path / "results.json").write_text(text)
    error = run_table(tmp_path, code=3)
    assert str(tmp_path / "results.json") in error
    assert found in error


def test_a_row_that_cannot_be_read(runs: dict[str, Path]) -> None:
    edit_row(runs["top"], status="wonderful")
    assert "FQ.status" in run_table(runs["top"], code=3)


def test_a_run_without_rows(tmp_path: Path) -> None:
    empty = write_run(tmp_path / "a", Told("npo"), rows={})
    assert "no robustness row" in run_table(empty, code=3)
    other = write_run(tmp_path / "b", Told("ilu"))
    assert "npo: no row in FQ" in run_table(other, empty)


# --------------------------------------------------------------------------- what is not mixed


@pytest.mark.parametrize(
    ("told", "changes", "what"),
    [
        (Told("ilu", suite={"name": "other"}), {}, "suite (known and other)"),
        (Told("ilu", suite={"version": 2}), {}, "suite version (1 and 2)"),
        (Told("ilu"), {"engine": "vllm"}, "engine (hf and vllm)"),
        (Told("ilu"), {"dtype": "bfloat16"}, "dtype (float32 and bfloat16)"),
        (Told("ilu"), {"conditions": {"world_size": 2}}, "world size (1 and 2)"),
        (Told("ilu"), {"conditions": {"score_batch": 8}}, "score batch (32 and 8)"),
        (Told("ilu"), {"conditions": {"anything": 1}}, "anything (2 and 1)"),
        (Told("ilu", attacks=("core",)), {}, "attacks (core, seen and core)"),
        (
            Told("ilu", attack_settings={"train": {"lr": 0.2}}),
            {},
            "train.lr of",
        ),
        (Told("ilu", steps=(50, 100)), {}, "the scored steps of"),
        (Told("ilu", suite={"core_unseen": ["seen"]}), {}, "core_unseen (core and seen)"),
    ],
)
def test_unlike_runs(tmp_path: Path, told: Told, changes: Any, what: str) -> None:
    one = write_run(tmp_path / "one", Told("npo"), conditions={"anything": 2})
    other = write_run(tmp_path / "other", told, **changes)
    error = run_table(one, other, code=2)
    assert f"{one} and {other} differ in {what}" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda suite: suite.update(max_length=64), "max_length (512 and 64)"),
        (lambda suite: suite["data"]["text"].update(limit=3), "data.text.limit (None and 3)"),
        (lambda suite: suite["data"]["text"].update(path="b"), "data.text.path (nowhere.jsonl and"),
        (lambda suite: suite["utility"][0].update(chance=0.2), "utility ("),
        (lambda suite: suite["scorers"].update(asked="x"), "scorers.asked.use (nothing and x)"),
        (lambda suite: suite["target"]["model"].update(path="x"), "target.model.path (nowhere and"),
        (lambda suite: suite.update(environments={"e": "text"}), "environments.e (None and text)"),
        (lambda suite: suite["attacks"]["seen"].update(use="x"), "attacks.seen.use (finetune and"),
        (
            lambda suite: suite.update(generators={"g": {"use": "x"}}),
            "generators.g.use (None and x)",
        ),
    ],
)
def test_runs_of_other_experiments(tmp_path: Path, change: Any, what: str) -> None:
    """The suites' names, versions and attacks agree; what was measured does not."""
    one, other = (write_run(tmp_path / use, Told(use)) for use in ("npo", "ilu"))
    edit_suite(other, change)
    assert f"{one} and {other} differ in {what}" in run_table(one, other, code=2)


def test_words_of_a_suite_may_differ(tmp_path: Path) -> None:
    def change(suite: dict[str, Any]) -> None:
        suite.update(title="x", description="y", seeds=[7])
        suite["methods"] = {"npo": {"beta": 1}}
        suite["data"]["text"].update(license="x", publish_text=True)
        suite["attacks"]["seen"]["title"] = "x"
        suite["attacks"]["more"] = suite["attacks"]["seen"]

    one, other = (write_run(tmp_path / use, Told(use)) for use in ("npo", "ilu"))
    edit_suite(other, change)
    run_table(one, other)


def test_rows_and_weights_count_where_they_are_known(tmp_path: Path) -> None:
    """A file may lie anywhere; that it is the same file is what counts."""
    known: dict[str, Any] = {"data": {"text": "r1"}, "target": "w1"}
    one, other = (write_run(tmp_path / use, Told(use), **known) for use in ("npo", "ilu"))
    edit_suite(other, lambda suite: suite["data"]["text"].update(path="elsewhere.jsonl"))
    edit_suite(other, lambda suite: suite["target"]["model"].update(path="elsewhere"))
    run_table(one, other)
    edit_record(other, target="w2")
    assert "differ in the target model's weights (w1 and w2)" in run_table(one, other, code=2)
    edit_record(other, data={"text": "r2"})
    assert "differ in the rows of text (r1 and r2)" in run_table(one, other, code=2)


def test_settings_of_the_machine_may_differ(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", Told("npo"))
    train = {"lr": 0.1, "micro_batch": 2, "save_every_s": 1}
    run_table(one, write_run(tmp_path / "other", Told("ilu", attack_settings={"train": train})))


def edit_memory(folder: Path, **memory: Any) -> Path:
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "run": {"memory": memory}}))
    return folder


def test_memory_settings_that_change_a_result_may_not_differ(tmp_path: Path) -> None:
    """Weights of float32 take every update as it is; an older run had the defaults."""
    one, other = (write_run(tmp_path / use, Told(use)) for use in ("npo", "ilu"))
    edit_memory(other, offload=True, checkpointing=True, update="stochastic", moments="float32")
    run_table(one, other)
    edit_memory(other, moments="float8")
    what = f"{one} and {other} differ in memory.moments (float32 and float8)"
    assert what in run_table(one, other, code=2)
    edit_memory(other, update="stochastic")
    for run in (one, other):
        edit_record(run, dtype="bfloat16")
        edit_suite(run, lambda suite: suite.update(dtype="bfloat16"))
    what = f"{one} and {other} differ in memory.update (master and stochastic)"
    assert what in run_table(one, other, code=2)
    edit_memory(other, moments="float7")
    assert f"{other / 'config.yaml'}: run.memory.moments: " in run_table(one, other, code=3)


def test_another_original_model(tmp_path: Path) -> None:
    one = write_run(tmp_path / "npo", Told("npo"))
    other = write_run(tmp_path / "ilu", Told("ilu", before=0.3))
    error = run_table(one, other, code=2)
    assert "differ in the original model's FQ (0.100 and 0.300)" in error


def test_a_run_is_given_once(runs: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(runs["top"], tmp_path / "copy")
    error = run_table(runs["top"], copy, code=2)
    assert f"{runs['top']} and {copy} are the same run (known-top); give it once" in error


# --------------------------------------------------------------------------- notes on RA


def test_checkpoints_off_the_quartiles_are_said(tmp_path: Path) -> None:
    on = run_table(write_run(tmp_path / "on", Told("npo", steps=(26, 50, 100))))
    assert "averages checkpoints" not in on
    off = run_table(write_run(tmp_path / "off", Told("npo", steps=(33, 67, 100))))
    assert "RA of seen, core averages checkpoints at 33, 33, 100 % of the steps" in off
    assert "the nearest to 25, 50, 100 % that were scored" in off


# --------------------------------------------------------------------------- names


def named(*methods: tuple[str, dict[str, Any]], **fields: list[Any]) -> tuple[str, ...]:
    """The names of runs with those settings."""
    runs = []
    for k, (use, settings) in enumerate(methods):
        own = {name: values[k] for name, values in fields.items()}
        given = {"method_version": 1, "seeds": (0, 1), **own}
        record = RunRecord(
            run=f"r{k}",
            suite="s",
            suite_version=1,
            method={"use": use, "settings": settings},
            attacks=(),
            engine="hf",
            dtype="float32",
            rows={},
            cost={},
            jobs=(),
            **given,
        )
        runs.append(FinishedRun(Path(), record, {}, None, pa.table({}), "", {}))
    return run_names(runs)


def test_names() -> None:
    lr = {"train": {"lr": 0.1, "steps": 4}, "penalty": "irm"}
    ce = {"train": {"lr": 0.2, "steps": 4}, "penalty": "ce"}
    both = {"train": {"lr": 0.2, "steps": 4}, "penalty": "irm"}
    assert named(("npo", lr), ("ilu", lr)) == ("npo", "ilu")
    assert named(("ilu", lr), ("npo", lr), ("ilu", ce)) == (
        "ilu (penalty=irm)",
        "npo",
        "ilu (penalty=ce)",
    )
    assert named(("ilu", lr), ("ilu", ce), ("ilu", both)) == (
        "ilu (penalty=irm, train.lr=0.1)",
        "ilu (penalty=ce, train.lr=0.2)",
        "ilu (penalty=irm, train.lr=0.2)",
    )


def test_names_of_wrapped_methods() -> None:
    bases: list[tuple[str, dict[str, Any]]] = [
        ("ilu", {"base": {"use": use, "settings": {"beta": 0.1, "parts": [1, 2], "on": None}}})
        for use in ("npo", "simnpo")
    ]
    assert named(*bases) == ("ilu (base=npo)", "ilu (base=simnpo)")
    other = {"base": {"use": "npo", "settings": {"beta": 0.1, "parts": [1, 3], "on": None}}}
    assert named(bases[0], ("ilu", other)) == ("ilu (base.parts=1,2)", "ilu (base.parts=1,3)")


def test_names_where_the_settings_are_equal() -> None:
    two: list[tuple[str, dict[str, Any]]] = [("npo", {"beta": 0.1})] * 2
    assert named(*two, seeds=[(0, 1), (2, 3)]) == ("npo (seeds=0,1)", "npo (seeds=2,3)")
    assert named(*two, method_version=[1, 2]) == ("npo (version=1)", "npo (version=2)")
    assert named(*two) == ("npo (r0)", "npo (r1)")


def test_names_of_a_grid_need_more_than_three_settings() -> None:
    """Four settings, each alone different in one run: whatever is shown, it tells them apart."""
    grid = [{key: int(key == own) for key in "abcde"} for own in "abcde"]
    found = named(*(("m", dict(settings)) for settings in grid))
    assert len(set(found)) == len(grid)


# --------------------------------------------------------------------------- hostile text


HOSTILE = "a|b\\|c\n| 9 | owned | `x` <script> [l](u) **\x1b[31m"


def test_cells_show_text_as_it_is() -> None:
    assert "\n" not in cell(HOSTILE)
    assert "\x1b" not in cell(HOSTILE)
    shown = split(f"| {cell(HOSTILE)} | x |")
    assert shown == [" ".join(HOSTILE.split()).replace("\x1b", "\N{REPLACEMENT CHARACTER}"), "x"]
    with pytest.raises(ValueError, match="1 cells below 2"):
        table(["a", "b"], [["c"]])


def test_hostile_names_break_no_row(tmp_path: Path) -> None:
    settings = [{"base": HOSTILE}, {"base": "other"}]
    folders = [
        write_run(tmp_path / str(k), Told(f"m {HOSTILE}", own, noise=k, end=0.5 + k / 10))
        for k, own in enumerate(settings)
    ]
    shown = command("table", *map(str, folders), "--pairs").out
    for place in (0, 1):
        names = list(rows_of(shown, place))
        assert len(names) == 2
        assert all("owned" in name for name in names)
    assert [row["rank"] for row in rows_of(shown).values()] == ["1", "2"]
    assert "\x1b" not in shown
    assert len([line for line in shown.splitlines() if line.startswith("|")]) == 8
    assert not any(line.startswith("| 9") for line in shown.splitlines())


# --------------------------------------------------------------------------- real runs


def test_a_real_run(tmp_path: Path) -> None:
    """Its samples give the record's figures, although no plugin is loaded."""
    (folder,) = (path.parent for path in made().glob("*/results.json"))
    run = read_run(folder)
    assert not run.unread
    (stored,) = run.rows.values()
    again = run.over("NLL_f", run.record.attacks)
    assert again.ra == stored.ra
    assert again.recovery == stored.recovery
    with pytest.raises(DataError, match="not all of sst2 were run"):
        run.over("NLL_f", ("sst2",))
    shown = run_table(folder)
    assert rows_of(shown)["ilu"]["seeds"] == "1"
    assert "Nothing could be ranked" in shown
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert run_table(moved) == shown
    assert re.fullmatch("[0-9a-f]{32,64}", run.record.target)
    assert set(run.record.data) >= set(run.suite.forget if run.suite else ())


SOME = ("none", "retrain", "npo-15-steps", "ilu", "ilu-control")


@pytest.mark.parametrize("suite", sorted({path.parts[-3] for path in RESULT_SETS}))
def test_committed_result_sets(suite: str) -> None:
    """They stand in one table a metric, each told apart, the original never ranked.

    Of many only some: comparing each with each takes minutes.
    """
    found = [path for path in RESULT_SETS if path.parts[-3] == suite]
    if len(found) > 8:
        found = [path for path in found if path.name in SOME]
    runs = [read_run(path) for path in found]
    assert len(runs) >= 3
    ranking = rank_runs(runs)
    assert ranking.suite == suite == (LEADERBOARDS / suite).name
    assert [one.metric for one in ranking.tables] == list(runs[0].rows)
    for one in ranking.tables:
        assert len({row.name for row in one.rows}) == len(runs)
        notes = {row.run.record.method["use"]: row.note for row in one.rows}
        assert notes["none"] == Note(NoteKind.REFERENCE)
    assert ranking_text(ranking).count("| none |") == len(ranking.tables) + 1


def test_what_may_change_a_score_is_said_below(tmp_path: Path) -> None:
    """Other libraries, and what one record says and another does not; patches do not count."""
    old = {"torch": "2.8.0", "transformers": "4.57.1", "numpy": "1.0"}
    told = {
        "a": {"libraries": old, "conditions": {"score_dtype": "float32"}},
        "b": {"libraries": {**old, "torch": "2.8.1", "transformers": "5.0.0", "numpy": "2.0"}},
        "c": {},
    }
    runs = [
        write_run(tmp_path / name, Told(use, end=0.7 + k / 10, noise=k), **told[name])
        for k, (name, use) in enumerate(zip("abc", ("npo", "rmu", "ilu"), strict=True))
    ]
    shown = run_table(*runs)
    for line in (
        "- with transformers 4.57: npo; rounding may differ",
        "- with transformers 5.0: rmu; rounding may differ",
        "- score dtype unknown, nothing recorded it: ilu, rmu",
        "- library versions unknown, nothing recorded it: ilu",
    ):
        assert f"{line}\n" in shown
    assert "torch" not in shown
    assert "numpy" not in shown
    assert "rounding" not in run_table(runs[0])
    (runs[2] / "env.json").write_text(json.dumps({"libraries": old}))
    assert "library versions unknown" not in run_table(*runs)


def test_what_sums_were_computed_with_is_told_where_rows_differ(runs: dict[str, Path]) -> None:
    """Threads and kernels change sums by 1e-6 to 5e-5: a record says them from version 7 on."""
    for name, threads in (("top", "1"), ("low", "2"), ("tie", "1, 2")):
        edit_record(runs[name], arithmetic={"threads": threads, "kernels": "AVX2"})
    shown = run_table(*runs.values())
    for threads, row in (("1", "ilu"), ("2", "graddiff"), ("1, 2", "npo")):
        assert f"- with threads {threads}: {row}; rounding may differ\n" in shown
    assert "kernels" not in shown
    edit_record(runs["low"], arithmetic={"threads": "1", "kernels": "DEFAULT"})
    shown = run_table(runs["top"], runs["low"])
    assert "threads" not in shown
    assert "- with kernels DEFAULT: graddiff; rounding may differ\n" in shown


def test_ranks_are_never_beside_nothing_could_be_ranked(tmp_path: Path) -> None:
    """Rows whose scores are equal, and rows that differ by the same amount everywhere."""
    runs = [write_run(tmp_path / use, Told(use, seeds=(0, 1, 2))) for use in ("npo", "rmu")]
    runs.append(write_run(tmp_path / "ilu", Told("ilu", end=0.5, seeds=(0, 1, 2))))
    for two in (runs[:2], runs[::2]):
        shown = run_table("--pairs", *two)
        for row in rows_of(shown).values():
            assert row["rank"].startswith("- (the difference from")
            assert "is the same for every seed and item" in row["rank"]
        assert "Nothing could be ranked: no two rows can be compared." in shown
        assert "some ranks rest" not in shown
        assert "p <" not in shown
        assert "p =" not in shown
