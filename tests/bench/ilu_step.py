"""What one ILU step costs: against its cross-entropy control, and against each plain base.

    python tests/bench/ilu_step.py [--threads N] [--repetitions N] [--bases npo,rmu,graddiff,simnpo]
                                   [--forget 4] [--environment 48] [--wide]

Every method goes through `LossMethod.unlearn`: the same batches in the same order, the real
`backward`, clipping and optimizer. The methods take turns; a step's time is from one call of
`context.log` to the next, without the first (which holds the reference's log-probabilities).
Beside each ratio of times stands that of the arithmetic: positions that went forwards plus twice
those that went backwards, counted at the layers, the head and the optimizer left out. By default
the batches are the published ones, 4 forget and 4 retain sequences to 48 of the environment.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import torch
from pydantic import JsonValue

from ilubench.experiments.experiment import resolve_experiment
from ilubench.experiments.method_settings import method_settings
from ilubench.interfaces import Context, Example, Metrics, UnlearnData
from ilubench.interfaces.discovery import create_plugin
from ilubench.models.forward import initialise_model
from ilubench.runs.plan import make_plan
from ilubench.runs.stages.cost import Passes
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import PluginRef
from ilubench.specs.overrides import parse_words
from ilubench.training import LossMethod

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STEPS = 4
GOAL = 1.1
BASES = ("npo", "rmu", "graddiff", "simnpo")


class Nothing:
    """Neither state nor progress."""

    def save(
        self, phase: str, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, JsonValue]
    ) -> None:
        del phase, tensors, meta

    def load(self, phase: str) -> None:
        del phase

    def start(self, phase: str, total: int) -> None:
        del phase, total

    def advance(self, done: int, note: str = "") -> None:
        del done, note


@dataclass
class Clock:
    """Seconds and tokens of each step but the first."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    last: float = 0.0

    def __call__(self, step: int, metrics: Metrics) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        counted = self.passes.take()
        if step > 1:
            self.seconds.append(now - self.last)
            self.tokens.append(metrics["tokens"])
            self.work.append(counted["forward_tokens"] + 2 * counted["backward_tokens"])
        self.last = now


@dataclass(frozen=True)
class Case:
    """A model with data."""

    name: str
    model: Callable[[], "PreTrainedModel"]
    data: UnlearnData
    tokenizer: "PreTrainedTokenizerBase"
    device: str
    settings: Mapping[str, Mapping[str, JsonValue]]
    """Method -> what the suite sets."""


@dataclass(frozen=True)
class Batches:
    """Sequences a step."""

    forget: int
    environment: int


def methods(case: Case, base: str, batches: Batches) -> dict[str, LossMethod]:
    """The base, ILU on it, and ILU's control, as the mini suite sets the base."""
    train = {"lr": 1e-5, "steps": STEPS, "batch_size": batches.forget}
    own = {**case.settings[base], "train": train}
    on_top: dict[str, JsonValue] = {
        "base": {"use": base, "settings": cast("JsonValue", own)},
        "weight": 0.5,
        "environments": ["gsm8k"],
        "environment_batch": batches.environment,
    }
    found = {
        base: PluginRef(use=base, settings=cast("dict[str, JsonValue]", own)),
        "cross_entropy": PluginRef(use="ilu", settings={**on_top, "penalty": "cross_entropy"}),
        "irm": PluginRef(use="ilu", settings={**on_top, "penalty": "irm"}),
    }
    return {name: cast("LossMethod", create_plugin("methods", ref)) for name, ref in found.items()}


def measure(case: Case, made: Mapping[str, LossMethod], repetitions: int) -> dict[str, Clock]:
    clocks = {name: Clock() for name in made}
    models = {name: case.model() for name in made}
    for repetition in range(repetitions + 1):
        order = list(made)
        random.Random(repetition).shuffle(order)
        for name in order:
            clock = clocks[name] if repetition else Clock()  # the first round warms up
            nothing = Nothing()
            context = Context(repetition, case.device, case.tokenizer, nothing, nothing, clock)
            with clock.passes.counting(models[name]):
                made[name].unlearn(models[name], case.data, context)
    return clocks


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(values, n=4)
    return low, middle, high


def report(base: str, clocks: Mapping[str, Clock]) -> None:
    print(f"\nbase {base}: steps timed {len(clocks[base].seconds)} a method")
    for name, clock in clocks.items():
        low, middle, high = (1000 * value for value in quartiles(clock.seconds))
        tokens = statistics.mean(clock.tokens)
        print(f"  {name:14} {middle:8.1f} ms [{low:.1f}, {high:.1f}]  {tokens:6.0f} tokens a step")
    for name, other in (("irm", "cross_entropy"), ("irm", base), ("cross_entropy", base)):
        pairs = zip(clocks[name].seconds, clocks[other].seconds, strict=True)
        low, middle, high = quartiles([one / two for one, two in pairs])
        work = sum(clocks[name].work) / sum(clocks[other].work)
        goal = f", goal <= {GOAL}" if (name, other) == ("irm", "cross_entropy") else ""
        print(
            f"  {name} / {other}: {middle:.3f} [{low:.3f}, {high:.3f}]; arithmetic {work:.2f}{goal}"
        )


def bench_of(suite: str) -> Workbench:
    return make_plan(resolve_experiment(parse_words([f"suite={suite}", "method=ilu"]))).bench


def mini() -> Case:
    bench = bench_of("mini")
    data = UnlearnData(
        bench.examples(bench.suite.forget),
        bench.examples(bench.suite.retain),
        {"gsm8k": bench.examples(("gsm8k.train",))},
    )
    tokenizer = bench.tokenizer
    name = "mini target (4 layers, hidden 192), the suite's own data"
    settings = {base: method_settings(bench.suite, base) for base in BASES}
    return Case(name, bench.target_model, data, tokenizer, bench.device, settings)


def wide(like: Case) -> Case:
    """A model with a vocabulary of 32,000, on random text of the mini suite's lengths."""
    vocabulary = 32_000
    config = {
        "model_type": "llama",
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    }
    rng = random.Random(0)

    def rewritten(items: Sequence[Example]) -> list[Example]:
        return [
            Example(i.id, tuple(rng.randrange(3, vocabulary) for _ in i.input_ids), i.loss_mask)
            for i in items
        ]

    data = UnlearnData(
        rewritten(like.data.forget),
        rewritten(like.data.retain),
        {name: rewritten(items) for name, items in like.data.environments.items()},
    )

    def make() -> "PreTrainedModel":
        model = initialise_model(cast("dict[str, JsonValue]", config), vocabulary, 0)
        module: torch.nn.Module = model
        module.to(like.device)
        return model

    name = "the same shape with a vocabulary of 32,000, random text of the same lengths"
    return Case(name, make, data, like.tokenizer, like.device, like.settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--bases", default=",".join(BASES))
    parser.add_argument("--forget", type=int, default=4, help="forget (and retain) sequences")
    parser.add_argument("--environment", type=int, default=48, help="sequences of the environment")
    parser.add_argument("--wide", action="store_true", help="a vocabulary of 32,000 as well")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    small = mini()
    batches = Batches(given.forget, given.environment)
    about = {"device": small.device, "threads": torch.get_num_threads(), **vars(batches)}
    print(json.dumps(about))
    for case in (small, wide(small)) if given.wide else (small,):
        print(f"\n{case.name}")
        for base in given.bases.split(","):
            report(base, measure(case, methods(case, base, batches), given.repetitions))


if __name__ == "__main__":
    main()
