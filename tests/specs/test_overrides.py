"""`key=value` words: typed by the target class, in any order, with a remedy for every mistake."""

from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, JsonValue

from ilubench.errors import SpecError
from ilubench.interfaces.discovery import create_plugin, find_plugin
from ilubench.methods.ilu import ILU
from ilubench.methods.npo import NPO
from ilubench.specs import DataSource, PluginRef, RunSpec, Spec, SuiteSpec
from ilubench.specs.overrides import (
    Override,
    PluginLookup,
    apply_overrides,
    parse_words,
)
from ilubench.specs.values import convert_value

TRAIN: dict[str, JsonValue] = {"lr": 1e-4, "steps": 10, "batch_size": 4}
SUITE: dict[tuple[str, str], dict[str, JsonValue]] = {
    ("methods", "npo"): {"train": TRAIN, "beta": 0.5},
    ("methods", "ilu"): {"weight": 0.25},
}
LOOKUP = PluginLookup(find_plugin, lambda group, use: SUITE.get((group, use), {}))


class Inner(Spec):
    size: int = 1
    label: str | None = None


class Everything(Spec):
    name: str = ""
    count: int = 0
    rate: float = 0.0
    flag: bool = False
    maybe: float | None = 1.0
    kind: Literal["linear", "cosine"] = "linear"
    level: Literal[1, 2] | None = None
    names: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    betas: tuple[float, float] = (0.9, 0.999)
    either: dict[str, str | int] = Field(default_factory=dict)
    free: dict[str, JsonValue] = Field(default_factory=dict)
    inner: Inner = Inner()
    more: Inner | None = None
    by_name: dict[str, Inner] = Field(default_factory=dict)
    bounded: Annotated[int, Field(ge=1)] = 1


def changed(model: type[BaseModel], *words: str, values: Any = None) -> dict[str, Any]:
    return apply_overrides(model, values or {}, parse_words(words), LOOKUP)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("name=1e5", {"name": "1e5"}),
        ("name=007", {"name": "007"}),
        ("name=none", {"name": "none"}),
        ("name=a=b", {"name": "a=b"}),
        ("name=", {"name": ""}),
        ("count=3", {"count": 3}),
        ("either.a=007", {"either": {"a": "007"}}),
        ("rate=1e-5", {"rate": 1e-5}),
        ("flag=true", {"flag": True}),
        ("flag=no", {"flag": False}),
        ("maybe=none", {"maybe": None}),
        ("maybe=null", {"maybe": None}),
        ("maybe=2", {"maybe": 2.0}),
        ("kind=cosine", {"kind": "cosine"}),
        ("names=a,b", {"names": ["a", "b"]}),
        ("names=[a, b]", {"names": ["a", "b"]}),
        ("names=a", {"names": ["a"]}),
        ("names=", {"names": []}),
        ("names=0..2", {"names": ["0..2"]}),
        ("numbers=0..2", {"numbers": [0, 1, 2]}),
        ("numbers=5,1..2,9", {"numbers": [5, 1, 2, 9]}),
        ("betas=0.9,0.95", {"betas": [0.9, 0.95]}),
        ("either.code=3", {"either": {"code": 3}}),
        ("either.code=x", {"either": {"code": "x"}}),
        ("free.lr=1e-5", {"free": {"lr": 1e-5}}),
        ("free.lr=3", {"free": {"lr": 3}}),
        ("free.a.b=[1, x]", {"free": {"a": {"b": [1, "x"]}}}),
        ("inner.size=4", {"inner": {"size": 4}}),
        ("inner.label=1e5", {"inner": {"label": "1e5"}}),
        ("more.size=4", {"more": {"size": 4}}),
        ("by_name.x.size=4", {"by_name": {"x": {"size": 4}}}),
        ("bounded=3", {"bounded": 3}),
    ],
)
def test_the_type_directs_the_parsing(word: str, expected: dict[str, Any]) -> None:
    found = changed(Everything, word)
    assert found == expected
    Everything.model_validate(found)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nmae=x", r"^nmae: unknown setting 'nmae'; did you mean 'name'\?$"),
        ("inner.sizes=1", r"^inner\.sizes: unknown setting 'sizes'; did you mean 'size'\?$"),
        ("count=3.5", "^count: .*must be a whole number; given: '3.5'$"),
        ("rate=fast", "^rate: .*must be a number; given: 'fast'$"),
        ("flag=maybe", "^flag: .*must be true or false; given: 'maybe'$"),
        ("maybe=nope", "^maybe: .*must be a number; given: 'nope'$"),
        ("kind=cosin", r"^kind: .*; did you mean 'cosine'\?$"),
        ("numbers=a..b", r"^numbers: 'a\.\.b' is not a range; write first\.\.last"),
        ("numbers=3..1", r"^numbers: the range '3\.\.1' is empty"),
        ("numbers=1,x", "^numbers: .*must be a whole number"),
        ("names=" + "a," * 10_001, "^names: must have 10000 entries at most, and has 10002; write"),
        ("inner=x", r"'inner' has fields of its own; set one of them: inner\.<field>=<value>"),
        ("name.x=1", "^name.x: 'name' has no fields; drop what follows"),
        ("free.a={x", "^free.a: not a value that YAML can read; given: '{x'"),
    ],
)
def test_mistakes_get_a_remedy(word: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        changed(Everything, word)


@pytest.mark.parametrize("word", ["method", "=3", "a..b=1", ".a=1", "a.=1"])
def test_words_that_are_no_override(word: str) -> None:
    with pytest.raises(SpecError, match=r"cannot read .*; write key=value"):
        parse_words([word])


def test_a_key_given_twice() -> None:
    with pytest.raises(SpecError, match="'count' is given twice; keep one of them"):
        parse_words(["count=1", "count=1"])


def test_short_paths_come_first() -> None:
    assert parse_words(["a.b=1", "a=2"]) == (Override(("a",), "2"), Override(("a", "b"), "1"))
    assert parse_words(["b.a=1", "b=2"]) == (Override(("b",), "2"), Override(("b", "a"), "1"))


WORDS = (
    "method.base=npo",
    "method.base.beta=0.2",
    "method.base.train.lr=3e-4",
    "method.weight=2",
    "method.environments=gsm8k,agnews",
    "method.penalty=cross_entropy",
    "method.train.steps=6",
)


@given(st.permutations(WORDS), st.integers(0, len(WORDS)))
def test_order_does_not_matter(words: list[str], count: int) -> None:
    kept = words[:count]
    below = tuple(override.below() for override in parse_words(kept))
    again = tuple(override.below() for override in parse_words(sorted(kept)))
    assert apply_overrides(ILU, {}, below, LOOKUP) == apply_overrides(ILU, {}, again, LOOKUP)


@given(st.lists(st.integers(-50, 50), max_size=6))
def test_integer_lists_come_back(numbers: list[int]) -> None:
    text = ",".join(map(str, numbers))
    assert convert_value(tuple[int, ...], text, "k") == numbers


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_floats_come_back(number: float) -> None:
    assert convert_value(float, repr(number), "k") == number
    assert convert_value(JsonValue, repr(number), "k") == number


@given(st.text(alphabet="0123456789abcdefe.+-_ ", max_size=12))
def test_text_stays_text(text: str) -> None:
    assert convert_value(str, text, "k") == text
    kept = changed(DataSource, f"revision={text}")["revision"]
    assert kept == text


def ilu(*words: str) -> ILU:
    given = tuple(override.below() for override in parse_words(words))
    settings = apply_overrides(ILU, SUITE["methods", "ilu"], given, LOOKUP, prefix="method.")
    found = create_plugin("methods", PluginRef(use="ilu", settings=settings))
    assert isinstance(found, ILU)
    return found


def base(method: ILU) -> NPO:
    assert isinstance(method.base, NPO)
    return method.base


def test_nested_plugin_fields() -> None:
    method = ilu("method.base=npo", "method.base.beta=0.2")
    assert base(method).beta == 0.2
    assert base(method).train.steps == 10  # the suite's setting for npo
    assert method.weight == 0.25  # the suite's setting for ilu


def test_the_default_base_takes_the_suites_settings() -> None:
    assert base(ilu()).beta == 0.5


def test_a_mistake_below_a_plugin_names_the_whole_key() -> None:
    with pytest.raises(SpecError, match=r"^method\.base\.bta: unknown setting 'bta'; did you mean"):
        ilu("method.base.bta=1")
    with pytest.raises(SpecError, match=r"^method\.base\.beta: .*given: 'x'"):
        ilu("method.base.beta=x")


def test_ilu_takes_train_from_its_base() -> None:
    assert ilu().train == base(ilu()).train
    assert ilu("method.base.train.lr=1e-3").train.lr == 1e-3
    assert ilu("method.trainable=a.*").trainable == ("a.*",)
    assert ilu("method.base.trainable=a.*").trainable == ("a.*",)


def test_what_ilu_is_given_goes_over_its_bases_train_and_reaches_the_base() -> None:
    method = ilu("method.train.lr=1e-3", "method.base.train.lr=5e-3")
    assert (method.train.lr, method.train.steps, base(method).train.lr) == (1e-3, 10, 1e-3)
    half = ilu("method.train.precision=bfloat16", "method.train.micro_batch=2")
    assert base(half).train == half.train  # the reference is computed as the training is
    longer = ilu("method.train.epochs=2")
    assert (longer.train.steps, longer.train.epochs) == (None, 2.0)


def test_run_spec_words() -> None:
    found = RunSpec.model_validate(changed(RunSpec, "attacks=gsm8k,agnews", "seeds=0..2"))
    assert found.attacks == ("gsm8k", "agnews")
    assert found.seeds == (0, 1, 2)
    with pytest.raises(SpecError, match="did you mean 'seeds'"):
        changed(RunSpec, "seed=3")
    with pytest.raises(SpecError, match="did you mean 'attacked'"):
        changed(RunSpec, "keep=atacked")


def test_suite_words_reach_into_recipes_and_plugins() -> None:
    found = changed(
        SuiteSpec,
        "target.recipe.config.rope_theta=1e6",
        "target.recipe.train.lr=1e-3",
        "scorers.nll.settings.limit=3",
        "methods.npo.train.lr=1e-5",
    )
    assert found["target"]["recipe"] == {"config": {"rope_theta": 1e6}, "train": {"lr": 1e-3}}
    assert found["scorers"] == {"nll": {"settings": {"limit": 3}}}
    assert found["methods"] == {"npo": {"train": {"lr": 1e-5}}}


def test_values_given_are_not_changed() -> None:
    values: dict[str, Any] = {"inner": {"size": 1}, "free": {"a": {"b": 1}}}
    apply_overrides(Everything, values, parse_words(["inner.size=2", "free.a.b=3"]), LOOKUP)
    assert values == {"inner": {"size": 1}, "free": {"a": {"b": 1}}}


def test_a_path_is_text(tmp_path: Path) -> None:
    assert changed(DataSource, f"path={tmp_path}/a=b.jsonl")["path"] == f"{tmp_path}/a=b.jsonl"
