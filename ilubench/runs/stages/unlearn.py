"""Unlearn: target model and method -> the tensors that changed."""

from pydantic import JsonValue

from ilubench.data.seeds import seed_for
from ilubench.experiments.experiment import environment_role
from ilubench.interfaces import Progress, UnlearnData
from ilubench.models.checkpoints import save_changes
from ilubench.models.sharding import whole_model
from ilubench.records.store import Artifact
from ilubench.runs.jobs import Job
from ilubench.runs.stages.cost import Passes
from ilubench.runs.stages.workbench import Workbench
from ilubench.training import seed_everything

__all__ = ["run_unlearn"]


def run_unlearn(bench: Workbench, job: Job, progress: Progress) -> Artifact:
    """Return the artifact of the unlearned weights, made if need be."""
    assert job.method is not None
    with bench.store.work("unlearn", job.key) as folder:
        done = bench.store.get("unlearn", job.key)
        if done is not None:
            return done
        method, suite = bench.method(job.method), bench.suite
        data = UnlearnData(
            forget=bench.examples(suite.forget) if method.trains else (),
            retain=bench.examples(suite.retain) if method.trains else (),
            environments={
                name: bench.examples((environment_role(suite, name),))
                for name in method.environment_names()
            },
        )
        passes = Passes()
        log = bench.step_log(folder, passes)
        role_seed = seed_for(job.seed, "unlearn")
        context = bench.context(folder, log, progress, role_seed)
        model = bench.target_model()
        bench.shard(model)
        if method.trains:
            with bench.scored(model) as whole:
                if whole is not None:
                    bench.engine.load(whole)  # what cannot be scored shows before hours of training
        seed_everything(role_seed)
        with passes.counting(model):
            model = method.unlearn(model, data, context)
        changed: tuple[str, ...] = ()
        with whole_model(model) as whole:
            if whole is not None:
                changed = save_changes(whole, bench.target_folder, folder)
        meta: dict[str, JsonValue] = {
            "stage": "unlearn",
            "method": job.method.use,
            "seed": job.seed,
            "changed": len(changed),
            "cost": log.cost(),
        }
        return bench.store.finish("unlearn", job.key, meta)
