"""Prompt attacks: unlearned weights -> their scores as the attack asks; no weight changes."""

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from ilubench.data.rows import render_pair
from ilubench.data.seeds import seed_for
from ilubench.errors import CannotApplyError, UsageError
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
    roles = {role: attack.role(role, bench.suite) for role in plugin.roles()}
    rows = {role: bench.tables.rows(name) for role, name in roles.items()}
    context = PromptContext(_Shots(bench, roles), seed_for(seed, "attack", attack.name), rows)
    return BoundPromptAttack(attack.name, plugin, context)


class _Shots(Mapping[str, Sequence[Shot]]):
    """Roles -> their rows as text, rendered when they are asked for: not every role has templates.

    Args:
        bench: shared state.
        roles: as the attack calls them -> their full names.
    """

    def __init__(self, bench: Workbench, roles: Mapping[str, str]) -> None:
        self._bench, self._roles = bench, roles
        self._made: dict[str, Sequence[Shot]] = {}

    def __getitem__(self, role: str) -> Sequence[Shot]:
        if role not in self._made:
            tables, name = self._bench.tables, self._roles[role]
            source = tables.source(name)
            shots = (Shot(row, *render_pair(row, source, name)) for row in tables.rows(name))
            self._made[role] = tuple(shots)
        return self._made[role]

    def __iter__(self) -> Iterator[str]:
        return iter(self._roles)

    def __len__(self) -> int:
        return len(self._roles)


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
