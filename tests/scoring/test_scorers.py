"""The lm-eval adapter: prompts, answers found, no trace left; the answer's NLL by hand."""

import io
import os
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from places import ROOT
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from ilubench.data.mini import world
from ilubench.data.mini.tasks import TASKS
from ilubench.errors import DataError, SpecError
from ilubench.interfaces import Generation, Ids, Row, SamplingSpec, ScoreContext, TokenLogprobs
from ilubench.models.tokenizers import build_tokenizer
from ilubench.scoring.engines.hf import HFEngine
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.nll import AnswerNLL, split_answer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WORDS = ["red", "green", "blue", "white", "black", "pink", "gold", "grey"]
TOPICS = ("World", "Sports", "Business", "Technology")


def _mc_rows(count: int) -> list[Row]:
    rng = random.Random(1)
    return [
        {
            "id": f"mc-{n}",
            "question": f"Which colour has number {n % 10}?",
            "choices": rng.sample(WORDS, 4),
            "answer": rng.randrange(4),
        }
        for n in range(count)
    ]


def _news_rows(count: int) -> list[Row]:
    rng = random.Random(2)
    return [
        {"text": f"{' '.join(rng.choices(WORDS, k=3 + n % 5))}.", "label": n % 4}
        for n in range(count)
    ]


def _sum_rows(count: int) -> list[Row]:
    return [
        {
            "id": f"s{n}",
            "question": f"Anna has {n % 9} red and gets {n % 7} blue.",
            "answer": f"{n % 9} + {n % 7} = {n % 9 + n % 7}. #### {n % 9 + n % 7}",
        }
        for n in range(count)
    ]


ROWS: dict[str, list[Row]] = {
    "mini_mc": _mc_rows(20),
    "agnews": _news_rows(20),
    "mini_gsm8k": _sum_rows(12),
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    texts = [" ".join(map(str, row.values())) for rows in ROWS.values() for row in rows]
    shapes = (
        " A B C D\nA. B. C. D.\nAnswer: A\nTopic:\nSolution: News: News Problem: Problem "
        "Question: Question Science/Technology # # ####"
    )
    digits = " ".join(f"{n} {n}" for n in range(20))
    return build_tokenizer([*texts, shapes, digits, " " + " ".join(TOPICS), *WORDS])


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config)
    model.train(mode=False)
    return model


@pytest.fixture(scope="module")
def engine(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> HFEngine:
    engine = HFEngine(tokenizer, batch_size=8)
    engine.load(model)
    return engine


def _context(rows: Mapping[str, Sequence[Row]], *, publish: bool = False) -> ScoreContext:
    return ScoreContext(rows=lambda role: rows[role], publish_text=lambda _role: publish)


class Asks(HFEngine):
    """Remembers the prompts that it was asked, in order."""

    asked: tuple[Ids, ...] = ()

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        self.asked += tuple(prompts)
        return [tuple(-1.0 for _ in options) for _ in prompts]

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        self.asked += tuple(context for context, _ in pairs)
        return [TokenLogprobs((-1.0,), (False,)) for _ in pairs]

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        self.asked += tuple(prompts)
        return [[Generation((), "")] for _ in prompts]


@pytest.mark.parametrize(
    ("written", "strict", "flexible"),
    [
        (" 3 + 4 = 7. #### 7", 1.0, 1.0),
        (" 3 + 4 = 7. # # # # 7", 1.0, 1.0),
        (" 3 + 4 = 7. #### 8", 0.0, 0.0),
        (" the answer is 7", 0.0, 1.0),
        (" nothing", 0.0, 0.0),
        ("", 0.0, 0.0),
    ],
)
def test_gsm_answers_are_found(
    written: str, strict: float, flexible: float, tokenizer: PreTrainedTokenizerFast
) -> None:
    class Writes(HFEngine):
        def generate(self, prompts: Any, sampling: Any) -> Any:
            assert sampling.max_tokens == 48
            ids = tuple(tokenizer.encode(written, add_special_tokens=False))
            return [[Generation(ids, written)] for _ in prompts]

    row: Row = {"id": "x", "question": "3 and 4?", "answer": "3 + 4 = 7. #### 7"}
    bound = LmEval(task="mini_gsm8k", data="rows").build(tokenizer, _context({"rows": [row]}))
    scores = {score.metric: score.value for score in bound.score(Writes(tokenizer))}
    assert scores == {"exact_match": strict, "exact_match_flexible": flexible}


def test_declarations_do_not_import_lm_eval() -> None:
    import subprocess

    code = (
        "import sys; from ilubench.scoring.scorers.lm_eval import LmEval\n"
        "for task in ('mini_mc', 'gsm8k', 'mmlu', 'wmdp_bio', 'winogrande', 'qqp'):\n"
        "    s = LmEval(task=task, data='a', fewshot='b')\n"
        "    print({n: e.kind for n, e in s.metrics().items()}, s.files()[0].name)\n"
        "assert s.roles() == ('a', 'b')\n"
        "assert 'lm_eval' not in sys.modules\n"
    )
    root = str(ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "{'acc': 'mean'} mini_mc.yaml",
        "{'exact_match': 'mean', 'exact_match_flexible': 'mean'} gsm8k.yaml",
        "{'acc': 'mean'} _mmlu.yaml",
        "{'acc': 'mean'} wmdp_bio.yaml",
        "{'acc': 'mean'} default.yaml",
        "{'acc': 'mean'} default.yaml",
    ]


def test_prompts_are_those_of_the_mini_world(tokenizer: PreTrainedTokenizerFast) -> None:
    row = ROWS["mini_mc"][0]
    news, sums = ROWS["agnews"][0], ROWS["mini_gsm8k"][0]
    tasks = {task.name: task for task in TASKS}
    expected = {
        "mini_mc": world.QA_PROMPT.format(**row),
        "agnews": tasks["agnews"].prompt.format(**news),
        "mini_gsm8k": tasks["gsm8k"].prompt.format(**sums),
    }
    for name, prompt in expected.items():
        asked = Asks(tokenizer)
        bound = LmEval(task=name, data="rows", limit=1).build(
            tokenizer, _context({"rows": ROWS[name]})
        )
        bound.score(asked)
        assert {tuple(ids) for ids in asked.asked} == {tuple(tokenizer.encode(prompt))}


def test_bos_is_there_once(tokenizer: PreTrainedTokenizerFast) -> None:
    rows: list[Row] = [
        {"id": "plain", "text": "red green", "label": 0},
        {"id": "given", "text": f"{tokenizer.bos_token}red green", "label": 0},
    ]
    asked = Asks(tokenizer)
    LmEval(task="agnews", data="rows").build(tokenizer, _context({"rows": rows})).score(asked)
    assert len(asked.asked) == 8
    (ids,) = {tuple(ids) for ids in asked.asked}
    assert ids.count(tokenizer.bos_token_id) == 1


def test_fewshot_examples_are_the_same_at_every_checkpoint(
    tokenizer: PreTrainedTokenizerFast, engine: HFEngine
) -> None:
    roles = {"rows": ROWS["mini_mc"][:6], "examples": ROWS["mini_mc"][6:]}
    scorer = LmEval(task="mini_mc", data="rows", fewshot="examples", num_fewshot=2)
    bound = scorer.build(tokenizer, _context(roles))
    first, second = bound.score(engine), bound.score(engine)
    assert first == second
    plain = LmEval(task="mini_mc", data="rows").build(tokenizer, _context(roles)).score(engine)
    assert [s.choices for s in plain] != [s.choices for s in first]
    with pytest.raises(SpecError, match="fewshot"):
        LmEval(task="mini_mc", data="rows", num_fewshot=2).build(tokenizer, _context(roles))


def _random_state() -> tuple[object, ...]:
    legacy: Any = np.random.get_state()
    return random.getstate(), legacy[1].tolist(), torch.get_rng_state().tolist()


def test_scoring_leaves_no_trace(tokenizer: PreTrainedTokenizerFast, engine: HFEngine) -> None:
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    before = _random_state()
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        bound = LmEval(task="mini_mc", data="rows").build(
            tokenizer, _context({"rows": ROWS["mini_mc"]})
        )
        bound.score(engine)
    assert _random_state() == before
    assert out.getvalue() == ""
    assert err.getvalue() == ""


def test_limit_ids_and_refusals(
    tokenizer: PreTrainedTokenizerFast,
    engine: HFEngine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    context = _context({"rows": ROWS["agnews"], "none": []})
    bound = LmEval(task="agnews", data="rows", limit=3).build(tokenizer, context)
    ids = [score.item for score in bound.score(engine)]
    assert len(set(ids)) == 3
    assert ids == [score.item for score in bound.score(engine)]
    with pytest.raises(DataError, match="no rows"):
        LmEval(task="agnews", data="none").build(tokenizer, context)
    with pytest.raises(SpecError, match="did you mean 'agnews'"):
        LmEval(task="agnew", data="rows").metrics()
    with pytest.raises(ValueError, match="data"):
        LmEval(task="wmdp_bio")  # type: ignore[call-arg]

    twice = [*ROWS["mini_mc"][:1], *ROWS["mini_mc"][:1]]
    with pytest.raises(DataError, match="occurs twice"):
        LmEval(task="mini_mc", data="rows").build(tokenizer, _context({"rows": twice}))


# ------------------------------------------------------------------ NLL


def test_nll_by_hand(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, engine: HFEngine
) -> None:
    rows = ROWS["agnews"][:5]
    scorer = AnswerNLL(
        data="rows", prompt="{text}\nTopic:", completion=" {label}", labels={"label": TOPICS}
    )
    scores = scorer.build(tokenizer, _context({"rows": rows})).score(engine)
    for row, score in zip(rows, scores, strict=True):
        context = tokenizer.encode(f"{row['text']}\nTopic:")
        answer = tokenizer.encode(f" {TOPICS[int(str(row['label']))]}", add_special_tokens=False)
        assert context[0] == tokenizer.bos_token_id
        with torch.no_grad():
            logits = model(torch.tensor([context + answer])).logits[0].log_softmax(-1)
        lost = [-logits[len(context) + n - 1, token].item() for n, token in enumerate(answer)]
        assert score.value == pytest.approx(sum(lost) / len(lost), abs=1e-5)
        assert score.metric == "nll"
    with pytest.raises(DataError, match="no rows"):
        scorer.build(tokenizer, _context({"rows": []}))
    with pytest.raises(DataError, match="column 'topic'"):
        AnswerNLL(data="rows", prompt="{text}", completion=" {topic}").build(
            tokenizer, _context({"rows": rows})
        )


def test_a_merged_token_belongs_to_the_answer(tokenizer: PreTrainedTokenizerFast) -> None:
    # the prompt's last word goes on in the completion: "gre" + "en" is one token
    whole = tokenizer.encode("red green")
    assert split_answer(tokenizer, "red gre", "en") == (whole[:2], whole[2:])
    assert split_answer(tokenizer, "red", " green") == (whole[:2], whole[2:])
