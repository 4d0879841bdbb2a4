"""What a run's record says before anything is measured: by this, two runs are compared."""

import json
from collections.abc import Mapping
from functools import cache
from typing import cast

from pydantic import JsonValue

from ilubench.data.chat import template_hash
from ilubench.errors import IlubenchError
from ilubench.experiments.experiment import Attack, Experiment
from ilubench.experiments.roles import needed_roles
from ilubench.models.checkpoints import tokenizer_sha256
from ilubench.models.folder import weight_files
from ilubench.records.keys import digest, file_sha256, library_versions
from ilubench.records.likeness import suite_conditions
from ilubench.records.ranges import fa_scorer, range_of
from ilubench.records.results import RunRecord
from ilubench.runs.stages.workbench import Workbench
from ilubench.specs import Range
from ilubench.statistics.bounds import UNBOUNDED

__all__ = ["declared_ranges", "plain", "record_head", "row_hashes", "used_libraries"]

_LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "lm-eval",
    "vllm",
    "datasets",
    "numpy",
    "scipy",
    "optuna",
)


@cache
def used_libraries() -> Mapping[str, str]:
    """Return their versions when first asked; what is installed during a run, it does not use."""
    return library_versions(_LIBRARIES)


def record_head(experiment: Experiment, bench: Workbench, run_id: str = "") -> RunRecord:
    """Return the record of a run of which no job is done yet."""
    alone = experiment.scores_only
    settings = plain(experiment.method.model_dump(mode="json"))
    return RunRecord(
        run=run_id,
        suite=experiment.suite.name,
        suite_version=experiment.suite.version,
        method={} if alone else {"use": experiment.method_name, "settings": settings},
        method_version=0 if alone else type(experiment.method).version,
        seeds=experiment.seeds,
        attacks=tuple(attack.name for attack in experiment.attacks),
        engine=bench.engine_choice.name,
        dtype=experiment.suite.dtypes,
        seen=experiment.seen,
        rows={},
        cost={},
        jobs=(),
        further=tuple(a.name for a in experiment.attacks if a.spec.further),
        protocol={a.name: _protocol(experiment, a) for a in experiment.attacks},
        data=row_hashes(experiment, bench),
        target=_target_hash(bench),
        ranges=declared_ranges(experiment),
        conditions=suite_conditions(experiment.suite) | _chat_template(experiment, bench),
        libraries={n: v for n, v in used_libraries().items() if v != "absent"},
    )


def declared_ranges(experiment: Experiment) -> dict[str, Range]:
    """Return `scorer.metric` -> what an item can score, of the metrics that have a bound."""
    scorers = dict(experiment.scorers)
    scorers |= {fa_scorer(a.name): a.fa for a in experiment.attacks if a.fa is not None}
    found = {
        f"{name}.{metric}": range_of(scorer.ranges, metric)
        for name, scorer in scorers.items()
        for metric in scorer.metrics()
    }
    return {metric: bounds for metric, bounds in found.items() if bounds != UNBOUNDED}


def plain(value: object) -> JsonValue:
    """Return a value as JSON has it."""
    return cast("JsonValue", json.loads(json.dumps(value, allow_nan=False)))


def row_hashes(experiment: Experiment, bench: Workbench) -> dict[str, str]:
    """Return the hash of the rows of each role that was read for a run.

    Others of its grid may read more.
    """
    tables, mine = bench.tables, needed_roles(experiment)
    roles = [role for role in tables.roles if role in mine and tables.is_loaded(role)]
    return {role: str(tables.fingerprint(role)["rows"]) for role in roles}


# --- inside ---


def _protocol(experiment: Experiment, attack: Attack) -> dict[str, JsonValue]:
    """What two runs must have alike in an attack, lest they have unequal budgets."""
    tables = experiment.tables
    return {
        "use": attack.spec.use,
        "settings": plain(attack.plugin.model_dump(mode="json")),
        "data": {
            role: {"examples": len(tables.rows(full)), **tables.fingerprint(full)}
            for role, full in attack.reads(experiment.suite).items()
        },
        "max_length": experiment.suite.max_length,
        "fa": plain(attack.spec.fa.model_dump(mode="json")) if attack.spec.fa else None,
    }


def _chat_template(experiment: Experiment, bench: Workbench) -> dict[str, str]:
    """Which template writes the run's chats; the suite says which roles are chats."""
    if not any(experiment.tables.source(role).chat for role in needed_roles(experiment)):
        return {}
    try:
        found = template_hash(bench.tokenizer)
    except IlubenchError:  # it comes with a target that is not made
        return {}
    return {"chat_template": found}


def _target_hash(bench: Workbench) -> str:
    """One SHA-256 over the target model's weights, and over a tokenizer from elsewhere.

    Of a model that a recipe makes: over the recipe, its text and the weights that it begins with.
    Made on another machine, such a model differs in the rounding of sums, and is the same target.
    Empty where the files are not at hand.
    """
    recipe = bench.suite.target.recipe
    if bench.suite.target.model is None and recipe is not None:
        return digest(bench.recipe_identity(recipe, retrain=False))
    try:
        files = weight_files(bench.target_folder)
        words = bench.given_tokenizer
    except IlubenchError:  # its job failed, or the store was tidied up
        return ""
    hashes: dict[str, JsonValue] = {path.name: file_sha256(path) for path in files}
    return digest(hashes if words is None else {**hashes, "tokenizer": tokenizer_sha256(words)})
