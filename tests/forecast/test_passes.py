"""The passes that methods tell `ilubench plan` of, against what training counts."""

from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from cases import CASES, OWN_LOOP, Making, data_for, fresh, make
from measured import read
from places import MEASURED

from ilubench.data.seeds import seed_for
from ilubench.experiments.experiment import Experiment, resolve
from ilubench.forecast.anatomy import anatomy_of
from ilubench.forecast.inputs import Inputs
from ilubench.forecast.lengths import drawn, lengths_of, stated
from ilubench.forecast.passes import method_work
from ilubench.forecast.work import Work
from ilubench.interfaces import (
    Batch,
    Context,
    Drawn,
    Effort,
    Lengths,
    Method,
    Pass,
    Sizes,
    UnlearnData,
    Updates,
)
from ilubench.methods.ilu import ILU
from ilubench.methods.terms import ForgetRetain, mean_nll
from ilubench.runs.plan import make_bench
from ilubench.runs.stages.cost import Passes
from ilubench.specs import DataSource, TrainSpec
from ilubench.specs.overrides import parse
from ilubench.testing import make_tokenizer

COUNTED = (
    "dpo",
    "elm",
    "graddiff",
    "idk",
    "ilu-multi",
    "lat",
    "rr",
    "sam",
    "simnpo",
    "task_vector",
)
"""Result sets whose cost has passes: recorded before `plan` was written."""

RECORDED = (
    *("graddiff", "simnpo", "elm", "rr", "sam", "rmu", "ilu-rr", "ilu-rmu", "ilu-sam", "ilu-lat"),
    *("npo-batch_mean", "ilu-batch_mean", "ilu-elementwise-split", "ilu-params-split"),
)
"""Cases whose passes are those of a result set, or of cases that are left: not trained here."""

PASSES = ("forward_tokens", "backward_tokens", "forward_passes", "backward_passes")
PROBE = {"forward_tokens": 4, "forward_passes": 2, "backward_tokens": 0, "backward_passes": 0}
"""The two short forwards, once a model, that find out what its head does."""

LOOSE = {"tar": 0.02, "tar-npo": 0.02}
"""TAR draws its attacks' batches anew each step; the plan has the like of them."""


@pytest.mark.parametrize("name", [name for name in (*CASES, *OWN_LOOP) if name not in RECORDED])
def test_passes_are_those_that_training_makes(name: str, context: Making) -> None:
    """Methods and their variants, trained for real on two layers in micro-batches."""
    micro = 4 if name == "dpo" else 2  # it leaves out micro-batches in which no item has a prompt
    method, model, passes = make(name, micro_batch=micro, steps=2), fresh(), Passes()
    data, job = data_for(method), context()
    with passes.counting(model):
        method.unlearn(model, data, job)
    tokenizer = make_tokenizer()
    anatomy = anatomy_of(model.config)
    sizes = Sizes(
        lengths_of(data.forget),
        lengths_of(data.retain),
        {name: lengths_of(found) for name, found in data.environments.items()},
        anatomy.layers,
        anatomy.lowest,
        job.seed,
        lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"]),
    )
    found = method_work(method, sizes, anatomy)
    assert found.known
    counted = passes.take()
    for field in PASSES:
        told, actual = getattr(found.work, field), counted[field]
        if name in LOOSE:
            assert abs(told - actual) <= PROBE[field] + LOOSE[name] * actual, field
        else:
            assert actual - told in (0, PROBE[field]), field
    trained = sum(p.numel() for n, p in model.named_parameters() if _trained(method, n))
    assert found.trained == trained


def _trained(method: Any, name: str) -> bool:
    return not method.trainable or any(fnmatch(name, pattern) for pattern in method.trainable)


@pytest.fixture(scope="module")
def mini() -> Inputs:
    return Inputs(make_bench(resolve(parse(["suite=mini"]))), "given")


@pytest.mark.parametrize("name", COUNTED)
def test_passes_are_those_that_result_sets_recorded(name: str, mini: Inputs) -> None:
    """On the mini suite's text: batches in their real order, padding included."""
    record, experiment = read(MEASURED / name)
    total = Work()
    for seed in record.seeds:
        sizes = _sizes(mini, experiment, seed)
        total += method_work(experiment.method, sizes, mini.anatomy).work
    each = total.times(1 / len(record.seeds))
    assert each.steps == record.cost["steps"]
    for field in PASSES[:2]:
        assert getattr(each, field) == pytest.approx(record.cost[field], rel=3e-3), field


def _sizes(mini: Inputs, experiment: Experiment, seed: int) -> Sizes:
    suite = experiment.suite
    environments = {
        name: mini.lengths((experiment.environment_role(name),))
        for name in experiment.method.environment_names()
    }
    forget, retain = mini.lengths(suite.forget), mini.lengths(suite.retain)
    role_seed, anatomy = seed_for(seed, "unlearn"), mini.anatomy
    lowest = anatomy.lowest
    return Sizes(forget, retain, environments, anatomy.layers, lowest, role_seed, mini.words)


def test_batches_are_padded_to_their_longest() -> None:
    some = Lengths((2, 4, 6, 8), (1, 1, 1, 1), (1, 1, 1, 1), "counted")
    whole = drawn(Drawn(some, 0, "train", steps=3, count=4, micro=None))
    assert (whole.batches, whole.tokens, whole.largest, whole.longest) == (3, 3 * 32, 32, 4)
    assert whole.squares == 3 * 4 * 64
    cut = drawn(Drawn(some, 0, "train", steps=3, count=4, micro=2))
    assert (cut.batches, cut.tokens, cut.largest) == (6, 3 * (8 + 16), 16)  # like with like
    # more steps than are made up: like those
    many = drawn(Drawn(some, 0, "train", steps=4000, count=4, micro=None))
    assert many.tokens == 4000 * 32


@pytest.mark.parametrize(
    ("overlong", "expected"), [("truncate", (50,) * 3), ("windows", (41, 41, 41) * 3)]
)
def test_stated_lengths_are_cut_as_the_suite_cuts(overlong: str, expected: tuple[int, ...]) -> None:
    source = DataSource(path="x", overlong=overlong)
    assert stated(source, 50, rows=3, tokens=120).tokens == expected


# --------------------------------------------------------------------------- plugins


class Quiet(ForgetRetain):
    """A plugin that tells nothing of its passes."""

    def forget_term(self, model: Any, batch: Batch, prepared: object) -> torch.Tensor:
        return -mean_nll(model, batch)


class Telling(Quiet):
    """A plugin whose forget term takes a forward pass more than the usual."""

    def forget_passes(self, sizes: Sizes) -> tuple[Pass, ...]:
        return (Pass(self.drawn(sizes, "forget"), forward=2.0),)


class OwnLoop(Method):
    """A plugin with a loop of its own, and no word about it."""

    train: TrainSpec

    def unlearn(self, model: Any, data: UnlearnData, context: Context) -> Any:
        return model


class TellingLoop(OwnLoop):
    """One that says that it trains on the retain set alone."""

    def work(self, sizes: Sizes) -> Effort:
        batches = Drawn(sizes.retain, sizes.seed, "train", 3, 2, None)
        return Effort((Pass(batches),), (Updates(3.0),))


SPEC = TrainSpec(lr=1e-3, steps=3, batch_size=2)
FORGET, RETAIN = (Lengths((n,) * 4, (2,) * 4, (1,) * 4, "counted") for n in (5, 7))


def planned(method: Method) -> tuple[tuple[float, float], bool]:
    """Return the tokens forwards and backwards of a method on sets of 5 and 7 tokens an item."""
    anatomy = anatomy_of(fresh().config)
    benign = Lengths((11,) * 4, (1,) * 4, (1,) * 4, "counted")
    sizes = Sizes(FORGET, RETAIN, {"gsm8k": benign}, anatomy.layers, anatomy.lowest, 0, lambda _: 1)
    found = method_work(method, sizes, anatomy)
    return (found.work.forward_tokens, found.work.backward_tokens), found.known


def test_a_plugin_that_tells_nothing_is_guessed() -> None:
    each = 3 * 2 * (5 + 7)
    assert planned(Quiet(train=SPEC)) == ((each, each), False)
    assert planned(OwnLoop(train=SPEC)) == ((each, each), False)


def test_a_plugin_tells_its_passes() -> None:
    assert planned(Telling(train=SPEC)) == ((3 * 2 * (2 * 5 + 7), 3 * 2 * (5 + 7)), True)
    assert planned(Telling(train=SPEC, gamma=0.0)) == ((3 * 2 * 2 * 5, 3 * 2 * 5), True)
    assert planned(TellingLoop(train=SPEC)) == ((3 * 2 * 7, 3 * 2 * 7), True)


@pytest.mark.parametrize(("base", "known"), [(Quiet, False), (Telling, True)])
def test_a_wrapper_knows_what_its_base_tells(base: type[Quiet], *, known: bool) -> None:
    """The penalty's passes are counted in any case."""
    raw = {"base": base(train=SPEC), "environments": ["gsm8k"], "environment_batch": 3}
    wrapped = ILU.model_validate(raw)
    (_, backward), told = planned(wrapped)
    assert backward == 3 * (2 * (5 + 7) + 3 * 11)
    assert told == known
