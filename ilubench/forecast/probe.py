"""A timed probe: two real steps of each method and attack, and one scored batch of each kind."""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ilubench.data.seeds import seed_for
from ilubench.experiments.experiment import Attack, environment_role
from ilubench.forecast.amounts import CHECKPOINTS, Amount
from ilubench.forecast.took import Took
from ilubench.interfaces import (
    BoundPromptAttack,
    Context,
    Generation,
    Ids,
    Method,
    Metrics,
    PromptAttack,
    SamplingSpec,
    TokenLogprobs,
    UnlearnData,
    WeightAttack,
)
from ilubench.records.store import FolderState
from ilubench.runs.jobs import Job
from ilubench.runs.stages.measure import Measure
from ilubench.runs.stages.prompting import applicable_scorers, bind_attack
from ilubench.runs.stages.workbench import Workbench
from ilubench.scoring.engines.check import CheckEngine
from ilubench.specs import Spec, TrainSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Probed", "run_probe"]

_STEPS = 3
"""Steps that are run; the last two are timed, since the first one also warms up."""

_SLOW = 10.0
"""Seconds of loading a model beside which the imports of its code are little."""

_RANGE = (1.4, 1.6)
"""What two steps and a batch may be off by: an assumption."""

Plugin = TypeVar("Plugin", bound=Spec)


@dataclass(frozen=True)
class Probed:
    """What was timed.

    Attributes:
        steps: (stage, method or attack) -> seconds of a step, and of what comes before the first.
        scored: attack -> seconds of its own task at a checkpoint, or of all that a prompt attack
            asks; empty name: of the suite's scorers.
        load: seconds that the model takes to load.
        peak: bytes on a GPU at most; 0 without one.
    """

    steps: Mapping[tuple[str, str], tuple[float, float]]
    scored: Mapping[str, float]
    load: float
    peak: float

    def took(self, stage: str, name: str, amount: Amount) -> Took | None:
        """Return what a job takes; None where it was not probed.

        Args:
            stage: of the job.
            name: of its method or attack; empty for others.
            amount: of the job.
        """
        seconds = self.load
        if amount.steps:
            if (stage, name) not in self.steps:
                return None
            step, before = self.steps[stage, name]
            seconds += before + amount.steps * step
        elif (stage, name) in self.steps:  # an attack by levels was made whole
            seconds += _STEPS * self.steps[stage, name][0]
        if stage in ("score", "attack"):
            if name not in self.scored:
                return None
            count = amount.checkpoints or (CHECKPOINTS if amount.steps else 1)
            # before an attack only its own task is scored
            seconds += count * self.scored[name] + (count - 1) * self.scored[""]
        return Took.within(seconds, _RANGE, "probe")


def run_probe(bench: Workbench, jobs: Sequence[Job]) -> Probed:
    """Time the open jobs' methods, attacks and scorers on the real model and data.

    The weights are thrown away.

    Args:
        bench: of the run.
        jobs: that are open.

    Raises:
        DataError: the data are wrong.
        StoreError: the target model is not made yet.
        JobError: a step does not fit into memory.
    """
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    model, load = _loaded(bench)
    if load < _SLOW:  # mostly imports, which a process has once
        model, load = _loaded(bench)
    steps: dict[tuple[str, str], tuple[float, float]] = {}
    scored: dict[str, float] = {}
    methods = {job.method.use: job.method for job in jobs if job.method is not None}
    for name, method in ((name, bench.method(ref)) for name, ref in methods.items()):
        if method.trains and isinstance(getattr(method, "train", None), TrainSpec):
            model, steps["unlearn", name] = _unlearned(bench, _short(method), model)
    for name in dict.fromkeys(job.attack for job in jobs if job.attack):
        attack = bench.attack(name)
        if isinstance(attack.plugin, PromptAttack):
            bound = bind_attack(bench, attack, bench.experiment.seeds[0])
            scored[name] = _score(bench, model, applicable_scorers(bench, bound)[0], bound)
        elif _is_known(attack):
            steps["attack", name] = _attacked(bench, attack, model)
            scored[name] = _score(bench, model, bench.attack_scorers(attack))
    scored[""] = _score(bench, model, bench.suite_scorers())
    peak = float(torch.cuda.max_memory_allocated()) if torch.cuda.is_available() else 0.0
    return Probed(steps, scored, load, peak)


def _is_known(attack: Attack) -> bool:
    """Whether an attack trains as its settings say, or changes the weights by levels at once."""
    if isinstance(getattr(attack.plugin, "train", None), TrainSpec):
        return True
    levels = attack.plugin.checkpoints(1) if isinstance(attack.plugin, WeightAttack) else ()
    return any(isinstance(level, str) for level in levels)


def _loaded(bench: Workbench) -> "tuple[PreTrainedModel, float]":
    begun = time.perf_counter()
    return bench.target_model(), time.perf_counter() - begun


def _unlearned(
    bench: Workbench, method: Method, model: "PreTrainedModel"
) -> "tuple[PreTrainedModel, tuple[float, float]]":
    data = UnlearnData(
        bench.examples(bench.suite.forget),
        bench.examples(bench.suite.retain),
        {
            name: bench.examples((environment_role(bench.suite, name),))
            for name in method.environment_names()
        },
    )
    watch = _Watch(bench)
    with tempfile.TemporaryDirectory() as folder:
        model = method.unlearn(model, data, watch.context(Path(folder)))
    return model, watch.seconds()


def _attacked(bench: Workbench, attack: Attack, model: "PreTrainedModel") -> tuple[float, float]:
    plugin = _short(attack.plugin)
    assert isinstance(plugin, WeightAttack)
    data = {role: bench.examples(names) for role, names in attack.trained(bench.suite).items()}
    watch = _Watch(bench)
    with tempfile.TemporaryDirectory() as folder:
        for _ in plugin.tamper(model, data, watch.context(Path(folder))):
            pass
    return watch.seconds()


def _short(plugin: Plugin) -> Plugin:
    """Return a plugin that trains for a few steps; one that it is made of, likewise."""
    fields = {name: getattr(plugin, name) for name in type(plugin).model_fields}
    for name, value in fields.items():
        if isinstance(value, TrainSpec):
            fields[name] = value.model_copy(update={"steps": _STEPS, "epochs": None})
        elif isinstance(value, Method):
            fields[name] = _short(value)
        elif isinstance(value, Mapping):
            fields[name] = {k: _short(v) if isinstance(v, Spec) else v for k, v in value.items()}
    return type(plugin).model_validate(fields)


class _Watch:
    """Notes when steps end."""

    def __init__(self, bench: Workbench) -> None:
        self._bench, self._ends = bench, [time.perf_counter()]

    def context(self, folder: Path) -> Context:
        bench = self._bench
        seed = seed_for(bench.experiment.seeds[0], "unlearn")
        memory = bench.experiment.run.memory
        tokenizer, state = bench.tokenizer, FolderState(folder)
        return Context(seed, bench.device, tokenizer, state, self, self._step, memory=memory)

    def start(self, phase: str, total: int) -> None:
        """Show nothing."""

    def advance(self, done: int, note: str = "") -> None:
        """Show nothing."""

    def _step(self, _step: int, _metrics: Metrics) -> None:
        self._ends.append(time.perf_counter())  # its gradient's norm was read: the device is done

    def seconds(self) -> tuple[float, float]:
        """Return the mean of the last two steps, and the seconds of what came before the first."""
        if len(self._ends) < 1 + _STEPS:  # it logs no steps
            return (time.perf_counter() - self._ends[0]) / _STEPS, 0.0
        step = (self._ends[-1] - self._ends[-3]) / 2
        return step, max(0.0, self._ends[1] - self._ends[0] - step)


def _score(
    bench: Workbench,
    model: "PreTrainedModel",
    measures: Mapping[str, Measure],
    attack: BoundPromptAttack | None = None,
) -> float:
    with bench.scored(model):
        engine = _Sampled(bench, model)
        for measure in measures.values():
            measure.score(engine, attack)
    return engine.seconds


Asked = TypeVar("Asked")


class _Sampled(CheckEngine):
    """Has the first batch of each request answered and timed, and answers nothing itself."""

    def __init__(self, bench: Workbench, model: "PreTrainedModel") -> None:
        super().__init__(bench.tokenizer, bench.target_config)
        self._engine, self._batch = bench.engine, bench.suite.score_batch
        self._engine.load(model)
        self._warm: set[str] = set()
        self.seconds = 0.0

    def _time(
        self,
        kind: str,
        asked: Sequence[Asked],
        run: Callable[[Sequence[Asked]], object],
        samples: int = 1,
    ) -> None:
        some = asked[: max(1, self._batch // samples)]
        if not some:
            return
        if kind not in self._warm:
            run(some[:1])
            self._warm.add(kind)
        begun = time.perf_counter()
        run(some)
        self.seconds += (time.perf_counter() - begun) * len(asked) / len(some)

    def generate(self, prompts: Sequence[Ids], sampling: SamplingSpec) -> list[list[Generation]]:
        """Time a batch of texts."""

        def run(some: Sequence[Ids]) -> object:
            return self._engine.generate(some, sampling)

        self._time("generate", prompts, run, sampling.n)
        return super().generate(prompts, sampling)

    def logprobs(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[TokenLogprobs]:
        """Time a batch of continuations."""
        self._time("logprobs", pairs, self._engine.logprobs)
        return super().logprobs(pairs)

    def choices(self, prompts: Sequence[Ids], options: Sequence[int]) -> list[tuple[float, ...]]:
        """Time a batch of choices."""
        self._time("choices", prompts, lambda some: self._engine.choices(some, options))
        return super().choices(prompts, options)
