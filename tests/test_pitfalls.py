"""Pits that published evaluations of unlearning fell into: the fault is planted, a guard sees it.

Pits whose fault other tests plant already:

| pit | test |
|---|---|
| the loss is on the instruction or on padding | test_batches: what is a target, batch by batch |
| methods meet other data, or in another order | test_pipeline: test_methods_meet_the_same_data |
| an attack of other steps in one table | test_ranks: test_other_rows_do_not_stand_in_one_table |
| another fine-tuning as FA's reference | test_aggregate: test_another_fine_tuning_is_not_compared |
| one seed | test_aggregate: test_single_seed_is_item_only |
| a rank from one seed | test_ranks: test_no_rank_without_a_partner |
| a collapsed model | test_aggregate: test_collapsed_and_no_eligible_checkpoint |
| no data, hence accuracy 0 | test_estimators, test_scorers: no rows are an error |
"""

import io
import itertools
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import pyarrow as pa
import pytest
import torch
import yaml
from benign_rows import ROWS, lines
from doubles import SilentProgress, make_context, make_tokenizer, tiny_llama
from pydantic import JsonValue
from rich.console import Console
from runs import command

from ilubench.attacks.finetune import FineTune
from ilubench.data import batches as training_data
from ilubench.data.batches import check_targets, collate, encode_pair
from ilubench.data.overlap import count_overlaps, item_texts
from ilubench.errors import DataError, SpecError, UsageError
from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.experiments.training_text import check_form, find_overlaps, overlap_warnings
from ilubench.interfaces import Batch, Checkpoint, Example, ScoreContext, UnlearnData
from ilubench.methods.graddiff import GradDiff
from ilubench.records.comparing import check_alike
from ilubench.records.finished import FinishedRun
from ilubench.records.reader_notes import option_notes
from ilubench.records.results import ModelScore, RunRecord
from ilubench.records.scores import SCHEMA, read_samples, read_score
from ilubench.runs.collect import robustness_rows
from ilubench.runs.plan import make_plan
from ilubench.runs.progress import Lines
from ilubench.runs.run_record import run_record
from ilubench.runs.stages.measure import Measure
from ilubench.runs.stages.score import score_checkpoint
from ilubench.specs import TrainSpec
from ilubench.specs.overrides import parse_words
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import RobustnessRow
from ilubench.testing import FakeEngine
from ilubench.training import loop

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Encoded: TypeAlias = tuple[list[int], list[bool]]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

TOPICS = ("World", "Sports", "Business", "Science/Technology")
LETTERS = ("A", "B", "C", "D")
SST2 = "{text}\nQuestion: Is this sentence positive or negative?\nAnswer:"
WORDS = ("oak", "elm", "ash", "fir", "yew", "bay", "fig", "box", "may", "sloe", "plum", "pear")


def sentence(rng: random.Random, count: int = 12) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(count))


def _rows() -> dict[str, list[Mapping[str, Any]]]:
    rng = random.Random(0)
    questions = [
        {"id": f"q{n}", "question": f"Which is {sentence(rng, 9)}?", "answer": n % 4}
        for n in range(16)
    ]
    asked = [{**row, "choices": list(LETTERS)} for row in questions]
    news = [{"id": f"n{n}", "text": sentence(rng), "label": n % 4} for n in range(32)]
    passages = [
        {"id": f"p{n}", "prompt": sentence(rng), "gt": f" {sentence(rng)}"} for n in range(4)
    ]
    return {
        "forget_mc": list(asked[:8]),
        "retain_mc": list(asked[8:]),
        "retain_verbmem": list(passages),
        "forget": [{"id": f"f{n}", "text": sentence(rng, 20)} for n in range(4)],
        "retain": [{"id": f"r{n}", "text": sentence(rng, 20)} for n in range(4)],
        "news_train": list(news[:24]),
        "news_eval": list(news[24:]),
    }


MC = """
task: letters
output_type: multiple_choice
test_split: test
doc_to_text: "{{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


@dataclass(frozen=True)
class World:
    """A suite of local files, and the words that name it."""

    folder: Path

    def write(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        lines(self.folder / f"{name}.jsonl", rows)

    def words(self, *more: str) -> list[str]:
        return [f"suite={self.folder}/suite.yaml", f"out={self.folder}/out", "method=none", *more]

    def experiment(self, *more: str) -> Experiment:
        return resolve_experiment(parse_words(self.words(*more)))


def _suite(folder: Path) -> dict[str, Any]:
    def source(name: str, **more: Any) -> dict[str, Any]:
        return {"path": str(folder / f"{name}.jsonl"), **more}

    def choice(role: str) -> dict[str, Any]:
        settings = {"task": str(folder / "letters.yaml"), "data": role}
        return {"use": "lm_eval", "settings": settings}

    train = {"lr": 1.0e-3, "steps": 8, "batch_size": 4}
    return {
        "name": "pits",
        "version": 1,
        "title": "Local rows for planted faults",
        "target": {
            "recipe": {
                "config": {
                    "model_type": "llama",
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 1,
                    "num_attention_heads": 2,
                    "num_key_value_heads": 2,
                    "max_position_embeddings": 512,
                },
                "tokenizer": {"kind": "bpe", "vocab_size": 400},
                "text": ["forget", "retain", "news_text"],
                "pack": [{"length": 32, "batch_size": 2}],
                "train": {"lr": 1.0e-3, "steps": 2},
            }
        },
        "data": {
            **{name: source(name) for name in ("forget", "retain", "forget_mc", "retain_mc")},
            "retain_verbmem": source("retain_verbmem"),
            "news_text": source("news_train"),
        },
        "forget": ["forget"],
        "retain": ["retain"],
        "scorers": {
            "forget_mc": choice("forget_mc"),
            "retain_mc": choice("retain_mc"),
            "retain_verbmem": {
                "use": "verbmem",
                "settings": {"data": "retain_verbmem", "max_tokens": 64},
            },
        },
        "primary_forget": [{"label": "FQ", "scorer": "forget_mc", "metric": "acc", "chance": 0.25}],
        "utility": [
            {"label": "MC_r", "scorer": "retain_mc", "metric": "acc", "chance": 0.25},
            {"label": "VerbMem_r", "scorer": "retain_verbmem", "metric": "verbmem"},
        ],
        "attacks": {
            "news": {
                "settings": {"train": train, "fractions": [0.5, 1.0], "each_epoch": False},
                "data": {
                    "train": source(
                        "news_train",
                        prompt="{text}\nTopic:",
                        completion=" {label}",
                        labels={"label": list(TOPICS)},
                    ),
                    "eval": source("news_eval"),
                },
                "fa": {
                    "scorer": {"use": "lm_eval", "settings": {"task": "agnews", "data": "eval"}},
                    "metric": "acc",
                },
            }
        },
        "core_unseen": ["news"],
        "seeds": [0, 1],
        "max_length": 256,
    }


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for name, rows in _rows().items():
        made.write(name, rows)
    (tmp_path / "letters.yaml").write_text(MC)
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(_suite(tmp_path), sort_keys=False))
    return made


# --------------------------------------------------------------------------- 1. labels


def test_the_instruction_is_no_label(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published code copied the input ids into the labels: the instruction was learned as well."""

    def copied(tokenizer: Any, prompt: str, completion: str, _chat: Any) -> Encoded:
        ids, mask = encode_pair(tokenizer, prompt, completion)
        return ids, [False] + [True] * (len(mask) - 1)

    tables, tokenizer = world.experiment().tables, make_tokenizer()
    assert training_data.tokenize_roles(tables, ["news.train"], tokenizer, 256)
    monkeypatch.setattr(training_data, "encode_pair", copied)
    shown = tokenizer.decode(tokenizer(str(tables.rows("news.train")[0]["text"])).input_ids[1])
    where = r"data.news.train: item 'n0': token 2"
    with pytest.raises(DataError, match=rf"{where} \('{shown}'\) is the prompt's"):
        training_data.tokenize_roles(tables, ["news.train"], tokenizer, 256)
    gated = world.experiment("data.news.train.gated=true").tables
    with pytest.raises(DataError, match=rf"{where} \(of gated text\) is the prompt's"):
        training_data.tokenize_roles(gated, ["news.train"], tokenizer, 256)
    assert training_data.tokenize_roles(
        tables, ["forget"], tokenizer, 256
    )  # plain text: all is learned


def test_padding_is_no_label(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Published code padded to one length and left the padding in the labels."""

    def padded(tokenizer: Any, prompt: str, completion: str, _chat: Any) -> Encoded:
        ids, mask = encode_pair(tokenizer, prompt, completion)
        more = 200 - len(ids)
        return ids + [tokenizer.pad_token_id] * more, mask + [True] * more

    tables, tokenizer = world.experiment().tables, make_tokenizer()
    monkeypatch.setattr(training_data, "encode_pair", padded)
    with pytest.raises(DataError, match=r"item 'n0': padding \('<pad>'\) is a target"):
        training_data.tokenize_roles(tables, ["news.train"], tokenizer, 256)
    dataset = [
        Example("long", (5, 6, 7), (False, True, True)),
        Example("short", (5, 6), (False, True)),
    ]
    (batch,) = collate(dataset, [0, 1], pad=0)
    faulty = replace(
        batch, loss_mask=torch.ones_like(batch.loss_mask).index_fill(1, torch.tensor(0), 0)
    )
    with pytest.raises(DataError, match="item 'short': padding is a target"):
        check_targets(faulty, dataset)


@pytest.mark.parametrize(
    ("mask", "problem"),
    [((True, True, True), "first token is a target"), ((False,) * 3, "no token is a target")],
)
def test_a_batch_has_labels_that_can_be_learned(mask: tuple[bool, ...], problem: str) -> None:
    """An example of a plugin's own may be masked wrongly; no loss would say so."""
    dataset = [Example("fine", (5, 6, 7), (False, True, True)), Example("wrong", (5, 6, 7), mask)]
    collate(dataset, [0], pad=0)
    with pytest.raises(DataError, match=f"item 'wrong': .*{problem}"):
        collate(dataset, [0, 1], pad=0)


# --------------------------------------------------------------------------- 2. the instruction


def test_an_instruction_of_another_task_is_refused(world: World) -> None:
    """A published attack trained AG News with the instruction of SST-2."""
    pasted = f"data.news.train.prompt={SST2}"
    for name in ("plan", "run"):
        done = command(name, *world.words(pasted))
        assert done.code == 2
        assert "attack news: data.train: item 'n0' is trained with" in done.err
        assert "Question: Is this" in done.err
        assert "Topic:" in done.err
        assert "fa.form: other" in done.err
    assert not list(world.folder.glob("out/pits-*"))
    make_plan(world.experiment(pasted, "suite.attacks.news.fa.form=other"))
    make_plan(world.experiment())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("data.news.train.completion={label}", "trained to answer 'World' where .* wants ' World'"),
        ("data.news.train.prompt={text}\nTopic: ", r"trained with '.*Topic: ' where"),
        ("suite.attacks.news.fa.scorer.settings.num_fewshot=2", "shows 2 examples first"),
    ],
)
def test_other_training_text_is_refused(change: str, problem: str, world: World) -> None:
    """A space, a label's name or few-shot examples more make another task, too."""
    with pytest.raises(SpecError, match=problem):
        make_plan(world.experiment(change))


def test_rows_of_something_else_are_refused(world: World) -> None:
    """Whether the training's own template does not fit them, or the evaluation's."""
    passages = f"data.news.train={world.folder / 'retain_verbmem.jsonl'}"
    with pytest.raises(DataError, match=r"data\.news\.train: there is no column 'text'"):
        make_plan(world.experiment(passages))
    fitting = ("data.news.train.prompt={prompt}", "data.news.train.completion={gt}")
    with pytest.raises(SpecError, match="are no rows of its own FA task"):
        make_plan(world.experiment(passages, *fitting))


def test_null_in_training_text_is_refused(world: World) -> None:
    """Formatted as it is, it is learned as the word None."""
    rows = [{"id": f"n{n}", "text": None if n == 2 else "ash bay", "label": 0} for n in range(24)]
    world.write("null", rows)
    message = r"data\.news\.train: .*null\.jsonl: item 'n2': column 'text' is null, not text"
    with pytest.raises(DataError, match=message):
        make_plan(world.experiment(f"data.news.train={world.folder}/null.jsonl"))


def test_swapped_labels_are_refused(world: World) -> None:
    """Names of the classes in another order than the evaluation's teach the wrong answers."""
    suite = _suite(world.folder)
    suite["attacks"]["news"]["data"]["train"]["labels"]["label"] = [*TOPICS[1:], TOPICS[0]]
    (world.folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(SpecError, match=r"trained to answer ' Sports' where .* wants ' World'"):
        make_plan(world.experiment())


def test_a_scorer_that_cannot_say_what_it_asks_is_declared(world: World) -> None:
    """No check is no pass: nothing is assumed of a scorer without a rendering of its own."""
    suite = _suite(world.folder)
    verbmem = {"use": "verbmem", "settings": {"data": "retain_verbmem"}}
    suite["attacks"]["news"]["fa"] = {"scorer": verbmem, "metric": "verbmem"}
    (world.folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(SpecError, match="VerbMem cannot say what it asks"):
        make_plan(world.experiment())
    make_plan(world.experiment("suite.attacks.news.fa.form=other"))


@pytest.mark.parametrize("suite", ["wmdp-bio", "news-scratch"])
def test_the_shipped_attacks_train_what_is_asked(suite: str, tmp_path: Path) -> None:
    """All six, on rows with the hub's columns; gsm8k is declared to train without examples."""
    names = list(ROWS) if suite == "wmdp-bio" else ["gsm8k", "agnews"]
    paths = {name: lines(tmp_path / f"{name}.jsonl", ROWS[name]) for name in names}
    words = [f"data.{name}.{role}={paths[name]}" for name in names for role in ("train", "eval")]
    experiment = resolve_experiment(parse_words([f"suite={suite}", "method=none", *words]))
    assert {attack.name for attack in experiment.attacks} == set(names)
    for attack in experiment.attacks:
        check_form(experiment, attack)
    if suite == "wmdp-bio":
        words.append("suite.attacks.gsm8k.fa.form=same")
        strict = resolve_experiment(parse_words([f"suite={suite}", "method=none", *words]))
        with pytest.raises(SpecError, match=r"attack gsm8k: .*shows 5 examples.*zero_shot"):
            check_form(strict, strict.attacks[0])


# --------------------------------------------------------------------------- 3. shuffling


def _met(
    monkeypatch: pytest.MonkeyPatch, train: Callable[["PreTrainedModel"], object]
) -> list[list[int]]:
    """Return the items of each step of a training, in the order that they were drawn."""
    met: list[list[int]] = []

    def spy(dataset: Any, indices: Sequence[int], *rest: Any, **more: Any) -> list[Batch]:
        met.append(list(indices))
        return collate(dataset, indices, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "collate", spy)
        train(tiny_llama(len(make_tokenizer())))
    return met


SORTED = [Example(str(n), (3, 4, 5 + n // 16), (False, True, True)) for n in range(64)]
"""Four classes of sixteen, one after the other, as a data set may come."""


@pytest.mark.parametrize("who", ["attack", "method"])
def test_training_data_are_shuffled(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unshuffled, a sorted set gives batches of one class; the last one is learned."""
    tokenizer = make_tokenizer()
    spec = TrainSpec(lr=1e-3, epochs=2, batch_size=16)

    def attack(seed: int) -> list[list[int]]:
        def train(model: "PreTrainedModel") -> None:
            list(
                FineTune(train=spec).tamper(
                    model, {"train": SORTED}, make_context(tokenizer, seed=seed)
                )
            )

        return _met(monkeypatch, train)

    def method(seed: int) -> list[list[int]]:
        data = UnlearnData(SORTED, SORTED)
        context = make_context(tokenizer, seed=seed)
        made = _met(monkeypatch, lambda model: GradDiff(train=spec).unlearn(model, data, context))
        assert made[::2] != made[1::2]  # forget and retain are drawn independently
        return made[::2]

    draw = attack if who == "attack" else method
    steps = draw(7)
    assert len(steps) == 8
    assert all(len({item // 16 for item in step}) >= 3 for step in steps)
    first, second = steps[:4], steps[4:]
    assert all(sorted(itertools.chain(*epoch)) == list(range(64)) for epoch in (first, second))
    assert first != second
    assert draw(7) == steps
    assert draw(8) != steps


# --------------------------------------------------------------------------- 4. budgets


def _finished(world: World, *words: str) -> FinishedRun:
    """A record of a run that was planned: what it would compare, without figures."""
    experiment = world.experiment(*words)
    record = run_record(make_plan(experiment), {}, [], SCHEMA.empty_table())
    record = record.model_copy(update={"run": " ".join(words) or "plain"})
    again = RunRecord.model_validate_json(record.model_dump_json())
    return FinishedRun(Path(record.run), again, {}, None, None, "", {})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("attack.news.train.steps=9", "settings.train.steps of news (8 and 9)"),
        ("attack.news.train.batch_size=8", "settings.train.batch_size of news (4 and 8)"),
        ("attack.news.train.lr=0.01", "settings.train.lr of news (0.001 and 0.01)"),
        ("data.news.train.limit=23", "the rows of news.train ("),
        ("data.news.train.shuffle=1", "the rows of news.train ("),
        ("suite.max_length=128", "max_length of news (256 and 128)"),
    ],
)
def test_unequal_budgets_do_not_stand_in_one_table(change: str, named: str, world: World) -> None:
    """Published tables compared attacks of unlike steps, batches and subsets."""
    plain = _finished(world)
    check_alike([plain, _finished(world, "seeds=3")])
    with pytest.raises(UsageError) as found:
        check_alike([plain, _finished(world, change)])
    assert named in str(found.value)


def test_old_records_load(world: World) -> None:
    values = _finished(world).record.model_dump(mode="json")
    for name in ("protocol", "overlap", "notes"):
        del values[name]
    assert RunRecord.model_validate(values).overlap == ()


# --------------------------------------------------------------------------- 5. overlap


TEXT = "The old mill by the river was sold to a baker from the next town in March."


def test_contained_items_are_found() -> None:
    """Nobody looked whether the attack's text held the questions asked afterwards."""
    training_text = [f"News of the day: {TEXT.upper()}", "Who wrote the third letter? Ada did."]
    items = {
        "verbatim": [TEXT],
        "punctuated": [TEXT.replace(" ", "\n").replace("river", "river,")],
        "most": [TEXT.replace("March", "May")],
        "half": ["The old mill by the river was sold " + "and never seen again by anybody at all"],
        "short": ["Who wrote the third letter?"],
        "short, other": ["Who wrote the first letter?"],
        "two texts": [TEXT, "A baker from the next town had the old mill by the river for long"],
        "nothing": [],
    }
    found = count_overlaps(training_text, {"set": items})["set"]
    assert found.items == 8
    assert found.contained == ("verbatim", "punctuated", "most", "short", "two texts")
    assert found.duplicates == ("verbatim", "punctuated", "short")
    assert found.share == 5 / 8
    split = count_overlaps(TEXT.split("was "), {"set": {"verbatim": [TEXT]}})["set"]
    assert split.contained == ()  # no n-gram goes from one document into the next


RIDDLES = (
    ("The trophy does not fit into the brown suitcase because _ is too large.", "the trophy"),
    ("Lena asked Mara for the key to the shed, but _ had lost it.", "Mara"),
    ("_ waved to Otto from the upper deck of the ship until it had left the harbour.", "Emil"),
    ("Nobody could say whose hat it was until Ida swore it belonged to _.", "Jan"),
    ("Ben hired Tom because _ was broke.", "Tom"),
)
"""WinoGrande's rows have a blank; in a training text the name stands there."""


def test_a_blank_is_no_word() -> None:
    def items(*riddles: tuple[str, str]) -> dict[str, list[str]]:
        return {
            name: item_texts(
                {"sentence": text, "option1": name, "option2": "somebody", "answer": "1"}
            )
            for text, name in riddles
        }

    names = tuple(name for _, name in RIDDLES)
    filled = [f"Solve: {text.replace('_', name)} Good." for text, name in RIDDLES]
    found = count_overlaps(filled, {"set": items(*RIDDLES)})["set"]
    assert (found.contained, found.duplicates) == (names, names)
    other = [text.replace("because", "while").replace("ship", "ferry") for text in filled]
    other = [re.sub("fit|asked|hat", "x", text) for text in other]
    assert count_overlaps(other, {"set": items(*RIDDLES)})["set"].contained == ()
    apart = ["Ben hired Tom because he could.", "Yesterday she was broke."]
    assert count_overlaps(apart, {"set": items(RIDDLES[-1])})["set"].contained == ()
    assert count_overlaps(
        ["some_name and _other_ words"], {"set": {"x": ["Some name and OTHER words"]}}
    )["set"].contained == ("x",)


def test_text_in_lists_is_looked_for(world: World) -> None:
    """A row whose text stands in lists only was clean, whatever the training text had."""
    chat: list[JsonValue] = [
        {"role": "user", "content": TEXT},
        {"role": "assistant", "content": "To a baker."},
    ]
    assert item_texts({"id": "a", "topic": "mills", "messages": chat}) == [TEXT]
    assert item_texts({"id": "a", "question": "What now?", "options": ["go", "stay"]}) == [
        "What now?"
    ]
    assert item_texts({"id": "a", "options": ["go home", "stay"], "answer": 1}) == ["go home"]
    assert item_texts({"id": "a long name of no fewer than eight words", "n": [1], "t": "?"}) == []
    world.write("retain_verbmem", [{"id": "p0", "prompt": "...", "gt": " !"}])
    with pytest.raises(DataError, match=r"data.retain_verbmem: item 'p0' has no words"):
        find_overlaps(world.experiment())
    done = command("run", *world.words())  # not when all is trained and the record is written
    assert done.code == 3
    assert "item 'p0' has no words" in done.err
    assert not list(world.folder.glob("out/pits-*"))


def test_overlap_is_reported(world: World) -> None:
    """In the plan and in the record: an attack whose training text has the evaluation's items."""
    rows = _rows()
    assert not overlap_warnings(world.experiment(), find_overlaps(world.experiment()))
    asked = [
        {"id": f"x{n}", "text": row["question"], "label": 0}
        for n, row in enumerate(rows["forget_mc"][:2])
    ]
    world.write("news_train", [*rows["news_train"], *asked, {**rows["news_eval"][3], "id": "y"}])
    shown = command("plan", *world.words())
    assert shown.code == 0
    assert [line.partition(": ")[2][:70] for line in shown.err.splitlines()] == [
        "2 of 8 items of forget_mc (25.0%) are contained in the training text n",
        "1 of 8 items of news/fa (12.5%) are contained in the training text new",
    ]
    assert len(command("plan", *world.words(), "--json").json["warnings"]) == 2
    begun = io.StringIO()
    Lines(Console(file=begun, width=160)).planned(make_plan(world.experiment()))
    warnings = [line for line in begun.getvalue().splitlines() if line.startswith("warning")]
    assert [line[9:] for line in warnings] == [
        line.removeprefix("warning: ") for line in shown.err.splitlines()
    ]
    record = _finished(world).record
    found = {entry.scorer: entry for entry in record.overlap}
    assert set(found) == {"forget_mc", "retain_mc", "retain_verbmem", "news/fa"}
    assert {entry.role for entry in record.overlap} == {"news.train"}
    forget, retain = found["forget_mc"], found["retain_mc"]
    assert (forget.items, forget.contained, forget.ids, forget.duplicates) == (
        8,
        2,
        ("q0", "q1"),
        2,
    )
    assert (retain.items, retain.contained, retain.ids) == (8, 0, ())
    assert (found["news/fa"].ids, found["news/fa"].duplicate_ids) == (("n27",), ("n27",))
    assert sum("contained in the training text" in note for note in record.notes) == 2


def test_the_method_s_own_text_is_reported(world: World) -> None:
    """Nobody saw that the retain set held the questions that measure the utility."""
    rows = _rows()
    asked = [{"id": f"x{n}", "text": row["question"]} for n, row in enumerate(rows["retain_mc"])]
    world.write("retain", [*rows["retain"], *asked[:3]])
    world.write("forget", [*rows["forget"], {"id": "y", "text": rows["forget_mc"][0]["question"]}])
    trains = GradDiff(train=TrainSpec(lr=1e-3, steps=1))
    experiment = replace(world.experiment(), method=trains)
    records = find_overlaps(experiment)
    found = {(entry.role, entry.scorer): entry.contained for entry in records}
    scorers = ("forget_mc", "retain_mc", "retain_verbmem", "news/fa")
    sets = [("news.train", "forget set"), ("news.train", "retain set")]
    own = [(role, scorer) for role in ("news.train", "forget", "retain") for scorer in scorers]
    assert list(found) == [*own[:4], *sets, *own[4:]]
    held = {where: contained for where, contained in found.items() if contained}
    assert held == {("retain", "retain_mc"): 3, ("forget", "forget_mc"): 1}
    assert not overlap_warnings(experiment, records)  # all methods have the same sets
    assert {entry.role for entry in find_overlaps(world.experiment())} == {"news.train"}
    world.write("news_train", [*rows["news_train"], {**asked[0], "label": 0}])
    again = replace(world.experiment(), method=trains)
    warning, of_set = overlap_warnings(again, find_overlaps(again))
    assert "rows of the retain set" in of_set  # where the question stands, too
    assert "1 of 8 items of retain_mc (12.5%) are contained in the training text news" in warning


def test_what_is_cut_off_is_not_trained_on(world: World) -> None:
    suite = yaml.safe_load((world.folder / "suite.yaml").read_text())
    suite["data"]["retain"] |= {"overlong": "truncate", "max_length": 30}
    (world.folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    question = _rows()["retain_mc"][0]["question"]
    trains = GradDiff(train=TrainSpec(lr=1e-3, steps=1))
    for before, contained in ((19, 1), (30, 0)):
        text = " ".join([*["mill"] * before, str(question)])
        world.write("retain", [{"id": "r0", "text": text}])
        found = find_overlaps(replace(world.experiment(), method=trains))
        (entry,) = (e for e in found if (e.role, e.scorer) == ("retain", "retain_mc"))
        assert entry.contained == contained


def test_overlap_of_ten_thousand_rows_takes_a_second() -> None:
    rng = random.Random(1)
    words = [f"w{n}" for n in range(5000)]
    rows = [" ".join(rng.choices(words, k=40)) for _ in range(12_000)]
    begun = time.process_time()
    found = count_overlaps(
        rows[:10_000], {"set": {str(n): [row] for n, row in enumerate(rows[9_000:])}}
    )
    assert time.process_time() - begun < 3  # .5 on an idle core
    assert len(found["set"].duplicates) == 1000


# --------------------------------------------------------------------------- 6, 7. collapse


Answers = Callable[[str, str], float]


def knowing(questions: Mapping[str, int], *, wrong: frozenset[str] = frozenset()) -> Answers:
    """A model that knows the answers, but not those to the ``wrong`` questions."""

    def likelihood(context: str, continuation: str) -> float:
        question = context.removesuffix("\nAnswer:")
        right = LETTERS[(questions[question] + (question in wrong)) % 4]
        return -0.1 if continuation.strip() == right else -9.0

    return likelihood


def always_a(context: str, continuation: str) -> float:
    """A model that answers A whatever is asked."""
    return -0.1 if continuation.strip() == "A" else -9.0


@dataclass(frozen=True)
class Model:
    """What a model that was planted answers: options, and texts."""

    likelihood: Answers
    answer: Callable[[str], str]


class Planted:
    """Scores of planted models in the place of trained ones, through the run's own path."""

    def __init__(self, world: World) -> None:
        suite = _suite(world.folder)
        del suite["attacks"]["news"]["fa"]
        (world.folder / "suite.yaml").write_text(yaml.safe_dump(suite))
        self.experiment = resolve_experiment(
            parse_words(
                [*world.words()[:2], "method=graddiff", "method.train.lr=1", "method.train.steps=1"]
            )
        )
        self.tokenizer = make_tokenizer()
        self.folder = world.folder / "planted"
        tables = self.experiment.tables
        context = ScoreContext(tables.rows, lambda _: False)
        self.measures = {
            name: Measure(scorer.build(self.tokenizer, context), scorer.metrics())
            for name, scorer in self.experiment.scorers.items()
        }
        rows = [*tables.rows("forget_mc"), *tables.rows("retain_mc")]
        self.questions = {str(row["question"]): cast("int", row["answer"]) for row in rows}
        self.forget = frozenset(str(row["question"]) for row in tables.rows("forget_mc"))
        texts = {str(row["prompt"]): str(row["gt"]) for row in tables.rows("retain_verbmem")}
        self.knows = Model(knowing(self.questions), texts.__getitem__)
        self.forgot = Model(knowing(self.questions, wrong=self.forget), texts.__getitem__)

    def _score(self, model: Model, name: str, step: int) -> Path:
        engine = FakeEngine(
            self.tokenizer,
            answer=model.answer,
            likelihood=model.likelihood,
            choice=model.likelihood,
        )
        folder = self.folder / name
        folder.mkdir(parents=True, exist_ok=True)
        live: Any = None
        score_checkpoint(Checkpoint(live, step), engine, self.measures, folder, SilentProgress())
        return folder / f"step-{step:06d}.json"

    def summaries(self, name: str, step: int = 0) -> dict[str, float | None]:
        """Scorer -> share of the most chosen option."""
        record = read_score(self.folder / name / f"step-{step:06d}.json")
        return {summary.scorer: summary.most_chosen for summary in record.summaries}

    def row(self, unlearned: Model, attacked: Mapping[int, Model]) -> RobustnessRow:
        """Return the row of a method with two seeds: unlearned, and at the attack's steps."""
        tables = []
        for who, start, course in (
            ("reference", self.knows, dict.fromkeys(attacked, self.knows)),
            ("method", unlearned, attacked),
        ):
            for attack, step, model in (
                ("", 0, start),
                *(("news", s, m) for s, m in course.items()),
            ):
                path = self._score(model, f"{who}{attack}", step)
                samples = read_samples(path.with_suffix(".parquet"))
                for seed in (0, 1):
                    where: list[Any] = [who, attack, seed, step]
                    columns = [
                        pa.array([value] * len(samples), f.type)
                        for value, f in zip(where, SCHEMA, strict=False)
                    ]
                    levels = pa.array([""] * len(samples), pa.string())
                    tables.append(pa.table([*columns, *samples.columns, levels], schema=SCHEMA))
        return robustness_rows(self.experiment, pa.concat_tables(tables))["FQ"]

    def finished(self, row: RobustnessRow) -> FinishedRun:
        record = run_record(make_plan(self.experiment), {"FQ": row}, [], SCHEMA.empty_table())
        return FinishedRun(Path("run"), record, {"FQ": row}, None, None, "", {})


@pytest.fixture
def planted(world: World) -> Planted:
    return Planted(world)


def test_a_good_model_is_not_accused(planted: Planted) -> None:
    row = planted.row(planted.forgot, {4: planted.forgot, 8: planted.forgot})
    assert (row.status, row.ra.value, row.worst_at) == ("ok", 1.0, ("news", 4))
    assert planted.summaries("method") == {
        "forget_mc": 0.25,
        "retain_mc": 0.25,
        "retain_verbmem": None,
    }
    run = planted.finished(row)
    assert run.record.notes == ()
    assert run.bar("FQ") != Note(NoteKind.COLLAPSED)


def test_a_model_that_always_answers_a_has_collapsed(planted: Planted) -> None:
    """Multiple choice at chance was called unlearned, whatever else the model could still do."""
    stuck = Model(always_a, planted.knows.answer)
    row = planted.row(stuck, {4: stuck, 8: stuck})
    assert row.forget_unlearned.value == row.forget_chance == 0.75  # looks perfectly unlearned
    assert row.ra.value == 0.75  # and robust
    kept = [figure.value for figure in row.utility.kept]
    assert (kept, row.utility.worst) == ([0.0, 1.0], 0)
    assert row.status == "collapsed"
    assert planted.finished(row).bar("FQ") == Note(NoteKind.COLLAPSED)
    shares = planted.summaries("method")
    assert shares == {"forget_mc": 1.0, "retain_mc": 1.0, "retain_verbmem": None}
    summaries = read_score(planted.folder / "method" / "step-000000.json").summaries
    scores = [ModelScore(who="method", seed=0, **summary.model_dump()) for summary in summaries]
    assert list(option_notes(scores)) == [
        f"{name}, seed 0: the unlearned model chose one and the same option for 100% of 8 items"
        for name in ("forget_mc", "retain_mc")
    ]


def test_a_model_that_writes_nothing_has_collapsed(planted: Planted) -> None:
    """A model that answers nothing has no ROUGE with anything: it looked unlearned."""
    silent = Model(planted.forgot.likelihood, lambda _: "")
    row = planted.row(silent, {4: silent, 8: silent})
    assert row.forget_unlearned.value == 1.0
    assert [figure.value for figure in row.utility.kept] == [1.0, 0.0]
    assert row.status == "collapsed"
    assert planted.finished(row).bar("FQ") == Note(NoteKind.COLLAPSED)


def test_an_attack_that_destroys_the_model_is_no_proof_of_robustness(planted: Planted) -> None:
    """A learning rate that destroys the model keeps what it knew from coming back."""
    half = frozenset(sorted(planted.forget)[:4])
    back = Model(knowing(planted.questions, wrong=half), planted.knows.answer)
    broken = Model(always_a, lambda _: "")
    row = planted.row(planted.forgot, {4: back, 8: broken})
    assert row.status == "ok"
    assert [(s.step, s.eligible) for s in row.attacks[0].steps] == [
        (0, False),
        (4, True),
        (8, False),
    ]
    assert (row.worst_case.value, row.worst_at) == (0.5, ("news", 4))
    assert row.ra.value == pytest.approx((0.5 + 0.5 + 0.75) / 3)  # counts the destroyed one
    run = planted.finished(row)
    assert run.record.notes == (
        "news: utility fell below 90% of the unlearned model's at step 8 (lowest: 0%); "
        "RA counts such checkpoints, the worst case does not",
    )
    only = planted.row(planted.forgot, {2: broken, 6: broken})
    assert only.worst_case.value is None
    assert only.worst_case.note == Note(NoteKind.NO_UTILITY_KEPT, numbers=(0.9,))


# --------------------------------------------------------------------------- 8. world size


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_a_distributed_launch_is_refused(
    name: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under torchrun, the published trainer saw as many times more samples as there were GPUs."""
    monkeypatch.setenv(name, "4")
    for words in (
        ["run", *world.words()],
        ["make-target", str(world.folder / "new"), *world.words()],
    ):
        done = command(*words)
        assert done.code == 2
        assert f"{name}=4: a run is one process" in done.err
        assert "without torchrun" in done.err
    assert not (world.folder / "out").exists()
    assert not (world.folder / "new").exists()
