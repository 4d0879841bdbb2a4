"""TAR: a step's gradient against one worked out by hand, its attacks, what it declares."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import torch
from cases import Making, Tensor, data, fresh
from doubles import StepRecorder, differing, gradients, weights
from runs import SUITE
from torch.func import functional_call
from torch.nn import functional

from ilubench.data.batches import Stream
from ilubench.data.seeds import seed_for
from ilubench.errors import DivergedError, SpecError
from ilubench.experiments.experiment import resolve_experiment
from ilubench.interfaces import Context, Example
from ilubench.interfaces.discovery import create_plugin
from ilubench.methods.tar import TAR
from ilubench.specs import PluginRef
from ilubench.specs.overrides import parse_words
from ilubench.training import trainable_only

Theta = dict[str, Tensor]
TRAIN: dict[str, Any] = {"lr": 1e-3, "steps": 2, "batch_size": 4}
ATTACK: dict[str, Any] = {"inner_steps": 4, "inner_batch": 3, "inner_lr": [4e-3]}
DOWN = "model.layers.1.mlp.down_proj.weight"


def make(**settings: Any) -> TAR:
    train = {**TRAIN, **settings.pop("train", {})}
    ref = PluginRef(use="tar", settings={**ATTACK, **settings, "train": train})
    return cast("TAR", create_plugin("methods", ref))


def elsewhere(method: TAR) -> Theta:
    """Return weights at which those that the outer loop trains are not the original ones."""
    return {
        name: after if name in (method.trainable or (name,)) else before
        for (name, before), after in zip(
            fresh().state_dict().items(), fresh(1).state_dict().values(), strict=True
        )
    }


def one_step(
    method: TAR, context: Context, step: int = 0
) -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
    """Return gradients and metrics of a step at weights other than the original ones."""
    model = fresh()
    prepared = method.prepare(model, data(), context)
    model.load_state_dict(elsewhere(method))
    before = weights(model)
    precision = method.train.precision == "bfloat16"
    with (
        trainable_only(model, method.trainable),
        torch.autocast("cpu", torch.bfloat16, enabled=precision),
    ):
        metrics = method.backward(model.train(), step, prepared)
    assert model.training
    assert not differing(before, weights(model))
    return gradients(model), metrics


# ------------------------------------------------------------------------------- by hand


class Slow:
    """The algorithm as the paper writes it: item by item, in float64, AdamW spelt out."""

    def __init__(self, method: TAR, context: Context) -> None:
        self.method, self.seed = method, context.seed
        self.model = cast("torch.nn.Module", fresh()).double()
        cast("Any", self.model).set_attn_implementation("eager")
        self.original = {name: p.detach() for name, p in self.model.named_parameters()}
        self.theta = {name: p.double() for name, p in elsewhere(method).items()}

    def rows(self, theta: Theta, item: Example) -> tuple[Tensor, Tensor]:
        """Return logits [N, V] and ids [N] at the target tokens."""
        ids = torch.tensor(item.input_ids)
        logits = functional_call(self.model, theta, (ids[None],)).logits[0, :-1]
        chosen = torch.tensor(item.loss_mask)[1:]
        return logits[chosen], ids[1:][chosen]

    def nll(self, theta: Theta, items: Sequence[Example]) -> Tensor:
        pairs = [self.rows(theta, item) for item in items]
        logits, ids = torch.cat([z for z, _ in pairs]), torch.cat([y for _, y in pairs])
        return functional.cross_entropy(logits, ids)

    def entropy(self, theta: Theta, items: Sequence[Example]) -> Tensor:
        chances = torch.softmax(torch.cat([self.rows(theta, item)[0] for item in items]), -1)
        return -(chances * chances.log()).sum(-1).mean()

    def distance(self, theta: Theta, items: Sequence[Example]) -> Tensor:
        found = []
        for item in items:
            ids = torch.tensor(item.input_ids)[None]
            states = []
            for values in (theta, self.original):
                seen: list[Tensor] = []
                handles = [
                    layer.register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
                    for layer in cast("Any", self.model).model.layers
                ]
                functional_call(self.model, values, (ids,))
                for handle in handles:
                    handle.remove()
                states.append(torch.stack(seen)[:, 0, 1:])
            found.append(((states[0] - states[1]) ** 2).mean())
        return torch.stack(found).mean()

    def slopes(self, theta: Theta, value: Any, items: Sequence[Example]) -> tuple[float, Theta]:
        leaves = {name: p.detach().requires_grad_() for name, p in theta.items()}
        loss = value(leaves, items)
        found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        pairs = zip(leaves, found, strict=True)
        return loss.item(), {n: torch.zeros_like(theta[n]) if g is None else g for n, g in pairs}

    def attack(self, items: Sequence[Example]) -> list[Theta]:
        """Return the weights after each step of AdamW, its gradient clipped to length 1."""
        theta, course = dict(self.theta), []
        first = {name: torch.zeros_like(p) for name, p in theta.items()}
        second = {name: torch.zeros_like(p) for name, p in theta.items()}
        stream = Stream(len(items), seed_for(self.seed, "tar", "0"), "train")
        for step in range(self.method.inner_steps):
            chosen = [items[i] for i in stream.step(step, self.method.inner_batch)]
            _, slopes = self.slopes(theta, self.nll, chosen)
            length = math.sqrt(sum(float((g**2).sum()) for g in slopes.values()))
            for name, slope in slopes.items():
                clipped = slope * min(1.0, 1.0 / (length + 1e-6))
                first[name] = 0.9 * first[name] + 0.1 * clipped
                second[name] = 0.999 * second[name] + 0.001 * clipped**2
                mean = first[name] / (1 - 0.9 ** (step + 1))
                square = second[name] / (1 - 0.999 ** (step + 1))
                theta[name] = theta[name] - self.method.inner_lr[0] * mean / (square.sqrt() + 1e-8)
            course.append(dict(theta))
        return course

    def step(self, places: Sequence[int]) -> tuple[float, Theta]:
        """Return loss and gradient of step 0.

        Args:
            places: after how many steps of the attack the tamper loss counts.
        """
        found, method = data(), self.method
        forget, retain = (
            [items[i] for i in Stream(len(items), self.seed, name).step(0, 4)]
            for name, items in (("forget", found.forget), ("retain", found.retain))
        )
        (name,) = method.inner_data
        attacked = found.forget if name == "forget" else found.environments[name]
        course = self.attack(attacked)
        measure = self.entropy if method.tamper_loss == "entropy" else self.nll
        loss, total = self.slopes(
            self.theta,
            lambda theta, items: (
                method.gamma
                * (self.nll(theta, items) + method.hidden * self.distance(theta, items))
            ),
            retain,
        )
        for place in places:
            value, slopes = self.slopes(course[place - 1], measure, forget)
            factor = method.weight * math.exp((place - method.inner_steps) / 16)
            loss -= factor * value
            for key in total:
                total[key] = total[key] - factor * slopes[key]
        return loss, total


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        ({}, [4]),
        ({"every": 2, "tamper_loss": "nll", "weight": 0.3}, [2, 4]),
        ({"inner_data": ["one"], "gamma": 0.5, "hidden": 3.0}, [4]),
        ({"hidden": 0.0, "trainable": [DOWN]}, [4]),
        ({"trainable": [DOWN]}, [4]),
    ],
)
def test_a_step_is_that_of_the_algorithm(
    context: Making, settings: dict[str, Any], places: Sequence[int]
) -> None:
    method = make(**settings)
    loss, expected = Slow(method, context()).step(places)
    found, metrics = one_step(method, context())
    assert metrics["loss"] == pytest.approx(loss, rel=1e-5)
    assert list(found) == ([DOWN] if method.trainable else list(expected))
    size = max(float(expected[name].norm()) for name in found)
    assert size > 1e-2, size
    worst = max(float((found[name].double() - expected[name]).norm()) for name in found)
    assert worst < 1e-3 * size


# ------------------------------------------------------------------------------- parts of a step


def close(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> float:
    size = max(float(gradient.norm()) for gradient in right.values())
    return max(float((left[name] - right[name]).norm()) for name in right) / size


def test_one_and_more_micro_batches_agree(context: Making) -> None:
    whole, metrics = one_step(make(), context())
    for micro in (1, 3):
        parts, others = one_step(make(train={"micro_batch": micro}), context())
        assert close(parts, whole) < 2e-3
        assert others == pytest.approx(metrics, rel=1e-3)


def test_a_step_depends_on_seed_and_number_alone(context: Making) -> None:
    first, _ = one_step(make(), context())
    torch.manual_seed(3)
    again, _ = one_step(make(), context())
    assert not differing(first, again)
    for other, _ in (one_step(make(), context(), 1), one_step(make(), context(seed=8))):
        assert close(other, first) > 0.1


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_attack_goes_on_from_step_to_step(context: Making, precision: str) -> None:
    """With half-precision weights kept from an attack's first step, all steps would be that one."""

    def known(steps: int) -> float:
        settings = {"tamper_loss": "nll", "inner_steps": steps, "inner_lr": [2e-3]}
        method = make(**settings, inner_batch=9, train={"precision": precision})
        return one_step(method, context())[1]["tamper"]  # minus the forget batch's NLL

    course = [known(steps) for steps in (1, 4, 8, 16)]
    assert course == sorted(course)
    assert course[-1] > -1.0  # relearned
    assert course[0] < -3.0


def test_data_and_rate_of_an_attack_are_drawn(context: Making) -> None:
    names, rates = ("forget", "one"), (1e-3, 8e-3)
    light: dict[str, Any] = {"gamma": 0.0, "inner_steps": 1}
    drawn = []
    for seed in range(4):
        mixed = one_step(make(inner_data=[*names], inner_lr=[*rates], **light), context(seed=seed))[
            1
        ]
        pairs = [(name, rate) for name in names for rate in rates]
        alone = {
            pair: one_step(
                make(inner_data=[pair[0]], inner_lr=[pair[1]], **light), context(seed=seed)
            )
            for pair in pairs
        }
        (found,) = [pair for pair, (_, metrics) in alone.items() if metrics == mixed]
        drawn.append(found)
    assert {name for name, _ in drawn} == set(names)
    assert {rate for _, rate in drawn} == set(rates)


def test_rates_follow_the_outer_one(context: Making) -> None:
    given = make(inner_lr=[], train={"lr": 4e-3})
    metrics = one_step(given, context())[1]
    expected = [
        one_step(make(inner_lr=[rate], train={"lr": 4e-3}), context())[1]
        for rate in (4e-4, 4e-3, 8e-3)
    ]
    assert metrics in expected


def test_what_a_step_costs_is_counted(context: Making) -> None:
    metrics = one_step(make(inner_steps=3, inner_batch=9), context())[1]
    found = data()
    sizes = [[len(item.input_ids) for item in items] for items in (found.forget, found.retain)]
    outer = [
        sum(size[i] for i in Stream(len(size), 7, name).step(0, 4))
        for size, name in zip(sizes, ("forget", "retain"), strict=True)
    ]
    assert metrics["tokens"] == 3 * sum(sizes[0]) + sum(outer)


def test_an_attack_that_diverges_is_named(context: Making) -> None:
    with pytest.raises(DivergedError, match=r"step 1: the attack .*lower method\.inner_lr"):
        one_step(make(inner_lr=[1e30]), context())


def test_without_a_retain_term(context: Making) -> None:
    metrics = one_step(make(gamma=0.0), context())[1]
    assert "retain" not in metrics
    assert metrics["loss"] == pytest.approx(4.0 * metrics["tamper"])


# ------------------------------------------------------------------------------- settings


def test_the_last_step_counts() -> None:
    with pytest.raises(SpecError, match="every=3 does not divide inner_steps=4"):
        make(every=3)


def test_environments_are_declared_and_seen() -> None:
    base = {"use": "ilu", "settings": {"environments": ["two", "one"]}}
    base["settings"]["base"] = {"use": "npo", "settings": {"train": TRAIN}}  # type: ignore[index]
    method = make(inner_data=["forget", "one", "three"], base=base)
    assert method.environment_names() == ("two", "one", "three")
    assert make().environment_names() == ()
    run = resolve_experiment(parse_words([SUITE, "method=tar", "method.inner_data=forget,agnews"]))
    assert run.seen == ("agnews",)


def test_it_makes_relearning_slower(context: Making) -> None:
    """After TAR, the attack that it trained against brings back less of the forget set."""
    settings = {"inner_steps": 4, "inner_batch": 9, "inner_lr": [2e-3], "hidden": 0.0}
    log = StepRecorder()
    make(**settings, train={"lr": 2e-3, "steps": 12}).unlearn(fresh(), data(), context(log=log))
    tampered = [metrics["tamper"] for _, metrics in log.steps]
    assert sum(tampered[-3:]) < sum(tampered[:3]) - 0.5  # entropy after the attack, in nats
