"""The jobs of a run or of several, in order, with their keys; nothing is computed here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ilubench.errors import SpecError
from ilubench.experiments.experiment import (
    Attack,
    Experiment,
    suite_method,
)
from ilubench.experiments.method_words import naming_method
from ilubench.experiments.roles import read_roles
from ilubench.experiments.training_text import check_form, check_split, find_overlaps
from ilubench.interfaces import Method, WeightAttack
from ilubench.interfaces.discovery import find_plugin
from ilubench.records.keys import digest
from ilubench.records.reference_sets import read_set
from ilubench.records.results import REFERENCE, RETRAIN, OverlapRecord, Who
from ilubench.records.store import Artifact
from ilubench.runs.jobs import Job
from ilubench.runs.references import ReadSet, References, find_references
from ilubench.runs.stages.compared import compared_key
from ilubench.runs.stages.keys import attack_key, score_key, scoring_identity, unlearn_key
from ilubench.runs.stages.untouched import untouched_key
from ilubench.runs.stages.workbench import Workbench, make_bench
from ilubench.specs import PluginRef, SuiteSpec

if TYPE_CHECKING:
    from transformers import PretrainedConfig

__all__ = [
    "Plan",
    "check_method",
    "make_plan",
    "method_jobs",
    "outline_jobs",
    "target_job",
    "untouched_jobs",
]


@dataclass(frozen=True)
class Plan:
    """Jobs in the order of their execution: of a run, of a grid of runs, or of a tuning.

    Attributes:
        experiment: what the run was asked for; of a grid, its first run.
        bench: what the jobs share, also those of a grid's runs.
        jobs: each key once.
        title: what it is, if no run.
        overlap: what of the evaluation items is in the text that is trained on.
        references: what is not measured, but taken from the suite's result sets.
        grid: the runs of a grid; empty otherwise.
    """

    run_id: str
    folder: Path
    experiment: Experiment
    bench: Workbench
    jobs: tuple[Job, ...]
    title: str = ""
    overlap: tuple[OverlapRecord, ...] = ()
    references: References = field(default_factory=References)
    grid: "tuple[Plan, ...]" = ()

    @property
    def rows(self) -> "tuple[Plan, ...]":
        """The runs: those of a grid, or the one that the plan is."""
        return self.grid or (self,)

    @property
    def keys(self) -> frozenset[str]:
        """The keys of the jobs."""
        return frozenset(job.key for job in self.jobs)

    def is_done(self, job: Job) -> bool:
        """Whether the job's artifact is there (a given target model needs no job)."""
        return self.bench.is_done(job)

    def artifact(self, job: Job) -> Artifact | None:
        """Return a finished job's artifact."""
        return self.bench.store.get(job.stage, job.key)

    def seconds(self, job: Job) -> float | None:
        """How long a finished job took, None when unknown."""
        artifact = self.artifact(job)
        value = artifact.meta().get("seconds") if artifact else None
        return float(value) if isinstance(value, int | float) else None


def _compared(experiment: Experiment) -> dict[Who, PluginRef]:
    """Return whose jobs a run has, and by which methods; a reference itself has no other jobs."""
    suite = experiment.suite
    found: dict[Who, PluginRef] = {}
    if experiment.method_name != REFERENCE:
        found["method"] = experiment.method_ref
    found["reference"] = suite_method(suite, REFERENCE)
    if experiment.measures_retrain and experiment.method_name != RETRAIN:
        found["retrain"] = suite_method(suite, RETRAIN)
    return found


@dataclass(frozen=True)
class _Keys:
    """How jobs are keyed: by what determines their results, or by their names alone."""

    weights: Callable[[PluginRef, int], str]
    untouched: Callable[[], str]
    score: Callable[[str], str]
    attack: Callable[[str, str, int], str]
    compared: str = ""


def _hashed(bench: Workbench) -> _Keys:
    shared = scoring_identity(bench)
    return _Keys(
        lambda method, seed: unlearn_key(bench, bench.method(method), seed),
        cache(lambda: untouched_key(bench)),
        lambda weights: score_key(shared, weights),
        lambda attack, weights, seed: attack_key(
            bench, shared, bench.attack(attack), weights, seed
        ),
        compared_key(bench),
    )


_NAMED = _Keys(
    lambda method, seed: f"unlearn {method.model_dump_json()} {seed}",
    lambda: "untouched",
    lambda weights: f"score {weights}",
    lambda attack, weights, seed: f"attack {weights} {attack} {seed}",
)


def method_jobs(bench: Workbench, method: PluginRef, who: Who) -> list[Job]:
    """Return the jobs of one method: each seed's weights, their scores, the attacks on them."""
    seeded = bench.method(method).seeded
    return _method_jobs(bench.experiment, bench.target, method, who, _hashed(bench), seeded=seeded)


def _method_jobs(
    experiment: Experiment, target: str, method: PluginRef, who: Who, keys: _Keys, *, seeded: bool
) -> list[Job]:
    jobs = []
    weights = ""
    # nothing is unlearned or attacked before it is known that there is something to forget
    known = keys.score(keys.weights(suite_method(experiment.suite, REFERENCE), 0))
    levels = tuple(job.key for job in _untouched(experiment, target, keys))
    makes = (target, *levels) if who == "reference" else (target, known)
    for seed in experiment.seeds:
        if seeded or not weights:
            weights = keys.weights(method, seed)
        shared = {"who": who, "seed": seed}
        tail = f"seed {seed}"
        shown = f"{method.use}, {tail}" if seeded else method.use
        scores = keys.score(weights)
        jobs += [
            Job(
                stage="unlearn",
                key=weights,
                label=f"unlearn {shown}",
                needs=makes,
                method=method,
                **shared,
            ),
            Job(
                stage="score",
                key=scores,
                label=f"score {shown}",
                needs=(weights,),
                weights=weights,
                **shared,
            ),
        ]
        jobs += [
            Job(
                stage="attack",
                key=keys.attack(attack.name, weights, seed),
                label=f"attack {method.use} with {attack.name}, {tail}",
                needs=(*dict.fromkeys((weights, known, *told)),),
                weights=weights,
                attack=attack.name,
                told_by=told,
                **shared,
            )
            for attack in experiment.attacks
            for told in [(scores, *levels) if attack.tunes else ()]
        ]
    return jobs


def untouched_jobs(bench: Workbench) -> list[Job]:
    """Return the job that scores the model before it was taught, if chance levels need it."""
    return _untouched(bench.experiment, bench.target, _hashed(bench))


def _untouched(experiment: Experiment, target: str, keys: _Keys) -> list[Job]:
    if not experiment.suite.measures_chance:
        return []
    weights = keys.untouched()
    job = Job(
        stage="score",
        key=keys.score(weights),
        label="score the untouched model",
        needs=(target,),  # which brings the tokenizer
        who="untouched",
        seed=experiment.seeds[-1],
        weights=weights,
    )
    return [job]


def target_job(suite: SuiteSpec, key: str) -> Job:
    """Return the job that makes the target model, which every other one needs."""
    return Job(stage="target", key=key, label=f"make the target model of {suite.name}")


def _ordered(experiment: Experiment, target: str, keys: _Keys) -> tuple[Job, ...]:
    """Return a run's jobs: the target's, the original's score, then seed by seed; each key once."""
    first = [target_job(experiment.suite, target)]
    if experiment.scores_only:
        known = {"who": "reference", "needs": (target,), "weights": target}
        first.append(Job(stage="score", key=keys.score(target), label="score the model", **known))
        if keys.compared:
            never = {"who": "retrain", "needs": (target,), "weights": keys.compared}
            score = keys.score(keys.compared)
            first.append(Job(stage="score", key=score, label="score the retrained model", **never))
        return tuple(first)
    first += _untouched(experiment, target, keys)
    by_seed = []
    for who, method in _compared(experiment).items():
        seeded = (
            find_plugin("methods", method.use).seeded
            if who != "method"
            else experiment.method.seeded
        )
        by_seed += _method_jobs(experiment, target, method, who, keys, seeded=seeded)
    by_seed.sort(key=lambda job: experiment.seeds.index(job.seed))
    first += [job for job in by_seed if job.scores_original]
    return tuple({job.key: job for job in (*first, *by_seed)}.values())


def outline_jobs(*experiments: Experiment) -> tuple[Job, ...]:
    """Return runs' jobs when data or model are not at hand: named, not keyed, so none is done."""
    return _together([(one, _ordered(one, "target", _NAMED)) for one in experiments])


def _together(rows: Sequence[tuple[Experiment, Sequence[Job]]]) -> tuple[Job, ...]:
    """Return the jobs of several runs, each key once, under labels that tell variants apart."""
    found: dict[str, Job] = {}
    for experiment, jobs in rows:
        asked = experiment.run.method.use
        variant = len(rows) > 1 and asked != experiment.method_name
        for job in jobs:
            own = variant and job.who == "method"
            label = f"{asked}: {job.label}" if own else job.label
            found.setdefault(job.key, job.model_copy(update={"label": label}))
    return tuple(found.values())


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


def make_plan(*experiments: Experiment) -> Plan:
    """Return the jobs of a run; data are read and looked through, no weights are loaded.

    Args:
        experiments: one; or several that differ in their method, which share the other jobs.

    Raises:
        DataError: data or the target model are missing or empty, or an evaluation item has no
            words that could be looked for in the training text.
        SpecError: an attack that is still to be done trains on other prompts than its FA task's, or
            on items that it scores though it says that these are others,
            a setting of the method does not fit the target model, or the suite's references that
            were asked for do not match.
    """
    bench = make_bench(*experiments)
    for experiment in experiments:
        with naming_method(experiment.run.method.use if len(experiments) > 1 else ""):
            check_method(bench, experiment.method)
    read_roles(*experiments)
    keys = _hashed(bench)
    read = cache(read_set)  # the runs of a grid take them alike
    rows = tuple(_run_plan(experiment, bench, keys, read) for experiment in experiments)
    if len(rows) == 1:
        return rows[0]
    jobs = _together([(row.experiment, row.jobs) for row in rows])
    first = experiments[0]
    run_id = f"{first.suite.name}-{digest([row.run_id for row in rows])[:10]}"
    folder = Path(first.run.out) / "grids" / run_id
    return Plan(run_id, folder, first, bench, jobs, grid=rows)


def _run_plan(experiment: Experiment, bench: Workbench, keys: _Keys, read: ReadSet) -> Plan:
    every = _ordered(experiment, bench.target, keys)
    references = find_references(experiment, bench, every, read)
    ordered = tuple(job for job in every if not references.cover(job))
    method = experiment.method_name.rpartition(":")[2].lower()
    name = "score" if experiment.scores_only else method
    key = digest([*(job.key for job in ordered), *references.keys])[:10]
    run_id = f"{experiment.suite.name}-{name}-{key}"
    folder = Path(experiment.run.out) / run_id
    plan = Plan(run_id, folder, experiment, bench, ordered, references=references)
    for name in {job.attack: None for job in ordered if job.attack and not plan.is_done(job)}:
        _check_attack(bench, bench.attack(name))
        check_form(experiment, bench.attack(name))
        check_split(experiment, bench.attack(name))
    return replace(plan, overlap=find_overlaps(experiment))


def _check_attack(bench: Workbench, attack: Attack) -> None:
    """Refuse settings that do not fit the target model, or need what is not installed."""
    for one in (*attack.links.values(), attack):
        if isinstance(one.plugin, WeightAttack):
            with one.naming():
                one.plugin.check_model(bench.target_config)
