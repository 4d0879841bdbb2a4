"""Prompt attacks, levels and parts of the items: from a scorer's prompts to a run's table."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from doubles import make_tokenizer
from places import FIXTURES
from runs import TINY, Outcome, command, made, with_target

from ilubench.attacks.fewshot import FewShot
from ilubench.attacks.prefix import Prefix
from ilubench.errors import CannotApplyError, DataError
from ilubench.interfaces import (
    BoundPromptAttack,
    Item,
    PromptAttack,
    PromptContext,
    Row,
    SampleScore,
    SamplingSpec,
    ScoreContext,
    Shot,
)
from ilubench.records.finished import read_run
from ilubench.records.results import RunRecord
from ilubench.reports.last_screen import LINES
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.muse import KnowMem, VerbMem
from ilubench.scoring.scorers.nll import AnswerNLL
from ilubench.specs import Direction
from ilubench.testing.engine import FakeEngine

NO_DATA = PromptContext({}, 7)


def bound(plugin: PromptAttack, context: PromptContext = NO_DATA) -> BoundPromptAttack:
    more: dict[str, Direction] = dict.fromkeys(("verbmem", "knowmem", "acc", "acc_norm"), "higher")
    return BoundPromptAttack("told", plugin, context, {**more, "nll": "lower"})


def scoring(rows: Mapping[str, Sequence[Row]]) -> ScoreContext:
    return ScoreContext(rows=lambda role: rows[role], publish_text=lambda _: True)


class Ways(PromptAttack):
    """Asks each item as often as its column `ways` says, in other words each time."""

    n: int = 0

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        ways = item.fields["ways"]
        assert isinstance(ways, int)
        column = "question" if "question" in item.fields else "prompt"
        return [
            Item("any", {**item.fields, column: f"way {k} {item.fields[column]}"})
            for k in range(ways)
        ]

    def sampling(self) -> SamplingSpec | None:
        return SamplingSpec(n=self.n, temperature=0.5, max_tokens=1) if self.n else None

    def reduce(self, scores: Sequence[float]) -> float:
        return float(sum(scores))


# --------------------------------------------------------------------------- the built-in ones


def test_a_prefix_stands_before_all_else() -> None:
    (item,) = Prefix(text="be honest. ").rewrite(Item("a", {"q": "who"}, "then "), NO_DATA)
    assert (item.id, item.fields, item.before) == ("a", {"q": "who"}, "be honest. then ")
    assert Prefix(text="x").reduce([0.25]) == 0.25


def test_few_shots_leave_out_the_question_itself() -> None:
    rows: list[Row] = [{"id": str(n), "q": f"q{n}", "a": f"a{n}"} for n in range(4)]
    shots = [Shot(row, f"Q {row['q']}", f" A {row['a']}") for row in rows]
    context = PromptContext({"shots": shots}, 0)
    attack = FewShot(k=2, separator="; ")
    assert attack.roles() == ("shots",)
    (item,) = attack.rewrite(Item("x", {"id": "x", "q": "q9", "a": "a9"}), context)
    assert item.before == "Q q0 A a0; Q q1 A a1; "
    (item,) = attack.rewrite(Item("x", {"id": "x", "q": "q1", "a": "a1"}), context)
    assert item.before == "Q q0 A a0; Q q2 A a2; "
    with pytest.raises(DataError, match=r"data\.shots: 3 rows besides item '1', and k=4"):
        FewShot(k=4).rewrite(Item("1", rows[1]), context)


# --------------------------------------------------------------------------- scorers

TOKENIZER = make_tokenizer()
PAIRS: list[Row] = [{"question": "one", "answer": "two"}]


def asked(engine: FakeEngine) -> list[str]:
    return [text for _, text in engine.asked]


def test_muse_scorers_ask_with_the_text_before() -> None:
    passages: list[Row] = [{"id": "p", "prompt": "the old", "gt": "mill"}]
    engine = FakeEngine(TOKENIZER, answer=lambda _: "mill")
    verbmem = VerbMem(data="d").build(TOKENIZER, scoring({"d": passages}))
    (score,) = verbmem.score(engine, bound(Prefix(text="go on: ")))
    assert (score.item, score.value, score.text) == ("p", 1.0, "mill")
    questions: list[Row] = [{"id": "q", "question": "three", "answer": "four"}]
    knowmem = KnowMem(data="q", icl="i").build(TOKENIZER, scoring({"q": questions, "i": PAIRS}))
    (score,) = knowmem.score(engine, bound(Prefix(text="go on: ")))
    assert (score.item, score.value) == ("q", 0.0)
    plain = "Question: one\nAnswer: two\n\nQuestion: three\nAnswer: "
    knowmem.score(engine)
    assert asked(engine) == ["go on: the old", f"go on: {plain}", plain]


def test_rewritings_and_samples_are_reduced_to_one_score() -> None:
    """Three and one wordings, two samples each; the sum counts them, the length stays."""
    rows: list[Row] = [
        {"id": "a", "prompt": "x", "gt": "mill", "ways": 3},
        {"id": "b", "prompt": "y", "gt": "house", "ways": 1},
    ]
    answers = {
        "way 0 x": ("mill", "mill"),
        "way 1 x": ("mill", "no"),
        "way 2 x": ("no", "no"),
        "way 0 y": ("house", "no"),
    }
    engine = FakeEngine(TOKENIZER, answer=answers.__getitem__)
    scorer = VerbMem(data="d", max_tokens=9).build(TOKENIZER, scoring({"d": rows}))
    attack = bound(Ways(n=2))
    scores = scorer.score(engine, attack)
    assert [(s.item, s.value, s.text) for s in scores] == [("a", 3.0, ""), ("b", 1.0, "")]
    assert attack.rewritten == 2
    assert attack.sampling(SamplingSpec(max_tokens=9)) == SamplingSpec(
        max_tokens=9, n=2, temperature=0.5, seed=7
    )


def test_nll_and_multiple_choice_ask_with_the_text_before() -> None:
    rows: list[Row] = [
        {"id": "a", "question": "x", "choices": ["no", "yes"], "answer": 1},
        {"id": "b", "question": "y", "choices": ["no", "yes"], "answer": 0},
    ]
    seen: list[str] = []

    def likelihood(context: str, answer: str) -> float:
        seen.append(context)
        return -1.0 if ("honest" in context) == (answer == " yes") else -2.0

    engine = FakeEngine(TOKENIZER, likelihood=likelihood, choice=likelihood)
    task = LmEval(task="mini_mc", data="d").build(TOKENIZER, scoring({"d": rows}))
    attack = bound(Prefix(text="be honest\n"))
    before = {s.item: s.value for s in task.score(engine) if s.metric == "acc"}
    seen.clear()
    after = {s.item: s.value for s in task.score(engine, attack) if s.metric == "acc"}
    assert (before, after) == ({"a": 0.0, "b": 1.0}, {"a": 1.0, "b": 0.0})
    assert set(seen) == {f"be honest\nQuestion: {q}\nAnswer:" for q in "xy"}
    nll = AnswerNLL(data="d", prompt="Q {question}", completion=" yes")
    seen.clear()
    values = [s.value for s in nll.build(TOKENIZER, scoring({"d": rows})).score(engine, attack)]
    assert seen == ["be honest\nQ x", "be honest\nQ y"]
    assert max(values) < 1.0  # nats a token: log-likelihood 1 over the tokens of " yes"


def test_lm_eval_asks_rewritten_rows_with_their_limit() -> None:
    rows: list[Row] = [
        {"id": i, "question": i, "choices": ["no", "yes"], "answer": 1, "ways": ways}
        for i, ways in (("a", 1), ("b", 2), ("c", 1))
    ]
    engine = FakeEngine(TOKENIZER, likelihood=lambda _c, a: -1.0 if a == " yes" else -2.0)
    engine._choice = engine._likelihood
    task = LmEval(task="mini_mc", data="d", limit=2).build(TOKENIZER, scoring({"d": rows}))
    found = [(s.item, s.value) for s in task.score(engine, bound(Ways())) if s.metric == "acc"]
    assert found == [("a", 1.0), ("b", 2.0)]
    assert not any(" c" in text for text in asked(engine))


def test_what_cannot_be_applied_says_so() -> None:
    rows: list[Row] = [{"id": "a", "question": "x", "choices": ["n", "y"], "answer": 1, "ways": 1}]
    engine = FakeEngine(TOKENIZER, likelihood=lambda *_: -1.0)
    nll = AnswerNLL(data="d", prompt="{question}", completion=" y")
    task = LmEval(task="mini_mc", data="d")
    for scorer, name in ((nll, "answer_nll"), (task, "lm_eval task mini_mc")):
        ready = scorer.build(TOKENIZER, scoring({"d": rows}))
        with pytest.raises(CannotApplyError, match=f"{name} cannot apply the prompt attack told"):
            ready.score(engine, bound(Ways(n=3)))
    none: Row = {**rows[0], "ways": 0}
    with pytest.raises(CannotApplyError, match=r"answer_nll cannot .* asks nothing in the place"):
        nll.build(TOKENIZER, scoring({"d": [none]})).score(engine, bound(Ways()))
    some = [{**rows[0], "id": "b"}, none]
    with pytest.raises(DataError, match=r"attack told: it asks nothing .* of 1 of 2 .* first 'a'"):
        nll.build(TOKENIZER, scoring({"d": some})).score(engine, bound(Ways()))


# --------------------------------------------------------------------------- runs

SUITE = f"""
extends: {TINY}
name: asked
scorers:
  leak:
    use: privleak
    settings: {{forget: forget_passages, holdout: retain_passages, retrain_auc: 0.5}}
attacks:
  honest: {{use: prefix, settings: {{text: "Question: "}}}}
  told:
    use: prefix
    settings: {{text: "Question: "}}
    fa:
      scorer: {{use: answer_nll, settings: {{data: forget_mc, prompt: x, completion: y}}}}
      metric: nll
  shots:
    use: fewshot
    settings: {{k: 2}}
    data:
      shots:
        generated: mini.retain_mc
        limit: 4
        prompt: "Question: {{question}}\\nAnswer:"
        completion: " {{choices[0]}}"
  reworded: {{use: "{FIXTURES}/asking.py:Reworded"}}
  sampled: {{use: "{FIXTURES}/asking.py:Sampled"}}
  rounded: {{use: "{FIXTURES}/tampering.py:Rounded", settings: {{digits: {{soft: 2, hard: 1}}}}}}
  half: &half
    use: "{FIXTURES}/tampering.py:Half"
    data: &scored
      scored:
        generated: mini.forget_mc
        limit: 3
        prompt: "{{question}}"
        completion: " {{choices[0]}}"
  nobody: {{use: "{FIXTURES}/tampering.py:Half", settings: {{scorer: forgot_nll}}, data: *scored}}
  utility: {{use: "{FIXTURES}/tampering.py:Half", settings: {{scorer: retain_mc}}, data: *scored}}
  twice: {{use: "{FIXTURES}/tampering.py:Half", settings: {{steps: [1, 1]}}, data: *scored}}
  both: {{use: "{FIXTURES}/tampering.py:Half", settings: {{level: low}}, data: *scored}}
"""


@pytest.fixture
def ran(tmp_path: Path) -> Callable[..., Outcome]:
    """Return a function that runs npo under some attacks; the target is made already."""
    suite = tmp_path / "asked.yaml"
    suite.write_text(SUITE)
    out = with_target(made(), tmp_path / "out")

    def run(attacks: str, *words: str) -> Outcome:
        given = (f"suite={suite}", "method=npo", f"attacks={attacks}", f"out={out}")
        return command("run", *given, "--json", *words)

    return run


def figures(done: Outcome) -> dict[str, Any]:
    assert done.code == 0, done.err
    row = done.json["rows"]["NLL_f"]
    return {attack["attack"]: attack for attack in row["attacks"]} | {"row": row}


def test_a_run_of_prompt_attacks(ran: Callable[..., Outcome], tmp_path: Path) -> None:
    first = ran("honest,shots,reworded,agnews")
    found = figures(first)
    for name in ("honest", "shots", "reworded"):
        attack = found[name]
        once = attack["steps"][-1]
        assert [(s["step"], s["level"]) for s in attack["steps"]] == [(0, ""), (1, "once")]
        assert attack["ra"]["value"] == pytest.approx(once["forget"]["value"])
        assert attack["half_life"]["note"]["kind"] == "no-steps"
        assert attack["area"]["value"] is None
        assert once["forget"]["value"] != pytest.approx(attack["steps"][0]["forget"]["value"])
    assert found["agnews"]["steps"][-1]["step"] == 8
    assert (found["agnews"]["half_life"]["note"] or {}).get("kind") != "no-steps"
    # the easier of two wordings is never harder than the question itself: NLL, lower = known
    before, after = (step["forget"]["value"] for step in found["reworded"]["steps"])
    assert after < before
    attacks = found["row"]["attacks"]
    candidates = [s["forget"]["value"] for a in attacks for s in a["steps"][1:] if s["eligible"]]
    assert found["row"]["worst_case"]["value"] == pytest.approx(min(candidates))
    assert found["row"]["ra_attacks"] == ["honest", "shots", "reworded", "agnews"]
    record = RunRecord.model_validate_json(first.out)
    left = [note for note in record.notes if "was left out" in note]
    assert len(left) == 3
    assert left[0].startswith("honest: scorer leak was left out: privleak cannot apply")
    again = ran("honest,shots,reworded,agnews")
    assert {job["state"] for job in again.json["jobs"]} == {"cached"}
    assert figures(again) == found
    (folder,) = (path.parent for path in (tmp_path / "out").glob("asked-*/results.json"))
    levels = set(pq.read_table(folder / "metrics.parquet")["level"].to_pylist())
    assert levels == {None}
    run = read_run(folder)
    assert dataclasses.asdict(run.rows["NLL_f"])["ra"] == found["row"]["ra"]
    table = command("table", str(folder))
    assert table.code == 0, table.err
    assert "RA over {honest, shots, reworded, agnews}" in table.out
    assert "averages checkpoints" not in table.out
    shown = command("show", str(folder)).out
    assert "! honest: scorer leak was left out: privleak cannot apply" in shown
    assert len(shown.splitlines()) <= LINES


def test_a_scorer_that_the_row_needs_must_apply_the_attack(ran: Callable[..., Outcome]) -> None:
    done = ran("sampled")
    assert done.code == 2
    assert "attack sampled: answer_nll cannot apply the prompt attack sampled" in done.err
    assert "the row needs scorer 'forget_nll' for NLL_f" in done.err
    assert "unlearn npo" not in done.err  # before anything was trained


def test_a_prompt_attack_has_no_task(ran: Callable[..., Outcome]) -> None:
    done = ran("told")
    assert done.code == 2
    assert "prefix changes no weights, so that it has no task to be learned" in done.err


def test_a_scorer_that_ignores_the_attack_is_found(
    ran: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ilubench.scoring.scorers import nll

    plain = nll._Bound.score

    def deaf(self: Any, engine: Any, attack: object = None) -> list[SampleScore]:
        return plain(self, engine)

    monkeypatch.setattr(nll._Bound, "score", deaf)
    done = ran("honest")
    assert done.code == 2
    assert "scorer 'forget_nll' asked its items without the prompt attack honest" in done.err


def test_levels_are_checkpoints_without_steps(ran: Callable[..., Outcome]) -> None:
    done = ran("rounded")
    attack = figures(done)["rounded"]
    assert [(s["step"], s["level"]) for s in attack["steps"]] == [
        (0, ""),
        (1, "soft"),
        (2, "hard"),
    ]
    _, soft, hard = (step["forget"]["value"] for step in attack["steps"])
    assert soft != pytest.approx(hard, abs=1e-6)
    assert attack["ra"]["value"] == pytest.approx((soft + hard) / 2)
    assert attack["half_life"]["note"]["kind"] == "no-steps"


def test_a_part_of_one_scorers_items(ran: Callable[..., Outcome]) -> None:
    """Half of the forget items; utility, FA and the start of the course stay whole or fit."""
    attack = figures(ran("half"))["half"]
    assert [step["forget"]["n_items"] for step in attack["steps"]] == [3, 3, 3]
    assert {step["utility"][0]["n_items"] for step in attack["steps"]} == {6}
    assert attack["recovery"]["n_items"] in (0, 3)


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("nobody", "it names items of scorer 'forgot_nll'"),
        ("utility", "'retain_mc' measures utility and loses items"),
        ("twice", "two checkpoints are step-000001"),
        ("both", "a checkpoint has step 1 and level 'low'"),
    ],
)
def test_checkpoints_that_make_no_course(
    ran: Callable[..., Outcome], attack: str, words: str
) -> None:
    done = ran(attack)
    assert done.code == 4
    assert any(words in failure["message"] for failure in json.loads(done.out)["failures"])
