"""The adapter against lm-eval's own transformers backend: the same items, numbers and texts."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import pytest
import torch
from doubles import make_tokenizer, tiny_llama
from engines import ENGINES, make_engine
from places import MINI_TARGET

from ilubench.data.mini.world import build_tables
from ilubench.interfaces import Engine, Ids, Row, SampleScore, ScoreContext
from ilubench.models.checkpoints import load_model
from ilubench.models.tokenizers import build_tokenizer, load_tokenizer
from ilubench.records.estimators import estimate
from ilubench.scoring.scorers.lm_eval import LmEval

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


CHOICE = ("letters", "topics", "facts", "shown", "first", "bare", "blank")
"""Letters; words; strings; with drawn and with the first examples; no prompt; two prompts."""

_COMMON = "output_type: multiple_choice\ntest_split: test\nmetric_list: [{metric: acc}]\n"
_FACTS = (
    f'{_COMMON}doc_to_text: "Question: {{{{question}}}}\\nAnswer:"\n'
    'doc_to_choice: "{{choices}}"\ndoc_to_target: answer\n'
)
_TOPICS = (
    f'{_COMMON}doc_to_text: "News: {{{{text}}}}\\nTopic:"\ndoc_to_target: label\n'
    "doc_to_choice: [World, Sports, Business, Technology]\n"
)
_HALF = _TOPICS.replace("[{metric: acc}]", "[{metric: acc}, {metric: acc_norm}]")
_LETTERS = (
    f'{_COMMON}doc_to_text: "{{{{question}}}}\\nA. {{{{choices[0]}}}}\\nB. {{{{choices[1]}}}}\\n'
    'C. {{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"\n'
    "doc_to_choice: [A, B, C, D]\ndoc_to_target: answer\n"
)
TASKS = {
    "letters": _LETTERS,
    "topics": _TOPICS,
    "facts": _FACTS,
    "shown": f"{_FACTS}num_fewshot: 2\nfewshot_split: more\n",
    "first": f"{_TOPICS}num_fewshot: 2\nfewshot_split: more\n"
    "fewshot_config: {sampler: first_n}\n",
    "bare": _FACTS.replace('"Question: {{question}}\\nAnswer:"', '""'),
    "blank": f"{_COMMON}doc_to_text: !function cut.number\ndoc_to_choice: !function cut.starts\n"
    "doc_to_target: !function cut.rest\n",
    "sums": "output_type: generate_until\ntest_split: test\nmetric_list: [{metric: exact_match}]\n"
    'doc_to_text: "Problem: {{question}}\\nSolution:"\ndoc_to_target: "{{answer}}"\n'
    "generation_kwargs: {until: [Problem, '='], do_sample: false, max_gen_toks: 12}\n",
    "half_a": f"{_HALF}dataset_name: a\n",
    "half_b": f'{_HALF}dataset_name: b\ndescription: "News of today.\\n\\n"\n',
}
GROUP = """
group: halves
task: [half_a, half_b]
aggregate_metric_list:
  - {metric: acc, weight_by_size: true}
  - {metric: acc_norm, weight_by_size: false}
"""
CUT = """
def number(doc):
    return doc["answer"] % 2

def starts(doc):
    return [f"{doc['question']} {option}" for option in doc["choices"][:2]]

def rest(doc):
    return "of the " + doc["choices"][2]
"""


class Case(NamedTuple):
    tokenizer: "PreTrainedTokenizerBase"
    model: "PreTrainedModel"


def _random(name: str, vocabulary: int) -> "PreTrainedModel":
    """A random model of another architecture, heads of 32."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Qwen2Config, Qwen2ForCausalLM

    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        if name == "neox":
            model: Any = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, tie_word_embeddings=False))
        else:
            model = Qwen2ForCausalLM(Qwen2Config(**shape, num_key_value_heads=1))
    return cast("PreTrainedModel", model.eval())


@cache
def case(name: str) -> Case:
    """Word-level tokens with a beginning token, or byte pairs without one."""
    if name == "mini":
        return Case(load_tokenizer(MINI_TARGET), load_model(MINI_TARGET, "cpu", torch.float32))
    tokenizer: PreTrainedTokenizerBase = make_tokenizer()
    if name in ("llama", "qwen2"):  # mini's words, and letters
        text = [str(row["text"]) for row in build_tables(0)["vocabulary"]]
        tokenizer = build_tokenizer([*text, "A. B. C. D. A B C D", "question Question"])
    if name in ("qwen2", "neox"):
        return Case(tokenizer, _random(name, len(tokenizer)))
    model = tiny_llama(len(tokenizer), tied=name == "llama-tied", seed=5)
    model.config.max_position_embeddings = 512  # rotary positions know no end
    return Case(tokenizer, model)


def choice_tasks(name: str) -> tuple[str, ...]:
    """All of CHOICE; letters are words that mini's vocabulary has not."""
    return CHOICE[1:] if name == "mini" else CHOICE


MODELS = ("mini", "llama", "llama-tied", "qwen2", "neox")


@cache
def rows() -> dict[str, list[Row]]:
    tables = build_tables(0)
    facts = [dict(row) for row in tables["forget_mc"][:60] + tables["retain_mc"][:59]]
    for row in facts:  # two words an option: more than one token in every vocabulary
        words = cast("list[str]", row["choices"])
        row["choices"] = [f"{word} {words[at - 1]}" for at, word in enumerate(words)]
    news = [dict(row) for row in tables["agnews_eval"][:119]]
    halves = [{**row, "subject": "a" if at % 3 else "b"} for at, row in enumerate(news[:110])]
    sums = [dict(row) for row in tables["gsm8k_eval"][:30]]
    of_task = dict.fromkeys(CHOICE, facts[:110])
    of_task |= {"topics": news[:110], "first": news[:110], "sums": sums, "halves": halves}
    of_task |= {"shown examples": facts[110:], "first examples": news[110:]}
    found = cast("dict[str, list[Row]]", of_task)
    assert all(len(found[name]) >= 100 for name in CHOICE)
    assert len(sums) == 30
    return found


def more(name: str) -> list[Row]:
    """Examples that are no items."""
    return rows().get(f"{name} examples", [])


def _lines(path: Path, table: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task files whose own data sets are JSON files."""
    home = tmp_path_factory.mktemp("tasks")
    (home / "cut.py").write_text(CUT, encoding="utf-8")
    for name, text in TASKS.items():
        subject = name.removeprefix("half_")
        if name.startswith("half"):
            table = [row for row in rows()["halves"] if row["subject"] == subject]
        else:
            table = rows()[name]
        files = {"test": str(_lines(home / f"{name}.jsonl", table))}
        if more(name):
            files["more"] = str(_lines(home / f"{name}-more.jsonl", more(name)))
        source = {"data_files": files, "cache_dir": str(home / "cache")}
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {json.dumps(source)}\n"
        (home / f"{name}.yaml").write_text(head + text, encoding="utf-8")
    (home / "halves.yaml").write_text(GROUP, encoding="utf-8")
    return home


_REFERENCES: dict[str, Mapping[str, Any]] = {}


SLOW = ("llama-tied", "neox")
"""Where the tokens come from does not depend on these, as the engines' own tests show."""


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in MODELS]
)
def reference(request: pytest.FixtureRequest, folder: Path) -> tuple[str, Mapping[str, Any]]:
    """What lm-eval itself gets for all tasks: its loader, its data sets, its backend."""
    pytest.importorskip("accelerate", reason="lm-eval's own backend needs it: lm-eval[hf]")
    name = request.param
    if name not in _REFERENCES:
        import lm_eval  # type: ignore[import-untyped, unused-ignore]
        from lm_eval.models.huggingface import HFLM  # type: ignore[import-untyped, unused-ignore]
        from lm_eval.tasks import TaskManager  # type: ignore[import-untyped, unused-ignore]

        found = case(name)
        result = lm_eval.simple_evaluate(
            model=HFLM(
                pretrained=found.model, tokenizer=found.tokenizer, batch_size=32, max_length=512
            ),
            tasks=[*choice_tasks(name), "sums", "halves"],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            bootstrap_iters=0,
        )
        assert result is not None
        _REFERENCES[name] = result
    return name, _REFERENCES[name]


@pytest.fixture(scope="module", autouse=True)
def _forget() -> Iterator[None]:
    yield
    _REFERENCES.clear()
    case.cache_clear()


class Watched:
    """An engine that counts which of its calls are used."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("choices", "logprobs", "generate"):
            self.calls.append(name)
        return getattr(self.engine, name)


def _scores(
    name: str, found: Case, engine: Any, folder: Path, **settings: Any
) -> list[SampleScore]:
    roles = {"rows": rows()[name if name in rows() else "halves"], "more": more(name)}
    context = ScoreContext(rows=lambda role: roles[role], publish_text=lambda _: True)
    if more(name):
        settings["fewshot"] = "more"
    scorer = LmEval(task=str(folder / f"{name}.yaml"), data="rows", **settings)
    return scorer.build(found.tokenizer, context).score(cast("Engine", engine))


def _mean(scores: Sequence[SampleScore]) -> float:
    return sum(score.value for score in scores) / len(scores)


def _same_choices(scores: Sequence[SampleScore], samples: Sequence[Mapping[str, Any]]) -> float:
    """Return the largest difference of two log-likelihoods."""
    largest = 0.0
    expected = {sample["doc"]["id"]: sample for sample in samples}
    assert len(scores) == len(expected)
    for score in scores:
        sample = expected[score.item.rpartition("/")[2]]
        theirs = [answers[0][0] for answers in sample["resps"]]
        assert score.choices == pytest.approx(theirs, abs=1e-4)
        largest = max(largest, *(abs(a - b) for a, b in zip(score.choices, theirs, strict=True)))
        first, second = sorted(theirs, reverse=True)[:2]
        assert first - second > 1e-5, f"{score.item}: a tie that rounding decides; other seeds"
        assert score.value == sample["acc"]
    return largest


@pytest.mark.parametrize("engine_name", ENGINES)
def test_every_task_equals_lm_eval(
    engine_name: str,
    reference: tuple[str, Mapping[str, Any]],
    folder: Path,
    record_property: Callable[[str, object], None],
) -> None:
    name, theirs = reference
    found = case(name)
    engine = Watched(make_engine(engine_name, found.tokenizer, found.model))
    for task in choice_tasks(name):
        engine.calls.clear()
        scores = _scores(task, found, engine, folder)
        assert len(scores) >= 100
        options = OPTIONS.get(task, "")
        one = [len(found.tokenizer.encode(f" {o}", add_special_tokens=False)) == 1 for o in options]
        single = bool(options) and all(one)
        assert engine.calls == ["choices" if single else "logprobs"], task
        largest = _same_choices(scores, theirs["samples"][task])
        record_property(task, f"{len(scores)} items, log-likelihoods within {largest:.1e}")
        assert _mean(scores) == theirs["results"][task]["acc,none"], task

    written = {score.item: score.text for score in _scores("sums", found, engine, folder)}
    assert written == {s["doc"]["id"]: s["resps"][0][0] for s in theirs["samples"]["sums"]}
    assert len(set(written.values())) > 1

    scores = _scores("halves", found, engine, folder)
    samples = [*theirs["samples"]["half_a"], *theirs["samples"]["half_b"]]
    _same_choices([s for s in scores if s.metric == "acc"], samples)
    estimators = LmEval(task=str(folder / "halves.yaml"), data="rows").metrics()
    assert {name: e.kind for name, e in estimators.items()} == KINDS
    for metric, estimator in estimators.items():
        mine = [score for score in scores if score.metric == metric]
        groups = [score.group for score in mine]
        assert groups == ["half_a"] * 73 + ["half_b"] * 37
        values = [score.value for score in mine]
        mean, _ = estimate(estimator, values, groups, [""] * len(mine))
        assert mean == pytest.approx(theirs["groups"]["halves"][f"{metric},none"], abs=1e-12)
    engine.close()


KINDS = {"acc": "mean", "acc_norm": "group_mean"}
WORDS = ("World", "Sports", "Business", "Technology")
OPTIONS: Mapping[str, Sequence[str]] = {"letters": "ABCD", "topics": WORDS, "first": WORDS}


def test_the_cases_differ() -> None:
    begins: set[bool] = set()
    for name in MODELS:
        tokenizer = case(name).tokenizer
        ids: Ids = tokenizer.encode("News: World")
        begins.add(ids[0] == tokenizer.bos_token_id)
    assert begins == {True, False}
