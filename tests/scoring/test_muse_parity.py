"""VerbMem, KnowMem and PrivLeak of each engine against the slow implementation, in float32."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any

import pytest
from engines import ENGINES, make_engine
from muse_reference import (
    MODELS,
    TIE,
    Slow,
    Written,
    cut,
    disturbed,
    icl_pairs,
    knowmem_prompt,
    make_model,
    openings,
    questions,
    rouge_l,
    texts,
)

from ilubench.interfaces import Engine, Row, SampleScore, SamplingSpec, ScoreContext, Scorer
from ilubench.records.estimators import estimate
from ilubench.scoring.scorers.muse import KnowMem, VerbMem
from ilubench.scoring.scorers.privleak import PrivLeak

ITEMS = 24
"""More than an engine's batch."""

TEXTS = 50
SHORT = 16
"""Tokens written for most items; a few get the published number."""


@dataclass(frozen=True)
class Expected:
    """What the slow implementation says of one item."""

    prompt: str
    row: Row
    written: Written
    text: str
    value: float


@cache
def slow(name: str, *, sharp: bool = True) -> Slow:
    return make_model(name, sharp=sharp)


@cache
def verbmem(name: str, count: int, length: int) -> tuple[Expected, ...]:
    model, found = slow(name), []
    for number, prompt in enumerate(openings(name, count)):
        written = model.write(prompt, length)
        gt = disturbed(written.text, number)
        value = rouge_l(model.reference(gt, length), written.text)
        row = {"prompt": prompt, "gt": gt, "id": f"v{number}"}
        found.append(Expected(prompt, row, written, written.text, value))
    return tuple(found)


@cache
def knowmem(name: str, count: int, length: int) -> tuple[Expected, ...]:
    model, pairs, found = slow(name), icl_pairs(name), []
    for number, question in enumerate(questions(name, count)):
        prompt = knowmem_prompt(question, pairs)
        written = model.write(prompt, length)
        text = cut(written.text)
        answer = disturbed(text, number)
        row = {"question": question, "answer": answer, "id": f"k{number}"}
        found.append(Expected(prompt, row, written, text, rouge_l(answer, text)))
    return tuple(found)


def scored(scorer: Scorer, engine: Engine, **rows: Sequence[Row]) -> list[SampleScore]:
    context = ScoreContext(rows=lambda role: rows[role], publish_text=lambda _role: True)
    return scorer.build(engine.tokenizer, context).score(engine)


def compare(
    model: Slow,
    engine: Engine,
    expected: Sequence[Expected],
    scores: Sequence[SampleScore],
    new: int,
) -> int:
    """Check that strings and scores are identical, but where two tokens are all but equally likely.

    Returns:
        the number of such near ties.
    """
    assert [score.item for score in scores] == [item.row["id"] for item in expected]
    near = {at for at, item in enumerate(expected) if item.written.gap < TIE}
    assert len(near) <= max(1, len(expected) // 20)
    for at, (score, item) in enumerate(zip(scores, expected, strict=True)):
        if at not in near:
            assert score.text == item.text, item.prompt
            assert score.value == pytest.approx(item.value, abs=1e-12)
    if near:
        prompts = [model.encode(item.prompt) for item in expected]
        again = engine.generate(prompts, SamplingSpec(max_tokens=new))
        for at in near:
            assert model.shortfall(expected[at].prompt, again[at][0].ids) < 2 * TIE
    return len(near)


@dataclass(frozen=True)
class Pair:
    """An engine of a model's shape, for all tests of that model, and the model's name."""

    engine: Engine
    name: str

    def load(self, *, sharp: bool = True) -> tuple[Slow, Engine]:
        model = slow(self.name, sharp=sharp)
        self.engine.load(model.model)
        return model, self.engine


@pytest.fixture(scope="module", params=list(product(ENGINES, MODELS)), ids="-".join)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    engine, name = request.param
    model = slow(name)
    made = Pair(make_engine(engine, model.tokenizer, model.model), name)
    yield made
    made.engine.close()


Record = Callable[[str, object], None]


@pytest.mark.parametrize(("count", "length"), [(ITEMS, SHORT), (2, 128)])
def test_verbmem(pair: Pair, count: int, length: int, record_property: Record) -> None:
    model, engine = pair.load()
    expected = verbmem(pair.name, count, length)
    scorer = VerbMem(data="d", max_tokens=length)
    assert scorer == VerbMem(data="d") or length != 128
    scores = scored(scorer, engine, d=[item.row for item in expected])
    near = compare(model, engine, expected, scores, length)
    record_property("items", f"{count} of {length} tokens, {near} near ties")
    assert len({round(score.value, 3) for score in scores}) > count // 10


@pytest.mark.parametrize(("count", "length"), [(ITEMS, 12), (2, 32)])
def test_knowmem(pair: Pair, count: int, length: int, record_property: Record) -> None:
    model, engine = pair.load()
    expected = knowmem(pair.name, count, length)
    scorer = KnowMem(data="d", icl="icl", max_tokens=length)
    assert scorer == KnowMem(data="d", icl="icl") or length != 32
    rows = [item.row for item in expected]
    scores = scored(scorer, engine, d=rows, icl=icl_pairs(pair.name))
    near = compare(model, engine, expected, scores, length)
    record_property("items", f"{count} of {length} tokens, {near} near ties")
    assert len({round(score.value, 3) for score in scores}) > count // 30
    if count == ITEMS:
        assert sum(item.text != item.written.text for item in expected) > ITEMS // 5


def areas(scorer: Scorer, scores: Sequence[SampleScore]) -> dict[str, float]:
    found = {}
    for metric, estimator in scorer.metrics().items():
        mine = [score for score in scores if score.metric == metric]
        labels = [score.label for score in mine]
        found[metric], _ = estimate(estimator, [s.value for s in mine], [""] * len(mine), labels)
    return found


def test_privleak(pair: Pair, record_property: Record) -> None:
    model, engine = pair.load(sharp=False)  # of a size that 1e-5 suits
    rows = texts(pair.name, TEXTS)
    forget, holdout = rows[:45], rows[45:]
    scorer = PrivLeak(forget="f", holdout="h", retrain_auc=0.4772)
    scores = scored(scorer, engine, f=forget, h=holdout)
    slowly = {
        half: [model.lowest(str(row["text"])) for row in part]
        for half, part in (("f", forget), ("h", holdout))
    }
    for metric in ("auc", "privleak"):
        mine: list[Any] = [score for score in scores if score.metric == metric]
        both = slowly["f"] + slowly["h"]
        assert [-score.value for score in mine] == pytest.approx(both, abs=1e-5)
        largest = max(abs(-score.value - one) for score, one in zip(mine, both, strict=True))
        record_property(metric, f"{len(mine)} texts, scores within {largest:.1e}")
    pairs = list(product(slowly["h"], slowly["f"]))
    area = sum((-one > -zero) + (one == zero) / 2 for one, zero in pairs) / len(pairs)
    found = areas(scorer, scores)
    assert found["auc"] == pytest.approx(area, abs=2 / len(pairs))
    assert found["privleak"] == pytest.approx(100 * (found["auc"] - 0.4772) / 0.4772)
    assert replace(scores[0], metric="privleak") in scores
