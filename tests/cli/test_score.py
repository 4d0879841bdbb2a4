"""Scoring a checkpoint as a job of its own: a part of a suite, tasks, what is missing, records."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from finished_runs import forget_manifest
from hub_server import ask_only, go_offline, served
from runs import SUITE, Outcome, command

from ilubench.experiments.experiment import restore_experiment
from ilubench.records.finished import read_run
from ilubench.runs.plan import make_plan
from ilubench.specs.yaml_files import load_yaml
from ilubench.testing.tiny import make_tokenizer, tiny_llama

TASK = {
    "task": "apples",
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "answer",
    "test_split": "test",
    "metric_list": [{"metric": "acc"}],
}
ROWS = [
    {"id": f"q{n}", "question": f"how many of {n}?", "choices": ["3 apples", "12"], "answer": n % 2}
    for n in range(6)
]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    tokenizer = make_tokenizer()
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Path:
    """A working folder with `model`, `apples.yaml` and `rows.jsonl`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(checkpoint, "model")
    Path("apples.yaml").write_text(yaml.safe_dump(TASK))
    _lines("rows.jsonl", ROWS)
    for name, asked in (("qa.jsonl", "how many?"), ("icl.jsonl", "what is left?")):
        _lines(name, [{"question": asked, "answer": "three apples"}])
    return tmp_path


def _lines(name: str, rows: list[dict[str, Any]]) -> None:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def _scored(*words: str) -> Outcome:
    done = command("score", "model", *words)
    assert done.code == 0, done.err
    return done


def _refused(done: Outcome, code: int, *texts: str) -> None:
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") == 1
    for text in texts:
        assert text in done.err


# --------------------------------------------------------------------------- tasks


def test_a_task_on_rows_of_one_s_own(here: Path) -> None:
    told = _scored("task=apples.yaml", "data=rows.jsonl", "--json").json
    (score,) = told["scores"]
    assert (score["scorer"], score["metric"], score["n"]) == ("apples", "acc", 6)
    assert told["run"].startswith("apples-score-")
    assert score["means"] == "higher = knows more"
    folder = Path(told["folder"])
    items = pq.read_table(folder / "samples.parquet")["item"].to_pylist()
    assert items == [row["id"] for row in ROWS]
    shown = _scored("task=apples.yaml", "data=rows.jsonl").out
    for text in ("apples", "acc", f"{score['value']:.4f}", "float32", "engine hf", str(folder)):
        assert text in shown
    assert 0 <= score["low"] < score["value"] < score["high"] <= 1
    assert f"[{score['low']:.4f}, {score['high']:.4f}]" in shown
    assert "Next:" in shown


def test_the_same_engine_and_scorers_as_a_suite_s(here: Path) -> None:
    suite = {
        "name": "mine",
        "version": 1,
        "title": "Apples",
        "target": {"model": {"path": "elsewhere"}},
        "data": {"rows": {"path": "rows.jsonl"}, "others": {"path": "none.jsonl"}},
        "scorers": {
            "apples": {"use": "lm_eval", "settings": {"task": "apples.yaml", "data": "rows"}}
        },
    }
    Path("mine.yaml").write_text(yaml.safe_dump(suite))
    by_suite = _scored("suite=mine.yaml", "--json").json["scores"]
    assert by_suite == _scored("task=apples.yaml", "data=rows.jsonl", "--json").json["scores"]
    _refused(command("run", "suite=mine.yaml"), 2, "no forget, retain", "ilubench score MODEL")


def test_limits_and_examples_of_a_task(here: Path) -> None:
    words = ("task=apples.yaml", "data=rows.jsonl", "limit=4", "--json")
    (score,) = _scored(*words).json["scores"]
    assert score["n"] == 4
    _lines("shown.jsonl", [{**ROWS[0], "id": "s", "question": "how many are left?"}])
    _scored(*words, "num_fewshot=1", "fewshot=shown.jsonl")
    refused = command("score", "model", *words, "num_fewshot=1")
    _refused(refused, 2, "fewshot", "add fewshot=FILE, or num_fewshot=0")


def test_several_tasks_each_with_its_rows(here: Path) -> None:
    Path("pears.yaml").write_text(yaml.safe_dump({**TASK, "task": "Pears/2"}))
    _lines("pears.jsonl", ROWS[:3])
    words = ("task=apples.yaml,pears.yaml", "--json")
    found = _scored(*words, "data=rows.jsonl,pears.jsonl").json["scores"]
    assert [(one["scorer"], one["n"]) for one in found] == [("apples", 6), ("pears_2", 3)]
    shared = _scored(*words, "data=rows.jsonl").json["scores"]
    assert [one["n"] for one in shared] == [6, 6]
    _refused(
        command("score", "model", *words, "data=rows.jsonl,pears.jsonl,rows.jsonl"),
        2,
        "3 files for 2 tasks",
    )


@pytest.mark.parametrize("files", ["rows.jsonl", ["rows.jsonl"], {"test": "rows.jsonl"}])
def test_rows_that_a_task_names_itself(here: Path, files: Any) -> None:
    named = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}}
    name = f"{type(files).__name__}.yaml"  # a task's file is read once by a process
    Path(name).write_text(yaml.safe_dump(TASK | named))
    (score,) = _scored(f"task={name}", "--json").json["scores"]
    assert score["n"] == 6


def test_a_task_of_lm_eval_reads_the_data_set_that_it_names(here: Path) -> None:
    offline = command("score", "model", "task=arc_easy")
    _refused(offline, 3, "data.arc_easy", "allenai/ai2_arc", "data.arc_easy=<file>")
    rows = [
        {
            "id": f"a{n}",
            "question": "how many are left?",
            "choices": {"text": ["3", "12"], "label": ["A", "B"]},
            "answerKey": "AB"[n % 2],
        }
        for n in range(3)
    ]
    _lines("arc.jsonl", rows)
    for words in ("data=arc.jsonl", "data.arc_easy=arc.jsonl"):
        found = _scored("task=arc_easy", words, "--json").json["scores"]
        assert [(one["metric"], one["n"]) for one in found] == [("acc", 3), ("acc_norm", 3)]


def test_a_task_s_data_set_on_a_hub(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(count: int) -> bytes:
        choices = {"text": ["3", "12"], "label": ["A", "B"]}
        own = [
            {
                "id": f"h{n}",
                "question": f"{count} - {n}?",
                "choices": choices,
                "answerKey": "AB"[n % 2],
            }
            for n in range(count)
        ]
        return "".join(json.dumps(row) + "\n" for row in own).encode()

    files = [{"split": split, "path": f"{split}.jsonl"} for split in ("test", "train")]
    card = yaml.safe_dump({"configs": [{"config_name": "ARC-Easy", "data_files": files}]})
    parts = {
        "test.jsonl": rows(4),
        "train.jsonl": rows(7),
        "README.md": b"---\n%b---\n" % card.encode(),
    }
    words = ("task=arc_easy", "num_fewshot=2")
    with served() as hub:
        hub.add("dataset", "allenai/ai2_arc", parts)
        ask_only(hub, str(here / "cache"), monkeypatch)
        told = _scored(*words, "--json").json
    assert {one["n"] for one in told["scores"]} == {4}
    assert set(told["data"]) == {"arc_easy", "arc_easy_fewshot"}
    go_offline(monkeypatch)
    assert _scored(*words, "--json").json["scores"] == told["scores"]


# --------------------------------------------------------------------------- a part of a suite

MUSE = ("suite=muse-news", "suite.dtype=float32")


def test_a_part_of_a_suite_asks_for_its_own_roles_only(here: Path) -> None:
    words = ("scorers=knowmem_f", "data.forget_qa=qa.jsonl", "data.forget_qa_icl=icl.jsonl")
    told = _scored(*MUSE, *words, "--json").json
    (score,) = told["scores"]
    assert (score["scorer"], score["chance"], score["direction"]) == ("knowmem_f", 0.3311, "higher")
    assert score["label"] == "1 - KnowMem_f"
    assert "forgotten" in score["means"]
    assert set(told["data"]) == {"forget_qa", "forget_qa_icl"}


def test_all_missing_roles_are_named_at_once(here: Path) -> None:
    done = command("score", "model", *MUSE, "data.forget_qa=no.jsonl")
    _refused(done, 3, "7 data roles", "no.jsonl")
    for role in ("forget_verbmem", "forget_qa", "forget_qa_icl", "retain_qa", "retain_qa_icl"):
        assert f"data.{role}=FILE" in done.err
    assert "gsm8k" not in done.err  # an attack's
    some = command("score", "model", *MUSE, "scorers=knowmem_f,verbmem_f")
    _refused(some, 3, "3 data roles", "data.forget_qa=FILE data.forget_qa_icl=FILE")
    assert "retain" not in some.err


def test_a_run_names_all_missing_roles_too(here: Path) -> None:
    words = (SUITE, "suite.target.model.path=model", "method=npo", "attacks=gsm8k")
    missing = [f"data.{role}=no-{role}.jsonl" for role in ("forget_mc", "gsm8k.train")]
    done = command("run", *words, *missing)
    _refused(done, 3, "2 data roles", "no-forget_mc.jsonl", "data.gsm8k.train=FILE")
    assert not Path("runs").exists() or not list(Path("runs").glob("tiny-*"))


# --------------------------------------------------------------------------- the record


def test_no_method_that_was_not_run_is_named(here: Path) -> None:
    told = _scored(SUITE, "--json").json
    folder = Path(told["folder"])
    config = load_yaml(folder / "config.yaml")
    assert set(config) == {"run", "suite"}
    texts = (folder / "config.yaml").read_text() + folder.name + json.dumps(told["jobs"])
    for word in ("method", "npo", "ilu", "none", "unlearn", "gsm8k", "attack:"):
        assert word not in texts.lower().replace("ilubench", "")
    assert (told["method"], told["attacks"]) == ({}, [])
    assert [job["stage"] for job in told["jobs"]] == ["target", "score"]
    again = make_plan(restore_experiment(config, folder / "config.yaml"))
    assert [job.key for job in again.jobs] == [job["key"] for job in told["jobs"]]


def test_commands_on_runs_take_a_score_run(here: Path) -> None:
    folder = _scored(SUITE, "--json").json["folder"]
    run = read_run(Path(folder))
    assert run.record.method_name == ""
    assert run.suite is not None
    assert run.samples is not None
    _refused(command("table", folder), 3, "no robustness row; attack the model first")
    _refused(command("gates", folder), 2, "only scored")
    assert command("subsets", folder).code in (0, 3)
    shown, listed = command("show", folder, "--details"), command("ls", "runs", "runs")
    assert (shown.code, listed.code) == (0, 0), shown.err + listed.err
    assert "scored   by forget_nll, retain_mc" in shown.out
    assert "method" not in shown.out
    assert Path(folder).name in listed.out
    _refused(command("leaderboard", "submit", folder, "--by", "A"), 3)


def test_a_score_run_of_before_is_read(here: Path) -> None:
    folder = Path(_scored(SUITE, "--json").json["folder"])
    old = json.loads((folder / "results.json").read_text())
    old |= {"method": {"use": "none", "settings": {}}, "method_version": 1}
    (folder / "results.json").write_text(json.dumps(old))
    forget_manifest(folder)
    assert read_run(folder).record.method_name == "none"


# --------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("words", "code", "texts"),
    [
        ("model suite=muse-news scorers=verbmem", 2, ("scorers", "did you mean 'verbmem_f'?")),
        ("model suite=muse-news scorer=verbmem_f", 2, ("scorer", "did you mean 'scorers'?")),
        ("model task=aples.yaml data=rows.jsonl", 2, ("aples.yaml", "no such file")),
        ("model task=arc_esy data=rows.jsonl", 2, ("'arc_esy'", "did you mean 'arc_easy'?")),
        ("model task=apples data=rows.jsonl", 2, ("did you mean 'apples.yaml'?",)),
        ("model task=lm data=rows.jsonl", 2, ("'lm'", "a file that ends in .yaml")),
        ("model apples.yaml rows.jsonl", 2, ("write task=apples.yaml",)),
        ("model task=apples.yaml rows.jsonl", 2, ("write data=rows.jsonl",)),
        ("model task=mini_mc", 2, ("mini_mc", "add data=FILE")),
        ("model task=apples.yaml", 2, ("apples.yaml", "add data=FILE")),
        ("model task=apples.yaml data=no.jsonl", 3, ("no.jsonl", "no such file")),
        ("model data=rows.jsonl", 2, ("add task=FILE", "data.forget_mc=FILE")),
        (
            "model suite=muse-news scorers=verbmem_f data=rows.jsonl",
            2,
            ("data.forget_verbmem=FILE",),
        ),
        ("model limit=3", 2, ("limit", "add task=FILE data=FILE")),
        ("model task=apples.yaml data=rows.jsonl suite=mini", 2, ("suite", "leave it out")),
        ("model task=apples.yaml data=rows.jsonl scorers=a", 2, ("scorers", "leave it out")),
        ("model method=npo", 2, ("method", "leave it out", "ilubench attack MODEL")),
        ("model method.lr=1", 2, ("method.lr", "leave it out")),
        ("model seeds=0..4", 2, ("seeds", "leave it out")),
        ("model attacks=gsm8k", 2, ("attacks", "leave it out")),
        ("model num_fewshot=-1 task=apples.yaml data=rows.jsonl", 2, ("num_fewshot", "-1")),
        ("none task=apples.yaml data=rows.jsonl", 3, ("'none'", "org/name")),
        ("rows.jsonl task=apples.yaml data=rows.jsonl", 3, ("rows.jsonl", "is a file")),
        ("task=apples.yaml data=rows.jsonl", 2, ("MODEL",)),
    ],
)
def test_mistakes_say_the_words_that_would_work(
    here: Path, words: str, code: int, texts: tuple[str, ...]
) -> None:
    before = sorted(here.rglob("*"))
    _refused(command("score", *words.split()), code, *texts)
    assert sorted(here.rglob("*")) == before


def test_help_names_its_own_keys() -> None:
    shown = command("score", "--help").out
    for key in ("scorers", "task", "data", "num_fewshot", "data.<role>"):
        assert f"  {key} " in shown
    assert "attack.<" not in shown
    assert "\n  method" not in shown
    assert "method=" not in shown
    _refused(command("score", "model", "--task", "a.yaml"), 2, "write task=a.yaml")


def test_ls_says_what_a_suite_s_scorers_read() -> None:
    listed = command("ls", "scorers", "suite=muse-news", "--json").json
    found = {one["name"]: one for one in listed}
    knowmem = found["knowmem_f"]
    assert knowmem["use"] == "knowmem"
    assert knowmem["reads"] == ["forget_qa", "forget_qa_icl"]
    assert knowmem["words"] == "data.forget_qa=FILE data.forget_qa_icl=FILE"
    (metric,) = knowmem["metrics"]
    assert metric == {
        "metric": "knowmem",
        "label": "1 - KnowMem_f",
        "chance": 0.3311,
        "direction": "higher",
    }
    shown = command("ls", "scorers", "suite=muse-news")
    assert shown.code == 0
    for text in ("verbmem_f", "forget_verbmem", "ilubench score MODEL suite=muse-news"):
        assert text in shown.out
    _refused(command("ls", "attacks", "suite=mini"), 2, "ls scorers suite=mini")
