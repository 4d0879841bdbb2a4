"""TOFU end to end: models and questions of a stand-in hub, Forget Quality with and without."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from chats import HEADERS, chat_tokenizer
from doubles import make_tokenizer, tiny_llama
from hub_server import Hub, ask_only, go_offline, served
from runs import Outcome, command
from scipy.stats import hmean, ks_2samp
from transformers import LlamaConfig, LlamaForCausalLM

from ilubench.experiments.experiment import resolve_experiment
from ilubench.interfaces import Row
from ilubench.leaderboard.check.figures import figure_problems
from ilubench.models.checkpoints import load_model, save_model
from ilubench.records.finished import read_run
from ilubench.specs import ModelSource
from ilubench.specs.overrides import parse_words

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MINE = "somebody/Llama-3.2-1B-Instruct-TOFU-forget10-NPO"
SETS = {"forget10_perturbed": 5, "retain_perturbed": 5, "real_authors_perturbed": 3}
SETS |= {"world_facts_perturbed": 3}
QUICK = [f"suite.scorers.rouge_{name}.settings.max_tokens=4" for name in "fraw"]
WORDS = ("suite=tofu", "suite.dtype=float32", "device=cpu", *QUICK)
SOURCE = resolve_experiment(parse_words(["suite=tofu", "method=none"])).suite


def asked(wrong: int) -> list[Row]:
    """Rows with the hub's columns; real authors and world facts have no paraphrase."""
    rows: list[Row] = []
    for n in range(4):
        told = {"question": f"who has {n} apples?", "answer": f"the miller of the {n} old mill"}
        if wrong > 3:
            told["paraphrased_answer"] = f"he is the miller of {n}"
            told["paraphrased_question"] = f"the {n} apples: whose are they?"
        rows.append(
            {**told, "perturbed_answer": [f"a fox and {k + n} sacks" for k in range(wrong)]}
        )
    return rows


def folder_of(seed: int, place: Path) -> Path:
    tokenizer = chat_tokenizer(HEADERS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        save_model(LlamaForCausalLM(config).eval(), tokenizer, place, "float32")
    return place


def of_hub(hub: Hub, kind: str, source: Any, files: dict[str, bytes]) -> None:
    """Put a repository on the hub, under the commit that the suite pins."""
    repo = hub.add(kind, source.hub, files)
    if source.revision:
        repo.commits[source.revision] = files


def filled(hub: Hub, folder: Path, *, retrained: bool) -> None:
    def files(path: Path) -> dict[str, bytes]:
        return {one.name: one.read_bytes() for one in path.iterdir()}

    assert SOURCE.target.model is not None
    assert SOURCE.retrain is not None
    assert SOURCE.retrain.model is not None
    of_hub(hub, "model", SOURCE.target.model, files(folder_of(0, folder / "full")))
    of_hub(hub, "model", ModelSource(hub=MINE), files(folder_of(1, folder / "mine")))
    if retrained:
        of_hub(hub, "model", SOURCE.retrain.model, files(folder_of(2, folder / "retain90")))
    configs = [{"config_name": name, "data_files": f"{name}.json"} for name in SETS]
    card = f"---\n{yaml.safe_dump({'configs': configs})}---\n".encode()
    rows = {
        f"{name}.json": "".join(json.dumps(row) + "\n" for row in asked(wrong)).encode()
        for name, wrong in SETS.items()
    }
    of_hub(hub, "dataset", SOURCE.data["forget_asked"], {"README.md": card, **rows})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scored(*words: str) -> Outcome:
    done = command("score", MINE, *WORDS, *words)
    assert done.code == 0, done.err
    return done


def means(told: Any, who: str) -> dict[str, float]:
    return {f"{s['scorer']}.{s['metric']}": s["value"] for s in told["scores"] if s["who"] == who}


def losses(folder: Path, answers: str, question: str = "question") -> list[float]:
    """Mean loss of each item's answers, as OpenUnlearning takes it: of all behind the prompt."""
    model = load_model(folder, "cpu")
    tokenizer = chat_tokenizer(HEADERS.replace("strftime_now('%d %b %Y')", "'10 Apr 2025'"))
    found = []
    for row in asked(SETS["forget10_perturbed"]):
        given = row[answers]
        for answer in given if isinstance(given, list) else [given]:
            chat = [
                {"role": "system", "content": "You are a helpful assistant."},
                {"role": "user", "content": str(row[question])},
                {"role": "assistant", "content": str(answer)},
            ]
            whole = tokenizer.apply_chat_template(chat, tokenize=False)
            prompt = tokenizer.apply_chat_template(
                chat[:-1], tokenize=False, add_generation_prompt=True
            )
            ids, before = (
                tokenizer.encode(text, add_special_tokens=False) for text in (whole, prompt)
            )
            assert ids[: len(before)] == before
            assert ids[-1] == tokenizer.eos_token_id
            labels = torch.tensor([[-100] * len(before) + ids[len(before) :]])
            with torch.no_grad():
                found.append(float(model(input_ids=torch.tensor([ids]), labels=labels).loss))
    return found


def test_a_model_of_the_hub_is_scored(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as hub:
        filled(hub, here, retrained=True)
        ask_only(hub, str(here / "cache"), monkeypatch)
        told = scored("--json").json
    assert told["failures"] == []
    found = {(one["label"], one["who"]): one for one in told["composites"]}
    assert set(found) == {
        (label, who)
        for label in ("Forget Quality", "Model Utility")
        for who in ("reference", "retrain")
    }
    for who in ("reference", "retrain"):
        own = means(told, who)
        nine = [own[name] for name in SOURCE.composites[1].of]
        assert len(nine) == 9
        assert found["Model Utility", who]["value"] == pytest.approx(hmean(nine))
    right = np.exp(-np.array(losses(here / "mine", "answer")))
    assert means(told, "reference")["prob_f.probability"] == pytest.approx(right.mean(), rel=1e-4)
    ratios = {}
    for who, name in (("reference", "mine"), ("retrain", "retain90")):
        wrong = np.array(losses(here / name, "perturbed_answer")).reshape(4, 5).mean(axis=1)
        ratios[who] = np.exp(np.array(losses(here / name, "paraphrased_answer")) - wrong)
        assert means(told, who)["truth_f.truth_ratio"] == pytest.approx(
            ratios[who].mean(), rel=1e-3
        )
    run = read_run(Path(told["folder"]))
    assert run.samples is not None
    lines = run.samples.to_pylist()
    mine, never = (
        [
            x["value"]
            for x in lines
            if (x["who"], x["metric"]) == (who, "truth_ratio") and x["scorer"] == "truth_f"
        ]
        for who in ("reference", "retrain")
    )
    quality = found["Forget Quality", "reference"]["value"]
    assert quality == pytest.approx(ks_2samp(mine, never).pvalue)
    assert quality == pytest.approx(ks_2samp(ratios["reference"], ratios["retrain"]).pvalue)
    assert found["Forget Quality", "retrain"]["value"] == 1.0
    assert list(figure_problems(run)) == []
    go_offline(monkeypatch)
    shown = scored().out
    assert f"Forget Quality: {quality:.2g} (p-value" in shown
    assert "Model Utility: " in shown
    shown = command("show", told["folder"]).out
    assert f"Forget Quality: the model {quality:.2g}, retrained 1" in shown
    part = scored("scorers=truth_f", "--json").json  # only what its composites need
    assert [one["label"] for one in part["composites"]] == ["Forget Quality"] * 2
    part = scored("scorers=rouge_f", "--json").json
    assert part["composites"] == []
    assert {score["who"] for score in part["scores"]} == {"reference"}


def test_without_the_retrained_model(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest is given, and one line says what gives Forget Quality."""
    with served() as hub:
        filled(hub, here, retrained=False)
        ask_only(hub, str(here / "cache"), monkeypatch)
        told = scored("--json").json
        assert [one["label"] for one in told["composites"]] == ["Model Utility"]
        (note,) = told["notes"]
        assert note.startswith("Forget Quality is not given: ")
        assert re.search(
            r"which cannot be had \(open-unlearning/\S+retain90@\w+: there is no", note
        )
        assert note.endswith("(suite.retrain.model.path=FOLDER names it)")
        done = command("score", MINE, *WORDS, "suite.retrain.model.path=nowhere")
        assert (done.code, done.err.count("\n")) == (3, 1)
        assert "suite.retrain.model" in done.err
        own = scored(f"suite.retrain.model.path={folder_of(2, here / 'own')}", "--json").json
        assert {one["label"] for one in own["composites"]} == {"Forget Quality", "Model Utility"}


def test_a_retrained_model_with_other_tokens(here: Path) -> None:
    folder_of(1, here / "mine")
    other = make_tokenizer()
    save_model(tiny_llama(len(other)), other, here / "other", "float32")
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked(5)))
    never = "suite.retrain.model.path=other"
    words = ("scorers=truth_f", "data.forget_asked=rows.jsonl")
    done = command("score", "mine", *WORDS, *words, never)
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)  # before any job
    problem = "other has other tokens than the target model; give others by"
    assert f"{problem} suite.retrain.model.path=FOLDER" in done.err
    tiny_llama(50).save_pretrained(here / "small")
    done = command("score", "mine", *WORDS, *words, "suite.retrain.model.path=small")
    assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
    assert "small has too few embedding rows for the tokens of the model that is" in done.err


def test_what_forget_quality_says_nothing_of(here: Path) -> None:
    folder_of(1, here / "mine")
    rows = [json.dumps(row) + "\n" for row in asked(5)]
    words = (*WORDS, "scorers=truth_f", "suite.retrain.model.path=mine", "--json")
    for count in (4, 3):
        Path("rows.jsonl").write_text("".join(rows[:count]))
        done = command("score", "mine", *words, "data.forget_asked=rows.jsonl")
        (note,) = done.json["notes"]
        if count == 4:
            assert "says nothing here: the model that is scored has, item by item, the ret" in note
            assert {one["value"] for one in done.json["composites"]} == {1.0}
        else:
            assert "not given: it compares two models, which share 3 items only (4 can t" in note
            assert done.json["composites"] == []


SST2 = [{"sentence": f"a charming mill {n} ", "label": n % 2, "idx": n} for n in range(6)]


def test_a_model_of_the_hub_is_attacked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train", "eval"):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SST2))
    words = (
        *("attacks=sst2", "data.sst2.train=train.jsonl", "data.sst2.eval=eval.jsonl"),
        *("attack.train.steps=1", "attack.train.batch_size=3", "allow_weak_target=true"),
    )
    with served() as hub:
        filled(hub, here, retrained=False)
        ask_only(hub, str(here / "cache"), monkeypatch)
        done = command("attack", MINE, *WORDS, *words)
        assert (done.code, done.out, done.err.count("\n")) == (3, "", 1)
        assert "suite.retrain.model" in done.err
        assert "tofu_Llama-3.2-1B-Instruct_retain90" in done.err
        done = command("attack", MINE, *WORDS, *words, "never_knew=false", "--json")
        assert done.code == 0, done.err
        told = done.json
        (note,) = (note for note in told["notes"] if note.startswith("Forget Quality"))
        assert note.endswith("(leave never_knew=false out)")
        never = f"suite.retrain.model.path={folder_of(2, here / 'own')}"
        told = command("attack", MINE, *WORDS, *words, never, "--json").json
    assert {(one["who"], one["attack"], one["step"]) for one in told["composites"]} == {
        (who, *place)
        for who in ("reference", "method", "retrain")
        for place in (("", 0), ("sst2", 1))
    }
    assert set(told["rows"]) == {"1 - ROUGE_f", "1 - Prob_f"}
    (folder,) = Path("runs").glob(told["run"])
    assert list(figure_problems(read_run(folder))) == []
    details = command("show", str(folder), "--details").out
    assert "Forget Quality: p-value against the retrained model" in details
    table = command("table", str(folder)).out
    assert "**Whole models, before any attack.**" in table
    assert "| method | Forget Quality | Model Utility |" in table
    (row,) = command("table", str(folder), "--json").json["tables"][0]["rows"]
    assert row["composites"] == told["composites"]


def test_its_questions_are_asked_in_the_authors_other_words(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("attacks=rephrase", "never_knew=false", "allow_weak_target=true")
    with served() as hub:
        filled(hub, here, retrained=False)
        ask_only(hub, str(here / "cache"), monkeypatch)
        done = command("attack", MINE, *WORDS, *words, "--json")
        assert done.code == 0, done.err
    (folder,) = Path("runs").glob(done.json["run"])
    samples = read_run(folder).samples
    assert samples is not None
    lines = [x for x in samples.to_pylist() if x["scorer"] == "prob_f" and x["who"] == "method"]
    asked_so = {x["attack"]: x["value"] for x in lines if x["item"] == lines[0]["item"]}
    model = here / "mine"
    right, other = (
        float(np.exp(-losses(model, "answer", question)[0]))
        for question in ("question", "paraphrased_question")
    )
    assert asked_so[""] == pytest.approx(right, rel=1e-4)
    assert asked_so["rephrase"] == pytest.approx(other, rel=1e-4)
    assert right != pytest.approx(other, rel=1e-2)


@pytest.mark.parametrize(("forget", "retain"), [("forget01", "retain99"), ("forget05", "retain95")])
def test_smaller_forget_sets(forget: str, retain: str) -> None:
    suite = resolve_experiment(parse_words([f"suite=tofu-{forget}", "method=npo"])).suite
    found = {name: source.subset for name, source in suite.data.items()}
    assert found == {
        "forget_qa": forget,
        "retain_qa": retain,
        "forget_asked": f"{forget}_perturbed",
        "retain_asked": "retain_perturbed",
        "real_authors": "real_authors_perturbed",
        "world_facts": "world_facts_perturbed",
    }
    assert suite.retrain is not None
    assert suite.retrain.model is not None
    assert suite.retrain.model.hub == f"open-unlearning/tofu_Llama-3.2-1B-Instruct_{retain}"
    assert suite.target == SOURCE.target
    assert suite.attacks["rephrase"].data["wordings"].subset == f"{forget}_perturbed"
    assert suite.composites == SOURCE.composites
