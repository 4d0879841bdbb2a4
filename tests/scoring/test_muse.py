"""VerbMem and KnowMem: hand-made cases; the MUSE suites; a checkpoint scored on local files."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from doubles import make_tokenizer, tiny_llama
from muse_reference import Slow, cut, disturbed, knowmem_prompt, rouge_l
from runs import command
from transformers import PreTrainedTokenizerFast

from ilubench.errors import DataError, ItemError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.interfaces import Generation, Row, SamplingSpec, ScoreContext
from ilubench.models.checkpoints import save_model
from ilubench.models.tokenizers import build_tokenizer
from ilubench.scoring.engines.hf import HFEngine
from ilubench.scoring.scorers.muse import KnowMem, VerbMem
from ilubench.scoring.scorers.privleak import PrivLeak
from ilubench.scoring.scorers.written import cleaned
from ilubench.specs import Estimator
from ilubench.specs.overrides import parse_words

TEXT = "the quick brown fox jumps over a lazy dog and runs running home , then sleeps . Again !"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer([TEXT, " " + TEXT, *TEXT.split()])


def _context(rows: Mapping[str, Sequence[Row]], *, publish: bool = False) -> ScoreContext:
    return ScoreContext(rows=lambda role: rows[role], publish_text=lambda _role: publish)


class Recites(HFEngine):
    """Writes what it was given for each prompt, in order."""

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        super().__init__(tokenizer)
        self.texts = texts
        self.prompts: Sequence[Sequence[int]] = ()
        self.sampling = SamplingSpec()

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: SamplingSpec
    ) -> list[list[Generation]]:
        self.prompts, self.sampling = prompts, sampling
        return [[Generation((), text)] for text in self.texts]


def _score(tokenizer: Any, gt: str, written: str, **settings: Any) -> float:
    rows: dict[str, Sequence[Row]] = {"d": [{"prompt": "the quick", "gt": gt}]}
    bound = VerbMem(data="d", **settings).build(tokenizer, _context(rows))
    (score,) = bound.score(Recites(tokenizer, [written]))
    assert score.metric == "verbmem"
    return score.value


def test_bos_is_one_of_the_reference_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    # 4 ids of the reference are BOS and three words
    gt = "brown fox jumps over a"
    assert _score(tokenizer, gt, "brown fox jumps", max_tokens=4) == 1.0
    assert _score(tokenizer, gt, "brown fox jumps over", max_tokens=4) == pytest.approx(6 / 7)


def test_what_is_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    rows: list[Row] = [
        {"prompt": "the quick brown ", "gt": "fox", "id": "a"},
        {"prompt": "a lazy", "gt": "dog"},
    ]
    scorer = VerbMem(data="d")
    assert dict(scorer.metrics()) == {"verbmem": Estimator()}
    assert scorer.roles() == ("d",)
    engine = Recites(tokenizer, ["fox", "cat"])
    bound = scorer.build(tokenizer, _context({"d": rows}))
    scores = bound.score(engine)
    assert engine.sampling == SamplingSpec(max_tokens=128)
    assert list(engine.prompts) == [tokenizer.encode(row["prompt"]) for row in rows]
    assert all(prompt[0] == tokenizer.bos_token_id for prompt in engine.prompts)
    assert scores[0].item == "a"
    assert scores[1].item == "2"
    assert [score.text for score in scores] == ["", ""]
    open_ = scorer.build(tokenizer, _context({"d": rows}, publish=True))
    assert [score.text for score in open_.score(engine)] == ["fox", "cat"]
    first = VerbMem(data="d", limit=1).build(tokenizer, _context({"d": rows}))
    assert len(first.score(Recites(tokenizer, ["fox"]))) == 1


def test_refusals(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(DataError, match="no rows"):
        VerbMem(data="d").build(tokenizer, _context({"d": []}))
    with pytest.raises(DataError, match="column 'gt' is missing"):
        VerbMem(data="d").build(tokenizer, _context({"d": [{"prompt": "a"}]}))


# ------------------------------------------------------------------ KnowMem


PAIRS: list[Row] = [{"question": "fox?", "answer": "dog"}, {"question": "jumps?", "answer": "a\nb"}]


def _known(tokenizer: Any, answer: str, written: str) -> tuple[float, str]:
    rows: dict[str, Sequence[Row]] = {"d": [{"question": "why", "answer": answer}], "i": PAIRS}
    bound = KnowMem(data="d", icl="i").build(tokenizer, _context(rows, publish=True))
    (score,) = bound.score(Recites(tokenizer, [written]))
    assert score.metric == "knowmem"
    return score.value, score.text


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("lazy dog", "lazy dog"),
        ("lazy dog\nthen more", "lazy dog\nthen more"),
        ("lazy dog\n\nQuestion: x\nAnswer: y", "lazy dog"),
        ("lazy\nQuestion of\n\ndog", "lazy"),
        ("lazy Question: dog", "lazy "),
        ("lazy Question dog", "lazy Question dog"),
        ("Question: a\n\nb", ""),
        ("a\n\n\nb", "a"),
        ("\n\na", ""),
    ],
)
def test_an_answer_is_cut(tokenizer: PreTrainedTokenizerFast, written: str, kept: str) -> None:
    assert _known(tokenizer, "x", written)[1] == kept


def test_an_answer_is_scored_after_the_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    assert _known(tokenizer, "lazy dog", "lazy dog\n\nQuestion: runs")[0] == 1.0
    assert _known(tokenizer, "lazy dog", "\n\nlazy dog")[0] == 0.0
    # one of two words right on one side, one of one on the other
    assert _known(tokenizer, "lazy dog", "dog")[0] == pytest.approx(2 / 3)
    assert _known(tokenizer, "runs", "running")[0] == 0.0


def test_what_is_asked_of_knowledge(tokenizer: PreTrainedTokenizerFast) -> None:
    rows: list[Row] = [
        {"question": "the quick?", "answer": "fox", "id": "a"},
        {"question": "over?", "answer": "dog"},
    ]
    scorer = KnowMem(data="d", icl="i")
    assert dict(scorer.metrics()) == {"knowmem": Estimator()}
    assert scorer.roles() == ("d", "i")
    engine = Recites(tokenizer, ["fox", "cat"])
    bound = scorer.build(tokenizer, _context({"d": rows, "i": PAIRS}))
    scores = bound.score(engine)
    assert engine.sampling == SamplingSpec(max_tokens=32, stop=())
    shown = "Question: fox?\nAnswer: dog\n\nQuestion: jumps?\nAnswer: a\nb\n\n"
    prompts = [f"{shown}Question: {question}\nAnswer: " for question in ("the quick?", "over?")]
    assert list(engine.prompts) == [tokenizer.encode(prompt) for prompt in prompts]
    assert all(prompt[0] == tokenizer.bos_token_id for prompt in engine.prompts)
    assert [(score.item == "a", score.value, score.text) for score in scores] == [
        (True, 1.0, ""),
        (False, 0.0, ""),
    ]
    first = KnowMem(data="d", icl="i", limit=1, max_tokens=3)
    engine = Recites(tokenizer, ["fox"])
    (score,) = first.build(tokenizer, _context({"d": rows, "i": PAIRS})).score(engine)
    assert (score.item, engine.sampling.max_tokens) == ("a", 3)
    assert list(engine.prompts) == [tokenizer.encode(prompts[0])]


def test_refusals_of_knowmem(tokenizer: PreTrainedTokenizerFast) -> None:
    good: list[Row] = [{"question": "a", "answer": "dog", "id": "first"}]
    scorer = KnowMem(data="d", icl="i")
    with pytest.raises(DataError, match=r"data\.d: no rows"):
        scorer.build(tokenizer, _context({"d": [], "i": PAIRS}))
    with pytest.raises(DataError, match=r"data\.i: no rows"):
        scorer.build(tokenizer, _context({"d": good, "i": []}))
    with pytest.raises(DataError, match=r"data\.i: column 'answer' is missing"):
        scorer.build(tokenizer, _context({"d": good, "i": [{"question": "a"}]}))
    several: list[Row] = [{"question": "a", "answer": ["dog", "fox"]}]
    with pytest.raises(DataError, match=r"data\.d: column 'answer' is a list, not text"):
        scorer.build(tokenizer, _context({"d": several, "i": PAIRS}))
    bound = scorer.build(tokenizer, _context({"d": good, "i": PAIRS}))
    model = tiny_llama(len(tokenizer))
    engine = HFEngine(tokenizer, max_length=40)
    engine.load(model)
    with pytest.raises(ItemError, match=r"data\.d: item 'first': .* and 32 more do not fit"):
        bound.score(engine)


# ------------------------------------------------------------------ the suites


@pytest.mark.parametrize(("corpus", "area"), [("News", 0.4772), ("Books", 0.5393)])
def test_the_suites_say_where_their_data_are(corpus: str, area: float) -> None:
    experiment = resolve_experiment(parse_words([f"suite=muse-{corpus.lower()}", "method=ilu"]))
    suite = experiment.suite
    assert {source.hub for source in suite.data.values()} == {f"muse-bench/MUSE-{corpus}"}
    assert suite.target.model is not None
    assert suite.target.model.hub == f"muse-bench/MUSE-{corpus}_target"
    privleak = experiment.scorers["privleak"]
    assert isinstance(privleak, PrivLeak)
    assert privleak.retrain_auc == area
    assert {spec.scorer for spec in experiment.suite.metrics} == {
        "verbmem_f",
        "knowmem_f",
        "knowmem_r",
    }
    read = {role for scorer in experiment.scorers.values() for role in scorer.roles()}
    assert read | {"forget_text", "retain_text"} == set(suite.data)
    assert read.isdisjoint(suite.forget + suite.retain)
    assert {(suite.data[role].subset, suite.data[role].split) for role in read} == {
        ("verbmem", "forget"),
        ("knowmem", "forget_qa"),
        ("knowmem", "forget_qa_icl"),
        ("knowmem", "retain_qa"),
        ("knowmem", "retain_qa_icl"),
        ("privleak", "forget"),
        ("privleak", "holdout"),
    }


LONG = "The miller counts 12 sacks by the old river and sold them all. "


def _local(folder: Path) -> tuple[Slow, dict[str, list[dict[str, str]]]]:
    """Write a checkpoint, and files with MUSE's columns that it partly knows: role -> rows."""
    slow = Slow(tiny_llama(len(make_tokenizer())), make_tokenizer())
    slow.model.config.max_position_embeddings = 4096  # as Llama 2; the positions are computed
    save_model(slow.model, slow.tokenizer, folder / "model", "float32")
    pairs = [{"question": f"how many apples {n}?", "answer": f"{n} apples"} for n in range(2)]

    def asked(count: int) -> list[dict[str, str]]:
        found = []
        for number in range(count):
            question = f"are {number} sacks left?"
            text = cut(slow.write(knowmem_prompt(question, pairs), 32).text)
            found.append({"question": question, "answer": disturbed(text, number)})
        return found

    data = {
        "forget_verbmem": [
            {"prompt": f"The river runs {n}", "gt": f"past {n} mills"} for n in "abc"
        ],
        "forget_qa": asked(4),
        "forget_qa_icl": pairs,
        "retain_qa": asked(3),
        "retain_qa_icl": pairs,
        "privleak_forget": [{"text": f"Sold {LONG * n}"} for n in (2, 110)],
        "privleak_holdout": [{"text": f"Café {LONG * n}"} for n in (1, 3, 112)],
    }
    for role, rows in data.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{role}.jsonl").write_text(text, encoding="utf-8")
    return slow, data


def _words(folder: Path, roles: Sequence[str]) -> list[str]:
    files = [f"data.{role}={folder / role}.jsonl" for role in roles]
    return ["suite=muse-news", "suite.dtype=float32", "device=cpu", f"out={folder / 'out'}", *files]


def test_a_checkpoint_is_scored_on_local_files(tmp_path: Path) -> None:
    slow, data = _local(tmp_path)
    words = _words(tmp_path, list(data))  # a score needs no training text
    done = command("score", str(tmp_path / "model"), *words, "--json")
    assert done.code == 0, done.err
    found = {(score["scorer"], score["metric"]): score for score in done.json["scores"]}
    assert {name: score["n"] for name, score in found.items()} == {
        ("verbmem_f", "verbmem"): 3,
        ("knowmem_f", "knowmem"): 4,
        ("knowmem_r", "knowmem"): 3,
        ("privleak", "auc"): 5,
        ("privleak", "privleak"): 5,
    }
    for half in ("forget", "retain"):
        rows, pairs = data[f"{half}_qa"], data[f"{half}_qa_icl"]
        prompts = [knowmem_prompt(row["question"], pairs) for row in rows]
        values = [
            rouge_l(row["answer"], cut(slow.write(prompt, 32).text))
            for row, prompt in zip(rows, prompts, strict=True)
        ]
        mean = sum(values) / len(values)
        assert 0.1 < mean < 1
        assert found[f"knowmem_{half[0]}", "knowmem"]["value"] == pytest.approx(mean)
    assert max(len(slow.encode(row["text"])) for row in data["privleak_holdout"]) > 2048
    forget, holdout = (
        [-slow.lowest(row["text"]) for row in data[f"privleak_{half}"]]
        for half in ("forget", "holdout")
    )
    area = sum(one > zero for one in holdout for zero in forget) / 6
    assert found["privleak", "auc"]["value"] == pytest.approx(area)
    assert found["privleak", "privleak"]["value"] == pytest.approx(100 * (area / 0.4772 - 1))


def test_spaces_of_tokenization() -> None:
    spaced = (
        "He did n't go , she 's here . \" It 's ours ! \" I 'm , we 've , they 're ? rock ' roll"
    )
    together = "He didn't go, she's here. \" It's ours! \" I'm, we've, they're? rock'roll"
    assert cleaned(spaced) == together
    assert cleaned(together) == together
