"""Scorers that ask a chat, against plain transformers and lm-eval's own transformers backend."""

import json
import math
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from chats import CHATML, HEADERS, chat_tokenizer
from doubles import tiny_llama
from engines import make_engine

from ilubench.attacks.prefix import Prefix
from ilubench.data import chat
from ilubench.data.chat import render_turns
from ilubench.interfaces import (
    Asked,
    BoundPromptAttack,
    Chat,
    PromptContext,
    Row,
    SampleScore,
    ScoreContext,
    Scorer,
)
from ilubench.scoring.scorers import lm_eval_host
from ilubench.scoring.scorers.answer_rouge import AnswerRouge
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.muse import KnowMem, VerbMem
from ilubench.scoring.scorers.nll import AnswerNLL
from ilubench.scoring.scorers.privleak import PrivLeak
from ilubench.scoring.scorers.probability import AnswerProbability

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TODAY = date.today()  # noqa: DTZ011 - the day that transformers has a template write
SYSTEM = "You sell plums."
PEOPLE = ("Ada", "Ben", "Cleo", "Dan")
ROWS: list[Row] = [
    {
        "id": f"q{number}",
        "question": f"Where does {person} live?",
        "answer": "Rome" if number % 2 else "Oslo",
        "choices": ["Rome", "Oslo and Rome"],
        "label": 1 - number % 2,
    }
    for number, person in enumerate(PEOPLE)
]
SHOWN: list[Row] = [
    {**ROWS[0], "id": f"s{number}", "question": f"Who sells {thing}?", "answer": answer}
    for number, (thing, answer) in enumerate((("rye", "Dan"), ("plums", "Cleo"), ("figs", "Ben")))
]


class World:
    """A tokenizer with a chat template, and a random model."""

    def __init__(self, template: str) -> None:
        begins = "bos_token" in template
        self.tokenizer: PreTrainedTokenizerFast = chat_tokenizer(template, begins=begins)
        self.model: PreTrainedModel = tiny_llama(len(self.tokenizer), seed=5)
        self.model.config.max_position_embeddings = 2048  # rotary positions know no end
        self.model.config.eos_token_id = self.tokenizer.eos_token_id
        self.engine = make_engine("hf", self.tokenizer, self.model)

    def scores(self, scorer: Scorer, system: str = SYSTEM, attack: Any = None) -> list[SampleScore]:
        context = ScoreContext(
            rows={"rows": ROWS, "shown": SHOWN}.__getitem__,
            publish_text=lambda _: True,
            chat=lambda role: Chat(role, system, TODAY),
        )
        bound = scorer.build(self.tokenizer, context)
        return bound.score(self.engine) if attack is None else bound.score(self.engine, attack)

    def text(self, *turns: tuple[str, str], system: str = SYSTEM) -> str:
        said = [("system", system)] * bool(system) + list(turns)
        messages = [{"role": role, "content": content} for role, content in said]
        return str(
            self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    def written(self, *turns: tuple[str, str]) -> str:
        """What transformers' own generation writes."""
        prompt = torch.tensor([self.ids(self.text(*turns))])
        found = self.model.generate(prompt, max_new_tokens=8, do_sample=False)  # type: ignore[operator]
        return str(self.tokenizer.decode(found[0, prompt.shape[1] :], skip_special_tokens=True))

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="module", params=[CHATML, HEADERS], ids=["chatml", "headers"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.mark.parametrize("system", ["", SYSTEM])
def test_answers_by_hand(world: World, system: str) -> None:
    """The answer's tokens; for a probability, also that which ends the turn."""
    settings = {"data": "rows", "prompt": "{question}", "completion": " {answer}"}
    losses = world.scores(AnswerNLL.model_validate(settings), system)
    chances = world.scores(AnswerProbability.model_validate(settings), system)
    for loss, chance, row in zip(losses, chances, ROWS, strict=True):
        before = world.ids(world.text(("user", str(row["question"])), system=system))
        answer = world.ids(f"{row['answer']}<|im_end|>")
        with torch.no_grad():
            rows = world.model(torch.tensor([before + answer])).logits[0].log_softmax(-1)
        found = [rows[len(before) + at - 1, token].item() for at, token in enumerate(answer)]
        assert loss.value == pytest.approx(-sum(found[:-1]) / len(found[:-1]), abs=1e-5)
        assert chance.value == pytest.approx(math.exp(sum(found) / len(found)), rel=1e-4)


def test_what_is_written_by_hand(world: World) -> None:
    whole = AnswerRouge(data="rows", prompt="{question}", completion=" {answer}", max_tokens=8)
    for score, row in zip(world.scores(whole), ROWS, strict=True):
        assert score.text == world.written(("user", str(row["question"])))
    scorer = KnowMem(data="rows", icl="shown", max_tokens=8)
    shown = [
        turn
        for row in SHOWN
        for turn in (
            ("user", f"Question: {row['question']}\nAnswer:"),
            ("assistant", row["answer"]),
        )
    ]
    for score, row in zip(world.scores(scorer), ROWS, strict=True):
        asked = ("user", f"Question: {row['question']}\nAnswer:")
        text = world.written(*shown, asked)  # type: ignore[arg-type]
        assert score.text == text.partition("\n\n")[0].partition("\nQuestion")[0]


TASKS = {
    "chosen": "output_type: multiple_choice\ndoc_to_choice: '{{choices}}'\ndoc_to_target: label\n"
    "metric_list: [{metric: acc}, {metric: acc_norm}]\n",
    "described": "output_type: multiple_choice\ndoc_to_choice: [Rome, Oslo]\ndoc_to_target: label\n"
    "description: 'Answer at once.'\nmetric_list: [{metric: acc}]\n",
    "shots": "output_type: multiple_choice\ndoc_to_choice: [Rome, Oslo]\ndoc_to_target: label\n"
    "num_fewshot: 2\nfewshot_split: shown\nmetric_list: [{metric: acc}]\n",
    "begun": "output_type: multiple_choice\ndoc_to_choice: [Rome, Oslo]\ndoc_to_target: label\n"
    "gen_prefix: 'She lives in'\nmetric_list: [{metric: acc}]\n",
    "written": "output_type: generate_until\ndoc_to_target: '{{answer}}'\n"
    "generation_kwargs: {until: ['?'], do_sample: false, max_gen_toks: 6}\n"
    "metric_list: [{metric: exact_match}]\n",
    "likely": "output_type: loglikelihood\ndoc_to_target: ' {{answer}}'\n"
    "metric_list: [{metric: acc}]\n",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tasks")
    for name, rows in (("test", ROWS), ("shown", SHOWN)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (home / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    files = {name: str(home / f"{name}.jsonl") for name in ("test", "shown")}
    source = json.dumps({"data_files": files, "cache_dir": str(home / "cache")})
    for name, text in TASKS.items():
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {source}\ntest_split: test\n"
        asked = 'doc_to_text: "Question: {{question}}\\nAnswer:"\n'
        (home / f"{name}.yaml").write_text(head + asked + text, encoding="utf-8")
    return home


def test_tasks_equal_lm_eval(world: World, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts, log-likelihoods and texts of `lm_eval --apply_chat_template`."""
    system = "" if world.tokenizer.chat_template == CHATML else SYSTEM
    pytest.importorskip("accelerate", reason="lm-eval's own backend needs it: lm-eval[hf]")
    import lm_eval  # type: ignore[import-untyped, unused-ignore]
    from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped, unused-ignore]
    from lm_eval.tasks import TaskManager  # type: ignore[import-untyped, unused-ignore]

    theirs = lm_eval.simple_evaluate(
        model=HFLM(
            pretrained=world.model, tokenizer=world.tokenizer, batch_size=8, max_length=2048
        ),
        tasks=list(TASKS),
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        bootstrap_iters=0,
        apply_chat_template=True,
        system_instruction=system or None,
    )
    assert theirs is not None
    asked: list[str] = []

    def kept(*given: Any) -> str:
        asked.append(render_turns(*given))
        return asked[-1]

    monkeypatch.setattr(lm_eval_host, "render_turns", kept)
    for name in TASKS:
        fewshot = "shown" if name == "shots" else None
        scorer = LmEval(task=str(folder / f"{name}.yaml"), data="rows", fewshot=fewshot)
        expected = {sample["doc"]["id"]: sample for sample in theirs["samples"][name]}
        assert len(expected) == len(ROWS)
        asked.clear()
        found = world.scores(scorer, system)
        for score in found:
            sample = expected[score.item]
            assert score.value == pytest.approx(sample[score.metric], abs=1e-6), name
            if name == "written":
                assert score.text == sample["resps"][0][0]
            elif score.choices:
                values = [answers[0][0] for answers in sample["resps"]]
                assert score.choices == pytest.approx(values, abs=1e-4)
        pairs = [pair for sample in expected.values() for pair in sample["arguments"]]
        prompts = {prompt for prompt, _ in pairs}
        assert set(asked) == prompts
        assert any("Who sells" in text for text in asked) == (name == "shots")


@pytest.mark.parametrize("name", TASKS)
def test_what_a_task_asks(world: World, folder: Path, name: str) -> None:
    """As turns, which its training text must be."""
    fewshot = "shown" if name == "shots" else None
    scorer = LmEval(task=str(folder / f"{name}.yaml"), data="rows", fewshot=fewshot)
    begun = {"begun": "She lives in ", "likely": " "}.get(name, "")
    more = {"Oslo": " and Rome"} if name == "chosen" else {}
    system = f"{SYSTEM}\n\nAnswer at once." if name == "described" else SYSTEM
    assert scorer.asks(ROWS, Chat("rows", SYSTEM, TODAY)) == [
        Asked(
            f"Question: {row['question']}\nAnswer:",
            (f"{begun}{row['answer']}{more.get(str(row['answer']), '')}",),
            2 if fewshot else 0,
            system,
        )
        for row in ROWS
    ]


@pytest.mark.parametrize("kind", ["nll", "knowmem", "chosen", "written"])
def test_an_attack_speaks_in_the_users_turn(
    world: World, folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def kept(*given: Any) -> str:
        asked.append(render_turns(*given))
        return asked[-1]

    for module in (lm_eval_host, chat):
        monkeypatch.setattr(module, "render_turns", kept)
    scorers: Mapping[str, Scorer] = {
        "nll": AnswerNLL(data="rows", prompt="{question}", completion=" {answer}"),
        "knowmem": KnowMem(data="rows", icl="shown", max_tokens=4),
    }
    scorer = scorers.get(kind) or LmEval(task=str(folder / f"{kind}.yaml"), data="rows")
    plain = world.scores(scorer)
    told = set(asked)
    attack = BoundPromptAttack("told", Prefix(text="Listen. "), PromptContext({}, 0))
    attacked = world.scores(scorer, attack=attack)
    assert [score.item for score in attacked] == [score.item for score in plain]
    assert [score.value for score in attacked] != [score.value for score in plain] or kind != "nll"
    begins = {"nll": "Where", "knowmem": "Question: Who sells rye?"}.get(kind, "Question:")
    expected = {text.replace(begins, f"Listen. {begins}", 1) for text in told if SYSTEM in text}
    assert len(expected) >= len(ROWS)
    assert expected <= set(asked)


@pytest.mark.parametrize(
    "scorer",
    [VerbMem(data="d"), PrivLeak(forget="d", holdout="d", retrain_auc=0.5)],
)
def test_raw_text_is_no_chat(scorer: Scorer) -> None:
    assert not scorer.chats
