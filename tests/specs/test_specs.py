"""Frozen input models: each validator's message."""

from typing import Any

import pytest
from pydantic import ValidationError

from ilubench.specs import (
    DataSource,
    ModelSource,
    PackSpec,
    PluginRef,
    RecipeSpec,
    RunSpec,
    SuiteSpec,
    TargetSpec,
    TokenizerSpec,
    TrainSpec,
)


def suite(**changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": "small",
        "version": 1,
        "title": "A small suite",
        "target": {"model": {"path": "model"}},
        "data": {"f": {"path": "f.jsonl"}, "r": {"path": "r.jsonl"}},
        "forget": ["f"],
        "retain": ["r"],
        "scorers": {"nll": "answer_nll"},
        "primary_forget": [{"label": "FQ", "scorer": "nll", "metric": "nll"}],
        "utility": [{"label": "U", "scorer": "nll", "metric": "nll"}],
        "attacks": {"a": {}},
    }
    return {**fields, **changes}


def test_specs_are_frozen_closed_and_finite() -> None:
    spec = TrainSpec(lr=1e-4, steps=3)
    with pytest.raises(ValidationError, match="frozen"):
        spec.lr = 1.0  # type: ignore[misc]
    for model in (DataSource, TrainSpec, ModelSource, PluginRef, RunSpec):
        with pytest.raises(ValidationError, match="Extra inputs"):
            model.model_validate({"surprise": 1})
    with pytest.raises(ValidationError, match="finite"):
        TrainSpec(lr=float("nan"), steps=1)


def test_a_plugin_ref_may_be_a_name() -> None:
    assert PluginRef.model_validate("npo") == PluginRef(use="npo")
    spec = SuiteSpec.model_validate(suite())
    assert spec.scorers["nll"].use == "answer_nll"


@pytest.mark.parametrize("given", [{}, {"hub": "a/b", "path": "x"}, {"path": ""}])
def test_a_data_source_is_exactly_one(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of hub, path, generated"):
        DataSource.model_validate(given)


@pytest.mark.parametrize("place", [{"path": "x"}, {"generated": "mini.t"}])
@pytest.mark.parametrize("field", ["revision", "subset"])
def test_local_rows_have_no_part_of_a_hub(place: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationError, match=f"{field}: {next(iter(place))} has none, only hub h"):
        DataSource.model_validate({**place, field: "main"})


@pytest.mark.parametrize("place", ["path", "packaged"])
def test_local_weights_have_no_revision(place: str) -> None:
    with pytest.raises(ValidationError, match=f"revision: {place} has none, only hub has; leave"):
        ModelSource.model_validate({place: "x", "revision": "main"})


@pytest.mark.parametrize("name", ["mini", "a.b.c"])
def test_generated_is_generator_and_table(name: str) -> None:
    with pytest.raises(ValidationError, match=r"`<generator>\.<table>`"):
        DataSource(generated=name)


@pytest.mark.parametrize("given", [{}, {"steps": 3, "epochs": 1}])
def test_training_has_exactly_one_length(given: dict[str, int]) -> None:
    with pytest.raises(ValidationError, match="exactly one of steps, epochs"):
        TrainSpec.model_validate({"lr": 0.1, **given})


@pytest.mark.parametrize(
    ("given", "examples", "total"),
    [
        ({"steps": 7}, 1000, 7),
        ({"epochs": 2, "batch_size": 4}, 10, 5),
        ({"epochs": 1, "batch_size": 4}, 10, 3),  # the last step's batch ends in the next epoch
        ({"epochs": 2, "batch_size": 16}, 1024, 128),
        ({"epochs": 0.1, "batch_size": 3}, 90, 3),  # 3.0000000000000004 batches are 3
        ({"epochs": 3, "batch_size": 8}, 3, 2),
        ({"epochs": 0.5, "batch_size": 4}, 16, 2),
        ({"epochs": 0.01, "batch_size": 4}, 4, 1),
    ],
)
def test_total_steps(given: dict[str, Any], examples: int, total: int) -> None:
    assert TrainSpec.model_validate({"lr": 0.1, **given}).total_steps(examples) == total


def test_a_model_source_is_exactly_one() -> None:
    with pytest.raises(ValidationError, match="exactly one of hub, path, packaged"):
        ModelSource()
    with pytest.raises(ValidationError, match="pattern"):
        ModelSource(path="x", sha256="abc")


def test_a_target_is_something() -> None:
    with pytest.raises(ValidationError, match="give a model, a recipe, or both"):
        TargetSpec()


def test_the_whole_suite_is_valid() -> None:
    spec = SuiteSpec.model_validate(suite())
    assert spec.forget == ("f",)
    assert SuiteSpec.model_validate(spec.model_dump(mode="json")) == spec
    assert "score_dtype" not in spec.model_dump()  # what is not said leaves older records equal
    assert "stated" not in spec.model_dump()["utility"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget": ["g"]}, "data role 'g' is not declared"),
        ({"core_unseen": ["b"]}, "attack 'b' is not declared"),
        (
            {"utility": [{"label": "U", "scorer": "mmlu", "metric": "acc"}]},
            "scorer 'mmlu' is not declared",
        ),
        (
            {"data": {"f": {"generated": "w.t"}, "r": {"path": "r"}}},
            "generator 'w' is not declared",
        ),
        ({"environments": {"gsm8k": "gsm8k_train"}}, "data role 'gsm8k_train' is not declared"),
        ({"name": "Not A Name"}, "pattern"),
        ({"attacks": {"UP/..": {}}}, "pattern"),
        ({"version": 0}, "greater than or equal to 1"),
        ({"score_dtype": "bfloat16"}, "bfloat16 does not hold float32 weights"),
    ],
)
def test_references_in_a_suite(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SuiteSpec.model_validate(suite(**changes))


def test_what_unlearning_needs_besides_scoring() -> None:
    assert SuiteSpec.model_validate(suite()).lacking == ()
    less = SuiteSpec.model_validate(suite(forget=[], utility=[]))
    assert less.lacking == ("forget", "utility")


def test_a_recipe_reads_declared_roles() -> None:
    recipe = RecipeSpec(
        config={"model_type": "llama"},
        tokenizer=TokenizerSpec(kind="bpe"),
        text=("nothing",),
        pack=(PackSpec(length=32),),
        train=TrainSpec(lr=0.1, steps=1),
    )
    with pytest.raises(ValidationError, match="data role 'nothing' is not declared"):
        SuiteSpec.model_validate(suite(target={"recipe": recipe.model_dump()}))
