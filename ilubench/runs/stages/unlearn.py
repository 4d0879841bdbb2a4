"""Unlearn: target model and method -> the tensors that changed."""

from pydantic import JsonValue

from ilubench.experiments.experiment import Experiment
from ilubench.interfaces import Progress, UnlearnData
from ilubench.models.checkpoints import save_changes
from ilubench.records.keys import seed_for
from ilubench.records.store import Artifact
from ilubench.runs.stages.cost import Passes, StepLog
from ilubench.runs.stages.workbench import Workbench
from ilubench.training import seed_everything

__all__ = ["run_unlearn"]


def run_unlearn(
    bench: Workbench, experiment: Experiment, keys: tuple[str, str], seed: int, progress: Progress
) -> Artifact:
    """Return the artifact of the unlearned weights, made if need be.

    Args:
        bench: shared state.
        experiment: whose method is used (`none` has one of its own).
        keys: of the target and of this job.
        seed: the user's.
        progress: display.
    """
    target, key = keys
    with bench.store.work("unlearn", key) as folder:
        done = bench.store.get("unlearn", key)
        if done is not None:
            return done
        method, suite = experiment.method, experiment.suite
        data = UnlearnData(
            forget=bench.examples(suite.forget, target) if method.trains else (),
            retain=bench.examples(suite.retain, target) if method.trains else (),
            environments={
                name: bench.examples((experiment.environment_role(name),), target)
                for name in method.environment_names()
            },
        )
        passes = Passes()
        log = StepLog(folder / "log.jsonl", passes)
        role_seed = seed_for(seed, "unlearn")
        context = bench.context(folder, log, progress, role_seed, target)
        model = bench.target_model(target)
        if method.trains:
            bench.engine(target).load(model)  # what cannot be scored shows before hours of training
        seed_everything(role_seed)
        with passes.counting(model):
            model = method.unlearn(model, data, context)
        changed = save_changes(model, bench.target_folder(target), folder)
        meta: dict[str, JsonValue] = {
            "stage": "unlearn",
            "method": experiment.method_name,
            "seed": seed,
            "changed": len(changed),
            "cost": log.cost(),
        }
        return bench.store.finish("unlearn", key, meta)
