"""The jobs of a run, in order, with their keys; nothing is computed here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ilubench.errors import SpecError
from ilubench.experiments.experiment import Attack, Experiment, with_method
from ilubench.experiments.training_text import check_form, find_overlaps
from ilubench.interfaces import Method, PromptAttack
from ilubench.records.keys import digest
from ilubench.records.results import OverlapRecord, Who
from ilubench.records.store import Artifact, Store
from ilubench.runs.stages.keys import attack_key, score_key, target_key, unlearn_key
from ilubench.runs.stages.prompting import applicable, bind
from ilubench.runs.stages.workbench import Workbench, pick_device

if TYPE_CHECKING:
    from transformers import PretrainedConfig

from ilubench.records.results import REFERENCE, RETRAIN

__all__ = [
    "Job",
    "Plan",
    "check_inputs",
    "check_method",
    "make_bench",
    "make_plan",
    "method_jobs",
    "outline",
    "whose",
]


Stage = Literal["target", "unlearn", "score", "attack"]


@dataclass(frozen=True)
class Job:
    """One unit of work; `key` names its artifact, `needs` the artifacts it starts from.

    Attributes:
        who: `method`; `reference` and `retrain` for the jobs of the original model and of the one
            that never knew, which all rows of a suite share.
        weights: key of the unlearned weights that it scores or attacks.
    """

    stage: Stage
    key: str
    label: str
    needs: tuple[str, ...] = ()
    who: Who = "method"
    seed: int = 0
    attack: Attack | None = None
    weights: str = ""


@dataclass(frozen=True)
class Plan:
    """The jobs of a run in the order of their execution.

    Attributes:
        title: what it is, if no run.
        overlap: what of the evaluation items is in the text that is trained on.
    """

    run_id: str
    folder: Path
    bench: Workbench
    target: str
    jobs: tuple[Job, ...]
    title: str = ""
    overlap: tuple[OverlapRecord, ...] = ()

    def is_done(self, job: Job) -> bool:
        """Whether the job's artifact is there (a given target model needs no job)."""
        if job.stage == "target" and self.bench.given_target is not None:
            return True
        return self.bench.store.get(job.stage, job.key) is not None

    def artifact(self, job: Job) -> Artifact | None:
        """Return a finished job's artifact."""
        return self.bench.store.get(job.stage, job.key)

    def seconds(self, job: Job) -> float | None:
        """How long a finished job took, None when unknown."""
        artifact = self.artifact(job)
        value = artifact.meta().get("seconds") if artifact else None
        return float(value) if isinstance(value, int | float) else None


def whose(experiment: Experiment, who: Who) -> Experiment:
    """Return the experiment whose method made the weights of ``who``."""
    if who == "method":
        return experiment
    return with_method(experiment, REFERENCE if who == "reference" else RETRAIN)


def _compared(experiment: Experiment) -> tuple[Who, ...]:
    """Return whose jobs a run has; a method that is a reference itself has no other jobs."""
    found: list[Who] = ["reference"]
    if experiment.method_name != REFERENCE:
        found.insert(0, "method")
    retrain = experiment.suite.retrain
    given = retrain is not None and retrain.model is not None
    asked = experiment.run.never_knew and bool(experiment.attacks)
    if given and asked and experiment.method_name != RETRAIN:
        found.append("retrain")
    return tuple(found)


@dataclass(frozen=True)
class _Keys:
    """How jobs are keyed: by what determines their results, or by their names alone."""

    weights: Callable[[Experiment, int], str]
    score: Callable[[str], str]
    attack: Callable[[Attack, str, int], str]


def _hashed(bench: Workbench, target: str) -> _Keys:
    return _Keys(
        lambda experiment, seed: unlearn_key(bench, experiment, target, seed),
        lambda weights: score_key(bench, weights),
        lambda attack, weights, seed: attack_key(bench, attack, weights, seed),
    )


_NAMED = _Keys(
    lambda experiment, seed: f"unlearn {experiment.method_name} {seed}",
    lambda weights: f"score {weights}",
    lambda attack, weights, seed: f"attack {weights} {attack.name} {seed}",
)


def method_jobs(bench: Workbench, experiment: Experiment, target: str, who: Who) -> list[Job]:
    """Return the jobs of one method: each seed's weights, their scores, the attacks on them."""
    return _method_jobs(experiment, target, who, _hashed(bench, target))


def _method_jobs(experiment: Experiment, target: str, who: Who, keys: _Keys) -> list[Job]:
    jobs = []
    name, seeded = experiment.method_name, experiment.method.seeded
    weights = ""
    for seed in experiment.seeds:
        if seeded or not weights:
            weights = keys.weights(experiment, seed)
        score = keys.score(weights)
        tail = f"seed {seed}"
        shown = f"{name}, {tail}" if seeded else name
        jobs.append(Job("unlearn", weights, f"unlearn {shown}", (target,), who, seed))
        jobs.append(Job("score", score, f"score {shown}", (weights,), who, seed, weights=weights))
        for attack in experiment.attacks:
            key = keys.attack(attack, weights, seed)
            label = f"attack {name} with {attack.name}, {tail}"
            jobs.append(Job("attack", key, label, (weights,), who, seed, attack, weights))
    return jobs


def _ordered(experiment: Experiment, target: str, keys: _Keys) -> tuple[Job, ...]:
    """Return a run's jobs, the target's first, then seed by seed; each key once."""
    jobs = [Job("target", target, f"make the target model of {experiment.suite.name}")]
    by_seed = [
        job
        for who in _compared(experiment)
        for job in _method_jobs(whose(experiment, who), target, who, keys)
    ]
    by_seed.sort(key=lambda job: experiment.seeds.index(job.seed))
    return tuple({job.key: job for job in jobs + by_seed}.values())


def outline(experiment: Experiment) -> tuple[Job, ...]:
    """Return a run's jobs when data or model are not at hand: named, not keyed, so none is done."""
    return _ordered(experiment, "target", _NAMED)


def make_bench(experiment: Experiment) -> Workbench:
    """Return what the jobs of a run share; nothing is loaded.

    Raises:
        UsageError: the device cannot be used.
    """
    device = pick_device(experiment.run.device)
    return Workbench(experiment, Store(Path(experiment.run.out) / "store"), device)


def check_method(bench: Workbench, method: Method) -> None:
    """Find settings that do not fit the target model, of a method and of those that it wraps.

    Raises:
        SpecError: names the field.
    """
    _check_settings(method, bench.target_config, "method.")


def _check_settings(method: Method, config: "PretrainedConfig", prefix: str) -> None:
    try:
        method.check_model(config)
    except SpecError as error:
        field = f"{prefix}{error.field}"
        raise SpecError(error.problem, field=field, remedy=error.remedy) from error
    for name in type(method).model_fields:
        inner = getattr(method, name)
        if isinstance(inner, Method):
            _check_settings(inner, config, f"{prefix}{name}.")


def make_plan(experiment: Experiment) -> Plan:
    """Return the jobs of a run; data are read and looked through, no weights are loaded.

    Raises:
        DataError: data or the target model are missing or empty, or an evaluation item has no
            words that could be looked for in the training text.
        SpecError: an attack that is still to be done trains on other prompts than its FA task's,
            or a setting of the method does not fit the target model.
    """
    out = Path(experiment.run.out)
    bench = make_bench(experiment)
    check_method(bench, experiment.method)
    target = target_key(bench)
    ordered = _ordered(experiment, target, _hashed(bench, target))
    name = experiment.method_name.rpartition(":")[2].lower()
    run_id = f"{experiment.suite.name}-{name}-{digest([job.key for job in ordered])[:10]}"
    plan = Plan(run_id, out / run_id, bench, target, ordered)
    to_do = {job.attack.name: job.attack for job in ordered if job.attack and not plan.is_done(job)}
    for attack in to_do.values():
        check_form(experiment, attack)
    return replace(plan, overlap=find_overlaps(experiment))


def check_inputs(plan: Plan) -> None:
    """Tokenise, bind and dry-run what the open jobs read: a wrong item shows before any training.

    Raises:
        DataError: data are missing, empty, or an item does not fit the model.
        UsageError: a scorer that the row needs cannot apply a prompt attack.
    """
    bench, suite = plan.bench, plan.bench.suite
    open_jobs = [job for job in plan.jobs if not plan.is_done(job)]
    for job in open_jobs:
        if job.stage == "unlearn" and job.who == "method":
            roles = [suite.forget, suite.retain] if bench.experiment.method.trains else []
            names = bench.experiment.method.environment_names()
            roles += [(bench.experiment.environment_role(name),) for name in names]
            for role in roles:
                bench.examples(role, plan.target)
        elif job.attack is not None and not isinstance(job.attack.plugin, PromptAttack):
            for name in job.attack.plugin.roles():
                bench.examples((job.attack.role(name, suite),), plan.target)
    attacks = {job.attack.name: job.attack for job in open_jobs if job.attack is not None}
    for attack in attacks.values():
        bench.check_items(bench.attack_scorers(attack, plan.target), plan.target)
    if any(job.stage in ("score", "attack") for job in open_jobs):
        bench.check_items(bench.suite_scorers(plan.target), plan.target)
    for attack in attacks.values():
        if isinstance(attack.plugin, PromptAttack):
            applicable(bench, bind(bench, attack, bench.experiment.seeds[0]), plan.target)
