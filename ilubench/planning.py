"""The jobs of a run, in order, with their keys; nothing is computed here."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ilubench.experiment import Attack, Experiment, with_method
from ilubench.identity import digest
from ilubench.stages.keys import attack_key, score_key, target_key, unlearn_key
from ilubench.stages.workbench import Workbench, pick_device
from ilubench.store import Artifact, Store

__all__ = ["REFERENCE", "Job", "Plan", "check_inputs", "make_plan"]

REFERENCE = "none"
"""The method that every row is compared with."""

Stage = Literal["target", "unlearn", "score", "attack"]


@dataclass(frozen=True)
class Job:
    """One unit of work; `key` names its artifact, `needs` the artifacts it starts from.

    Attributes:
        who: `method`, or `reference` for the original model's jobs.
        weights: key of the unlearned weights that it scores or attacks.
    """

    stage: Stage
    key: str
    label: str
    needs: tuple[str, ...] = ()
    who: Literal["method", "reference"] = "method"
    seed: int = 0
    attack: Attack | None = None
    weights: str = ""


@dataclass(frozen=True)
class Plan:
    """The jobs of a run in the order of their execution."""

    run_id: str
    folder: Path
    bench: Workbench
    target: str
    jobs: tuple[Job, ...]

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


def _method_jobs(
    bench: Workbench, experiment: Experiment, target: str, who: Literal["method", "reference"]
) -> list[Job]:
    jobs = []
    name = experiment.method_name if who == "method" else REFERENCE
    for seed in experiment.seeds:
        weights = unlearn_key(bench, experiment, target, seed)
        score = score_key(bench, weights)
        tail = f"seed {seed}"
        shown = f"{name}, {tail}" if experiment.method.seeded else name
        jobs.append(Job("unlearn", weights, f"unlearn {shown}", (target,), who, seed))
        jobs.append(Job("score", score, f"score {shown}", (weights,), who, seed, weights=weights))
        for attack in experiment.attacks:
            key = attack_key(bench, attack, weights, seed)
            label = f"attack {name} with {attack.name}, {tail}"
            jobs.append(Job("attack", key, label, (weights,), who, seed, attack, weights))
    return jobs


def make_plan(experiment: Experiment) -> Plan:
    """Return the jobs of a run; data are read, no weights are loaded.

    Raises:
        DataError: data or the target model are missing or empty.
    """
    device = pick_device(experiment.run.device)
    out = Path(experiment.run.out)
    bench = Workbench(experiment, Store(out / "store"), device)
    target = target_key(bench)
    jobs = [Job("target", target, f"make the target model of {experiment.suite.name}")]
    by_seed = _method_jobs(bench, with_method(experiment, REFERENCE), target, "reference")
    if experiment.method_name != REFERENCE:
        by_seed = _method_jobs(bench, experiment, target, "method") + by_seed
    by_seed.sort(key=lambda job: experiment.seeds.index(job.seed))
    ordered = tuple({job.key: job for job in jobs + by_seed}.values())
    name = experiment.method_name.rpartition(":")[2].lower()
    run_id = f"{experiment.suite.name}-{name}-{digest([job.key for job in ordered])[:10]}"
    return Plan(run_id, out / run_id, bench, target, ordered)


def check_inputs(plan: Plan) -> None:
    """Tokenise, bind and dry-run what the open jobs read: a wrong item shows before any training.

    Raises:
        DataError: data are missing, empty, or an item does not fit the model.
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
        elif job.attack is not None:
            for name in job.attack.plugin.roles():
                bench.examples((job.attack.role(name, suite),), plan.target)
    attacks = {job.attack.name: job.attack for job in open_jobs if job.attack is not None}
    for attack in attacks.values():
        bench.check_items(bench.attack_scorers(attack, plan.target), plan.target)
    if any(job.stage in ("score", "attack") for job in open_jobs):
        bench.check_items(bench.suite_scorers(plan.target), plan.target)
