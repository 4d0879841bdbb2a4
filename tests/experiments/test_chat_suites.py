"""Suites whose roles are chats: from the words to the record; what is refused before any job."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from chats import CHATML, INST, chat_tokenizer
from doubles import tiny_llama
from runs import TINY, command

from ilubench.experiments.describe import describe
from ilubench.models.checkpoints import save_model
from ilubench.models.tokenizers import load_tokenizer
from ilubench.runs.stages.target_key import key_of_files

QUESTION = "Question: {question}\nAnswer:"
ASKED = {"prompt": QUESTION, "completion": " {answer}"}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("target")
    tokenizer = chat_tokenizer(CHATML)
    model = tiny_llama(len(tokenizer))
    model.config.max_position_embeddings = 1024
    save_model(model, tokenizer, folder, "float32")
    return folder


def suite(folder: Path, target: Path, change: Callable[[Any], None] = lambda _: None) -> str:
    """Write the tiny suite, of which the forget set and one attack are chats."""
    found: dict[str, Any] = yaml.safe_load(TINY.read_text())
    chat = {"chat": True, "system": "Be brief."}
    found["target"] = {"model": {"path": str(target)}}
    questions = {"generated": "mini.forget_knowmem", "limit": 8, **ASKED, **chat}
    found["data"] |= {"forget_questions": questions}
    found["data"]["forget_mc"] |= chat
    found["data"]["retain_mc"] |= {"chat": True}
    found["forget"] = ["forget_questions"]
    found["attacks"] = {"gsm8k": found["attacks"]["gsm8k"]}
    found["environments"] = {"gsm8k": "gsm8k.train"}
    found["core_unseen"] = []
    found["max_length"] = 512
    for source in found["attacks"]["gsm8k"]["data"].values():
        source.update(chat)
    change(found)
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump(found), encoding="utf-8")
    return f"suite={path}"


def test_a_run_of_chats(target: Path, tmp_path: Path) -> None:
    words = suite(tmp_path, target)
    done = command("run", words, "method=npo", "seeds=0", f"out={tmp_path}/out", "--json")
    assert done.code == 0, done.err
    (path,) = (tmp_path / "out").glob("*/results.json")
    record = json.loads(path.read_text())
    assert len(record["conditions"]["chat_template"]) == 12
    assert record["protocol"]["gsm8k"]["data"]["train"]["system"] == "Be brief."
    config = yaml.safe_load((path.parent / "config.yaml").read_text())
    assert config["suite"]["data"]["forget_questions"]["chat"] is True
    assert "chat" not in config["suite"]["data"]["retain_passages"]
    (told,) = (one for one in describe(words.partition("=")[2]) if one.kind == "suites")
    chats = "forget_mc, forget_questions, retain_mc, gsm8k.eval, gsm8k.train"
    assert told.summary.endswith(f"Chats, by the model's own template: {chats}.")
    (told,) = (one for one in describe("tiny", str(TINY)) if one.kind == "suites")
    assert told.summary.endswith("Texts and prompts are plain: no role is a chat.")
    shown = command("ls", "scorers", words).out
    assert "forget_mc (mini.forget_mc as a chat)" in shown


def without(target: Path, folder: Path, template: str | None) -> Path:
    """Return the target with another chat template."""
    for file in target.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).write_bytes(file.read_bytes())
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (None, "has no chat template; leave data."),
        (INST, "takes no system turn, leave data."),
        ("{{ raise_exception('no talk') }}", "cannot be filled (no talk)"),
        ("{% for m in messages %}", "cannot be filled ("),
    ],
)
def test_a_template_is_refused_before_any_job(
    target: Path, tmp_path: Path, template: str | None, problem: str
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    words = suite(tmp_path, without(target, other, template))
    done = command("run", words, "method=npo", "seeds=0", f"out={tmp_path}/out")
    assert done.code == 3
    assert problem in done.err
    assert str(other) in done.err
    assert len(done.err.strip().splitlines()) <= 2
    assert not [*(tmp_path / "out" / "store").glob("*/*")]


def test_the_template_is_part_of_the_targets_key(target: Path, tmp_path: Path) -> None:
    """As the model's own tokenizer, as another's, and in the settings' file of old."""
    keys = set()
    for number, template in enumerate((CHATML, INST, None)):
        folder = tmp_path / str(number)
        folder.mkdir()
        without(target, folder, template)
        if template is None:
            settings = json.loads((folder / "tokenizer_config.json").read_text())
            told = json.dumps({**settings, "chat_template": INST})
            (folder / "tokenizer_config.json").write_text(told, encoding="utf-8")
            assert load_tokenizer(folder).chat_template == INST
        keys |= {key_of_files(folder, None), key_of_files(target, folder)}
    assert len(keys) == 6


def of(role: str, **values: Any) -> Callable[[Any], None]:
    """Change fields of a role of the attack; None takes one out."""

    def change(suite: Any) -> None:
        source = suite["attacks"]["gsm8k"]["data"][role]
        source |= values
        for name in [name for name, value in source.items() if value is None]:
            del source[name]

    return change


def with_recipe(suite: Any) -> None:
    suite["target"] = yaml.safe_load(TINY.read_text())["target"]


def verbatim(suite: Any) -> None:
    suite["data"]["said"] = {"generated": "mini.forget_verbmem", "limit": 4, "chat": True}
    suite["scorers"]["said"] = {"use": "verbmem", "settings": {"data": "said"}}


def told(suite: Any) -> None:
    suite["attacks"]["gsm8k"]["fa"]["scorer"]["settings"]["prompt"] = "{question}"


REFUSED: Mapping[str, tuple[Callable[[Any], None], str]] = {
    "the eval rows are none": (
        of("eval", chat=None, system=None),
        "data.train: it is a chat, and its FA task asks gsm8k.eval as plain text; give both roles",
    ),
    "the training rows are none": (
        of("train", chat=None, system=None),
        "data.train: it is plain text, and its FA task asks gsm8k.eval as a chat; give both roles",
    ),
    "another system turn": (
        of("train", system="Take your time."),
        "its system turn is 'Take your time.' where its FA task has 'Be brief.'",
    ),
    "no system turn": (
        of("train", system=None),
        "its system turn is '' where its FA task has 'Be brief.'",
    ),
    "another day": (of("train", today="2025-04-10"), "its day is 2025-04-10, and 2024-07-26 where"),
    "another prompt": (told, "is trained with 'Problem: "),
    "another answer": (of("train", completion=" {answer}."), "is trained to answer "),
    "a trained tokenizer": (with_recipe, "the tokenizer that target.recipe trains has no chat"),
    "raw text": (verbatim, "VerbMem asks no chat: it has its text go on as it stands"),
    "a system turn alone": (of("eval", chat=None), "there is no chat; set chat to true"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(target: Path, tmp_path: Path, name: str) -> None:
    change, problem = REFUSED[name]
    words = suite(tmp_path, target, change)
    done = command("run", words, "method=none", "seeds=0", f"out={tmp_path}/out")
    assert (done.code, problem in done.err) == (2, True), done.err
    assert not (tmp_path / "out" / "store").exists() or not [*(tmp_path / "out").glob("store/*/*")]
