"""Prompt attacks: unlearned weights -> their scores as the attack asks; no weight changes."""

from collections.abc import Mapping

from pydantic import JsonValue

from ilubench.data.rows import render_pair
from ilubench.data.seeds import seed_for
from ilubench.errors import CannotApplyError, PluginError, UsageError
from ilubench.experiments.experiment import Attack
from ilubench.interfaces import (
    BoundPromptAttack,
    Checkpoint,
    Progress,
    PromptAttack,
    PromptContext,
    Shot,
)
from ilubench.records.store import Artifact
from ilubench.runs.jobs import Job
from ilubench.runs.stages.cost import StepLog
from ilubench.runs.stages.score import score_checkpoint
from ilubench.runs.stages.workbench import Measure, Workbench

__all__ = ["applicable_scorers", "bind_attack", "run_prompt_attack"]


def run_prompt_attack(bench: Workbench, job: Job, progress: Progress) -> Artifact:
    """Return the artifact of one prompt attack, made if need be: a single checkpoint.

    Raises:
        UsageError: a scorer that the row needs cannot apply the attack.
    """
    with bench.store.work("attack", job.key) as folder:
        done = bench.store.get("attack", job.key)
        if done is not None:
            return done
        log = StepLog(folder / "log.jsonl")
        bound = bind_attack(bench, bench.attack(job.attack), job.seed)
        scorers, left_out = applicable_scorers(bench, bound)
        checkpoint = Checkpoint(bench.unlearned_model(job.weights), None)
        with bench.scored(checkpoint.model):
            score_checkpoint(checkpoint, bench.engine, scorers, folder / "scores", progress, bound)
        reasons: dict[str, JsonValue] = dict(left_out)
        meta: dict[str, JsonValue] = {
            "stage": "attack",
            "attack": job.attack,
            "seed": job.seed,
            "left_out": reasons,
            "cost": log.cost(),
        }
        return bench.store.finish("attack", job.key, meta)


def bind_attack(bench: Workbench, attack: Attack, seed: int) -> BoundPromptAttack:
    """Return a prompt attack with the rows that it shows, rendered by their roles' templates.

    Raises:
        DataError: rows are missing, empty, or lack a column of a template.
    """
    plugin = attack.plugin
    assert isinstance(plugin, PromptAttack)
    shots = {
        role: tuple(shot for name in names for shot in _shots(bench, name))
        for role, names in attack.trained(bench.suite).items()
    }
    context = PromptContext(shots, seed_for(seed, "attack", attack.name))
    return BoundPromptAttack(attack.name, plugin, context)


def _shots(bench: Workbench, role: str) -> tuple[Shot, ...]:
    source = bench.tables.source(role)
    return tuple(Shot(row, *render_pair(row, source, role)) for row in bench.tables.rows(role))


def applicable_scorers(
    bench: Workbench, attack: BoundPromptAttack
) -> tuple[dict[str, Measure], Mapping[str, str]]:
    """Return the suite's scorers that can apply an attack, and why each of the others cannot.

    Each is tried on an engine that only checks, so that an item that does not fit shows, too.

    Args:
        bench: shared state.
        attack: how the items are asked.

    Raises:
        UsageError: one that cannot makes a figure of the row; without it there is none.
        PluginError: a scorer takes the attack and does not apply it.
        ItemError: a rewritten item does not fit the model.
    """
    needed = {metric.scorer: metric.label for metric in bench.suite.metrics}
    engine = bench.check_engine()
    can: dict[str, Measure] = {}
    left_out: dict[str, str] = {}
    for name, measure in bench.suite_scorers().items():
        before = attack.rewritten
        try:
            measure.bound.score(engine, attack)
        except CannotApplyError as error:
            if name in needed:
                raise UsageError(
                    f"attack {attack.name}: {error}; the row needs scorer {name!r} for "
                    f"{needed[name]}. Leave the attack out: attacks=<the others>"
                ) from error
            left_out[name] = str(error)
            continue
        if attack.rewritten == before:
            raise PluginError(
                f"scorer {name!r} asked its items without the prompt attack {attack.name}; its "
                "`score` must call attack.rewrite for each, or raise CannotApplyError"
            )
        can[name] = measure
    return can, left_out
