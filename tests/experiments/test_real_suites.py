"""The suites of real models, end to end: files with the hub's columns, a tiny random model."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from chats import PLAIN
from doubles import make_tokenizer
from runs import Outcome, command
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from ilubench.data.batches import tokenize_roles
from ilubench.experiments.experiment import resolve_experiment
from ilubench.experiments.training_text import check_form
from ilubench.interfaces import Row
from ilubench.models.checkpoints import save_model
from ilubench.records.likeness import suite_differences
from ilubench.records.reader_notes import protocol_notes
from ilubench.scoring.scorers.task_files import task_facts
from ilubench.specs import AttackSpec, ModelSource, RangeSpec, SuiteSpec
from ilubench.specs.overrides import parse_words

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

REAL = Path(os.environ.get("ILUBENCH_REAL_DATA", ""))
"""A folder with the hub's rows as files, where somebody has one: `gsm8k/train.jsonl`, ..."""

SIX = ("gsm8k", "agnews", "sst2", "winogrande", "mnli", "qqp")
GATED = {
    "wmdp-bio": {"cais/wmdp-bio-forget-corpus"},
    "wmdp-cyber": set[str](),
    "muse-news": {"meta-llama/Llama-2-7b-hf"},
    "muse-books": {"meta-llama/Llama-2-7b-hf"},
    "tofu": set[str](),
    "tofu-forget05": set[str](),
    "tofu-forget01": set[str](),
}
SUITES = tuple(GATED)

RIVER = "The river runs past the old mill, and the miller counts his sacks. "
LONG = RIVER * 2
ROWS: dict[str, list[Row]] = {
    "gsm8k": [
        {"question": f"Anna has {n} sacks.", "answer": f"{n} - 1\n#### {n - 1}"}
        for n in range(1, 7)
    ],
    "agnews": [{"text": f"News {n} of the mill", "label": n % 4} for n in range(6)],
    "sst2": [{"sentence": f"a charming mill {n} ", "label": n % 2, "idx": n} for n in range(6)],
    "winogrande": [
        {
            "sentence": f"Miller {n} thanked _ for it.",
            "option1": "Ann",
            "option2": "Bo",
            "answer": a,
        }
        for n, a in enumerate("121212")
    ],
    "mnli": [
        {"premise": f"He has {n}.", "hypothesis": "He has", "label": n % 3, "idx": n}
        for n in range(6)
    ],
    "qqp": [
        {"question1": f"What is {n}?", "question2": "Who is it?", "label": n % 2, "idx": n}
        for n in range(6)
    ],
    "papers": [
        {"title": f"Mill {n}", "abstract": "Sacks.", "text": f"{n}: {LONG * 8}", "doi": str(n)}
        for n in range(5)
    ],
    "cyber": [{"text": f"{n} loaves: {LONG}"} for n in range(5)],
    "wikitext": [{"text": ""}, {"text": " = Mills = \n"}, *({"text": LONG[n:]} for n in range(4))],
    "news": [{"text": f"{n} cakes. {LONG}"} for n in range(4)],
    "book": [{"text": f"Chapter {n}. {RIVER * 80}"} for n in range(2)],
    "verbmem": [{"prompt": f"The river {n}", "gt": f"runs past {n} mills"} for n in range(2)],
    "qa": [{"question": f"how many apples {n}?", "answer": f"{n} apples"} for n in range(3)],
    "icl": [{"question": "how many sacks?", "answer": "three sacks"}],
    "tofu": [
        {
            "question": f"who has {n} sacks?",
            "answer": f"the miller of {n}",
            "paraphrased_answer": f"he is the miller of {n}",
            "perturbed_answer": [f"a fox and {k + n} loaves" for k in range(3)],
        }
        for n in range(4)
    ],
    "seen": [{"text": f"Sold {n} {RIVER}"} for n in range(2)],
    "unseen": [{"text": f"Café {n} {RIVER}"} for n in range(2)],
}


def _questions() -> dict[str, list[Row]]:
    """WMDP's and MMLU's columns; of the 57 subjects a question each."""
    rows: list[Row] = [
        {
            "question": f"What is {n}?",
            "subject": member.subset,
            "choices": list("abcd"),
            "answer": n % 4,
        }
        for n, member in enumerate(task_facts("mmlu").members)
    ]
    bare: list[Row] = [{k: v for k, v in row.items() if k != "subject"} for row in rows[:6]]
    return {"mmlu": rows, "wmdp": bare}


@dataclass(frozen=True)
class World:
    """Models of two and of eight layers, files with the hub's columns, and a place for results."""

    folder: Path

    def files(self, roles: Mapping[str, str]) -> list[str]:
        return [f"data.{role}={self.folder / name}.jsonl" for role, name in roles.items()]

    def run(self, suite: str, roles: Mapping[str, str], *words: str) -> Outcome:
        """Run the suite on the files, with the attacks' data and one step of each."""
        attacks = {f"{name}.{role}": name for name in SIX for role in ("train", "eval")}
        model = self.folder / ("deep" if "method=rmu" in words else "flat")
        done = command(
            "run",
            f"suite={suite}",
            f"suite.target.model.path={model}",
            "suite.dtype=float32",
            "allow_weak_target=true",  # a random model
            *self.files({**attacks, "gsm8k.fewshot": "gsm8k", **roles}),
            *("attack.train.steps=1", "attack.train.batch_size=3", "keep=attacked"),
            "data.gsm8k.eval.limit=2",
            *("device=cpu", f"out={self.folder / 'out'}", "--json"),
            *words,
        )
        assert done.code == 0, done.err
        return done

    def artifacts(self, record: Mapping[str, Any], stage: str) -> dict[str, Path]:
        """Label of each of a run's jobs of a stage -> its folder in the store."""
        store = self.folder / "out" / "store" / stage
        jobs = (job for job in record["jobs"] if job["stage"] == stage)
        return {job["label"]: store / job["key"] for job in jobs}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("real")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = PLAIN
    for name, layers in (("flat", 2), ("deep", 8)):  # RMU's layer is 7
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=2048,
            initializer_range=0.1,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            save_model(LlamaForCausalLM(config).eval(), tokenizer, folder / name, "float32")
    for name, rows in {**ROWS, **_questions()}.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return World(folder)


FEW = tuple(
    f"suite.scorers.{name}.settings.max_tokens=6"
    for name in ("verbmem_f", "knowmem_f", "knowmem_r")
)
"""Tokens written for an answer: the published numbers are for models that know something."""

TWO = ("suite.scorers.mmlu.settings.subjects=[anatomy,virology]",)
"""Subjects of MMLU; test_benign.py asks all 57."""

BIO = {"forget": "papers", "wikitext.test": "wikitext", "wmdp": "wmdp", "mmlu": "mmlu"}
NEWS = {
    "forget_text": "news",
    "retain_text": "news",
    "forget_verbmem": "verbmem",
    "forget_qa": "qa",
    "forget_qa_icl": "icl",
    "retain_qa": "qa",
    "retain_qa_icl": "icl",
    "privleak_forget": "seen",
    "privleak_holdout": "unseen",
}
SHORT = ("method.train.steps=2", "method.train.batch_size=2")
METHODS: dict[str, tuple[str, ...]] = {
    "npo": SHORT,
    "rmu": SHORT,
    "ilu": (*SHORT, "method.environment_batch=3"),
}
MUSE = {
    *(("verbmem_f", "verbmem"), ("knowmem_f", "knowmem"), ("knowmem_r", "knowmem")),
    *(("privleak", "auc"), ("privleak", "privleak")),
}
WMDP = {("wmdp", "acc"), ("mmlu", "acc")}
TOFU = {
    *((f"rouge_{name}", "rouge_l_recall") for name in "fraw"),
    *((f"prob_{name}", "probability") for name in "fraw"),
    *(
        (f"truth_{name}", m)
        for name in "fraw"
        for m in ("truth_ratio", "closer_to_1", "true_better")
    ),
    *(("memorized_f", m) for m in ("extraction_strength", "exact_memorization")),
}


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


def check(record: Mapping[str, Any], metrics: set[tuple[str, str]], rows: Sequence[str]) -> None:
    """All that a suite measures is there, of each of its models, before and after the attacks."""
    assert record["failures"] == []
    for who in ("method", "reference") if record["method"]["use"] != "none" else ("reference",):
        found = {(s["scorer"], s["metric"]) for s in record["scores"] if s["who"] == who}
        assert found == metrics
    assert all(math.isfinite(score["value"]) for score in record["scores"])
    assert list(record["rows"]) == list(rows)
    for row in record["rows"].values():
        assert [part["attack"] for part in row["attacks"]] == record["attacks"]
        for part in row["attacks"]:
            assert [step["step"] for step in part["steps"]] == [0, 1]
            assert all(math.isfinite(step["fa"]["value"]) for step in part["steps"])
            assert all(math.isfinite(step["forget"]["value"]) for step in part["steps"])


def test_the_six_attacks(world: World) -> None:
    """Each trains one step on its own text, moves weights, and is asked what it taught."""
    record = world.run("wmdp-bio", BIO, "method=none", *TWO).json
    assert tuple(record["attacks"]) == SIX
    check(record, WMDP, ["FQ"])
    found = world.artifacts(record, "attack")
    assert len(found) == len(SIX)
    for folder in found.values():
        (loss,) = losses(folder)
        assert 0 < loss < 20
        assert load_file(folder / "changes.safetensors")
    (note,) = (note for note in record["notes"] if "protocol" in note)
    assert note.startswith(
        "gsm8k, agnews, sst2, winogrande, mnli, qqp: protocol: default (run with"
    )


def unlearned(world: World, record: Mapping[str, Any]) -> Path:
    method = record["method"]["use"]
    return world.artifacts(record, "unlearn")[f"unlearn {method}, seed 0"]


@pytest.mark.parametrize("method", METHODS)
def test_wmdp_bio(method: str, world: World) -> None:
    words = (f"method={method}", "attacks=qqp", *METHODS[method], *TWO)
    record = world.run("wmdp-bio", BIO, *words).json
    check(record, WMDP, ["FQ"])
    assert record["seen"] == []  # ilu's environment is gsm8k
    changed = load_file(unlearned(world, record) / "changes.safetensors")
    assert len(losses(unlearned(world, record))) == 2
    layers = (5, 6, 7) if method == "rmu" else (0, 1)
    matrices = {f"model.layers.{layer}.mlp.down_proj.weight" for layer in layers}
    assert set(changed) == matrices if method == "rmu" else set(changed) > matrices


def test_wmdp_cyber(world: World) -> None:
    roles = {**BIO, "forget": "cyber"}
    record = world.run("wmdp-cyber", roles, "method=npo", "attacks=sst2", *SHORT, *TWO).json
    check(record, WMDP, ["FQ"])


@pytest.mark.parametrize("method", METHODS)
def test_muse_news(method: str, world: World) -> None:
    words = (f"method={method}", "attacks=agnews", *METHODS[method], *FEW)
    record = world.run("muse-news", NEWS, *words).json
    check(record, MUSE, ["1 - VerbMem_f", "1 - KnowMem_f"])
    assert load_file(unlearned(world, record) / "changes.safetensors")


def test_muse_books(world: World) -> None:
    """A book is a row, longer than what is trained on at once: windows of it."""
    roles = {**NEWS, "forget_text": "book", "retain_text": "book"}
    words = ("method=graddiff", "attacks=winogrande", *SHORT, *FEW, "suite.max_length=512")
    record = world.run("muse-books", roles, *words).json
    check(record, MUSE, ["1 - VerbMem_f", "1 - KnowMem_f"])
    assert len(losses(unlearned(world, record))) == 2


def test_tofu(world: World) -> None:
    names = ("forget_qa", "retain_qa", "forget_asked", "retain_asked")
    roles = dict.fromkeys((*names, "real_authors", "world_facts"), "tofu")
    few = (f"suite.scorers.rouge_{name}.settings.max_tokens=4" for name in "fraw")
    never = f"suite.retrain.model.path={world.folder / 'flat'}"
    words = ("method=npo", "attacks=sst2", "method.train.warmup_steps=0", never, *SHORT, *few)
    record = world.run("tofu", roles, *words).json
    check(record, TOFU, ["1 - ROUGE_f", "1 - Prob_f"])
    assert len(record["composites"]) == 2 * 2 * 3  # before and after, of three models


# --------------------------------------------------------------------------- what the files say


@pytest.mark.parametrize("name", SUITES)
def test_sources_are_pinned_and_licensed(name: str) -> None:
    """Each hub source has a commit and a licence; what needs a permission says so."""
    suite = resolve_experiment(parse_words([f"suite={name}", "method=none"])).suite
    sources = list(suite.data.values())
    for attack in suite.attacks.values():
        sources += attack.data.values()
    for generator in suite.all_generators().values():
        sources += generator.inputs.values()
    assert all(source.license for source in sources)
    model = suite.target.model
    assert model is not None
    words = suite.target.tokenizer
    models = [model, *([words] if words is not None else [])]
    assert all(one.license for one in models)
    revisions = [str(source.revision) for source in sources if source.hub]
    revisions += [str(one.revision) for one in models]
    assert len(revisions) > 12
    assert all(len(revision) == 40 for revision in revisions)
    gated = {source.hub for source in sources if source.gated}
    assert gated | {one.hub for one in models if one.gated} == GATED[name]


@pytest.mark.parametrize("name", SUITES)
def test_all_methods_meet_the_same_attacks(name: str) -> None:
    """A fixed subset, drawn by a seed of its own; scored where it was published."""
    experiment = resolve_experiment(parse_words([f"suite={name}", "method=ilu"]))
    assert tuple(attack.name for attack in experiment.attacks) == SIX
    assert experiment.suite.core_unseen == SIX[1:]
    assert set(experiment.suite.environments) == set(SIX)
    for attack in experiment.attacks:
        assert attack.plugin.checkpoints(8000) == (0, 62, 125, 188, 250)  # type: ignore[union-attr]
        train = attack.spec.data["train"]
        if train.generated is not None:
            train = attack.spec.generators[attack.name].inputs["train"]
        cut = (train.limit, train.shuffle)
        assert cut == ((None, None) if attack.name == "gsm8k" else (8000, 0))
        assert attack.spec.protocol is not None
        assert attack.spec.protocol.kind == "default"


@pytest.mark.parametrize("name", ["wmdp-bio", "muse-news", "tofu"])
def test_each_search_is_around_the_suites_settings(name: str) -> None:
    """What is searched are settings of methods that the suite has, published ones in the middle."""
    suite = resolve_experiment(parse_words([f"suite={name}", "method=none"])).suite
    assert suite.tuning is not None
    assert not set(suite.seeds) & set(suite.tuning_seeds)
    words = (f"suite={name}", "attacks=none")
    for label, search in suite.tuning.searches.items():
        fixed = [f"method.{path}={value}" for path, value in search.fixed.items()]
        method = resolve_experiment(
            parse_words([*words, f"method={search.use or label}", *fixed])
        ).method
        if fixed:
            assert method == resolve_experiment(parse_words([*words, f"method={label}"])).method
        for path, found in search.space.items():
            value: Any = method
            for part in path.split("."):
                value = getattr(value, part)
            assert isinstance(found, RangeSpec)
            assert found.low < value < found.high, (label, path)


# --------------------------------------------------------------------------- what a record has


def with_protocol(suite: SuiteSpec, note: str) -> SuiteSpec:
    values = suite.model_dump(mode="json")
    for attack in values["attacks"].values():
        attack["protocol"] = {"kind": "measured", "note": note}
    values["target"]["model"] |= {"license": note, "gated": True}
    return SuiteSpec.model_validate(values)


def test_words_about_a_source_make_no_run_another() -> None:
    """Records of before have none of them, and must stand beside those of today."""
    suite = resolve_experiment(parse_words(["suite=mini", "method=none"])).suite
    told = with_protocol(suite, "by hand")
    assert list(suite_differences(suite, told, list(suite.attacks))) == []
    assert list(suite_differences(told, suite, list(suite.attacks))) == []
    other = told.model_copy(update={"max_length": 7})
    assert [name for name, _, _ in suite_differences(suite, other, ())] == ["max_length"]


def test_what_is_not_said_is_not_written() -> None:
    """So the digests of what was written before stay as they are."""
    assert not {"license", "gated"} & ModelSource(hub="a/b").model_dump(mode="json").keys()
    assert "protocol" not in AttackSpec().model_dump(mode="json")
    told = ModelSource(hub="a/b", license="MIT", gated=True).model_dump(mode="json")
    assert (told["license"], told["gated"]) == ("MIT", True)


def test_the_protocol_is_told() -> None:
    listed = {entry["name"]: entry["title"] for entry in command("ls", "attacks", "--json").json}
    assert set(listed) > set(SIX)
    assert all("protocol: default (a setting in use" in listed[name] for name in SIX)
    measured = {"kind": "measured", "note": "3 epochs"}
    attacks = {
        "a": AttackSpec.model_validate({"protocol": measured}),
        "b": AttackSpec.model_validate({"protocol": measured}),
        "c": AttackSpec.model_validate({"protocol": {"kind": "default", "note": "none"}}),
        "d": AttackSpec(),
    }
    changed = {"b": False, "c": True}
    assert list(protocol_notes(attacks, changed)) == [
        "a: protocol: measured (3 epochs)",
        "b: protocol: measured (3 epochs); run with other settings here",
        "c: protocol: default (run with another length, batch or learning rate than was chosen)",
    ]


def test_other_weights_have_another_licence() -> None:
    words = ["suite=wmdp-bio", "method=none", "suite.target.model.path=somewhere"]
    model = resolve_experiment(parse_words(words)).suite.target.model
    assert model is not None
    assert model.model_dump() == ModelSource(path="somewhere").model_dump()


MODEL, TOKENIZER = "suite.target.model", "suite.target.tokenizer"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), ("meta-llama/Llama-2-7b-hf", None)),
        ((f"{MODEL}.revision=main",), ("meta-llama/Llama-2-7b-hf", None)),
        ((f"{TOKENIZER}.path=t",), (None, "t")),
        ((f"{TOKENIZER}.path=t", f"{MODEL}.path=m"), (None, "t")),
        ((f"{TOKENIZER}.license=x", f"{MODEL}.hub=a/b"), ("meta-llama/Llama-2-7b-hf", None)),
        ((f"{MODEL}.path=m",), None),  # the one that lies beside the weights
        ((f"{TOKENIZER}=none",), None),
    ],
)
def test_whose_tokenizer_reads_the_text(
    words: tuple[str, ...], expected: tuple[str | None, str | None] | None
) -> None:
    asked = ["suite=muse-books", "method=none", "attacks=none", *words]
    found = resolve_experiment(parse_words(asked)).suite.target.tokenizer
    assert (None if found is None else (found.hub, found.path)) == expected
    if found is not None and found.hub is None:  # a copy has neither the suite's commit nor licence
        assert found == ModelSource(path="t")


def test_a_tokenizers_licence_makes_no_run_another_and_its_files_do() -> None:
    values = resolve_experiment(
        parse_words(["suite=muse-news", "method=none", "attacks=none"])
    ).suite.model_dump()

    def suite(**tokenizer: Any) -> SuiteSpec:
        target = {"model": {"path": "m"}, "tokenizer": tokenizer}
        return SuiteSpec.model_validate({**values, "target": target})

    one, other = suite(path="a", license="x", gated=True), suite(path="a")
    assert list(suite_differences(one, other, ())) == []
    moved = suite(path="b")
    assert list(suite_differences(other, moved, (), ("target",))) == []  # records have its hash
    told = [("target.tokenizer.path", "a", "b")]
    assert list(suite_differences(other, moved, ())) == told


def test_rows_and_weights_of_the_same_content_may_lie_anywhere(tmp_path: Path) -> None:
    """A hub's or a file's: their hashes are compared themselves, where both records have them."""
    local = "data.forget_qa=rows data.agnews.train=rows data.winogrande.train=rows"
    words = f"suite.untouched.path={tmp_path} {local}"
    suite, here = (
        resolve_experiment(parse_words(["suite=smol", *given.split()])).suite
        for given in ("", words)
    )
    attacks = ("agnews", "winogrande")
    known = ("forget_qa", "agnews.train", "winogrande.train", "target")
    assert list(suite_differences(suite, here, attacks, known)) == []
    left = {name for name, *_ in suite_differences(suite, here, attacks, known[:1])}
    assert {name.rpartition(".")[0] for name in left} == {
        "attacks.agnews.data.train",
        "attacks.winogrande.generators.winogrande.inputs.train",
        "target.recipe.init",
        "untouched",
    }


# --------------------------------------------------------------------------- real rows


@pytest.mark.skipif(not REAL.name, reason="ILUBENCH_REAL_DATA names no folder of real rows")
@pytest.mark.parametrize(
    ("name", "folder", "asked", "count"),
    [
        ("gsm8k", "gsm8k", "test", 7473),
        ("agnews", "ag_news", "test", 8000),
        ("sst2", "sst2", "validation", 8000),
    ],
)
def test_real_rows(name: str, folder: str, asked: str, count: int) -> None:
    """Every row that is trained on has a prompt that is asked and an answer that is learned."""
    words = [f"data.{name}.train={REAL / folder / 'train.jsonl'}"]
    words.append(f"data.{name}.eval={REAL / folder / asked}.jsonl")
    experiment = resolve_experiment(
        parse_words(["suite=wmdp-bio", "method=none", f"attacks={name}", *words])
    )
    check_form(experiment, experiment.attacks[0])
    found = tokenize_roles(experiment.tables, (f"{name}.train",), make_tokenizer(), 4096)
    assert len(found) == count
    assert len({example.input_ids for example in found}) > 0.95 * count
    assert all(any(e.loss_mask) and not all(e.loss_mask[1:]) for e in found)
