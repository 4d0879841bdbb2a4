"""TOFU's scores of answers against the paper's definitions, one answer at a time."""

import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from muse_reference import TIE, Slow, make_model, questions
from rouge_score.rouge_scorer import RougeScorer

from ilubench.errors import DataError
from ilubench.interfaces import Row, SampleScore, ScoreContext, Scorer, TokenLogprobs
from ilubench.scoring.engines.hf import HFEngine
from ilubench.scoring.scorers.answer_rouge import AnswerRouge
from ilubench.scoring.scorers.memorization import Memorization
from ilubench.scoring.scorers.probability import AnswerProbability, ChoiceProbability, TruthRatio

PROMPT = "Question: {question}\nAnswer:"
ASKED = {"data": "d", "prompt": PROMPT, "completion": " {answer}"}


@pytest.fixture(scope="module")
def slow() -> Slow:
    return make_model("mini", sharp=True)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    asked = questions("mini", 12)
    return [
        {
            "id": f"t{n}",
            "question": question,
            "answer": asked[(n + 1) % 12][: 20 + n],
            "paraphrased_answer": asked[(n + 2) % 12][: 30 + n],
            "perturbed_answer": [asked[(n + k) % 12][: 33 + k + n] for k in range(3, 7)],
        }
        for n, question in enumerate(asked)
    ]


def scored(scorer: Scorer, slow: Slow, rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Metric -> item -> value."""
    engine = HFEngine(slow.tokenizer, batch_size=5)
    engine.load(slow.model)
    context = ScoreContext(lambda _: rows, lambda _: False)
    found: dict[str, dict[str, float]] = {}
    for one in scorer.build(slow.tokenizer, context).score(engine):
        assert isinstance(one, SampleScore)
        found.setdefault(one.metric, {})[one.item] = one.value
    assert set(found) == set(scorer.metrics())
    return found


def normalised(slow: Slow, question: str, answer: str, *, end: bool = True) -> float:
    """P(a|q)^(1/|a|), the product over tokens taken as it is written."""
    given = slow.encode(PROMPT.format(question=question))
    ids = slow.encode(PROMPT.format(question=question) + f" {answer}")
    eos = slow.tokenizer.eos_token_id
    assert isinstance(eos, int)
    assert ids[: len(given)] == given
    ids += [eos] if end else []
    chances = slow.logits(ids).double().softmax(-1)
    product = math.prod(float(chances[at - 1, ids[at]]) for at in range(len(given), len(ids)))
    return float(product ** (1 / (len(ids) - len(given))))


def test_probability_of_an_answer(slow: Slow, rows: list[Row]) -> None:
    for end in (True, False):
        found = scored(AnswerProbability(**ASKED, end=end), slow, rows)["probability"]
        for row in rows:
            expected = normalised(slow, str(row["question"]), str(row["answer"]), end=end)
            assert found[str(row["id"])] == pytest.approx(expected, rel=1e-4)


def test_probability_among_choices(slow: Slow, rows: list[Row]) -> None:
    found = scored(ChoiceProbability(**ASKED, wrong="perturbed_answer"), slow, rows)["probability"]
    for row in rows:
        question, wrong = str(row["question"]), row["perturbed_answer"]
        assert isinstance(wrong, list)
        right = normalised(slow, question, str(row["answer"]))
        others = sum(normalised(slow, question, str(text)) for text in wrong)
        assert found[str(row["id"])] == pytest.approx(right / (right + others), rel=1e-4)


def test_truth_ratio(slow: Slow, rows: list[Row]) -> None:
    scorer = TruthRatio(
        data="d", prompt=PROMPT, completion=" {paraphrased_answer}", wrong="perturbed_answer"
    )
    found, ratios = scored(scorer, slow, rows), []
    for row in rows:
        question, wrong = str(row["question"]), row["perturbed_answer"]
        assert isinstance(wrong, list)
        right = normalised(slow, question, str(row["paraphrased_answer"]))
        others = [normalised(slow, question, str(text)) for text in wrong]
        ratio = math.prod(others) ** (1 / len(others)) / right
        ratios.append(ratio)
        for metric, expected in (
            ("truth_ratio", ratio),
            ("closer_to_1", min(ratio, 1 / ratio)),
            ("true_better", max(0.0, 1 - ratio)),
        ):
            assert found[metric][str(row["id"])] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert min(ratios) < 1 < max(ratios)


def test_what_is_known_by_heart(slow: Slow, rows: list[Row]) -> None:
    """The longest end of an answer that the model writes by itself, tried from every place."""
    asked: list[Row] = []
    for n, row in enumerate(rows[:6]):
        begun = f"{row['answer']}"[: 4 + n]
        own = slow.write(PROMPT.format(question=row["question"]) + f" {begun}", 2 + n % 3)
        asked.append({**row, "answer": f"{begun}{own.text}{' x' if n == 5 else ''}"})
    found = scored(Memorization(**ASKED, end=False), slow, asked)
    for row in asked:
        given = slow.encode(PROMPT.format(question=row["question"]))
        ids = slow.encode(PROMPT.format(question=row["question"]) + f" {row['answer']}")
        answer = ids[len(given) :]

        def follows(k: int, ids: list[int] = ids, start: int = len(given)) -> bool:
            known = ids[: start + k]
            while len(known) < len(ids):
                known.append(int(slow.logits(known)[-1].argmax()))
            return known == ids

        first = min(k for k in range(len(answer) + 1) if follows(k))
        best = slow.logits(ids)[len(given) - 1 : -1].argmax(-1).tolist()
        item = str(row["id"])
        assert found["extraction_strength"][item] == pytest.approx(1 - first / len(answer))
        share = sum(a == b for a, b in zip(best, answer, strict=True)) / len(answer)
        assert found["exact_memorization"][item] == pytest.approx(share)
    strengths = found["extraction_strength"].values()
    assert 0 in strengths
    assert any(0 < strength < 1 for strength in strengths)
    assert found["extraction_strength"] != found["exact_memorization"]


def test_rouge_of_an_answer(slow: Slow, rows: list[Row]) -> None:
    theirs, compared = RougeScorer(["rougeL"], use_stemmer=True), 0
    written = {
        str(row["id"]): slow.write(PROMPT.format(question=row["question"]), 12) for row in rows
    }
    asked: list[Row] = [
        {**row, "answer": f"{row['answer']} {written[str(row['id'])].text[:40]} x"} for row in rows
    ]
    found = scored(AnswerRouge(**ASKED, max_tokens=12), slow, asked)["rouge_l_recall"]
    for row in asked:
        one = written[str(row["id"])]
        if one.gap > TIE:
            expected = theirs.score(str(row["answer"]), one.text)["rougeL"].recall
            assert found[str(row["id"])] == pytest.approx(expected)
            compared += 0 < expected < 1
    assert compared >= 6


@pytest.mark.parametrize(
    ("change", "settings", "problem"),
    [
        ({"perturbed_answer": []}, {}, "item 't0': column 'perturbed_answer' is empty"),
        ({"perturbed_answer": "one"}, {}, "item 't0': column 'perturbed_answer' is text"),
        ({"perturbed_answer": ["a", " "]}, {}, "item 't0': wrong answer 2 in 'per.*' is blank; g"),
        ({"perturbed_answer": ["a", None]}, {}, "'t0': wrong answer 2 in .* is null, not text"),
        ({"perturbed_answer": ["a", ["b"]]}, {}, "wrong answer 2 in .* is a list, not text"),
        ({"perturbed_answer": ["a", "b", "a "]}, {}, "3 in .* is the same as wrong answer 1; give"),
        ({"perturbed_answer": ["a", "right"], "answer": "right"}, {}, "is the same as the right"),
        ({"perturbed_answer": ["a"]}, {}, "item 't1' has 4 wrong .*, and the first item 1; give"),
        ({}, {"wrong": "wrong_answers"}, "column 'wrong_answers' is missing"),
        ({}, {"completion": " yes"}, "must name one column"),
        ({}, {"completion": "{answer} {question}"}, "must name one column"),
        ({"answer": ""}, {}, "item 't0': the answer is blank"),
    ],
)
def test_rows_that_do_not_fit(
    slow: Slow, rows: list[Row], change: Row, settings: dict[str, str], problem: str
) -> None:
    scorer = ChoiceProbability(**{**ASKED, "wrong": "perturbed_answer", **settings})
    bad: list[Row] = [{**rows[0], **change}, *rows[1:]]
    with pytest.raises(DataError, match=problem):
        scorer.build(slow.tokenizer, ScoreContext(lambda _: bad, lambda _: False))


def test_ratios_of_a_ruined_model_are_finite() -> None:
    scorer = TruthRatio(data="d", prompt="p", completion="{a}", wrong="b")

    def found(right: float, wrong: float) -> Mapping[str, float]:
        one, other = (TokenLogprobs((-loss,), (False,)) for loss in (right, wrong))
        return scorer.values(one, [other])

    for right, wrong in ((5000.0, 1.0), (1.0, 5000.0)):
        values = found(right, wrong)
        assert all(math.isfinite(value) for value in values.values())
        assert values["true_better"] == (right < wrong)
    assert torch.isfinite(torch.tensor(found(0.0, 0.0)["truth_ratio"]))
