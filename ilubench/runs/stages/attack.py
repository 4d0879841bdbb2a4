"""Attack: unlearned weights -> scores along the course of the tampering."""

from dataclasses import replace

from pydantic import JsonValue

from ilubench.data.seeds import seed_for
from ilubench.experiments.scored_items import scored_items
from ilubench.interfaces import Checkpoint, Progress, PromptAttack
from ilubench.interfaces.courses import Course
from ilubench.models.checkpoints import save_changes
from ilubench.models.sharding import whole_model
from ilubench.records.store import Artifact
from ilubench.runs.jobs import Job
from ilubench.runs.stages.devices import arithmetic
from ilubench.runs.stages.prompting import run_prompt_attack
from ilubench.runs.stages.score import score_checkpoint
from ilubench.runs.stages.telling import Teller, score_and_tell
from ilubench.runs.stages.workbench import Workbench
from ilubench.training import seed_everything

__all__ = ["run_attack"]


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
        utility = tuple(metric.scorer for metric in bench.suite.utility)
        course = Course(attack.name, utility, has_fa=attack.fa is not None, tunes=attack.tunes)
        only = scored_items(bench.experiment, attack)

        def score(made: Checkpoint) -> None:
            checkpoint = replace(made, items={**only, **made.items}) if made.step != 0 else made
            course.add(checkpoint)
            scorers = extra if checkpoint.step == 0 else {**suite_scorers, **extra}
            if scorers:
                with bench.scored(checkpoint.model) as whole:
                    if whole is not None:
                        found = replace(checkpoint, model=whole)
                        score_checkpoint(found, bench.engine, scorers, folder / "scores", progress)
            log.skip_time()

        tell = Teller(bench, job, folder / "scores") if attack.tunes else None
        last = score_and_tell(attack.plugin.tamper(model, data, context), score, tell)
        # of trials the last one is no result
        if last is not None and tell is None and "attacked" in bench.experiment.run.keep:
            with whole_model(last.model) as whole:
                if whole is not None:
                    save_changes(whole, bench.target_folder, folder)
        meta: dict[str, JsonValue] = {
            "stage": "attack",
            "attack": attack.name,
            "seed": job.seed,
            "cost": log.cost(),
            **arithmetic(bench.device),
        }
        return bench.store.finish("attack", job.key, meta)
