"""Attack: unlearned weights -> scores along the course of the tampering."""

from pydantic import JsonValue

from ilubench.checkpoints import save_changes
from ilubench.experiment import Attack
from ilubench.identity import seed_for
from ilubench.interfaces import Checkpoint, Progress
from ilubench.stages.cost import StepLog
from ilubench.stages.score import score_checkpoint
from ilubench.stages.workbench import Workbench
from ilubench.store import Artifact
from ilubench.training import seed_everything

__all__ = ["run_attack"]


def run_attack(
    bench: Workbench, attack: Attack, keys: tuple[str, str, str], seed: int, progress: Progress
) -> Artifact:
    """Return the artifact of one attack, made if need be; each checkpoint is stored as it comes.

    At step 0 only the attack's FA task is scored: the rest is the unlearned model's own score.

    Args:
        bench: shared state.
        attack: what is done to the model.
        keys: of the target, of the unlearned weights, of this job.
        seed: the user's.
        progress: display.
    """
    target, unlearn, key = keys
    with bench.store.work("attack", key) as folder:
        done = bench.store.get("attack", key)
        if done is not None:
            return done
        suite_scorers = dict(bench.suite_scorers(target))
        extra = bench.attack_scorers(attack, target)
        data = {
            role: bench.examples((attack.role(role, bench.suite),), target)
            for role in attack.plugin.roles()
        }
        log = StepLog(folder / "log.jsonl")
        role_seed = seed_for(seed, "attack", attack.name)
        context = bench.context(folder, log, progress, role_seed, target)
        seed_everything(role_seed)
        model = bench.unlearned_model(target, unlearn)
        last: Checkpoint | None = None
        for checkpoint in attack.plugin.tamper(model, data, context):
            last = checkpoint
            scorers = extra if checkpoint.step == 0 else {**suite_scorers, **extra}
            if scorers:
                engine = bench.engine(target)
                score_checkpoint(checkpoint, engine, scorers, folder / "scores", progress)
            log.skip_time()
        if last is not None and "attacked" in bench.experiment.run.keep:
            save_changes(last.model, bench.target_folder(target), folder)
        meta: dict[str, JsonValue] = {
            "stage": "attack",
            "attack": attack.name,
            "seed": seed,
            "cost": log.cost(),
        }
        return bench.store.finish("attack", key, meta)
