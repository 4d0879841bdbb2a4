"""What a training step of a 7B model costs on one GPU. UNTESTED ON A GPU: only the tiny model on a
CPU was run.

    python tests/bench/gpu_steps.py                          # random Mistral 7B in bf16
    python tests/bench/gpu_steps.py --tiny                   # the same path, tiny, on any device
    python tests/bench/gpu_steps.py --memory moments=float8 update=stochastic    # for 80 GB

NPO, RMU, ILU and its cross-entropy control on both, and an attack's fine-tuning, each through
ilubench's own loop: real batches, backward, clipping, optimizer. All sequences have --length
tokens, all of them targets; the batches are the published ones, 4 forget and 4 retain sequences to
48 of the environment, 32 of the attack. Printed are seconds a step (median and quartiles, without
the first), positions a second, the share of --ceiling that the arithmetic reaches, and peak memory.
`model` is
the arithmetic of the loss, `done` also counts layers that checkpointing computes again. Ratios of
times stand beside those of the arithmetic. What a whole row takes follows from `ilubench plan
suite=wmdp-bio method=ilu --card h200`, the engine's questions and tokens a second from
`tests/bench/scoring.py --gpu`.
"""

import argparse
import gc
import random
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import torch
from ilu_step import Nothing
from pydantic import JsonValue
from scoring_gpu import make_model

from ilubench.forecast.memory import Shape, shape_of
from ilubench.interfaces import Context, Example, Metrics, UnlearnData
from ilubench.interfaces.discovery import create_plugin
from ilubench.runs.stages.cost import Passes
from ilubench.specs import MemorySpec, PluginRef, TrainSpec
from ilubench.training import LossMethod, fine_tune

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GOAL_CONTROL = 1.1
ATTACK = "attack"
GIB = 2**30


@dataclass
class Meter:
    """Seconds of each step but the first, and what went through the model in them."""

    device: str
    passes: Passes = field(default_factory=Passes)
    seconds: list[float] = field(default_factory=list)
    forwards: float = 0.0
    backwards: float = 0.0
    last: float = 0.0

    def __call__(self, step: int, metrics: Metrics) -> None:
        del metrics
        if self.device == "cuda":
            torch.cuda.synchronize()
        now, counted = time.perf_counter(), self.passes.take()
        if step > 1:
            self.seconds.append(now - self.last)
            self.forwards += counted["forward_tokens"]
            self.backwards += counted["backward_tokens"]
        self.last = now


@dataclass(frozen=True)
class Result:
    """One method's figures."""

    seconds: float
    low: float
    high: float
    positions: float
    done: float
    model: float
    peak: int


def texts(count: int, length: int, vocabulary: int, seed: int) -> list[Example]:
    """Return random sequences, every token but the first a target."""
    rng = random.Random(seed)
    mask = (False, *[True] * (length - 1))
    return [
        Example(f"{seed}/{place}", tuple(rng.randrange(3, vocabulary) for _ in range(length)), mask)
        for place in range(count)
    ]


def made(name: str, given: argparse.Namespace, layers: int) -> LossMethod:
    """Return a method by its name here: `npo`, `ilu-npo`, `control-npo` ..."""
    kind, _, base = name.rpartition("-")
    train: dict[str, JsonValue] = {
        "lr": 5e-6,
        "steps": given.steps,
        "batch_size": given.forget,
        "micro_batch": given.micro,
    }
    own: dict[str, JsonValue] = {"train": train}
    if base == "rmu":
        own |= {"layer": min(7, layers - 1)}
    else:
        own |= {"beta": 0.0225, "reduction": "batch_mean"}
    if not kind:
        return cast("LossMethod", create_plugin("methods", PluginRef(use=base, settings=own)))
    on_top: dict[str, JsonValue] = {
        "base": {"use": base, "settings": own},
        "environments": ["benign"],
        "environment_batch": given.environment,
        "penalty": "irm" if kind == "ilu" else "cross_entropy",
    }
    return cast("LossMethod", create_plugin("methods", PluginRef(use="ilu", settings=on_top)))


def step_of(
    name: str, model: "PreTrainedModel", given: argparse.Namespace, memory: MemorySpec
) -> Meter:
    """Run some steps of a method, or of an attack."""
    device = model.device.type
    meter = Meter(device)
    nothing, tokenizer = Nothing(), cast("Any", SimpleNamespace(pad_token_id=0, eos_token_id=0))
    context = Context(0, device, tokenizer, nothing, nothing, meter, memory=memory)
    vocabulary = model.config.vocab_size
    many = given.steps * max(given.forget, given.attack)
    forget, retain = (texts(many, given.length, vocabulary, seed) for seed in (1, 2))
    benign = texts(given.steps * given.environment, given.length, vocabulary, 3)
    with meter.passes.counting(model):
        if name == ATTACK:
            spec = TrainSpec(
                lr=2e-5, steps=given.steps, batch_size=given.attack, micro_batch=given.micro
            )
            for _ in fine_tune(model, forget, spec, context):
                pass
        else:
            method = made(name, given, model.config.num_hidden_layers)
            method.unlearn(model, UnlearnData(forget, retain, {"benign": benign}), context)
    return meter


def result_of(name: str, meter: Meter, shape: Shape, given: argparse.Namespace) -> Result:
    """Set the step's time against its arithmetic."""
    steps = len(meter.seconds)
    low, middle, high = statistics.quantiles(meter.seconds, n=4)
    forwards, backwards = meter.forwards / steps, meter.backwards / steps
    kind, _, base = name.rpartition("-")
    headed = given.attack if base == ATTACK else 0 if base == "rmu" else 2 * given.forget
    headed += given.environment if kind else 0

    def flops(tokens: float, answers: float) -> float:
        """Two a parameter and token, attention on half of the pairs, the head where it is asked."""
        matrix = shape.vocabulary * shape.hidden
        body = shape.parameters - 2.0 * matrix
        attention = 2.0 * shape.hidden * shape.layers * tokens * float(given.length)
        return 2.0 * body * tokens + attention + 2.0 * matrix * answers

    answers = float(headed * given.length)
    done = flops(forwards, answers) + 2.0 * flops(backwards, answers)
    recomputed = flops(backwards, 0.0) if given.checkpointing else 0.0
    ceiling = given.ceiling * 1e12 * middle
    peak = torch.cuda.max_memory_allocated() if meter.device == "cuda" else 0
    return Result(
        middle, low, high, forwards / middle, done / ceiling, (done - recomputed) / ceiling, peak
    )


def measured(given: argparse.Namespace, memory: MemorySpec) -> Iterator[tuple[str, Result, float]]:
    """Yield each method with its figures and the arithmetic of a step."""
    model: PreTrainedModel = make_model(given.device, tiny=given.tiny)
    shape = shape_of(model.config, "bfloat16")
    print(f"{shape.parameters / 1e9:.2f}e9 weights, {model.dtype}, {given.device}", flush=True)
    for name in given.methods:
        if given.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            meter = step_of(name, model, given, memory)
        except torch.OutOfMemoryError as error:
            print(f"{name:12} out of memory: {str(error).splitlines()[0]}", flush=True)
            continue
        found = result_of(name, meter, shape, given)
        peak = f"{found.peak / GIB:.1f} GiB" if found.peak else "no GPU"
        print(
            f"{name:12} {found.seconds:8.3f} s [{found.low:.3f}, {found.high:.3f}]  "
            f"{found.positions:9.0f} positions/s  "
            f"model {found.model:.1%}, done {found.done:.1%} of {given.ceiling:g} TFLOP/s  {peak}",
            flush=True,
        )
        yield name, found, found.done * found.seconds


def ratios(found: Mapping[str, tuple[Result, float]]) -> None:
    """Print ILU over its control, and both over the base."""
    for base in ("npo", "rmu"):
        pairs: Sequence[tuple[str, str]] = (
            (f"ilu-{base}", f"control-{base}"),
            (f"ilu-{base}", base),
            (f"control-{base}", base),
        )
        for one, other in pairs:
            if one in found and other in found:
                (mine, work), (theirs, less) = found[one], found[other]
                goal = f", goal <= {GOAL_CONTROL}" if other.startswith("control") else ""
                print(
                    f"{one} / {other}: {mine.seconds / theirs.seconds:.3f}; "
                    f"arithmetic {work / less:.2f}{goal}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    methods = ["npo", "rmu", "ilu-npo", "control-npo", "ilu-rmu", "control-rmu", ATTACK]
    parser.add_argument("--methods", nargs="+", default=methods, choices=methods)
    parser.add_argument("--memory", nargs="*", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--forget", type=int, default=4, help="forget (and retain) sequences")
    parser.add_argument("--environment", type=int, default=48)
    parser.add_argument("--attack", type=int, default=32, help="sequences of an attack's step")
    parser.add_argument("--micro", type=int, default=8, help="sequences at once")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--ceiling", type=float, default=790.0, help="TFLOP/s of a large product")
    given = parser.parse_args()
    if given.steps < 4:
        parser.error("--steps: quartiles need 4 at least, the first is not timed")
    given.device = "cuda" if torch.cuda.is_available() else "cpu"
    if given.device == "cpu" and not given.tiny:
        parser.error("no GPU: give --tiny")
    memory = MemorySpec.model_validate(dict(word.split("=", 1) for word in given.memory))
    large = not given.tiny
    given.checkpointing = large if memory.checkpointing is None else memory.checkpointing
    print(f"{memory}\n{vars(given)}")
    ratios({name: (result, work) for name, result, work in measured(given, memory)})


if __name__ == "__main__":
    main()
