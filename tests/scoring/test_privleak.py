"""PrivLeak: the score by hand, which way the area goes, what a model that knows its text gets."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest
from muse_reference import make_model
from transformers import PreTrainedTokenizerFast

from ilubench.attacks.prefix import Prefix
from ilubench.data.mini.generator import MiniWorld
from ilubench.errors import CannotApplyError, DataError, ItemError
from ilubench.interfaces import (
    BoundPromptAttack,
    Ids,
    PromptContext,
    Row,
    SampleScore,
    ScoreContext,
    TokenLogprobs,
)
from ilubench.models.tokenizers import build_tokenizer
from ilubench.records.estimators import estimate
from ilubench.scoring.engines.hf import HFEngine
from ilubench.scoring.scorers.privleak import PrivLeak, lowest_mean
from ilubench.specs import Estimator

WORDS = "the quick brown fox jumps over a lazy dog and runs home"


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return build_tokenizer([WORDS, " " + WORDS, *WORDS.split()])


def _context(rows: Mapping[str, Sequence[Row]]) -> ScoreContext:
    return ScoreContext(rows=lambda role: rows[role], publish_text=lambda _role: False)


def _texts(*texts: str) -> list[Row]:
    return [{"text": text, "id": str(number)} for number, text in enumerate(texts)]


class Answers(HFEngine):
    """Gives the log-probabilities that it was told, in order."""

    def __init__(self, tokenizer: Any, values: Sequence[Sequence[float]]) -> None:
        super().__init__(tokenizer)
        self.values = list(values)
        self.asked: list[tuple[Ids, Ids]] = []

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        self.asked.extend(pairs)
        given = [self.values.pop(0) for _ in pairs]
        return [TokenLogprobs(tuple(v), (False,) * len(v)) for v in given]


SCORER = PrivLeak(forget="f", holdout="h", retrain_auc=0.5)


def _areas(scores: Sequence[SampleScore], scorer: PrivLeak = SCORER) -> dict[str, float]:
    found = {}
    for metric, estimator in scorer.metrics().items():
        mine = [score for score in scores if score.metric == metric]
        values, labels = [score.value for score in mine], [score.label for score in mine]
        found[metric], _ = estimate(estimator, values, [""] * len(mine), labels)
    return found


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([-1.0, -2.0, -3.0, -4.0, -5.0], 0.4, -4.5),
        ([-5.0, -1.0, -3.0, -4.0, -2.0, -9.0, -0.5], 0.4, -7.0),  # floor(2.8) = 2
        ([-1.0, -7.0, -2.0], 0.4, -7.0),
        ([-1.0, -2.0], 1.0, -1.5),
    ],
)
def test_the_lowest(values: list[float], share: float, expected: float) -> None:
    assert lowest_mean(values, share) == pytest.approx(expected)


def test_what_is_asked(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = {"f": _texts("the quick brown", "fox jumps over a"), "h": _texts("lazy dog and")}
    engine = Answers(tokenizer, [[-1, -2, -3], [-4, -1, -1, -1], [-8, -1, -1]])
    scores = SCORER.build(tokenizer, _context(rows)).score(engine)
    ids = [tokenizer.encode(str(row["text"])) for row in (*rows["f"], *rows["h"])]
    assert engine.asked == [(one[:1], one[1:]) for one in ids]
    assert all(context == [tokenizer.bos_token_id] for context, _ in engine.asked)
    half = [("f/0", -3.0, "0"), ("f/1", -4.0, "0"), ("h/0", -8.0, "1")]
    assert [(s.metric, s.item, s.value, s.label) for s in scores] == [
        (metric, *one) for metric in ("auc", "privleak") for one in half
    ]
    assert dict(SCORER.metrics()) == {
        "auc": Estimator(kind="auc"),
        "privleak": Estimator(kind="auc", relative_to=0.5),
    }
    assert SCORER.roles() == ("f", "h")
    first = SCORER.model_copy(update={"limit": 1}).build(tokenizer, _context(rows))
    assert len(first.score(Answers(tokenizer, [[-1, -2, -3], [-1, -2, -3]]))) == 4


def test_the_area_is_that_of_the_negated_score(tokenizer: PreTrainedTokenizerFast) -> None:
    """As a curve has it: labels 0 and 1, the decision value minus the Min-K% score."""
    forget, holdout = [-1.0, -2.5, -4.0], [-2.0, -4.0, -6.0, -0.5]
    rows = {"f": _texts(*["the quick fox"] * 3), "h": _texts(*["the lazy dog"] * 4)}
    engine = Answers(tokenizer, [[value, 0.0, 0.0] for value in forget + holdout])
    found = _areas(SCORER.build(tokenizer, _context(rows)).score(engine))
    min_k = [-value for value in forget + holdout]
    decisions = list(zip([-score for score in min_k], [0, 0, 0, 1, 1, 1, 1], strict=True))
    ones, zeros = ([d for d, label in decisions if label == kind] for kind in (1, 0))
    wins = [(one > zero) + 0.5 * (one == zero) for one, zero in product(ones, zeros)]
    assert found["auc"] == pytest.approx(sum(wins) / 12)
    assert found["auc"] == pytest.approx(5.5 / 12)
    assert found["privleak"] == pytest.approx(100 * (5.5 / 12 - 0.5) / 0.5)


def test_a_model_that_knows_the_forget_texts_is_near_minus_a_hundred() -> None:
    mini = make_model("mini", sharp=False)
    known = [str(row["text"]) for row in MiniWorld().tables({})["forget_passages"]]
    backwards = [" ".join(reversed(text.split())) for text in known]
    engine = HFEngine(mini.tokenizer)
    engine.load(mini.model)
    rows = {"known": _texts(*known), "other": _texts(*backwards)}
    scorer = PrivLeak(forget="known", holdout="other", retrain_auc=0.5)
    found = _areas(scorer.build(mini.tokenizer, _context(rows)).score(engine), scorer)
    assert found == pytest.approx({"auc": 0.0, "privleak": -100.0})
    other = PrivLeak(forget="other", holdout="known", retrain_auc=0.5)
    found = _areas(other.build(mini.tokenizer, _context(rows)).score(engine), other)
    assert found == pytest.approx({"auc": 1.0, "privleak": 100.0})


def test_refusals(tokenizer: PreTrainedTokenizerFast) -> None:
    good = _texts("the quick brown fox")
    with pytest.raises(DataError, match=r"data\.h: no rows"):
        SCORER.build(tokenizer, _context({"f": good, "h": []}))
    with pytest.raises(DataError, match=r"data\.f: column 'text' is missing"):
        SCORER.build(tokenizer, _context({"f": [{"txt": "a"}], "h": good}))
    short: list[Row] = [*_texts("the quick brown"), {"text": "the quick", "id": "short one"}]
    with pytest.raises(DataError, match=r"data\.h: item 'short one': 2 scored tokens are too few"):
        SCORER.build(tokenizer, _context({"f": good, "h": short}))
    with pytest.raises(ValueError, match="retrain_auc"):
        PrivLeak(forget="f", holdout="h", retrain_auc=0.0)

    with pytest.raises(DataError, match=r"data\.h: item '0' is the text of item '0' of data\.f"):
        SCORER.build(tokenizer, _context({"f": good, "h": good}))

    bound = SCORER.build(tokenizer, _context({"f": good, "h": _texts("a lazy brown dog")}))
    attack = BoundPromptAttack("told", Prefix(text="well "), PromptContext({}, 0))
    with pytest.raises(CannotApplyError, match="privleak cannot apply the prompt attack told"):
        bound.score(Answers(tokenizer, []), attack)


def test_a_long_text_is_never_cut() -> None:
    mini = make_model("mini", sharp=False)
    engine = HFEngine(mini.tokenizer, max_length=20)
    engine.load(mini.model)
    rows = {"f": _texts("agent " * 10), "h": _texts("agent " * 9, "agent " * 40)}
    bound = SCORER.build(mini.tokenizer, _context(rows))
    with pytest.raises(ItemError, match=r"data\.h: item '1': .*do not fit max_length=20"):
        bound.score(engine)
