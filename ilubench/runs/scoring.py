"""What `ilubench score MODEL` asks for: a suite's scorers, or tasks without a suite.

Either becomes a suite that holds no more than scoring reads: the same engine, scorers, jobs and
records follow from it as from any run's.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import cast

from ilubench.errors import SpecError, did_you_mean
from ilubench.experiments.experiment import Experiment, create_scorers, suite_tables
from ilubench.experiments.roles import file_words
from ilubench.experiments.suites import NO_PLUGINS, change_suite, read_suite
from ilubench.interfaces import Method, Scorer
from ilubench.interfaces.discovery import create_plugin
from ilubench.records.results import REFERENCE
from ilubench.runs.scored_tasks import tasks_suite
from ilubench.specs import ModelSource, PluginRef, RunSpec, ScoreSpec, SuiteSpec
from ilubench.specs.overrides import Override, apply_overrides
from ilubench.specs.yaml_files import validate_spec

__all__ = ["resolve_scoring", "scored_part"]

_OF_TASKS = ("fewshot", "num_fewshot", "limit", "split_by")
_OF_RUNS = (*RunSpec.model_fields, "attack")


def resolve_scoring(overrides: Sequence[Override], model: ModelSource) -> Experiment:
    """Return what `ilubench score` does with a model.

    Args:
        overrides: the words.
        model: to score.

    Raises:
        SpecError: an unknown key, name or value; names the words that would work.
        PluginError: a scorer is missing or broken.
    """
    below: dict[str, list[Override]] = {"data": [], "suite": []}
    plain: list[Override] = []
    for override in overrides:
        head = override.path[0]
        if head in below and len(override.path) > 1:
            below[head].append(override.below())
        elif head in _OF_RUNS and head not in ScoreSpec.model_fields:
            problem = f"score unlearns and attacks nothing, {override.key!r} changes nothing"
            remedy = "leave it out (`ilubench attack MODEL` attacks it)"
            raise SpecError(problem, field=override.key, remedy=remedy)
        else:
            plain.append(override)
    given = {override.path[0] for override in plain}
    asked = validate_spec(
        ScoreSpec, apply_overrides(ScoreSpec, {}, plain, NO_PLUGINS), source="command line"
    )
    if asked.task:
        _refuse(given & {"suite", "scorers"}, "belongs to a suite, and task= needs none")
        raw = tasks_suite(asked, model)
        suite = change_suite(raw, below["suite"], below["data"], source="the tasks")
        path = Path(suite.name)
    else:
        suite, path = read_suite(asked.suite, below["suite"], below["data"], model)
        _refuse(given & {*_OF_TASKS}, "is for tasks", "add task=FILE data=FILE")
        if "data" in given:
            roles = file_words(scored_part(suite, asked.scorers, path).data)
            remedy = f"add task=FILE, or name the role: {roles}"
            raise SpecError("whose rows are these?", field="data", remedy=remedy)
        suite = scored_part(suite, asked.scorers, path)
    shared = {name: getattr(asked, name) for name in ("engine", "device", "texts", "out")}
    run = RunSpec(suite=suite.name if asked.task else asked.suite, **shared)
    return Experiment(
        run,
        suite,
        REFERENCE,
        cast("Method", create_plugin("methods", PluginRef(use=REFERENCE))),
        (),
        create_scorers(suite, path),
        (0,),
        suite_tables(suite),
        scores_only=True,
    )


def scored_part(suite: SuiteSpec, names: Sequence[str], source: Path) -> SuiteSpec:
    """Return what of a suite some of its scorers need, and no word of methods and attacks.

    Args:
        suite: the suite.
        names: of its scorers; empty for all.
        source: its file, for messages.

    Raises:
        SpecError: it has no such scorer, or not the role that one reads.
    """
    for name in names:
        if name not in suite.scorers:
            problem = f"suite {suite.name} has no scorer {name!r}"
            remedy = did_you_mean(name, suite.scorers)
            raise SpecError(problem, field="scorers", remedy=remedy)
    kept = {name: ref for name, ref in suite.scorers.items() if not names or name in names}
    composites = tuple(c for c in suite.composites if {s for s, _ in c.metrics} <= kept.keys())
    none = {"primary_forget": (), "utility": (), "composites": ()}
    part = suite.model_copy(update={"scorers": kept, **none})
    roles = _roles(create_scorers(part, source).values())
    for role in roles:
        if role not in suite.data:
            problem, remedy = f"no data role {role!r}", did_you_mean(role, suite.data)
            raise SpecError(problem, where=f"{source}: scorers", remedy=remedy)
    data = {role: suite.data[role] for role in roles}
    makers = {source.generated.split(".")[0] for source in data.values() if source.generated}
    found = SuiteSpec(
        **{
            name: getattr(suite, name)
            for name in ("name", "version", "title", "description", "citation", "target")
        },
        generators={n: made for n, made in suite.all_generators().items() if n in makers},
        data=data,
        scorers=kept,
        primary_forget=tuple(m for m in suite.primary_forget if kept.keys() >= {*m.scorers}),
        utility=tuple(m for m in suite.utility if kept.keys() >= {*m.scorers}),
        composites=composites,
        dtype=suite.dtype,
        score_dtype=suite.score_dtype,
        score_batch=suite.score_batch,
    )
    return found.model_copy(update={"retrain": suite.retrain}) if found.compares else found


# --- inside ---


def _roles(scorers: Iterable[Scorer]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(role for scorer in scorers for role in scorer.roles()))


def _refuse(words: Iterable[str], problem: str, remedy: str = "leave it out") -> None:
    for word in sorted(words):
        raise SpecError(problem, field=word, remedy=remedy)
