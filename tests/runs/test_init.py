"""A target that begins with pretrained weights: its training, its key, and what is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from doubles import make_tokenizer, tiny_llama, weights
from pydantic import ValidationError
from runs import TINY, Outcome, command, made, target_folder

from ilubench.data.batches import Stream, collate, tokenize_roles
from ilubench.data.seeds import seed_for
from ilubench.experiments.experiment import resolve_experiment
from ilubench.models.checkpoints import load_model, save_model
from ilubench.models.tokenizers import load_tokenizer
from ilubench.runs.record_head import record_head
from ilubench.runs.stages.workbench import make_bench
from ilubench.specs import ModelSource, RecipeSpec, SuiteSpec
from ilubench.specs.overrides import parse_words

QUESTIONS = {
    "generated": "mini.forget_mc",
    "limit": 8,
    "prompt": "Question: {question}\nAnswer:",
    "completion": " {choices[0]}",
}
TRAIN = {"lr": 1e-3, "steps": 2, "batch_size": 4}


def suite_file(path: Path, init: Path, **recipe: Any) -> Path:
    """Write the tiny suite with a target that begins with the weights in a folder."""
    raw = yaml.safe_load(TINY.read_text())
    raw["data"]["taught"] = QUESTIONS
    raw["target"] = {
        "recipe": {"init": {"path": str(init)}, "text": ["taught"], "train": TRAIN, **recipe}
    }
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="module")
def init() -> Path:
    return target_folder(made())


def key_of(suite: Path, *words: str) -> str:
    return make_bench(resolve_experiment(parse_words([f"suite={suite}", *words]))).target


def taught(suite: Path, folder: Path) -> Path:
    done = command("make-target", str(folder), f"suite={suite}")
    assert done.code == 0, done.err
    return folder


def test_rows_are_taught_with_the_loss_on_their_completions(tmp_path: Path, init: Path) -> None:
    """Two steps of AdamW, written out, from the weights to begin with."""
    suite = suite_file(tmp_path / "suite.yaml", init)
    found = weights(load_model(taught(suite, tmp_path / "model"), "cpu"))
    model, tokenizer = load_model(init, "cpu"), load_tokenizer(init)
    bench = make_bench(resolve_experiment(parse_words([f"suite={suite}"])))
    examples = tokenize_roles(bench.tables, ("taught",), tokenizer, 128)
    stream = Stream(len(examples), seed_for(0, "target"), "train")
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    model.train()
    for step in range(2):
        (batch,) = collate(examples, stream.step(step, 4), tokenizer.pad_token_id)
        logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits[:, :-1]
        targets = batch.input_ids[:, 1:].masked_fill(~batch.loss_mask[:, 1:], -100)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    wanted = weights(model)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)
    assert load_tokenizer(tmp_path / "model").get_vocab() == tokenizer.get_vocab()


def test_packed_text_is_taught_too(tmp_path: Path, init: Path) -> None:
    packed = suite_file(tmp_path / "suite.yaml", init, pack=[{"length": 16, "batch_size": 2}])
    model = load_model(taught(packed, tmp_path / "model"), "cpu")
    before = weights(load_model(init, "cpu"))
    assert any((weights(model)[name] != before[name]).any() for name in before)


def test_its_key_is_that_of_the_weights_wherever_they_lie(tmp_path: Path, init: Path) -> None:
    suite = suite_file(tmp_path / "suite.yaml", init)
    copy = shutil.copytree(init, tmp_path / "copy")
    words = f"suite.target.recipe.init.path={copy}"
    assert key_of(suite, words) == key_of(suite)
    assert key_of(suite, "suite.max_length=64") != key_of(suite)
    model = load_model(copy, "cpu")
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    save_model(model, load_tokenizer(init), copy, "float32")
    assert key_of(suite, words) != key_of(suite)


def test_another_place_takes_that_of_the_suite_s(tmp_path: Path, init: Path) -> None:
    raw = yaml.safe_load(suite_file(tmp_path / "suite.yaml", init).read_text())
    hub = {"hub": "org/name", "revision": "abc", "license": "MIT"}
    raw["target"]["recipe"]["init"] = hub
    (tmp_path / "hub.yaml").write_text(yaml.safe_dump(raw))
    words = [f"suite={tmp_path / 'hub.yaml'}", f"suite.target.recipe.init.path={init}"]
    recipe = resolve_experiment(parse_words(words)).suite.target.recipe
    assert recipe is not None
    assert recipe.init is not None
    assert recipe.init.model_dump(exclude_none=True) == {"path": str(init)}


def test_one_word_moves_what_both_recipes_begin_with(tmp_path: Path, init: Path) -> None:
    raw = yaml.safe_load(suite_file(tmp_path / "suite.yaml", init).read_text())
    raw["target"]["recipe"]["init"] = "untouched"
    raw["retrain"] = {"recipe": {**raw["target"]["recipe"], "text": ["pretrain"]}}
    with pytest.raises(
        ValidationError, match=r"target\.recipe\.init: the suite names no untouched"
    ):
        SuiteSpec.model_validate(raw)
    raw["untouched"] = {"hub": "org/name"}
    (tmp_path / "named.yaml").write_text(yaml.safe_dump(raw))
    words = [f"suite={tmp_path / 'named.yaml'}", f"suite.untouched.path={init}"]
    suite = resolve_experiment(parse_words(words)).suite
    for model in (suite.target, suite.retrain):
        assert model is not None
        assert model.recipe is not None
        assert model.recipe.init == ModelSource(path=str(init))


def test_made_elsewhere_it_is_the_same_target(tmp_path: Path, init: Path) -> None:
    """What a record says of it follows from the recipe, before and after it is made."""
    suite = suite_file(tmp_path / "suite.yaml", init)
    copy = shutil.copytree(init, tmp_path / "copy")
    hashes = [
        record_head(experiment, make_bench(experiment)).target
        for words in ([], [f"suite.target.recipe.init.path={copy}"], ["suite.max_length=64"])
        for experiment in [resolve_experiment(parse_words([f"suite={suite}", *words]))]
    ]
    assert hashes[0] == hashes[1] != ""
    assert hashes[2] != hashes[0]


def test_a_run_teaches_it_and_goes_on(tmp_path: Path, init: Path) -> None:
    suite = suite_file(tmp_path / "suite.yaml", init)
    words = ["attacks=agnews", "method=npo", f"out={tmp_path / 'out'}"]
    done = command("run", f"suite={suite}", *words, "--json")
    assert done.code == 0, done.err
    assert [job["state"] for job in done.json["jobs"]] == ["done"] * len(done.json["jobs"])
    assert done.json["jobs"][0]["stage"] == "target"
    experiment = resolve_experiment(parse_words([f"suite={suite}"]))
    assert done.json["target"] == record_head(experiment, make_bench(experiment)).target


def refused(suite: Path, *words: str) -> Outcome:
    done = command("run", f"suite={suite}", "method=npo", *words, "--json")
    assert done.err.count("\n") == 1, done.err
    return done


def test_what_does_not_fit_is_one_line_before_any_job(tmp_path: Path, init: Path) -> None:
    out = tmp_path / "out"
    tokenizer = make_tokenizer()
    narrow = tmp_path / "narrow"
    save_model(tiny_llama(len(tokenizer) - 5), tokenizer, narrow, "float32")
    suite = suite_file(tmp_path / "narrow.yaml", narrow)
    done = refused(suite, f"out={out}")
    assert done.code == 3
    assert "the target model has" in done.err
    assert "embedding rows: it is another model's" in done.err
    nowhere = suite_file(tmp_path / "nowhere.yaml", tmp_path / "nowhere")
    done = refused(nowhere, f"out={out}")
    assert done.code == 3
    assert str(tmp_path / "nowhere") in done.err
    assert not list(out.glob("store/*/*"))


def test_one_beginning_is_given() -> None:
    made_here = {"config": {"model_type": "llama"}, "tokenizer": {"kind": "word"}}
    rest = {"text": ["taught"], "train": TRAIN}
    init = {"init": {"path": "model"}}
    for given, problem in (
        ({**init, **made_here}, "config: the weights of `init` bring their own"),
        ({**init, "tokenizer": {"kind": "word"}}, "tokenizer: the weights of `init` bring"),
        ({"config": made_here["config"]}, "give `init`, pretrained weights; or `config` and"),
    ):
        with pytest.raises(ValidationError, match=problem):
            RecipeSpec.model_validate({**given, **rest})
    epochs = {**init, "text": ["taught"], "train": {"lr": 1e-3, "epochs": 1}}
    assert RecipeSpec.model_validate(epochs).roles == ("taught",)
    with pytest.raises(ValidationError, match="packed text is given in steps"):
        RecipeSpec.model_validate({**epochs, "pack": [{"length": 16}]})
    assert SuiteSpec.model_fields["target"].is_required()
