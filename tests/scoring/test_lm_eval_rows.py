"""lm-eval's tasks on our rows: groups divided, files that count, errors that name the item."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from doubles import make_tokenizer, tiny_llama
from engines import ENGINES, make_engine

from ilubench.errors import DataError, ItemError, ModelError, SpecError
from ilubench.interfaces import (
    MAX_OPTIONS,
    Engine,
    Ids,
    Row,
    SampleScore,
    ScoreContext,
    TokenLogprobs,
)
from ilubench.scoring.engines.check import CheckEngine
from ilubench.scoring.scorers.answers import loglikelihoods
from ilubench.scoring.scorers.lm_eval import LmEval
from ilubench.scoring.scorers.task_files import task_facts

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

KINDS = ("bio", "chem", "cyber")


@pytest.fixture(scope="module")
def long_model(tokenizer: "PreTrainedTokenizerBase") -> "PreTrainedModel":
    model = tiny_llama(len(tokenizer))
    model.config.max_position_embeddings = 512
    return model


@pytest.fixture(scope="module", params=ENGINES)
def engine(
    request: pytest.FixtureRequest,
    tokenizer: "PreTrainedTokenizerBase",
    long_model: "PreTrainedModel",
) -> Engine:
    return make_engine(request.param, tokenizer, long_model)


def question(number: int, subject: str, **more: Any) -> Row:
    return {
        "question": f"What is {number}?",
        "choices": ["river", "mill", "miller", "sack"],
        "answer": number % 4,
        "subject": subject,
        **more,
    }


def wmdp(count: int = 7, kinds: Sequence[str] = KINDS) -> list[Row]:
    return [question(n, f"wmdp-{kinds[n % len(kinds)]}") for n in range(count)]


def build(tokenizer: Any, task: str, roles: Mapping[str, Sequence[Row]], **settings: Any) -> Any:
    context = ScoreContext(rows=lambda role: roles[role], publish_text=lambda _: False)
    return LmEval(task=task, data="rows", **settings).build(tokenizer, context)


def score(
    engine: Engine, task: str, rows: Sequence[Row], more: Sequence[Row] = (), **settings: Any
) -> list[SampleScore]:
    roles = {"rows": rows, "more": more}
    found: list[SampleScore] = build(engine.tokenizer, task, roles, **settings).score(engine)
    return found


# ------------------------------------------------------------------ groups


def test_a_groups_rows_go_to_the_tasks_of_their_subject(engine: Engine) -> None:
    rows = wmdp()
    scores = score(engine, "wmdp", rows)
    counts = {f"wmdp_{kind}": 0 for kind in KINDS}
    for found in scores:
        counts[found.group] += 1
        assert found.item.startswith(f"{found.group}/")
    assert counts == {"wmdp_bio": 3, "wmdp_chem": 2, "wmdp_cyber": 2}
    alone = score(engine, "wmdp_chem", [row for row in rows if row["subject"] == "wmdp-chem"])
    mine = [found for found in scores if found.group == "wmdp_chem"]
    assert [found.item for found in mine] == [f"wmdp_chem/{found.item}" for found in alone]
    for one, other in zip(mine, alone, strict=True):
        assert one.choices == pytest.approx(other.choices, abs=1e-5)
        assert one.value == other.value
        assert other.group == ""


def test_two_items_of_one_name_are_refused_before_they_are_asked(tokenizer: Any) -> None:
    named = [{**row, "id": number // 3} for number, row in enumerate(wmdp(4))]
    build(tokenizer, "wmdp", {"rows": named})  # each task has its own names
    named[3]["id"] = 0
    with pytest.raises(DataError, match=r"^data.rows: the id '0' occurs twice \(rows 1 and 2\)"):
        build(tokenizer, "wmdp", {"rows": named})


def test_another_column_divides_them(engine: Engine) -> None:
    rows = [{**row, "part": row["subject"], "subject": "x"} for row in wmdp(4)]
    assert len(score(engine, "wmdp", rows, split_by="part")) == 4


def test_a_nested_group_of_57_subjects(engine: Engine) -> None:
    subjects = [member.subset for member in task_facts("mmlu").members]
    assert len(set(subjects)) == 57
    scores = score(engine, "mmlu", [question(n, subjects[n % 57]) for n in range(60)])
    assert len(scores) == 60
    assert len({found.group for found in scores}) == 57
    assert {found.group for found in scores} >= {"mmlu_anatomy", "mmlu_world_religions"}
    with pytest.raises(DataError, match=r"data.rows: no rows of subject 'anatomy'; .*subjects"):
        score(engine, "mmlu", [question(n, s) for n, s in enumerate(subjects) if s != "anatomy"])
    rows = [question(n, subjects[n % 57]) for n in range(114)]
    assert len(score(engine, "mmlu", rows, limit=1)) == 57


def test_fewer_subjects_must_be_said(engine: Engine) -> None:
    rows = wmdp(4, kinds=("bio", "cyber"))
    with pytest.raises(DataError, match=r"data.rows: no rows of subject 'wmdp-chem'"):
        score(engine, "wmdp", rows)
    with pytest.raises(DataError, match="no rows of subject 'wmdp-chem'"):
        score(engine, "wmdp", rows, limit=1)
    scores = score(engine, "wmdp", rows, subjects=("wmdp-bio", "wmdp-cyber"))
    assert [found.group for found in scores] == ["wmdp_bio"] * 2 + ["wmdp_cyber"] * 2
    only = score(engine, "wmdp", rows, subjects=("wmdp-bio",))
    assert [found.group for found in only] == ["wmdp_bio"] * 2
    with pytest.raises(SpecError, match="did you mean 'wmdp-bio'"):
        score(engine, "wmdp", rows, subjects=("wmdp-bi",))
    with pytest.raises(SpecError, match="not a group"):
        score(engine, "wmdp_bio", rows, subjects=("wmdp-bio",))


def test_rows_that_are_no_tasks(engine: Engine) -> None:
    with pytest.raises(DataError, match=r"row 3: subject='wmdp-chm' .*did you mean 'wmdp-chem'"):
        score(engine, "wmdp", [*wmdp(2), question(9, "wmdp-chm")])
    lacking = [{k: v for k, v in row.items() if k != "subject"} for row in wmdp(3)]
    with pytest.raises(DataError, match=r"row 1 has no column 'subject'"):
        score(engine, "wmdp", lacking)


def test_each_task_shows_examples_of_its_subject(engine: Engine) -> None:
    rows, more = wmdp(6), wmdp(9)
    shown = score(engine, "wmdp", rows, more, fewshot="more", num_fewshot=2)
    plain = score(engine, "wmdp", rows, more, fewshot="more")
    assert [s.item for s in shown] == [s.item for s in plain]
    assert [s.choices for s in shown] != [s.choices for s in plain]
    with pytest.raises(DataError, match=r"wmdp_bio shows 4 examples and there are 3"):
        score(engine, "wmdp", rows, more, fewshot="more", num_fewshot=4)
    with pytest.raises(SpecError, match="wmdp_bio shows 1 examples and no role has them"):
        score(engine, "wmdp", rows, num_fewshot=1)


def _own_group(folder: Path) -> Path:
    text = (
        "output_type: multiple_choice\ntest_split: test\ndoc_to_text: !function words.ask\n"
        "doc_to_choice: [river, mill]\ndoc_to_target: answer\nmetric_list: [{metric: acc}]\n"
    )
    (folder / "below").write_text(text)
    (folder / "words.py").write_text("def ask(doc):\n    return doc['question']\n")
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(
            f"task: {name}\ndataset_name: {name}\ninclude: below\n"
        )
    inner = "  - group: inner\n    task: [two]\n    num_fewshot: 3\n"
    (folder / "all.yaml").write_text(f"group: all\ntask:\n  - one\n{inner}")
    return folder / "all.yaml"


def test_files_are_all_that_counts(tmp_path: Path) -> None:
    group = str(_own_group(tmp_path))
    names = {path.name for path in LmEval(task=group, data="rows").files()}
    assert names == {"all.yaml", "one.yaml", "two.yaml", "below", "words.py"}
    assert [member.num_fewshot for member in task_facts(group).members] == [0, 3]
    files = {path.name for path in LmEval(task="mnli", data="rows").files()}
    assert files == {"default.yaml", "utils.py"}
    mmlu = {path.name for path in LmEval(task="mmlu", data="rows").files()}
    assert {"_mmlu.yaml", "_mmlu_stem.yaml", "mmlu_anatomy.yaml", "_default_template_yaml"} <= mmlu
    assert len(mmlu) == 1 + 4 + 57 + 1


def test_groups_that_cannot_be(tmp_path: Path, engine: Engine) -> None:
    group = _own_group(tmp_path)
    (tmp_path / "two.yaml").write_text("task: two\ninclude: two.yaml\n")
    with pytest.raises(SpecError, match="includes itself"):
        LmEval(task=str(group), data="rows").metrics()
    loop = tmp_path / "loop.yaml"
    loop.write_text("group: loop\ntask: [loop]\n")
    with pytest.raises(SpecError, match="contains itself"):
        LmEval(task=str(loop), data="rows").metrics()
    (tmp_path / "two.yaml").write_text(
        (tmp_path / "one.yaml").read_text().replace("task: one", "task: two")
        + "metric_list: [{metric: acc_norm}]\n"
    )
    with pytest.raises(SpecError, match="one and two have different metrics; name the group's"):
        LmEval(task=str(group), data="rows").metrics()
    coded = tmp_path / "coded.yaml"
    coded.write_text("group: coded\ntask:\n  - {task: one, doc_to_text: !function words.ask}\n")
    rows = [question(0, "one", answer=0)]
    with pytest.raises(SpecError, match=r"lays the code words.ask over one"):
        score(engine, str(coded), rows)


# ------------------------------------------------------------------ items in errors


LONG = "zq9 " * 200


@pytest.mark.parametrize(
    ("task", "columns"),
    [
        ("wmdp_bio", {}),  # two tokens an option: log-probabilities of strings
        ("agnews", {"text": "The mill.", "label": 1}),
        ("mini_gsm8k", {"answer": "#### 3"}),
    ],
)
@pytest.mark.parametrize("named", [True, False])
def test_a_long_prompt_is_named(
    task: str, columns: dict[str, Any], named: bool, engine: Engine
) -> None:
    rows = [{**question(n % 3, "x"), **columns} for n in range(6)]
    changed = "text" if task == "agnews" else "question"
    rows[4] = {**rows[4], changed: LONG}
    if named:
        rows = [{**row, "id": f"q{n}"} for n, row in enumerate(rows)]
    where = "item 'q4'" if named else "row 5"
    with pytest.raises(ItemError, match=rf"^{task}: {where}: .*nothing is truncated") as caught:
        score(engine, task, rows)
    assert "\n" not in str(caught.value)


def test_a_long_prompt_in_a_group_is_named_by_its_row(engine: Engine) -> None:
    rows = wmdp(7)
    rows[5] = {**rows[5], "question": LONG}  # the second of the third task
    with pytest.raises(ItemError, match=r"^wmdp_cyber: row 6: "):
        score(engine, "wmdp", rows)


def test_a_position_among_single_tokens_is_mapped_back() -> None:
    class Picky:
        asked: Sequence[Ids] = ()

        def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> Any:
            self.asked = prompts
            for place, prompt in enumerate(prompts):
                if len(prompt) > 2:
                    raise ItemError(place, "too long")
            return [tuple(-float(option) for option in options) for _ in prompts]

        def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> Any:
            return [TokenLogprobs((-9.0,) * len(more), (True,)) for _, more in pairs]

    engine: Any = Picky()
    pairs = [([1], [5]), ([1], [6]), ([2], [5]), ([1], [7]), ([3, 3], [6]), ([3, 3], [5])]
    found = loglikelihoods(engine, pairs, flags=False)
    assert found == [(-float(more[0]), False) for _, more in pairs]
    assert [tuple(prompt) for prompt in engine.asked] == [(1,), (2,), (3, 3)]
    with pytest.raises(ItemError) as caught:
        loglikelihoods(engine, [*pairs, ([4, 4, 4], [5]), ([4, 4, 4], [6])], flags=False)
    assert caught.value.position == 6
    # one longer answer, the flags, or too many tokens: strings, for all
    assert loglikelihoods(engine, [*pairs, ([1], [5, 6])], flags=False)[0] == (-9.0, True)
    assert loglikelihoods(engine, pairs, flags=True)[0] == (-9.0, True)
    many = [([1], [token]) for token in range(MAX_OPTIONS)]
    assert loglikelihoods(engine, many, flags=False)[1] == (-1.0, False)
    assert loglikelihoods(engine, [*many, ([1], [99])], flags=False)[1] == (-9.0, True)
    with pytest.raises(ItemError, match="adds no token") as caught:
        loglikelihoods(engine, [*pairs, ([1], [])], flags=False)
    assert caught.value.position == 6


@pytest.mark.parametrize("flags", [True, False])
def test_an_answer_that_is_no_token_of_the_model_names_its_item(
    tokenizer: "PreTrainedTokenizerBase", *, flags: bool
) -> None:
    engine = CheckEngine(tokenizer, tiny_llama(70).config)
    with pytest.raises(ItemError, match=r"it has the token '.+' \(id 71\), .* 70 emb") as caught:
        loglikelihoods(engine, [([1], [5]), ([1], [6]), ([2], [71])], flags=flags)
    assert caught.value.position == 2


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ("wmdp_bio", {"answer": 4}, r"row 3: the answer 4 is none of its 4 options"),
        ("wmdp_bio", {"answer": -1}, r"row 3: the answer -1 is none of its 4 options"),
        ("wmdp_bio", {"choices": ["a", "b"]}, r"row 3 does not fit the task's template"),
        ("winogrande", {"sentence": "no blank"}, r"row 3 does not fit the task's template"),
        ("winogrande", {"answer": ""}, r"row 3 does not fit the task's template"),
    ],
)
def test_a_row_that_does_not_fit_is_named(
    task: str, changes: dict[str, Any], message: str, engine: Engine
) -> None:
    rows: list[Row] = [question(n, "x") for n in range(4)]
    if task == "winogrande":
        filled = {"sentence": "The _ runs.", "option1": "river", "option2": "mill", "answer": "1"}
        rows = [dict(filled) for _ in range(4)]
    score(engine, task, rows)
    rows[2] = {**rows[2], **changes}
    with pytest.raises(DataError, match=f"^{task}: {message}"):
        score(engine, task, rows)


def test_yes_and_no_choose_among_two(engine: Engine) -> None:
    rows = [{**question(n, "x"), "answer": True} for n in range(2)]
    with pytest.raises(DataError, match=r"row 1: the answer True is none of its 4 options"):
        score(engine, "wmdp_bio", rows)


def test_a_row_without_a_column(engine: Engine) -> None:
    rows = [question(n, "x") for n in range(3)]
    rows[1] = {key: value for key, value in rows[1].items() if key != "question"}
    with pytest.raises(DataError, match=r"^data.rows: row 2 has no column 'question'"):
        score(engine, "wmdp_bio", rows)
    with pytest.raises(DataError, match=r"mnli does not fit the rows \(KeyError: 'premise'\)"):
        score(engine, "mnli", [question(0, "x")])


# ------------------------------------------------------------------ tokenizers


@pytest.mark.parametrize(
    ("changes", "works"),
    [
        ({"bos_token": None}, True),
        ({"eos_token": None}, True),
        ({"bos_token": None, "eos_token": None}, False),
    ],
)
@pytest.mark.parametrize("task", ["wmdp_bio", "mini_gsm8k"])
def test_tokenizers_that_lack_a_token(
    task: str, changes: dict[str, None], works: bool, long_model: "PreTrainedModel"
) -> None:
    tokenizer = make_tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    answer: dict[str, Any] = {"answer": "#### 3"} if task == "mini_gsm8k" else {}
    rows = [{**question(n, "x"), **answer} for n in (0, 1)]
    ask: Callable[[], Any] = lambda: build(tokenizer, task, {"rows": rows})  # noqa: E731
    if works:
        engine = make_engine("hf", tokenizer, long_model)
        assert len(ask().score(engine)) >= 2
        return
    with pytest.raises(ModelError, match=r"neither .*set eos_token or bos_token") as caught:
        ask()
    assert "\n" not in str(caught.value)
