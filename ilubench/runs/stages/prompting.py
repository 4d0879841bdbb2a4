"""Prompt attacks: unlearned weights -> their scores as the attack asks; no weight changes."""

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from ilubench.data.rows import render_pair
from ilubench.data.seeds import seed_for
from ilubench.errors import CannotApplyError, UsageError
from ilubench.experiments.experiment import Attack
from ilubench.experiments.scored_items import scored_items
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
from ilubench.runs.stages.devices import arithmetic
from ilubench.runs.stages.measure import Measure
from ilubench.runs.stages.score import score_checkpoint
from ilubench.runs.stages.workbench import Workbench

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
        only = scored_items(bench.experiment, bench.attack(job.attack))
        items = {name: ids for name, ids in only.items() if name in scorers}
        checkpoint = Checkpoint(bench.unlearned_model(job.weights), None, items=items)
        with bench.scored(checkpoint.model):
            score_checkpoint(checkpoint, bench.engine, scorers, folder / "scores", progress, bound)
        reasons: dict[str, JsonValue] = dict(left_out)
        meta: dict[str, JsonValue] = {
            "stage": "attack",
            "attack": job.attack,
            "seed": job.seed,
            "left_out": reasons,
            "cost": log.cost(),
            **arithmetic(bench.device),
        }
        return bench.store.finish("attack", job.key, meta)


def bind_attack(bench: Workbench, attack: Attack, seed: int) -> BoundPromptAttack:
    """Return a prompt attack with the rows that it shows, rendered by their roles' templates.

    Raises:
        DataError: rows are missing, empty, or lack a column of a template.
    """
    plugin = attack.plugin
    assert isinstance(plugin, PromptAttack)
    roles = attack.trained(bench.suite)
    rows = {role: [r for n in names for r in bench.tables.rows(n)] for role, names in roles.items()}
    shown = plugin.shows()
    shots = {
        role: tuple(shot for name in names for shot in _shots(bench, name))
        for role, names in roles.items()
        if role in shown
    }
    context = PromptContext(shots, seed_for(seed, "attack", attack.name), rows)
    return BoundPromptAttack(attack.name, plugin, context)


def _shots(bench: Workbench, role: str) -> Iterator[Shot]:
    source = bench.tables.source(role)
    for row in bench.tables.rows(role):
        yield Shot(row, *render_pair(row, source, role))


def applicable_scorers(
    bench: Workbench, attack: BoundPromptAttack
) -> tuple[dict[str, Measure], Mapping[str, str]]:
    """Return the suite's scorers that can apply an attack, and why each of the others cannot.

    Each is tried on an engine that only checks, so that an item that does not fit shows, too.

    Args:
        bench: shared state.
        attack: how the items are asked.

    Raises:
        UsageError: none that measures forgetting can; then the attack has no figure.
        PluginError: a scorer takes the attack and does not apply it.
        ItemError: a rewritten item does not fit the model.
    """
    engine = bench.check_engine()
    can: dict[str, Measure] = {}
    left_out: dict[str, str] = {}
    for name, measure in bench.suite_scorers().items():
        try:
            measure.score(engine, attack)
        except CannotApplyError as error:
            left_out[name] = str(error)
            continue
        can[name] = measure
    needed = {metric.scorer: metric.label for metric in bench.suite.primary_forget}
    if not can.keys() & needed:
        name, label = next(iter(needed.items()))
        raise UsageError(
            f"attack {attack.name}: {left_out[name]}; the row needs scorer {name!r} for {label}. "
            "Leave the attack out: attacks=<the others>"
        )
    return can, left_out
