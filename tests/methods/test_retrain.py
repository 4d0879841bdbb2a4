"""The model that never saw the forget set: made, used as a method, and as each row's reference."""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from doubles import make_tokenizer, tiny_llama, weights
from finished_runs import edit_record, edit_samples
from pydantic import ValidationError
from runs import TINY, Outcome, command, made, target_folder, with_target

from ilubench.errors import ModelError, SpecError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.interfaces import UnlearnData
from ilubench.methods.retrain import Retrain
from ilubench.models.checkpoints import load_model, save_model
from ilubench.models.tokenizers import load_tokenizer
from ilubench.records.finished import read_run
from ilubench.records.results import RunRecord
from ilubench.runs.collect import robustness_rows
from ilubench.runs.plan import make_plan
from ilubench.specs import ModelSource, SuiteSpec
from ilubench.specs.overrides import parse_words
from ilubench.statistics.notes import Note, NoteKind

if TYPE_CHECKING:
    from ilubench.interfaces import Context

ATTACK = "attacks=gsm8k"
NO_DATA = UnlearnData((), ())


def suite_file(path: Path, **retrain: Any) -> Path:
    """Write the tiny suite with a retrained model: like the target, but of the retain passages."""
    raw = yaml.safe_load(TINY.read_text())
    raw["data"]["forget_free"] = {"generated": "mini.retain_passages", "limit": 8}
    words = {"kind": "word", "text": ["vocabulary", "pretrain"]}
    recipe = {**raw["target"]["recipe"], "text": ["forget_free"], "tokenizer": words}
    raw["retrain"] = retrain or {"recipe": recipe}
    path.write_text(yaml.safe_dump(raw))
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The retrained model of the tiny suite, made by its recipe; tests only read it."""
    place = tmp_path_factory.mktemp("retrain")
    suite = suite_file(place / "suite.yaml")
    done = command("make-target", str(place / "model"), f"suite={suite}", "--retrain")
    assert done.code == 0, done.err
    return place / "model"


@pytest.fixture(scope="session")
def shared(folder: Path) -> Path:
    """The `out` folder of a run of npo, two seeds, the retrained model attacked beside it."""
    out = with_target(made(), folder.parent / "out")
    done = run(folder, out, "method=npo", "seeds=0,1")
    assert done.code == 0, done.err
    return out


def words(folder: Path, out: Path) -> tuple[str, ...]:
    suite = folder.parent / "suite.yaml"
    return (f"suite={suite}", f"suite.retrain.model.path={folder}", ATTACK, f"out={out}")


def run(folder: Path, out: Path, *more: str) -> Outcome:
    return command("run", *words(folder, out), *more, "--json")


def attacked(record: dict[str, Any]) -> dict[str, Any]:
    (row,) = record["rows"].values()
    (attack,) = row["attacks"]
    found: dict[str, Any] = attack
    return found


def samples_of(out: Path, record: dict[str, Any]) -> pa.Table:
    return pq.read_table(out / record["run"] / "samples.parquet")


# --------------------------------------------------------------------------- made by its recipe


def test_it_is_made_like_the_target_from_other_text(folder: Path) -> None:
    target = target_folder(made())
    assert (folder / "config.json").read_text() == (target / "config.json").read_text()
    vocabularies = [load_tokenizer(place).get_vocab() for place in (folder, target)]
    assert vocabularies[0] == vocabularies[1]
    mine, other = (weights(load_model(place, "cpu")) for place in (folder, target))
    assert mine.keys() == other.keys()
    assert not any((mine[name] == other[name]).all() for name in mine if "proj" in name)
    assert not list(folder.glob("state.*"))


def test_what_cannot_be_made_is_one_line(tmp_path: Path, folder: Path) -> None:
    here = tmp_path / "new"
    only_weights = suite_file(tmp_path / "weights.yaml", model={"path": str(folder)})
    suite = folder.parent / "suite.yaml"
    for given, message in {
        f"suite={TINY}": "the suite has no `retrain` model; add retrain.recipe to the suite",
        f"suite={only_weights}": "retrain.recipe: the suite has weights for its `retrain` model",
        f"suite={suite} suite.retrain.recipe.tokenizer.text=forget_passages": (
            "retrain.recipe.tokenizer.text: the tokenizer would be another than the target's: "
        ),
    }.items():
        done = command("make-target", str(here), *given.split(), "--retrain")
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        assert message in done.err
        assert not here.exists() or not list(here.iterdir())


@pytest.mark.parametrize(
    ("change", "code", "problem"),
    [
        ({"tokenizer": {"kind": "word"}}, 2, "retrain.recipe.tokenizer.text: the tokenizer would"),
        ({"hidden_size": 64}, 2, "retrain.recipe.config: hidden_size would be 64, and is 96 in"),
        ({"rms_norm_eps": 0.1}, 2, "config: rms_norm_eps would be 0.1, and is 1e-06 in"),
        ({"pack": [{"length": 4096}]}, 3, "does not fill one block of 4096 tokens; give more"),
    ],
)
def test_a_recipe_that_cannot_be_carried_out_stops_the_run_at_once(
    tmp_path: Path, change: dict[str, Any], code: int, problem: str
) -> None:
    suite = suite_file(tmp_path / "suite.yaml")
    raw = yaml.safe_load(suite.read_text())
    recipe = raw["retrain"]["recipe"]
    recipe |= change if change.keys() <= recipe.keys() else {"config": recipe["config"] | change}
    suite.write_text(yaml.safe_dump(raw))
    out = with_target(made(), tmp_path / "out")
    done = command("run", f"suite={suite}", "method=npo", f"out={out}")
    assert (done.code, len(done.err.strip().splitlines())) == (code, 1), done.err
    assert problem in done.err
    assert not list(out.glob("store/unlearn/*"))


def test_weights_of_another_model_of_the_same_shapes_are_refused(
    tmp_path: Path, folder: Path
) -> None:
    """Their tensors fit, and would be read by the target's heads."""
    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    del config["head_dim"]
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    (other / "config.json").write_text(json.dumps({**config, **heads}))
    out = with_target(made(), tmp_path / "out")
    done = command("attack", str(other), f"suite={TINY}", "attacks=none", f"out={out}")
    assert done.code == 3
    assert "does not fit the suite's target model: num_attention_heads is 4, in the" in done.err


def test_its_recipe_reads_declared_roles(tmp_path: Path) -> None:
    raw = yaml.safe_load(suite_file(tmp_path / "suite.yaml").read_text())
    SuiteSpec.model_validate(raw)
    raw["retrain"]["recipe"]["tokenizer"]["text"] = ["nowhere"]
    with pytest.raises(ValidationError, match="data role 'nowhere' is not declared"):
        SuiteSpec.model_validate(raw)


# --------------------------------------------------------------------------- as a method


def test_as_a_method_it_is_the_suite_s_weights(folder: Path, shared: Path) -> None:
    """Nothing is left to do after another method's run; its row is that of the folder's model."""
    done = run(folder, shared, "method=retrain", "seeds=0,1")
    assert done.code == 0, done.err
    assert {job["state"] for job in done.json["jobs"]} == {"cached"}
    assert attacked(done.json)["never_knew"] is None  # a difference to itself says nothing
    suite = folder.parent / "suite.yaml"
    scored = command("score", str(folder), f"suite={suite}", f"out={shared}", "--json")
    assert scored.code == 0, scored.err
    elsewhere = {s["scorer"]: s["value"] for s in scored.json["scores"]}
    mine = {s["scorer"]: s["value"] for s in done.json["scores"] if s["who"] == "method"}
    assert mine == elsewhere
    assert "retrain" not in {s["who"] for s in scored.json["scores"]}


def test_a_suite_that_cannot_make_it_has_no_such_method(folder: Path) -> None:
    suite = folder.parent / "suite.yaml"
    by_recipe = resolve_experiment(parse_words([f"suite={suite}", "method=retrain"]))
    assert by_recipe.method == Retrain()
    with pytest.raises(SpecError, match="has no `retrain` weights, and no recipe of them; give a"):
        resolve_experiment(parse_words([f"suite={TINY}", "method=retrain"]))
    found = resolve_experiment(
        parse_words([f"suite={TINY}", "method=retrain", f"method.model.path={folder}"])
    )
    assert found.method == Retrain(model=ModelSource(path=str(folder)))


def test_other_weights_take_the_place_of_the_suite_s(tmp_path: Path, folder: Path) -> None:
    given = {"hub": "org/name", "revision": "abc", "sha256": "a" * 64}
    suite = suite_file(tmp_path / "suite.yaml", model=given)
    named = resolve_experiment(parse_words([f"suite={suite}", "method=retrain"])).method
    assert named == Retrain(model=ModelSource.model_validate(given))
    moved = parse_words([f"suite={suite}", "method=retrain", f"suite.retrain.model.path={folder}"])
    assert resolve_experiment(moved).method == Retrain(model=ModelSource(path=str(folder)))


def test_weights_that_do_not_fit_are_refused(
    tmp_path: Path, context: "Callable[..., Context]"
) -> None:
    tokenizer = make_tokenizer()
    model = tiny_llama(len(tokenizer))
    save_model(tiny_llama(len(tokenizer) + 1), tokenizer, tmp_path / "wide", "float32")
    other = make_tokenizer()
    other.add_tokens(["extra"])
    save_model(model, other, tmp_path / "words", "float32")
    for name, message in (("wide", "does not fit .* tensor"), ("words", "has other tokens")):
        method = Retrain(model=ModelSource(path=str(tmp_path / name)))
        with pytest.raises(ModelError, match=f"{message}.*never_knew=false"):
            method.unlearn(model, NO_DATA, context())
    (tmp_path / "words" / "tokenizer.json").unlink()  # weights alone say nothing of their tokens
    method.unlearn(model, NO_DATA, context())


# --------------------------------------------------------------------------- never knew


def by_hand(samples: pa.Table) -> float:
    """Mean over seeds and items of method - retrain at the last step; NLL: higher = forgotten."""
    own = samples.filter(pc.equal(samples["attack"], "gsm8k")).to_pylist()
    last = max(row["step"] for row in own)
    found: dict[str, dict[tuple[int, str], float]] = {}
    for row in own:
        if row["scorer"] == "forget_nll" and row["step"] == last:
            found.setdefault(row["who"], {})[row["seed"], row["item"]] = row["value"]
    mine, never = found["method"], found["retrain"]
    assert mine.keys() == never.keys()
    assert len(mine) == 12
    return sum(mine[key] - never[key] for key in mine) / len(mine)


def test_never_knew_follows_from_the_samples(folder: Path, shared: Path) -> None:
    done = run(folder, shared, "method=npo", "seeds=0,1")
    assert {job["state"] for job in done.json["jobs"]} == {"cached"}
    labels = [job["label"] for job in done.json["jobs"] if "retrain" in job["label"]]
    attacks = [f"attack retrain with gsm8k, seed {seed}" for seed in (0, 1)]
    assert labels == ["unlearn retrain", "score retrain", *attacks]
    samples = samples_of(shared, done.json)
    figure = attacked(done.json)["never_knew"]
    assert figure["value"] == pytest.approx(by_hand(samples), abs=1e-12)
    assert (figure["n_seeds"], figure["n_items"]) == (2, 6)
    assert figure["low"] < figure["value"] < figure["high"]
    experiment = resolve_experiment(
        parse_words([*words(folder, shared), "method=npo", "seeds=0,1"])
    )
    again = {k: dataclasses.asdict(r) for k, r in robustness_rows(experiment, samples).items()}
    assert json.loads(json.dumps(again)) == RunRecord.model_validate(done.json).rows
    shown = command("run", *words(folder, shared), "method=npo", "seeds=0,1", "--details").out
    assert "never-knew" in shown
    assert f"{figure['value']:.3f} [" in shown


def test_the_original_is_compared_too(folder: Path, shared: Path) -> None:
    done = run(folder, shared, "method=none", "seeds=0,1")
    assert {job["state"] for job in done.json["jobs"]} == {"cached"}
    assert attacked(done.json)["never_knew"]["n_seeds"] == 2
    assert {score["who"] for score in done.json["scores"]} == {"reference", "retrain"}


def test_it_can_be_left_out(folder: Path, shared: Path) -> None:
    with_it, without = (
        make_plan(
            resolve_experiment(
                parse_words([*words(folder, shared), "method=npo", "seeds=0,1", *more])
            )
        )
        for more in ((), ("never_knew=false",))
    )
    keys = {job.key for job in with_it.jobs if job.who != "retrain"}
    assert keys == {job.key for job in without.jobs} < {job.key for job in with_it.jobs}
    done = run(folder, shared, "method=npo", "seeds=0,1", "never_knew=false")
    assert {job["state"] for job in done.json["jobs"]} == {"cached"}
    assert attacked(done.json)["never_knew"] is None
    assert set(samples_of(shared, done.json)["who"].to_pylist()) == {"method", "reference"}


def test_a_recipe_alone_is_carried_out_in_the_run(
    tmp_path: Path, folder: Path, shared: Path
) -> None:
    """The model is the one that `make-target` writes: every sample of it is the same."""
    out = with_target(made(), tmp_path / "out")
    suite = f"suite={folder.parent / 'suite.yaml'}"
    done = command("run", suite, ATTACK, f"out={out}", "method=none", "--json")
    assert done.code == 0, done.err
    given = run(folder, shared, "method=npo", "seeds=0,1")
    mine, other = (samples_of(place, told.json) for place, told in ((out, done), (shared, given)))
    mine, other = (  # its score before any attack is told once, with the last seed
        table.filter(
            (pc.field("who") == "retrain") & (pc.field("seed") == 0) & (pc.field("attack") != "")
        )
        for table in (mine, other)
    )
    assert len(mine) > 0
    assert mine.equals(other)


def test_what_is_missing_shows(folder: Path, shared: Path) -> None:
    """A retrained model that was attacked with fewer seeds, with another one, or not at all."""
    text = [*words(folder, shared), "method=npo", "seeds=0,1"]
    experiment = resolve_experiment(parse_words(text))
    samples = pq.read_table(make_plan(experiment).folder / "samples.parquet")
    retrain = pc.equal(samples["who"], "retrain")
    course = pc.and_(retrain, pc.equal(samples["attack"], "gsm8k"))

    def never(lost: Any) -> Any:
        (row,) = robustness_rows(experiment, samples.filter(pc.invert(lost))).values()
        return row.status, row.attacks[0].never_knew, row.ra.n_seeds

    intact, figure, _ = never(pc.equal(samples["who"], "nobody"))
    assert (intact == "incomplete", figure.n_seeds) == (False, 2)
    # the row's rank does not use the retrained model: its status stays
    status, figure, seeds = never(pc.and_(course, pc.equal(samples["seed"], 1)))
    assert (status, figure.n_seeds, seeds) == (intact, 1, 2)
    status, figure, seeds = never(course)
    assert (status, figure.value, seeds) == (intact, None, 2)
    assert figure.note == Note(NoteKind.NOT_ATTACKED, ("retrained", "gsm8k"))
    of_method = pc.and_(pc.equal(samples["who"], "method"), pc.equal(samples["seed"], 0))
    other = pc.or_(pc.and_(course, pc.equal(samples["seed"], 1)), of_method)
    status, figure, seeds = never(other)
    assert (status, figure.value, seeds) == ("incomplete", None, 1)
    assert figure.note == Note(NoteKind.RETRAIN_SHARES_NO_SEED)
    status, figure, seeds = never(retrain)
    assert (status, figure, seeds) == (intact, None, 2)
    original = pc.and_(pc.equal(samples["who"], "reference"), pc.equal(samples["seed"], 1))
    status, figure, seeds = never(pc.and_(original, pc.equal(samples["attack"], "gsm8k")))
    assert (status, figure.n_seeds) == ("incomplete", 2)


def test_a_course_of_the_retrained_model_may_be_missing_in_a_finished_run(
    folder: Path, shared: Path, tmp_path: Path
) -> None:
    experiment = resolve_experiment(
        parse_words([*words(folder, shared), "method=npo", "seeds=0,1"])
    )
    made_of = make_plan(experiment).folder
    for name in ("results.json", "config.yaml", "samples.parquet"):
        shutil.copy(made_of / name, tmp_path)
    samples = pq.read_table(made_of / "samples.parquet")
    wanted = {"who": "retrain", "attack": "gsm8k", "seed": 1}
    lost = functools.reduce(pc.and_, (pc.equal(samples[k], v) for k, v in wanted.items()))
    less = samples.filter(pc.invert(lost))
    assert 0 < len(less) < len(samples)
    ((label, row),) = robustness_rows(experiment, less).items()
    assert row.status != "incomplete"
    edit_samples(tmp_path, lambda _: less)
    edit_record(tmp_path, rows={label: dataclasses.asdict(row)})
    found = read_run(tmp_path).rows[label]
    assert found.status == row.status
    never = found.attacks[0].never_knew
    assert never is not None
    assert never.n_seeds == 1


def test_weights_that_do_not_fit_leave_the_row(tmp_path: Path, folder: Path, shared: Path) -> None:
    tokenizer = load_tokenizer(folder)
    save_model(tiny_llama(len(tokenizer)), tokenizer, tmp_path / "other", "float32")
    out = with_target(made(), tmp_path / "out")
    suite = folder.parent / "suite.yaml"
    other = f"suite.retrain.model.path={tmp_path / 'other'}"
    done = command("run", f"suite={suite}", other, ATTACK, "method=npo", f"out={out}", "--json")
    assert done.code == 4
    (failure,) = done.json["failures"]
    assert failure["label"] == "unlearn retrain"
    assert "does not fit the suite's target model" in failure["message"]
    assert attacked(done.json)["never_knew"] is None
