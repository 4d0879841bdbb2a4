"""Names -> objects: overrides of data, attacks, suites and methods; every shipped YAML loads."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from runs import command

from ilubench.errors import IlubenchError, PluginError, SpecError
from ilubench.experiments.attacks import resolve_attack
from ilubench.experiments.experiment import (
    Experiment,
    resolve_experiment,
    restore_experiment,
    suite_method,
)
from ilubench.experiments.suites import read_suite
from ilubench.interfaces.discovery import create_plugin, find_plugin
from ilubench.methods.ilu import ILU
from ilubench.methods.npo import NPO
from ilubench.runs.folder import run_config
from ilubench.specs import AttackSpec, SuiteSpec
from ilubench.specs.overrides import parse_words
from ilubench.specs.suite_files import load_suite
from ilubench.specs.yaml_files import load_yaml, task_file, task_names, tasks_folder, validate_spec

NLL = {"use": "answer_nll", "settings": {"data": "f", "prompt": "{q}", "completion": "{a}"}}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of two roles, two attacks and a generator, in files."""
    for name in ("f", "r", "g1", "g2", "other"):
        rows = [{"q": f"{name}{n}?", "a": f" {n}", "n": n, "text": name} for n in range(5)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def file(name: str) -> dict[str, Any]:
        return {"path": str(tmp_path / f"{name}.jsonl"), "prompt": "{q}", "completion": "{a}"}

    values: dict[str, Any] = {
        "name": "small",
        "version": 1,
        "title": "Small",
        "target": {"model": {"path": str(tmp_path / "model")}},
        "generators": {"gen": {"use": "mini", "inputs": {"seedtext": file("other")}}},
        "data": {"f": file("f"), "r": file("r")},
        "forget": ["f"],
        "retain": ["r"],
        "environments": {"gsm8k": "gsm8k.train", "forget": "f"},
        "scorers": {"nll": NLL},
        "primary_forget": [{"label": "F", "scorer": "nll", "metric": "nll", "direction": "lower"}],
        "utility": [{"label": "U", "scorer": "nll", "metric": "nll", "direction": "lower"}],
        "attacks": {
            name: {
                "settings": {"train": {"lr": 1e-3, "steps": 4}},
                "data": {"train": file(rows)},
                "fa": {
                    "scorer": {**NLL, "settings": {**NLL["settings"], "data": "train"}},  # type: ignore[dict-item]
                    "metric": "nll",
                },
            }
            for name, rows in (("gsm8k", "g1"), ("agnews", "g2"))
        },
        "methods": {
            "default": {"train": {"lr": 1e-4, "steps": 9}, "beta": 0.4},
            "npo": {"train": {"lr": 5e-5}, "gamma": 2.0},
            "ilu": {"weight": 0.5},
        },
        "seeds": [0, 1],
    }
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def get(suite: Path, *words: str) -> Experiment:
    return resolve_experiment(parse_words([f"suite={suite}", *words]))


def npo(found: Experiment) -> NPO:
    method = found.method.base if isinstance(found.method, ILU) else found.method
    assert isinstance(method, NPO)
    return method


def attack_train(found: Experiment) -> dict[str, Any]:
    return {attack.name: attack.plugin.train for attack in found.attacks}  # type: ignore[union-attr]


def test_everything_is_resolved(suite: Path) -> None:
    found = get(suite, "method=npo")
    assert found.method_name == "npo"
    assert [attack.name for attack in found.attacks] == ["gsm8k", "agnews"]
    assert found.seeds == (0, 1)
    assert [metric.label for metric in found.suite.metrics] == ["F", "U"]
    assert found.tables.roles == ("f", "r", "gsm8k.train", "agnews.train")
    assert found.attacks[0].role("train", found.suite) == "gsm8k.train"
    assert found.attacks[0].role("f", found.suite) == "f"


# ------------------------------------------------------------------------------- methods


def test_a_suites_settings_and_its_shared_ones(suite: Path) -> None:
    method = npo(get(suite, "method=npo"))
    assert (method.train.lr, method.train.steps) == (5e-5, 9)
    assert (method.beta, method.gamma) == (0.4, 2.0)


def test_ilu_trains_as_its_base_does(suite: Path) -> None:
    found = get(suite, "method=ilu")
    assert isinstance(found.method, ILU)
    assert found.method.train == npo(found).train == npo(get(suite, "method=npo")).train
    assert found.method.weight == 0.5
    assert found.seen == ("gsm8k",)


def test_changing_the_bases_training_changes_ilus(suite: Path) -> None:
    found = get(suite, "method=ilu", "method.base.train.lr=1e-2", "method.base.beta=0.9")
    assert isinstance(found.method, ILU)
    assert found.method.train.lr == 1e-2
    assert npo(found).beta == 0.9
    own = get(suite, "method=ilu", "method.train.lr=1e-2")
    assert isinstance(own.method, ILU)
    assert (own.method.train.lr, own.method.train.steps) == (1e-2, 9)


def test_none_takes_no_settings(suite: Path) -> None:
    assert get(suite, "method=none").method.model_dump() == {}
    with pytest.raises(SpecError, match=r"method\.beta: unknown setting 'beta'"):
        get(suite, "method=none", "method.beta=1")


def test_a_method_of_a_stranger(suite: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from ilubench.interfaces import Method\n\n"
        "class Mine(Method):\n    beta: float = 1.0\n    strength: int = 1\n\n"
        "    def unlearn(self, model, data, context):\n        return model\n"
    )
    found = get(suite, f"method={file}:Mine", "method.strength=3")
    assert found.method.model_dump() == {"beta": 0.4, "strength": 3}
    with pytest.raises(SpecError, match=r"method\.strenght: unknown setting .*did you mean"):
        get(suite, f"method={file}:Mine", "method.strenght=3")


def test_an_experiment_from_its_own_configuration(suite: Path) -> None:
    found = get(suite, "method=ilu", "method.weight=0.25", "attacks=gsm8k", "attack.train.epochs=2")
    config = run_config(found)
    again = restore_experiment(config, suite)
    assert run_config(again) == config
    assert (again.method, again.attacks, again.seeds) == (found.method, found.attacks, found.seeds)
    with pytest.raises(SpecError, match="use"):
        restore_experiment({key: value for key, value in config.items() if key != "use"}, suite)
    with pytest.raises(SpecError, match=r"no attack 'gsm9k'.*gsm8k"):
        restore_experiment({**config, "attacks": {"gsm9k": {}}}, suite)


# ------------------------------------------------------------------------------- a suite's methods


def with_methods(suite: Path, **methods: Any) -> Path:
    values = yaml.safe_load(suite.read_text())
    values["methods"] |= methods
    suite.write_text(yaml.safe_dump(values, sort_keys=False))
    return suite


def test_a_label_stands_for_a_variant_of_a_method(suite: Path) -> None:
    with_methods(suite, **{"npo-hard": {"use": "npo", "gamma": 0.5}})
    found = get(suite, "method=npo-hard", "method.beta=0.8")
    assert found.method_name == "npo"
    method = npo(found)
    assert (method.gamma, method.beta, method.train.lr) == (0.5, 0.8, 5e-5)


@pytest.mark.parametrize(
    ("label", "own", "message"),
    [
        ("none", {"use": "graddiff"}, "would stand for 'graddiff' in its place; give the variant"),
        ("retrain", {"use": "none"}, "this is the name of a method"),
        ("checkpoint", {"use": "none"}, "this is the name of a method"),
        ("ilu", {"use": "ilu", "weight": 2.0}, "this is the name of a method"),
        ("default", {"use": "npo"}, "settings that all methods share, no variant; leave `use` out"),
        ("mine", {"use": "npo2"}, "`use` is 'npo2', a label; .*; write use: npo"),
        ("mine", {"use": "mine"}, "`use` is 'mine', a label; .*; name the method in `use`"),
        ("mine", {"use": "npoo"}, "`use` is 'npoo', no installed method; did you mean 'npo'"),
        ("My own", {"use": "npo"}, "cannot be a label; use lower case letters"),
        ("../up", {"use": "npo"}, "cannot be a label"),
        ("simmpo", {"beta": 1.0}, "no method of this name .*did you mean 'simnpo'.* needs `use`"),
        ("defualt", {"beta": 1.0}, "no method of this name .*did you mean 'default'"),
    ],
)
def test_entries_of_a_suites_methods_that_mean_nothing_or_two_things(
    suite: Path, label: str, own: dict[str, Any], message: str
) -> None:
    with_methods(suite, npo2={"use": "npo"}, **{label: own})
    with pytest.raises(SpecError, match=message) as caught:
        get(suite, "method=npo")
    assert str(caught.value).startswith(f"{suite}: methods.{label}: ")


def test_a_label_cannot_come_in_by_a_word_either(suite: Path) -> None:
    with pytest.raises(SpecError, match=r"methods\.none: this is the name of a method"):
        get(suite, "method=npo", "suite.methods.none.use=graddiff")


def test_methods_by_file_may_have_settings_and_broken_ones_harm_nobody(suite: Path) -> None:
    broken = {"./no/such.py:Method": {"beta": 1.0}, "gone": {"use": "./gone.py:Gone"}}
    with_methods(suite, **broken, **{"package.module:Method": {"beta": 1.0}})
    assert get(suite, "method=npo").method_name == "npo"
    with pytest.raises(PluginError, match=r"no such file '.*gone\.py'"):
        get(suite, "method=gone")


def test_a_label_does_not_count_for_the_references(suite: Path) -> None:
    found = get(suite, "method=npo")
    methods = {**found.suite.methods, "none": {"use": "npo"}}  # as if nobody had looked
    shadowed = replace(found, suite=found.suite.model_copy(update={"methods": methods}))
    assert isinstance(create_plugin("methods", suite_method(shadowed.suite, "npo")), NPO)
    with pytest.raises(SpecError, match="use: "):  # `none` has no such setting
        suite_method(shadowed.suite, "none")


def test_labels_are_among_the_names_that_may_have_been_meant(suite: Path) -> None:
    with_methods(suite, **{"ilu-control": {"use": "ilu", "penalty": "cross_entropy"}})
    with pytest.raises(PluginError, match="'ilu-contrl'; did you mean 'ilu-control'"):
        get(suite, "method=ilu-contrl")


def test_ls_lists_a_suites_variants(suite: Path) -> None:
    own = {"use": "ilu", "penalty": "cross_entropy", "train": {"lr": 0.5}}
    with_methods(suite, **{"ilu-control": own, "same": {"use": "npo"}})
    plain = command("ls", "methods", "--json").json
    listed = command("ls", "methods", f"suite={suite}", "--json").json
    assert listed[: len(plain)] == plain
    assert [(entry["name"], entry["title"]) for entry in listed[len(plain) :]] == [
        ("ilu-control", f"ilu with penalty=cross_entropy train.lr=0.5; a variant of suite {suite}"),
        ("same", f"npo with the suite's settings; a variant of suite {suite}"),
    ]
    for words in (["methods", "sweet=mini"], ["attacks", f"suite={suite}"]):
        done = command("ls", *words)
        assert done.code == 2
        assert "write ilubench ls methods suite=mini" in done.err


# ------------------------------------------------------------------------------- data


def test_a_role_is_pointed_at_a_file(suite: Path, tmp_path: Path) -> None:
    found = get(suite, f"data.f={tmp_path}/other.jsonl", f"data.gsm8k.train={tmp_path}/r.jsonl")
    assert found.tables.rows("f")[0]["text"] == "other"
    assert found.tables.rows("gsm8k.train")[0]["text"] == "r"
    assert found.tables.rows("agnews.train")[0]["text"] == "g2"
    assert found.suite.data["f"].prompt == "{q}"


def test_fields_of_a_role_are_set(suite: Path) -> None:
    found = get(suite, "data.f.limit=2", "data.gsm8k.train.offset=3", "data.r.where.n=4")
    assert [row["n"] for row in found.tables.rows("f")] == [0, 1]
    assert [row["n"] for row in found.tables.rows("gsm8k.train")] == [3, 4]
    assert [row["n"] for row in found.tables.rows("r")] == [4]
    inputs = get(suite, "data.gen.seedtext.limit=1").suite.generators["gen"].inputs
    assert inputs["seedtext"].limit == 1


def test_a_hub_role_becomes_a_local_one(suite: Path, tmp_path: Path) -> None:
    values = yaml.safe_load(suite.read_text())
    values["data"]["f"] = {"hub": "a/b", "revision": "1e5", "subset": "main", "split": "test"}
    suite.write_text(json.dumps(values))
    assert get(suite).suite.data["f"].revision == "1e5"
    found = get(suite, f"data.f={tmp_path}/other.jsonl").suite.data["f"]
    assert (found.hub, found.revision, found.subset) == (None, None, None)
    assert get(suite, "data.f.revision=007").suite.data["f"].revision == "007"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.ff=x.jsonl", r"data\.ff: unknown data role 'ff'"),
        ("data.gsm8k.trian=x", r"unknown data role 'gsm8k\.trian'; did you mean 'gsm8k\.train'\?"),
        ("data.f.limt=3", r"data\.f\.limt: unknown setting 'limt'; did you mean 'limit'\?"),
        ("data.f.limit=x", r"data\.f\.limit: .*must be a whole number"),
        ("data.f.limit=0", r"data\.f\.limit: .*must be at least 1"),
        ("data.f.overlong=cut", "did you mean|choose from: error, truncate, windows"),
        ("data=x", r"unknown setting 'data'; did you mean data\.<role>=<file>"),
    ],
)
def test_mistakes_in_data_words(suite: Path, word: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        get(suite, word)


# ------------------------------------------------------------------------------- attacks


def test_settings_of_every_attack_and_of_one(suite: Path) -> None:
    trains = attack_train(get(suite, "attack.gsm8k.train.steps=7", "attack.train.steps=5"))
    assert (trains["gsm8k"].steps, trains["agnews"].steps) == (7, 5)
    assert trains["gsm8k"].lr == 1e-3


def test_words_for_all_attacks_are_for_those_that_have_the_field(suite: Path) -> None:
    """An attack that asks otherwise has no training; one that trains, no text."""
    values = yaml.safe_load(suite.read_text())
    asked = {"use": "prefix", "settings": {"text": "Please. "}}
    suite.write_text(yaml.safe_dump({**values, "attacks": {**values["attacks"], "asked": asked}}))
    found = get(suite, "attack.train.steps=5", "attack.text=Now: ")
    plugins = {attack.name: attack.plugin.model_dump() for attack in found.attacks}
    assert [plugins[name]["train"]["steps"] for name in ("gsm8k", "agnews")] == [5, 5]
    assert plugins["asked"]["text"] == "Now: "
    with pytest.raises(SpecError, match=r"attack\.train\.steps: unknown setting 'train'; choose"):
        get(suite, "attacks=asked", "attack.train.steps=5")
    with pytest.raises(SpecError, match=r"attack\.tran\.steps: .* did you mean 'train'\?"):
        get(suite, "attack.tran.steps=5")
    with pytest.raises(SpecError, match=r"attack\.asked\.train\.steps: unknown setting 'train'"):
        get(suite, "attack.asked.train.steps=5")
    with pytest.raises(SpecError, match=r"attack\.train\.steps: this run makes no attack"):
        get(suite, "attacks=none", "attack.train.steps=5")


def test_attacks_are_chosen_in_the_order_asked(suite: Path) -> None:
    found = get(suite, "attacks=agnews,gsm8k")
    assert [attack.name for attack in found.attacks] == ["agnews", "gsm8k"]
    assert get(suite, "attacks=none").attacks == ()


@pytest.mark.parametrize(
    ("word", "kind", "message"),
    [
        ("attacks=gsm8", SpecError, "has no attack 'gsm8'; did you mean 'gsm8k'"),
        ("attack.gsm8k.train.stps=1", SpecError, "unknown setting 'stps'; did you mean 'steps'"),
        ("attack.gsmk.train.steps=1", SpecError, r"attack\.gsmk\.train\.steps: unknown setting"),
        ("attack.train.steps=x", SpecError, r"attack\.train\.steps: .*must be a whole number"),
        ("attack.train.lr=-1", SpecError, r"train\.lr: .*must be above 0"),
        ("attack=gsm8k", SpecError, r"did you mean attacks=gsm8k\?"),
        ("method=npoo", PluginError, "unknown method 'npoo'; did you mean 'npo'"),
        ("method=ilu", None, ""),
        ("method.weight=-1", SpecError, "weight: .*must be at least 0.0; given: -1"),
        ("method.base=none", SpecError, "base: NoUnlearning is not a LossMethod"),
        ("method.base=npoo", PluginError, "unknown method 'npoo'"),
        ("method.environments=gsm", SpecError, "has no environment 'gsm'; did you mean 'gsm8k'"),
        (
            "method.penalty=ce",
            SpecError,
            r"method\.penalty: .*choose from: cross_entropy, grad_norm, irm",
        ),
        ("seeds=", SpecError, r"write key=value, e\.g\. seeds=<value>"),
        ("seeds=[]", SpecError, r"no seed is given; write seeds=0\.\.4"),
        ("seeds=a", SpecError, "seeds: .*must be a whole number"),
        ("sweets=1", SpecError, "unknown setting 'sweets'; did you mean seeds=1"),
        ("engine=vlm", SpecError, "engine: "),
        ("suite.max_lenght=9", SpecError, "did you mean 'max_length'"),
        ("suite.forget=x", SpecError, "data role 'x' is not declared"),
        ("suite.scorers.nll.settings.data=r", None, ""),
    ],
)
def test_words(suite: Path, word: str, kind: type[IlubenchError] | None, message: str) -> None:
    if kind is None:
        get(suite, word)
        return
    with pytest.raises(kind, match=message) as caught:
        get(suite, word)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_suites_fields_are_set(suite: Path) -> None:
    found = get(suite, "suite.seeds=3..5", "suite.max_length=64", "suite.dtype=bfloat16")
    assert found.seeds == (3, 4, 5)
    assert (found.suite.max_length, found.suite.dtype) == (64, "bfloat16")
    assert get(suite, "seeds=8,7").seeds == (8, 7)
    changed = get(suite, "method=npo", "suite.methods.npo.train.lr=1e-3")
    assert npo(changed).train.lr == 1e-3


def test_an_error_in_the_file_names_its_line(suite: Path) -> None:
    text = suite.read_text().replace("title: Small", "titel: Small")
    suite.write_text(text)
    line = text.split("\n").index("titel: Small") + 1
    with pytest.raises(SpecError, match=rf"small\.yaml:({line}|1): (titel|title): "):
        get(suite)


def test_a_metric_that_the_scorer_has_not(suite: Path) -> None:
    suite.write_text(suite.read_text().replace("metric: nll", "metric: nl"))
    with pytest.raises(SpecError, match="the scorer has no metric 'nl'; did you mean 'nll'"):
        get(suite)


def test_a_chance_level_that_no_score_has(suite: Path) -> None:
    problem = r"chance is -2, no score of 'nll': it lies between 0 and 1e\+60; give the raw score"
    raw = yaml.safe_load(suite.read_text())
    raw["primary_forget"][0]["chance"] = -2.0
    suite.write_text(yaml.safe_dump(raw))
    with pytest.raises(SpecError, match=problem):
        get(suite)


def test_an_unknown_suite() -> None:
    with pytest.raises(SpecError, match="unknown suite 'minni'"):
        resolve_experiment(parse_words(["suite=minni"]))


def test_nothing_is_read_before_it_is_asked_for(suite: Path, tmp_path: Path) -> None:
    for path in tmp_path.glob("*.jsonl"):
        path.unlink()
    assert not get(suite).tables.is_loaded("f")


# ------------------------------------------------------------------------------- shipped files


SUITES, ATTACKS = task_names("suites"), task_names("attacks")


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("method", ["none", "npo", "ilu"])
def test_every_shipped_suite_resolves(name: str, method: str) -> None:
    found = resolve_experiment(parse_words([f"suite={name}", f"method={method}"]))
    assert found.suite.name == name
    assert found.attacks
    raw, path = load_suite(name)
    assert validate_spec(SuiteSpec, raw, source=path) == found.suite


@pytest.mark.parametrize("name", ATTACKS)
def test_every_shipped_attack_resolves(name: str) -> None:
    path = task_file("attacks", name)
    spec = validate_spec(AttackSpec, load_yaml(path), source=path)
    assert spec.title
    suite, _ = read_suite("news-scratch", attacks=(name,))  # a chain's links come with it
    assert resolve_attack(suite, name).spec.use == spec.use
    if spec.fa is not None:
        scorer = create_plugin("scorers", spec.fa.scorer, source=path)
        assert spec.fa.metric in scorer.metrics()


@pytest.mark.parametrize(
    "path", sorted((tasks_folder() / "evals").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_shipped_evaluation_is_yaml(path: Path) -> None:
    assert "task:" in path.read_text()


def test_there_are_shipped_files() -> None:
    assert {"mini", "news-scratch"} <= set(SUITES)
    assert find_plugin("methods", "ilu") is ILU
