"""The contracts for attacks: every built-in holds to them, and whatever breaks them is caught."""

import contextlib
import random
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import torch
from attack_cases import NEEDS, PROMPTS, STEADY, UNORDERED, WEIGHTS, make_attack
from contracts import assert_caught, assert_holds, checks_of
from torch import nn
from transformers import PreTrainedModel

from ilubench.attacks.finetune import FineTune
from ilubench.interfaces import (
    Checkpoint,
    Context,
    Dataset,
    Item,
    PromptAttack,
    PromptContext,
    SamplingSpec,
    WeightAttack,
)
from ilubench.interfaces.discovery import list_entries
from ilubench.testing import TINY, AttackContract, PromptAttackContract

Data = Mapping[str, Dataset]

# ------------------------------------------------------------------------------- built-ins


BUILT_IN = {n for n, t in list_entries("attacks").items() if t.startswith("ilubench.")}


def _named(names: Iterable[str]) -> list[str]:
    return [name for name in names if name in BUILT_IN]


class TestWeightAttacks(AttackContract):
    """The built-in attacks on weights, each by itself."""

    name: ClassVar[str]

    @pytest.fixture(autouse=True, scope="class", params=_named(WEIGHTS))
    @classmethod
    def _case(cls, request: pytest.FixtureRequest) -> None:
        cls.name = request.param  # a fixture of the class: all tests of a case share a run
        if cls.name in NEEDS:
            pytest.importorskip(NEEDS[cls.name])
        cls.draws, cls.ordered = cls.name not in STEADY, cls.name not in UNORDERED

    def make(self) -> WeightAttack:
        return cast("WeightAttack", make_attack(self.name))


class TestPromptAttacks(PromptAttackContract):
    """The built-in prompt attacks, each by itself."""

    name: ClassVar[str]

    @pytest.fixture(autouse=True, scope="class", params=_named(PROMPTS))
    @classmethod
    def _case(cls, request: pytest.FixtureRequest) -> None:
        cls.name = request.param
        cls.draws = cls.name not in STEADY

    def make(self) -> PromptAttack:
        return cast("PromptAttack", make_attack(self.name))


def test_every_attack_is_held_to_a_contract() -> None:
    assert {*WEIGHTS, *PROMPTS} >= BUILT_IN, "add it to tests/support/attack_cases.py"
    for name in BUILT_IN & set(WEIGHTS):
        assert isinstance(make_attack(name), WeightAttack)


# ------------------------------------------------------------------------------- on weights


class Sound(FineTune):
    """Fine-tuning: what the others spoil in one way each."""

    def course(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        """`tamper` of the class above, for those that define their own."""
        return super().tamper(model, data, context)


class Undescribed(Sound):
    pass


Undescribed.__doc__ = None


class Forgetful(Sound):
    """Its setting does not survive being written down."""

    def model_dump(self, **how: Any) -> dict[str, Any]:
        return {**super().model_dump(**how), "each_epoch": False}


class Lax(Sound, extra="ignore"):
    """Takes misspelt settings."""


class Silent(Sound):
    """Nothing is scored."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        for _ in self.course(model, data, context):
            yield from ()


class Backwards(Sound):
    """Its steps are counted down."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        for checkpoint in self.course(model, data, context):
            yield replace(checkpoint, step=100 - cast("int", checkpoint.step))


class Sparing(Sound):
    """Utility is measured on fewer items."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        for checkpoint in self.course(model, data, context):
            yield replace(checkpoint, items={"retain_mc": frozenset({"a"})})


class Choosy(Sound):
    """Scores other items each time."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        for checkpoint in self.course(model, data, context):
            yield replace(checkpoint, items={"forget_mc": frozenset({str(checkpoint.step)})})


class Blind(Sound):
    """Scores no item."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        for checkpoint in self.course(model, data, context):
            yield replace(checkpoint, items={"forget_mc": frozenset()})


class Adaptive(Sound):
    """Stops when it has had enough of this model."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        tame = float(next(model.parameters()).detach().std()) > 0.1001
        for checkpoint in self.course(model, data, context):
            if tame or not checkpoint.step:
                yield checkpoint


class Hurried(Sound):
    """Begins before step 0 is scored."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        with torch.no_grad():
            next(model.parameters()).mul_(1.01)
        return self.course(model, data, context)


class Idle(WeightAttack):
    """Changes nothing."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        yield Checkpoint(model, None)


class Levels(WeightAttack):
    """Multiplies the weights of the first matrix by each factor."""

    factors: tuple[float, ...] = (0.9, 0.5)

    def roles(self) -> tuple[str, ...]:
        return ()

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        weight = next(model.parameters())
        start = weight.detach().clone()
        for factor in self.factors:
            with torch.no_grad():
                weight.copy_(start * factor)
            yield Checkpoint(model, None, f"x{factor:g}")


class Weakening(Levels):
    """The strongest level comes first."""

    factors: tuple[float, ...] = (0.5, 0.9)


class Unseeded(Sound):
    """Draws from a state that scoring has moved."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        yield Checkpoint(model, 0)
        with torch.no_grad():
            next(model.parameters()).mul_(1.0 + 0.01 * float(torch.rand(())))
        yield Checkpoint(model, 1)


class FixedOrder(Sound):
    """The seed changes nothing."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        return self.course(model, data, replace(context, seed=1))


class Infinite(Levels):
    """Leaves what is not finite."""

    factors: tuple[float, ...] = (0.5, float("1e39"))


class Wordless(Sound):
    """Reports steps without their loss."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        return self.course(model, data, replace(context, log=lambda s, _: context.log(s, {})))


class Relapsing(Sound):
    """Remembers where a kill erases it."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        for place, checkpoint in enumerate(self.course(model, data, context)):
            yield checkpoint
            with torch.no_grad():
                next(model.parameters()).add_(1e-3 * place)


class Stubborn(Sound):
    """Does not let itself be killed."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        course = self.course(model, data, context)
        while True:
            try:
                checkpoint = next(course)
            except BaseException:  # noqa: BLE001
                return
            yield checkpoint


class Skipping(Levels):
    """Notes a level as done before it is scored."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        saved = context.state.load("levels")
        done = 0 if saved is None else cast("int", saved[1]["done"])
        for number, checkpoint in enumerate(super().tamper(model, data, context), start=1):
            if number > done:
                context.state.save("levels", {}, {"done": number})
                yield checkpoint


class Adapting(Levels):
    """Is scored with an adapter in the place of a module, which it takes out afterwards."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        inner = cast("Any", model).model
        norm = inner.norm
        inner.norm = nn.Sequential(norm)
        yield from super().tamper(model, data, context)
        inner.norm = norm


class Restless(Levels):
    """Goes on after its last checkpoint."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        yield from super().tamper(model, data, context)
        with torch.no_grad():
            next(model.parameters()).mul_(2)


class Online(Levels):
    """Phones home, and hides that it failed."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        with contextlib.suppress(OSError):
            socket.create_connection(("192.0.2.1", 80), timeout=1)
        return super().tamper(model, data, context)


class Prying(Levels):
    """Looks for data that it did not declare."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        assert "retain" not in data
        return super().tamper(model, data, context)


class Boasting(Levels):
    """Declares data that it does not read."""

    def roles(self) -> tuple[str, ...]:
        return ("forget",)


class Repeating(Sound):
    """Declares a role twice."""

    def roles(self) -> tuple[str, ...]:
        return ("train", "train")


class Shuffling(Sound):
    """Brings the data into an order of its own, for all others as well."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        random.Random(context.seed).shuffle(cast("list[Any]", data["train"]))
        return self.course(model, data, context)


class Hooked(Levels):
    """Leaves a hook."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        cast("Any", model).model.norm.register_forward_hook(lambda *_: None)
        return super().tamper(model, data, context)


class Frozen(Levels):
    """Leaves weights that want no gradient."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        next(model.parameters()).requires_grad_(False)
        return super().tamper(model, data, context)


class Awake(Levels):
    """Leaves the model in training mode."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        model.train()
        return super().tamper(model, data, context)


class Writing(Levels):
    """Writes where the unlearned weights are stored."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        yield from super().tamper(model, data, context)
        if folder := cast("Any", model).name_or_path:
            model.save_pretrained(folder)


class Single(Levels):
    """Makes float32 weights of any."""

    def tamper(self, model: PreTrainedModel, data: Data, context: Context) -> Iterator[Checkpoint]:
        module: nn.Module = model
        module.to(torch.float32)
        return super().tamper(model, data, context)


COURSE = "test_its_checkpoints_make_a_course"
DECLARED = "test_it_reads_only_the_data_that_it_declares"
KILLED = "test_killed_and_resumed_it_ends_the_same"
REST = "test_it_leaves_the_rest_as_it_was"
SEEDED = "test_the_seed_determines_the_course"
FINITE = "test_its_numbers_are_finite"

BREAKS: Mapping[type[WeightAttack], Mapping[str, str]] = {
    Undescribed: {"test_it_is_described": "Undescribed has no docstring"},
    Forgetful: {"test_its_settings_survive_a_round_trip": "each_epoch: True became False"},
    Lax: {"test_its_settings_survive_a_round_trip": "must keep frozen=True and extra='forbid'"},
    Silent: {COURSE: "it yields no checkpoint"},
    Backwards: {COURSE: "step-000098 comes after step-000100"},
    Sparing: {COURSE: "'retain_mc' measures utility and loses items"},
    Choosy: {COURSE: "step-000002 scores other items than step-000006"},
    Blind: {COURSE: r"step-000000 leaves no item of \['forget_mc'\]"},
    Adaptive: {"test_its_course_is_the_same_for_every_model": "let settings and the number of"},
    Hurried: {"test_it_begins_with_the_unlearned_model": "changed before step 0"},
    Idle: {"test_it_changes_the_weights": "at once, its last checkpoint, no weight has changed"},
    Weakening: {"test_each_level_is_stronger": "level-x0.9 moves the weights by"},
    Unseeded: {SEEDED: "two runs with one seed differ at step-000001"},
    FixedOrder: {SEEDED: "two seeds give the same weights"},
    Infinite: {FINITE: "not finite at level-x1e\\+39"},
    Wordless: {FINITE: "step 1 reports no 'loss'"},
    Relapsing: {KILLED: "a run and one that was killed and resumed differ at"},
    Stubborn: {KILLED: "went on after KeyboardInterrupt"},
    Skipping: {KILLED: "level-x0.5, level-x0.9 did not come again"},
    Adapting: {
        "test_its_checkpoints_are_models_like_the_given_one": "at level-x0.9 it has other mo"
    },
    Restless: {"test_its_result_can_be_stored_and_loaded": "other values than at level-x0.5"},
    Online: {"test_it_needs_no_network": r"tried to reach \['192.0.2.1'\]"},
    Prying: {DECLARED: r"asked for \['retain'\], which roles\(\) does not declare"},
    Boasting: {DECLARED: r"declares \['forget'\] in roles\(\) and never reads"},
    Repeating: {DECLARED: r"roles\(\) repeats a name"},
    Shuffling: {DECLARED: "it changed the data it was given"},
    Hooked: {REST: "hooks: other than before"},
    Frozen: {REST: "requires_grad: other than before"},
    Awake: {REST: "training mode: other than before"},
    Writing: {REST: "changed in the folder of the stored weights"},
    Single: {"test_it_works_on_weights_in_bfloat16": r"it made \['torch.float32'\]"},
}


def contract_of(kind: type[WeightAttack]) -> AttackContract:
    class Subject(AttackContract):
        attack = kind.model_validate({"train": TINY} if "train" in kind.model_fields else {})
        utility = ("retain_mc",)

    return Subject()


def test_every_test_of_the_contract_can_fail() -> None:
    caught = {name for found in BREAKS.values() for name in found}
    assert caught == set(checks_of(AttackContract()))


@pytest.mark.parametrize("kind", BREAKS, ids=lambda kind: kind.__name__)
def test_what_breaks_the_contract_is_caught(kind: type[WeightAttack], tmp_path: Path) -> None:
    assert_caught(contract_of(kind), BREAKS[kind], tmp_path)


def test_what_draws_and_says_that_it_does_not_is_caught(tmp_path: Path) -> None:
    contract = contract_of(Sound)
    type(contract).draws = False
    assert_caught(contract, {SEEDED: "two seeds give different weights"}, tmp_path)


def test_an_attack_without_data_holds(tmp_path: Path) -> None:
    contract = contract_of(Levels)
    type(contract).draws = False
    assert_holds(contract, tmp_path)


# ------------------------------------------------------------------------------- prompts


class Polite(PromptAttack):
    """Sound: what the others spoil in one way each."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        return [replace(item, before=f"Please. {item.before}")]

    def reduce(self, scores: Sequence[float]) -> float:
        return max(scores)


class Unspoken(Polite):
    pass


Unspoken.__doc__ = None


class Loose(Polite, extra="ignore"):
    """Takes misspelt settings."""


class Mute(Polite):
    """Asks nothing."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        return []


class Bare(Polite):
    """Loses columns."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        return [Item(item.id, {"question": "What?"})]


class Same(Polite):
    """Asks as always."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        return [item]


COUNTED: list[str] = []


class Tiring(Polite):
    """Asks otherwise each time."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        COUNTED.append(item.id)
        return [replace(item, before=f"{len(COUNTED)} ")]


class Rolling(Polite):
    """Draws from a state that nobody seeds."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        return [replace(item, before=f"{random.random()} ")]


class Marking(Polite):
    """Writes into the row."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        cast("dict[str, Any]", item.fields)["question"] = "What?"
        return [replace(item, before="Please. ")]


class Seeded(Polite):
    """Draws by the seed."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        return [replace(item, before=f"{context.seed} ")]


class Telling(Polite):
    """Shows the item's id."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        return [replace(item, before=f"{item.id}: ")]


class Summing(Polite):
    """Adds up."""

    def sampling(self) -> SamplingSpec | None:
        return SamplingSpec(n=5, temperature=1.0)

    def reduce(self, scores: Sequence[float]) -> float:
        return sum(scores)


class Popping(Summing):
    """Takes the scores away."""

    def reduce(self, scores: Sequence[float]) -> float:
        return cast("list[float]", scores).pop()


class Curious(Polite):
    """Looks for rows that it did not declare."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        assert "answers" not in context.shots
        return super().rewrite(item, context)


class Proud(Polite):
    """Declares rows that it does not show."""

    def roles(self) -> tuple[str, ...]:
        return ("shots",)


class Calling(Polite):
    """Phones home, and hides that it failed."""

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        with contextlib.suppress(OSError):
            socket.create_connection(("192.0.2.1", 80), timeout=1)
        return super().rewrite(item, context)


PURE = "test_rewriting_is_pure"
SCALE = "test_its_score_is_on_the_scale_of_the_scores"

PROMPT_BREAKS: Mapping[type[PromptAttack], Mapping[str, str]] = {
    Unspoken: {"test_it_is_described": "Unspoken has no docstring"},
    Loose: {"test_its_settings_survive_a_round_trip": "must keep frozen=True and extra='forbid'"},
    Mute: {"test_it_asks_something": "asks nothing in place of 'row-grow-0000'"},
    Bare: {"test_it_asks_something": "has no answer, choices, gt and 2 more, which scorers read"},
    Same: {"test_it_asks_differently": "it asks every item as it is"},
    Tiring: {PURE: "a second time it asks otherwise"},
    Rolling: {PURE: "draws from the global random states"},
    Marking: {PURE: "it changed the item or the shots"},
    Seeded: {"test_the_seed_determines_what_it_draws": "two seeds ask otherwise"},
    Telling: {"test_it_shows_no_id": "shows the id row-grow-0000"},
    Summing: {SCALE: "of 5 scores from 1 to 1 it makes 5"},
    Popping: {SCALE: "reduce changes the scores that it is given"},
    Curious: {DECLARED: r"asked for \['answers'\], which roles\(\) does not declare"},
    Proud: {DECLARED: r"declares \['shots'\] in roles\(\) and never reads"},
    Calling: {"test_it_needs_no_network": r"tried to reach \['192.0.2.1'"},
}


def prompt_contract_of(kind: type[PromptAttack]) -> PromptAttackContract:
    class Subject(PromptAttackContract):
        attack = kind()

    return Subject()


def test_every_test_of_the_prompt_contract_can_fail() -> None:
    caught = {name for found in PROMPT_BREAKS.values() for name in found}
    assert caught == set(checks_of(PromptAttackContract()))


@pytest.mark.parametrize("kind", PROMPT_BREAKS, ids=lambda kind: kind.__name__)
def test_what_breaks_the_prompt_contract_is_caught(
    kind: type[PromptAttack], tmp_path: Path
) -> None:
    assert_caught(prompt_contract_of(kind), PROMPT_BREAKS[kind], tmp_path)


def test_a_drawing_attack_that_does_not_draw_is_caught(tmp_path: Path) -> None:
    contract = prompt_contract_of(Polite)
    assert_holds(contract, tmp_path)
    type(contract).draws = True
    problem = {"test_the_seed_determines_what_it_draws": "two seeds ask the same"}
    assert_caught(contract, problem, tmp_path)


@pytest.mark.parametrize("kind", [AttackContract, PromptAttackContract])
def test_a_contract_without_an_attack_says_so(kind: Any) -> None:
    with pytest.raises(TypeError, match="write `attack = Mine"):
        kind().make()
