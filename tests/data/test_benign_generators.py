"""The benign attacks: training prompts are lm-eval's own; FA and WMDP suites on local files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from benign_rows import ROWS, lines
from doubles import make_tokenizer, tiny_llama
from engines import make_engine
from pydantic import JsonValue
from runs import command

from ilubench.data.generators.benign import MnliPairs, WinoGrandeSentences
from ilubench.data.generators.paragraphs import Paragraphs
from ilubench.data.rows import render_template
from ilubench.errors import AccessError, DataError
from ilubench.experiments.experiment import Attack, Experiment, resolve_experiment
from ilubench.interfaces import Row, ScoreContext
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.lm_eval_host import load_members, quiet
from ilubench.scoring.scorers.task_files import task_facts
from ilubench.scoring.scorers.task_rows import Roles, own_data
from ilubench.specs.overrides import parse_words

if TYPE_CHECKING:
    from transformers import PreTrainedModel

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SUITE = "wmdp-bio"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Files with the hub's columns."""
    found = {name: lines(tmp_path / f"{name}.jsonl", rows) for name, rows in ROWS.items()}
    subjects = [member.subset for member in task_facts("mmlu").members]
    choices: list[JsonValue] = ["river", "mill", "miller", "sack"]
    questions: list[Row] = [
        {"question": f"What is {n}?", "subject": subject, "choices": choices, "answer": n % 4}
        for n, subject in enumerate(subjects)
    ]
    found["mmlu"] = lines(tmp_path / "mmlu.jsonl", questions)
    bare = [{k: v for k, v in row.items() if k != "subject"} for row in questions[:9]]
    found["wmdp"] = lines(tmp_path / "wmdp.jsonl", bare)
    return found


@pytest.fixture
def experiment(files: dict[str, Path]) -> Experiment:
    roles = [f"{name}.{role}" for name in ROWS for role in ("train", "eval")] + ["gsm8k.fewshot"]
    return resolve_experiment(
        parse_words(
            [
                f"suite={SUITE}",
                "method=none",
                *(f"data.{role}={files[role.partition('.')[0]]}" for role in roles),
                *(f"data.{name}.train.shuffle=none" for name in ROWS),  # in the rows' order
            ]
        )
    )


def by_name(experiment: Experiment, name: str) -> Attack:
    return next(attack for attack in experiment.attacks if attack.name == name)


def _task(name: str, rows: Sequence[Row]) -> Any:
    """lm-eval's own task object over our rows."""
    facts = task_facts(name)
    context = ScoreContext(rows=lambda _: rows, publish_text=lambda _: False)
    roles = Roles("rows", "rows", 0, "subject")
    with quiet():
        data = own_data(facts, facts.members, roles, context)
        (task,) = load_members(facts, facts.members, {"num_fewshot": 0}, data).values()
    return task


@pytest.mark.parametrize("name", ROWS)
def test_training_text_is_the_evaluations(name: str, experiment: Experiment) -> None:
    tables = experiment.tables
    source, rows = tables.source(f"{name}.train"), tables.rows(f"{name}.train")
    assert len(rows) == len(ROWS[name])
    task = _task(name, ROWS[name])
    for row, doc in zip(rows, task.eval_docs, strict=True):
        prompt = render_template(source.prompt, row, source, name)
        completion = render_template(source.completion, row, source, name)
        if task.OUTPUT_TYPE == "generate_until":
            assert prompt == task.doc_to_text(doc)
            assert completion == f" {task.doc_to_target(doc)}"
            continue
        asked = task.construct_requests(doc, task.fewshot_context(doc, 0), metadata=(name, 0, 1))
        right = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        assert (prompt, completion) == asked[right].args


@pytest.mark.parametrize("name", ROWS)
def test_fa_on_local_files(name: str, experiment: Experiment) -> None:
    attack = by_name(experiment, name)
    assert isinstance(attack.fa, LmEval)
    roles = {"eval": attack.role("eval", experiment.suite)}
    if name == "gsm8k":
        assert attack.fa.roles() == ("eval", "fewshot")
        roles["fewshot"] = attack.role("fewshot", experiment.suite)
    tokenizer = make_tokenizer()
    model: PreTrainedModel = tiny_llama(len(tokenizer))
    model.config.max_position_embeddings = 1024
    context = ScoreContext(
        rows=lambda role: experiment.tables.rows(roles[role]), publish_text=lambda _: False
    )
    engine = make_engine("hf", tokenizer, model)
    scores = attack.fa.build(tokenizer, context).score(engine)
    mine = [score for score in scores if score.metric == experiment.suite.attacks[name].fa.metric]  # type: ignore[union-attr]
    assert len(mine) == len(ROWS[name])
    assert len({score.item for score in mine}) == len(mine)


def test_winogrande_is_cut_behind_the_option() -> None:
    found = WinoGrandeSentences().tables({"train": ROWS["winogrande"]})["train"]
    cut = [(row["prompt"], row["completion"]) for row in found]
    assert cut == [
        ("Bob thanked Ann", " for it."),
        ("It did not fit since the trophy", " was big."),
        ("Ann", " , he said."),
        ("A the trophy", " 's b."),
    ]
    row = ROWS["winogrande"][0]
    wrong: dict[str, tuple[Any, str]] = {
        "answer": ("", "row 2: answer='' is not 1 or 2"),
        "sentence": ("No blank.", "row 2: no text behind a blank"),
        "option1": (None, "row 2: column 'option1' is null, not text"),
    }
    for column, (value, message) in wrong.items():
        with pytest.raises(DataError, match=message):
            WinoGrandeSentences().tables({"train": [row, {**row, column: value}]})
    with pytest.raises(DataError, match="row 1: column 'hypothesis' is missing"):
        MnliPairs().tables({"train": [{"premise": "x"}]})


def test_short_paragraphs_are_left_out() -> None:
    rows: list[Row] = [{"text": ""}, {"text": "x" * 51}, {"text": "x" * 50}]
    assert Paragraphs().tables({"test": rows}) == {"test": [{"text": "x" * 51}]}
    with pytest.raises(DataError, match="no text of 3 has over 60"):
        Paragraphs(longer_than=60).tables({"test": rows})
    with pytest.raises(DataError, match="row 1 has no text in column 'body'"):
        Paragraphs(column="body").tables({"test": rows})


# ------------------------------------------------------------------ the WMDP suites


def test_both_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    bio, cyber = (
        resolve_experiment(parse_words([f"suite=wmdp-{kind}", "method=ilu"]))
        for kind in ("bio", "cyber")
    )
    for found in (bio, cyber):
        assert [attack.name for attack in found.attacks] == list(found.suite.attacks)
        assert set(found.suite.attacks) == {"gsm8k", *found.suite.core_unseen}
        assert len(found.suite.attacks) == 6
        assert found.seen == ("gsm8k",)
        for attack in found.attacks:
            train = attack.plugin.train  # type: ignore[union-attr]
            assert (train.lr, train.steps, train.batch_size) == (2e-5, 250, 32)
    assert bio.scorers["mmlu"] == cyber.scorers["mmlu"]
    assert bio.scorers["wmdp"] == LmEval(task="wmdp_bio", data="wmdp", num_fewshot=0)
    assert cyber.scorers["wmdp"] == LmEval(task="wmdp_cyber", data="wmdp", num_fewshot=0)
    assert cyber.tables.source("wmdp").subset == "wmdp-cyber"
    assert cyber.tables.source("forget").subset == "cyber-forget-corpus"
    assert not cyber.tables.source("forget").gated
    assert bio.tables.source("forget").gated


def test_missing_data_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, experiment: Experiment
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(AccessError, match=r"data.forget: .*data.forget=<file>"):
        experiment.tables.rows("forget")


@pytest.mark.parametrize("suite", ["wmdp-bio", "wmdp-cyber"])
def test_score_a_local_model_offline(suite: str, files: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = tiny_llama(len(tokenizer))
    model.config.max_position_embeddings = 512
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    words = [f"data.{name}={files[name]}" for name in ("wmdp", "mmlu")]
    folder, out = str(tmp_path / "model"), str(tmp_path / "runs")
    done = command("score", folder, f"suite={suite}", *words, "device=cpu", f"out={out}", "--json")
    assert done.code == 0, done.err
    found = {score["scorer"]: score for score in done.json["scores"]}
    assert (found["wmdp"]["n"], found["mmlu"]["n"]) == (9, 57)
    assert 0 <= found["wmdp"]["value"] <= 1
