"""Attack: unlearned weights -> scores along the course of the tampering."""

import re
from dataclasses import replace

from pydantic import JsonValue

from ilubench.data.seeds import seed_for
from ilubench.errors import JobError
from ilubench.experiments.experiment import Attack
from ilubench.interfaces import Checkpoint, Progress, PromptAttack
from ilubench.models.checkpoints import save_changes
from ilubench.models.sharding import whole_model
from ilubench.records.store import Artifact
from ilubench.runs.jobs import Job
from ilubench.runs.stages.prompting import run_prompt_attack
from ilubench.runs.stages.score import score_checkpoint
from ilubench.runs.stages.scored_items import scored_items
from ilubench.runs.stages.workbench import Workbench
from ilubench.training import seed_everything

__all__ = ["run_attack"]

_LEVEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def run_attack(bench: Workbench, job: Job, progress: Progress) -> Artifact:
    """Return the artifact of one attack, made if need be; each checkpoint is stored as it comes.

    At step 0 only the attack's FA task is scored: the rest is the unlearned model's own score.

    Raises:
        JobError: the attack's checkpoints do not make a course.
    """
    attack = bench.attack(job.attack)
    if isinstance(attack.plugin, PromptAttack):
        return run_prompt_attack(bench, job, progress)
    with bench.store.work("attack", job.key) as folder:
        done = bench.store.get("attack", job.key)
        if done is not None:
            return done
        suite_scorers = dict(bench.suite_scorers())
        extra = bench.attack_scorers(attack)
        data = {role: bench.examples(names) for role, names in attack.trained(bench.suite).items()}
        log = bench.step_log(folder)
        role_seed = seed_for(job.seed, "attack", attack.name)
        context = bench.context(folder, log, progress, role_seed)
        seed_everything(role_seed)
        model = bench.unlearned_model(job.weights)
        bench.shard(model)
        last: Checkpoint | None = None
        course = _Course(attack, tuple(m.scorer for m in bench.suite.utility))
        only = scored_items(bench, attack)
        for made in attack.plugin.tamper(model, data, context):
            checkpoint = replace(made, items={**only, **made.items}) if made.step != 0 else made
            course.add(checkpoint)
            last = checkpoint
            scorers = extra if checkpoint.step == 0 else {**suite_scorers, **extra}
            if scorers:
                with bench.scored(checkpoint.model) as whole:
                    if whole is not None:
                        found = replace(checkpoint, model=whole)
                        score_checkpoint(found, bench.engine, scorers, folder / "scores", progress)
            log.skip_time()
        if last is not None and "attacked" in bench.experiment.run.keep:
            with whole_model(last.model) as whole:
                if whole is not None:
                    save_changes(whole, bench.target_folder, folder)
        meta: dict[str, JsonValue] = {
            "stage": "attack",
            "attack": attack.name,
            "seed": job.seed,
            "cost": log.cost(),
        }
        return bench.store.finish("attack", job.key, meta)


class _Course:
    """The checkpoints so far; refuses one that makes no course, before anything more is done.

    Args:
        attack: whose.
        utility: scorers that measure utility.
    """

    def __init__(self, attack: Attack, utility: tuple[str, ...]) -> None:
        self._attack, self._utility = attack, utility
        self._names: set[str] = set()
        self._kinds: set[str] = set()

    def add(self, checkpoint: Checkpoint) -> None:
        """Take the next checkpoint.

        Raises:
            JobError: it does not go with those before.
        """
        step, level = checkpoint.step, checkpoint.level
        if checkpoint.name in self._names:
            raise self._wrong(
                f"two checkpoints are {checkpoint.name}; give each its own step or level"
            )
        if step is not None and level is not None:
            raise self._wrong(
                f"a checkpoint has step {step} and level {level!r}; give it one of them"
            )
        if level is not None and not _LEVEL.fullmatch(level):
            allowed = "lower-case letters, digits, `.`, `_` and `-`"
            raise self._wrong(f"level {level!r}: a level is part of a file's name; use {allowed}")
        if step != 0:
            self._kinds.add("steps" if step is not None else "levels" if level else "neither")
            if len(self._kinds) > 1:
                both = " and ".join(sorted(self._kinds))
                raise self._wrong(f"its checkpoints have {both}; a course has steps or levels")
            if step is None and self._attack.fa is not None and "step-000000" not in self._names:
                remedy = "yield Checkpoint(model, 0) first"
                raise self._wrong(
                    f"it has an FA task and no checkpoint before the attack; {remedy}"
                )
        for name in self._utility:
            if name in checkpoint.items:
                remedy = "score all of its items"
                raise self._wrong(f"{name!r} measures utility and loses items; {remedy}")
        self._names.add(checkpoint.name)

    def _wrong(self, problem: str) -> JobError:
        return JobError(f"attack {self._attack.name}: {problem}")
