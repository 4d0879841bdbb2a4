"""Attacks one after the other: by name in a suite, from its words to its record."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from doubles import (
    MemoryState,
    differing,
    make_context,
    make_tokenizer,
    random_examples,
    tiny_llama,
    weights,
)
from pydantic import ValidationError
from runs import TINY, command, made, with_target

from ilubench.attacks.chain import Chain
from ilubench.attacks.finetune import FineTune
from ilubench.attacks.noise import Noise
from ilubench.attacks.prune import Prune
from ilubench.errors import SpecError
from ilubench.experiments.experiment import resolve_experiment, restore_experiment
from ilubench.interfaces import WeightAttack
from ilubench.specs import LoraSpec, TrainSpec
from ilubench.specs.overrides import parse_words

TRAIN = TrainSpec(lr=1e-2, steps=3, batch_size=4, save_every_s=0)
DATA = random_examples(9, 60, 1)


def test_links_go_on_from_each_other() -> None:
    """The same as one attack on what the one before has left, each with its own seed and phase."""
    tune = FineTune(train=TRAIN, lora=LoraSpec(rank=2))
    chain = Chain(links={"tune": tune, "prune": Prune(shares=(0.2, 0.6)), "again": tune})
    assert chain.roles() == ("tune.train", "again.train")
    steps: list[int] = []
    job = make_context(make_tokenizer(), log=lambda step, _metrics: steps.append(step))
    model = tiny_llama(60)
    before = weights(model)
    data = {"tune.train": DATA, "again.train": DATA}
    found = {one.level: (one.step, weights(one.model)) for one in chain.tamper(model, data, job)}
    assert list(found) == [None, "tune", "prune", "again"]
    assert found[None][0] == 0
    assert not differing(found[None][1], before)
    assert steps == [1, 2, 3, 4, 5, 6]
    start = found["tune"][1]
    other = tiny_llama(60)
    other.load_state_dict(start)
    for _ in Prune(shares=(0.6,)).tamper(other, {}, job):
        pass
    assert not differing(weights(other), found["prune"][1])
    moved = [found[level][1] for level in ("tune", "prune", "again")]
    assert all(differing(one, two) for one, two in pairwise(moved))


def test_a_chain_that_was_killed_ends_with_the_same_bits() -> None:
    links: dict[str, WeightAttack] = {
        "a": FineTune(train=TRAIN),
        "b": FineTune(train=TRAIN, lora=LoraSpec(rank=2)),
    }
    chain, data = Chain(links=links), {"a.train": DATA, "b.train": DATA}

    class Killed(Exception):  # noqa: N818
        pass

    def last(**changes: Any) -> dict[str, torch.Tensor]:
        *_, checkpoint = chain.tamper(
            tiny_llama(60), data, make_context(make_tokenizer(), **changes)
        )
        return weights(checkpoint.model)

    state, steps = MemoryState(), []

    def die(step: int, _metrics: object) -> None:
        steps.append(step)
        if step == 5:
            raise Killed

    with pytest.raises(Killed):
        last(state=state, log=die)
    again: list[int] = []
    assert not differing(last(), last(state=state, log=lambda step, _m: again.append(step)))
    assert (steps, again) == ([1, 2, 3, 4, 5], [3, 5, 6])


def test_one_link_is_no_chain() -> None:
    with pytest.raises(ValidationError, match="at least 2"):
        Chain(links={"a": Noise()})


# --------------------------------------------------------------------------- in a suite

MORE: dict[str, Any] = {
    "adapters": {
        "further": True,
        "settings": {
            "train": {"lr": 1e-2, "steps": 4, "batch_size": 4},
            "role": "gsm8k",
            "fractions": [1.0],
            "lora": {"rank": 4, "targets": ["q_proj", "up_proj"]},
        },
        "only": {"forget_nll": {"part": "held_out"}},
    },
    "prune": {"further": True, "use": "prune", "settings": {"shares": [0.1, 0.5]}},
    "noise": {"further": True, "use": "noise", "settings": {"scales": [0.1]}},
    "shown": {"further": True, "use": "prefix", "settings": {"text": "so: "}},
    "both": {"further": True, "use": "chain", "settings": {"links": ["adapters", "prune"]}},
}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    raw = yaml.safe_load(TINY.read_text())
    raw["attacks"] |= MORE
    path = tmp_path_factory.mktemp("chain") / "chained.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


def resolved(suite: Path, *words: str) -> Any:
    return resolve_experiment(parse_words([f"suite={suite}", "method=npo", *words])).attacks


def test_links_are_the_suites_attacks_with_their_changes(suite: Path) -> None:
    words = ("attack.adapters.lora.rank=2", "attack.adapters.train.lr=3e-3")
    both, alone = resolved(suite, "attacks=both,adapters", *words)
    assert dict(both.plugin.links) == {
        "adapters": alone.plugin,
        "prune": both.links["prune"].plugin,
    }
    assert (alone.plugin.lora.rank, alone.plugin.train.lr) == (2, 3e-3)
    assert both.only == {"forget_nll": {"part": "held_out"}}
    for given in ("attack.both.links=noise,prune", "attack.links=noise,prune"):
        (chain,) = resolved(suite, "attacks=both", given)
        assert list(chain.plugin.links) == ["noise", "prune"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("attack.both.links=adapters,prunes", "suite tiny has no attack 'prunes'; did you mean"),
        ("attack.both.links=prune,prune", "prune is named twice; name each once"),
        ("attack.both.links=prune,shown", "shown changes no weights; leave it out"),
        ("attack.both.links=both,prune", "both is made of others itself; name these instead"),
        ("attack.both.links=prune", "links: 1 is no chain; name two or more"),
        ("attack.both.shares=0.1,0.2", "unknown setting 'shares'"),
        ("suite.attacks.both.settings.links=none", "a list of attacks' names is needed"),
    ],
)
def test_what_is_no_chain(suite: Path, words: str, told: str) -> None:
    with pytest.raises(SpecError) as caught:
        resolved(suite, "attacks=both", words)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_of_levels_adapters_and_a_chain(suite: Path, tmp_path: Path) -> None:
    out = with_target(made(), tmp_path / "out")
    method = ("method=npo", "method.lora.rank=4", "method.train.lr=0.01")
    words = (f"suite={suite}", *method, "attacks=both,adapters,noise", f"out={out}")
    plan = command("plan", *words, "--json", "--card", "h100")
    assert plan.code == 0, plan.err
    jobs = {job["label"]: job for job in plan.json["jobs"]}
    both = jobs["attack npo with both, seed 0"]["amount"]
    assert (both["steps"], both["checkpoints"], both["lora"]["rank"]) == (4, 3, 4)
    assert jobs["unlearn npo, seed 0"]["amount"]["lora"]["rank"] == 4
    assert jobs["attack npo with noise, seed 0"]["amount"]["checkpoints"] == 2
    assert all(job["seconds"] for job in plan.json["jobs"] if not job["cached"])
    done = command("run", *words, "keep=attacked", "--json")
    assert done.code == 0, done.err
    row = done.json["rows"]["NLL_f"]
    found = {part["attack"]: part["steps"] for part in row["attacks"]}
    assert [(s["step"], s["level"]) for s in found["both"]] == [
        (0, ""),
        (1, "adapters"),
        (2, "prune"),
    ]
    assert [(s["step"], s["level"]) for s in found["noise"]] == [(0, ""), (1, "0.1")]
    assert [s["step"] for s in found["adapters"]] == [0, 4]
    assert len({s["forget"]["value"] for s in found["both"]}) == 3
    (config,) = out.glob("tiny-*/config.yaml")
    kept = yaml.safe_load(config.read_text())
    assert list(kept["attacks"]["both"]["links"]) == ["adapters", "prune"]
    again = restore_experiment(kept, config)
    fresh = resolve_experiment(parse_words([*words, "keep=attacked"]))
    assert again.attacks == fresh.attacks
    (costs,) = [
        json.loads(path.read_text())["meta"]["cost"]
        for path in out.glob("store/attack/*/DONE")
        if json.loads(path.read_text())["meta"]["attack"] == "both"
    ][:1]
    assert costs["steps"] == 4


def test_settings_that_do_not_fit_show_before_any_job(suite: Path, tmp_path: Path) -> None:
    out = with_target(made(), tmp_path / "out")
    for words, told in (
        ("attack.adapters.lora.targets=q_prj", "attack.adapters.lora.targets: the model has no"),
        ("method.lora.targets=up_prj", "method.lora.targets: the model has no linear layer"),
    ):
        given = (f"suite={suite}", "method=npo", "attacks=both", f"out={out}", words)
        done = command("run", *given)
        assert done.code == 2
        assert told in done.err
        assert not (out / "store" / "unlearn").exists()
