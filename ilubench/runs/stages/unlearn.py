"""Unlearn: target model and method -> the tensors that changed."""

import torch
from pydantic import JsonValue

from ilubench.data.seeds import seed_for
from ilubench.errors import ModelError
from ilubench.experiments.experiment import environment_role
from ilubench.experiments.method_settings import made_by_recipe
from ilubench.interfaces import Progress, UnlearnData
from ilubench.models.checkpoints import save_changes
from ilubench.models.sharding import whole_model
from ilubench.records.store import Artifact
from ilubench.runs.jobs import Job
from ilubench.runs.stages.cost import Passes
from ilubench.runs.stages.devices import arithmetic
from ilubench.runs.stages.keys import unlearn_key
from ilubench.runs.stages.target import train_by_recipe
from ilubench.runs.stages.workbench import Workbench
from ilubench.training import seed_everything

__all__ = ["run_unlearn"]


def run_unlearn(bench: Workbench, job: Job, progress: Progress) -> Artifact:
    """Return the artifact of the unlearned weights, made if need be.

    Raises:
        ModelError: the files of a model that was given are others than the job's key says.
    """
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
        recipe = made_by_recipe(suite, method)
        if recipe is not None:
            model, _ = train_by_recipe(bench, recipe, folder, log, progress, retrain=True)
            stored: torch.nn.Module = model
            for dtype in (recipe.dtype, suite.dtype):  # as if it had been stored and loaded
                stored.to(getattr(torch, dtype))
        else:
            model = bench.target_model()
            bench.shard(model)
            if method.trains:
                with bench.scored(model) as whole:
                    if whole is not None:  # what cannot be scored shows before hours of training
                        bench.engine.load(whole)
            seed_everything(role_seed)
            with passes.counting(model):
                model = method.unlearn(model, data, context)
            if not method.trains and unlearn_key(bench, method, job.seed) != job.key:
                problem = f"{job.label}: its files are others than when the run began"
                raise ModelError(f"{problem}; run again with those that count")
        changed: tuple[str, ...] = ()
        with whole_model(model) as whole:
            if whole is not None:
                changed = save_changes(whole, bench.target_folder, folder)
        meta: dict[str, JsonValue] = {
            "stage": "unlearn",
            "target": bench.target,
            "method": job.method.use,
            "seed": job.seed,
            "changed": len(changed),
            "cost": log.cost(),
            **arithmetic(bench.device),
        }
        return bench.store.finish("unlearn", job.key, meta)
