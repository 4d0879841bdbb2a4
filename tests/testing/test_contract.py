"""The contract for methods: every built-in holds to it, and whatever breaks it is caught."""

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from cases import CASES, OWN_LOOP, make
from contracts import assert_caught, checks_of
from transformers import PreTrainedModel

from ilubench.errors import DataError, ItemError
from ilubench.interfaces import Batch, Context, Method, SamplingSpec, UnlearnBatch, UnlearnData
from ilubench.interfaces.discovery import list_entries
from ilubench.methods.checkpoint import Checkpoint
from ilubench.methods.none import NoUnlearning
from ilubench.methods.retrain import Retrain
from ilubench.methods.terms import ForgetRetain, mean_nll
from ilubench.models.checkpoints import save_model
from ilubench.models.forward import answer_logits
from ilubench.specs import ModelSource
from ilubench.testing import (
    TINY,
    DeclaredOnly,
    FakeEngine,
    MethodContract,
    facts,
    known_model,
    make_tokenizer,
    no_network,
)
from ilubench.testing.facts import known
from ilubench.training.losses import token_nll

# ------------------------------------------------------------------------------- built-ins


COMBINED = {
    *("sam-all", "sam-rr", "lat-rmu", "lat-rr", "ilu-rr", "ilu-lat", "ilu-sam"),
    *("elm-fluency", "rr-targets", "rmu-targets", "ilu-batch_mean", "ilu-forget"),
    *("ilu-elementwise-split", "ilu-params-split", "ilu-grad_norm-split", "tar-npo", "undo-both"),
}
"""What others hold to one by one."""


def subjects() -> Iterator[Any]:
    for name in (*CASES, *OWN_LOOP):
        yield pytest.param(name, marks=pytest.mark.slow if name in COMBINED else ())


class TestBuiltIns(MethodContract):
    """The methods and variants of `cases`, each by itself."""

    name: ClassVar[str]

    @pytest.fixture(autouse=True, scope="class", params=subjects())
    @classmethod
    def _case(cls, request: pytest.FixtureRequest) -> None:
        cls.name = request.param  # a fixture of the class: all tests of a case share a run

    def make(self) -> Method:
        return cast("Method", make(self.name, **TINY.model_dump(mode="json")))


class TestNone(MethodContract):
    method = NoUnlearning()
    changes = ()


class TestCheckpoint(MethodContract):
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "elsewhere"
        model = known_model()
        save_model(model, make_tokenizer(), self.folder, "float32")

    def make(self) -> Method:
        return Checkpoint(model=ModelSource(path=str(self.folder)))


class TestRetrain(MethodContract):
    @pytest.fixture(autouse=True)
    def _never_knew(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "retrain"
        save_model(known_model(), make_tokenizer(), self.folder, "float32")

    def make(self) -> Method:
        return Retrain(model=ModelSource(path=str(self.folder)))


class TestPlainText(MethodContract):
    """The same on sentences instead of questions, for a method that needs no prompts."""

    prompts = False

    def make(self) -> Method:
        return cast("Method", make("ilu-forget", **TINY.model_dump(mode="json")))


def test_every_method_is_held_to_the_contract() -> None:
    held = {name for name, _ in (CASES | OWN_LOOP).values()} | {"none", "checkpoint", "retrain"}
    assert held == {
        n for n, target in list_entries("methods").items() if target.startswith("ilubench.")
    }


def test_the_model_knows_its_facts_and_no_others() -> None:
    for prompts in (True, False):
        data = facts(environments=["a", "b"], prompts=prompts)
        model = known_model(prompts=prompts)
        assert known(model, data.forget) > 0.9
        assert known(model, data.retain) > 0.9
        assert known(model, data.environments["a"]) < known(model, data.forget) - 0.05
        assert data.environments["a"] != data.environments["b"]


# ------------------------------------------------------------------------------- what breaks it


class Sound(ForgetRetain):
    """Gradient difference: what the others spoil in one way each."""

    def forget_term(self, model: PreTrainedModel, batch: Batch, prepared: Any) -> torch.Tensor:
        return -0.2 * mean_nll(model, batch)


class Undescribed(Sound):
    pass


Undescribed.__doc__ = None


class Forgetful(Sound):
    """Its setting does not survive being written down."""

    def model_dump(self, **how: Any) -> dict[str, Any]:
        return {**super().model_dump(**how), "gamma": 9.0}


class Lax(Sound, extra="ignore"):
    """Takes misspelt settings."""


class Unseeded(Sound):
    """Draws from a state that nobody seeds."""

    def prepare(self, model: PreTrainedModel, data: UnlearnData, context: Context) -> Any:
        return torch.rand(())

    def loss(self, model: PreTrainedModel, batch: UnlearnBatch, prepared: Any) -> torch.Tensor:
        return (1.0 + float(prepared)) * super().loss(model, batch, prepared)


class FixedOrder(Sound):
    """The seed changes nothing."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        from dataclasses import replace

        return super().unlearn(model, data, replace(context, seed=1))


class NotSeeded(Sound):
    """Says that the seed changes nothing, and it does."""

    seeded: ClassVar[bool] = False


class Silent(Method):
    """Changes weights in a loop of its own and reports no step."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        with torch.no_grad():
            next(model.parameters()).mul_(1.0 - context.seed / 1000)
        return model


class Infinite(Silent):
    """Reports and leaves what is not finite."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        context.log(1, {"loss": float("inf")})
        return super().unlearn(model, data, context)


class Wrecking(Sound):
    """Forgets everything."""

    def loss(self, model: PreTrainedModel, batch: UnlearnBatch, prepared: Any) -> torch.Tensor:
        return -10 * (mean_nll(model, batch.forget) + mean_nll(model, batch.retain))


class WrongSign(Sound):
    """Learns what it should forget."""

    def forget_term(self, model: PreTrainedModel, batch: Batch, prepared: Any) -> torch.Tensor:
        return mean_nll(model, batch)


class Straying(Sound):
    """Changes a tensor besides those that it trains."""

    def prepare(self, model: PreTrainedModel, data: UnlearnData, context: Context) -> Any:
        with torch.no_grad():
            cast("Any", model).model.norm.weight.mul_(1.01)


class Idle(Sound):
    """Changes nothing."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        context.log(1, {"loss": 0.0})
        return model


class Growing(Sound):
    """Adds to the model what no file has a place for."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        cast("Any", model).beside = torch.nn.Parameter(torch.zeros(1))
        return super().unlearn(model, data, context)


class Counting(Sound):
    """Remembers steps where a kill erases them."""

    def prepare(self, model: PreTrainedModel, data: UnlearnData, context: Context) -> Any:
        return []

    def loss(self, model: PreTrainedModel, batch: UnlearnBatch, prepared: Any) -> torch.Tensor:
        prepared.append(1)
        return super().loss(model, batch, prepared) * (1.0 + 0.5 * (len(prepared) % 2))


class Stubborn(Sound):
    """Does not let itself be killed."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        try:
            return super().unlearn(model, data, context)
        except BaseException:  # noqa: BLE001
            return model


class Online(Sound):
    """Phones home, and hides that it failed."""

    def prepare(self, model: PreTrainedModel, data: UnlearnData, context: Context) -> Any:
        import contextlib

        with contextlib.suppress(OSError):
            socket.create_connection(("192.0.2.1", 80), timeout=1)


class Prying(Sound):
    """Looks for the attack's data."""

    def prepare(self, model: PreTrainedModel, data: UnlearnData, context: Context) -> Any:
        return data.environments.get("agnews") if "agnews" in data.environments else None


class Boasting(Sound):
    """Declares data that it does not read."""

    def environment_names(self) -> tuple[str, ...]:
        return ("gsm8k",)


class Hooked(Sound):
    """Leaves a hook."""

    def prepare(self, model: PreTrainedModel, data: UnlearnData, context: Context) -> Any:
        cast("Any", model).model.norm.register_forward_hook(lambda *_: None)


class Single(Silent):
    """Makes float32 weights of any."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        module: torch.nn.Module = model
        module.to(torch.float32)
        return super().unlearn(model, data, context)


class Rounding(Sound):
    """Takes the precision of the computation for that of the weights."""

    def unlearn(
        self, model: PreTrainedModel, data: UnlearnData, context: Context
    ) -> PreTrainedModel:
        module: torch.nn.Module = super().unlearn(model, data, context)
        if self.train.precision == "bfloat16":
            module.to(torch.bfloat16)
        return model


class OwnMean(Sound):
    """Divides by the micro-batch's own number of tokens."""

    def forget_term(self, model: PreTrainedModel, batch: Batch, prepared: Any) -> torch.Tensor:
        answers = answer_logits(model, batch)
        return -token_nll(answers.logits, answers.targets).mean()


BREAKS: Mapping[type[Method], Mapping[str, str]] = {
    Undescribed: {"test_it_is_described": "Undescribed has no docstring"},
    Forgetful: {"test_its_settings_survive_a_round_trip": "gamma: 1.0 became 9.0"},
    Lax: {"test_its_settings_survive_a_round_trip": "must keep frozen=True and extra='forbid'"},
    Unseeded: {"test_the_seed_determines_the_result": "two runs with one seed differ in"},
    FixedOrder: {"test_the_seed_determines_the_result": "two seeds give the same weights"},
    NotSeeded: {"test_the_seed_determines_the_result": "declares seeded = False"},
    Silent: {"test_its_numbers_are_finite": "no step was reported"},
    Infinite: {"test_its_numbers_are_finite": "step 1 reports {'loss': inf}"},
    Wrecking: {"test_it_keeps_what_is_retained": "of the retain set the model knew"},
    WrongSign: {"test_it_forgets": "is the sign of the forget term right"},
    Straying: {"test_it_changes_what_it_declares_and_nothing_else": "model.norm.weight changed"},
    Idle: {"test_it_changes_what_it_declares_and_nothing_else": "no weight changed"},
    Growing: {"test_its_result_can_be_stored_and_loaded": "a new tensor 'beside'"},
    Counting: {"test_killed_and_resumed_it_ends_the_same": "after a kill"},
    Stubborn: {"test_killed_and_resumed_it_ends_the_same": "went on after KeyboardInterrupt"},
    Online: {"test_it_needs_no_network": r"tried to reach \['192.0.2.1'\]"},
    Prying: {"test_it_reads_only_the_data_that_it_declares": r"asked for \['agnews'\]"},
    Boasting: {"test_it_reads_only_the_data_that_it_declares": r"\['gsm8k'\] and never reads"},
    Hooked: {"test_it_leaves_the_rest_as_it_was": "hooks: other than before"},
    Single: {"test_it_works_on_weights_in_bfloat16": r"it made \['torch.float32'\]"},
    Rounding: {"test_it_works_under_autocast_to_bfloat16": r"it made \['torch.bfloat16'\]"},
    OwnMean: {"test_micro_batches_add_up": "with micro_batch=1 the gradient is off by"},
}


def contract_of(kind: type[Method]) -> MethodContract:
    settings = {"train": TINY} if "train" in kind.model_fields else {}
    subject = MethodContract()
    cast("Any", subject).method = kind.model_validate(settings)
    return subject


def test_every_test_of_the_contract_can_fail() -> None:
    caught = {name for found in BREAKS.values() for name in found}
    assert caught == set(checks_of(MethodContract()))


@pytest.mark.parametrize("kind", BREAKS, ids=lambda kind: kind.__name__)
def test_what_breaks_the_contract_is_caught(kind: type[Method], tmp_path: Path) -> None:
    assert_caught(contract_of(kind), BREAKS[kind], tmp_path)


def test_a_contract_without_a_method_says_so() -> None:
    with pytest.raises(TypeError, match="write `method = Mine"):
        MethodContract().make()


# ------------------------------------------------------------------------------- stand-ins


def test_undeclared_environments_raise() -> None:
    kept = DeclaredOnly({"gsm8k": ()})
    assert kept["gsm8k"] == ()
    with pytest.raises(DataError, match=r"'gsm8' was not declared.*did you mean 'gsm8k'"):
        kept["gsm8"]
    assert "agnews" not in kept
    assert (kept.read, kept.undeclared, len(kept)) == ({"gsm8k"}, {"gsm8", "agnews"}, 1)


def test_the_network_is_refused_and_comes_back() -> None:
    server, unconnected = socket.create_server(("127.0.0.1", 0)), socket.socket()
    port = server.getsockname()[1]
    with no_network() as tried:
        for attempt in (
            lambda: socket.create_connection(("127.0.0.1", port), timeout=1),
            lambda: unconnected.connect_ex(("127.0.0.1", port)),
        ):
            with pytest.raises(OSError, match="no network in this test"):
                attempt()
        unconnected.close()
        left, right = socket.socketpair()
        left.send(b"x")
        assert right.recv(1) == b"x"
        left.close()
        right.close()
    assert len(tried) == 2
    socket.create_connection(("127.0.0.1", port), timeout=1).close()
    server.close()


def test_the_fake_engine_answers_from_its_script() -> None:
    tokenizer = make_tokenizer()
    ids = {text: tokenizer(text)["input_ids"] for text in ("How many?", " three", " four")}
    engine = FakeEngine(
        tokenizer,
        answer={"How many?": " three apples.\nNext"}.__getitem__,
        likelihood=lambda _context, rest: -0.5 if rest == " three" else -40.0,
        choice=lambda _prompt, option: -float(len(option)),
        max_length=40,
    )
    sampling = SamplingSpec(max_tokens=30, n=2, stop=("\n",))
    (made,) = engine.generate([ids["How many?"]], sampling)
    assert [generation.text for generation in made] == [" three apples."] * 2
    likely, unlikely = engine.logprobs(
        [(ids["How many?"], ids[" three"]), (ids["How many?"], ids[" four"])]
    )
    assert likely.total == pytest.approx(-0.5)
    assert all(likely.greedy)
    assert not any(unlikely.greedy)
    options = [ids[" three"][0], ids["How many?"][0]]
    (row,) = engine.choices([ids["How many?"]], options)
    assert row == tuple(-float(len(tokenizer.decode([option]))) for option in options)
    assert engine.asked[0] == ("generate", "How many?")
    with pytest.raises(ItemError, match="item 1: the script's `answer` has nothing for ' four'"):
        engine.generate([ids["How many?"], ids[" four"]], sampling)
    with pytest.raises(ItemError, match="do not fit max_length=40"):
        engine.generate([ids["How many?"]], SamplingSpec(max_tokens=40))
    with pytest.raises(ItemError, match="give FakeEngine an `answer`"):
        FakeEngine(tokenizer).generate([ids["How many?"]], sampling)
