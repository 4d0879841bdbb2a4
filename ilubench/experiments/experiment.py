"""Names -> objects, once: suite file, method, attacks, scorers and data of one run."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self, cast

from pydantic import Field, JsonValue, model_validator

from ilubench.data.rows import Tables
from ilubench.errors import PluginError, SpecError, did_you_mean
from ilubench.experiments.attacks import Attack, named_attacks, restore_attack
from ilubench.experiments.keys import unknown_key
from ilubench.experiments.method_settings import stands_for
from ilubench.experiments.method_words import (
    check_shared,
    create_method,
    named_methods,
    naming_method,
)
from ilubench.experiments.scorers import create_scorers
from ilubench.experiments.suites import NO_PLUGINS, check_recipes, read_suite
from ilubench.interfaces import Generator, Method, Scorer
from ilubench.interfaces.discovery import create_plugin, find_plugin
from ilubench.records.results import REFERENCE
from ilubench.specs import (
    GeneratorSpec,
    ModelSource,
    PluginRef,
    RunSpec,
    Settings,
    Spec,
    SuiteSpec,
)
from ilubench.specs.overrides import (
    Override,
    apply_overrides,
)
from ilubench.specs.suite_files import attack_name
from ilubench.specs.values import NO_VALUE
from ilubench.specs.yaml_files import validate_spec

__all__ = [
    "Attack",
    "Experiment",
    "create_scorers",
    "environment_role",
    "resolve_experiment",
    "resolve_grid",
    "restore_experiment",
    "suite_method",
    "suite_tables",
]


@dataclass(frozen=True)
class Experiment:
    """Everything that one run needs, resolved.

    ``scores_only``: the model is scored as it is. Its method is `none` then, which no record names.
    """

    run: RunSpec
    suite: SuiteSpec
    method_name: str
    method: Method
    attacks: tuple[Attack, ...]
    scorers: Mapping[str, Scorer]
    seeds: tuple[int, ...]
    tables: Tables
    scores_only: bool = False

    @property
    def seen(self) -> tuple[str, ...]:
        """Attacks whose data the method trained on."""
        mine = {environment_role(self.suite, name) for name in self.method.environment_names()}
        return tuple(
            attack.name for attack in self.attacks if {*attack.reads(self.suite).values()} & mine
        )

    @property
    def measures_retrain(self) -> bool:
        """Whether the suite's retrained model is measured beside: attacked, or compared with."""
        wanted = bool(self.attacks) or self.suite.compares
        return self.suite.retrain is not None and self.run.never_knew and wanted

    @property
    def is_named(self) -> bool:
        """Whether another process finds the method by its name."""
        try:
            found = find_plugin("methods", self.method_name)
        except PluginError:  # a verification's, whose weights are given
            return False
        return type(self.method) is found

    @property
    def method_ref(self) -> PluginRef:
        """The method by name or file, with all its settings, as jobs and records name it."""
        settings = self.method.model_dump(mode="json")
        return PluginRef(use=self.method_name, settings=settings)


def environment_role(suite: SuiteSpec, name: str) -> str:
    """Return the data role of an environment.

    Raises:
        SpecError: the suite declares no such environment.
    """
    known = suite.environments
    if name not in known:
        problem = f"suite {suite.name} has no environment {name!r}"
        raise SpecError(problem, field="method.environments", remedy=did_you_mean(name, known))
    return known[name]


def _take(
    overrides: Sequence[Override], head: str
) -> tuple[tuple[Override, ...], tuple[Override, ...]]:
    mine = tuple(o.below() for o in overrides if o.path[0] == head and len(o.path) > 1)
    rest = tuple(o for o in overrides if not (o.path[0] == head and len(o.path) > 1))
    return mine, rest


def _generator(spec: GeneratorSpec) -> Generator:
    ref = PluginRef(use=spec.use, settings=spec.settings)
    return cast("Generator", create_plugin("generators", ref))


def suite_tables(suite: SuiteSpec) -> Tables:
    """Return the rows of a suite's roles and of its attacks' own (`gsm8k.train`); none is read."""
    return Tables(suite.all_sources(), suite.all_generators(), _generator)


def resolve_experiment(
    overrides: Sequence[Override],
    *,
    target: ModelSource | None = None,
    method: PluginRef | None = None,
    by_recipe: bool = False,
) -> Experiment:
    """Return the experiment that `key=value` words ask for.

    Args:
        overrides: the words.
        target: a model to use in place of the suite's target.
        method: a method to use whatever the words say.
        by_recipe: the recipes count, whatever weights are given.

    Raises:
        SpecError: an unknown key, name or value, or several methods.
        PluginError: a plugin is missing or broken.
    """
    given = {"target": target, "method": method, "by_recipe": by_recipe}
    first, *others = resolve_grid(overrides, **given)  # type: ignore[arg-type]
    if others:
        problem = f"one method is needed here, and {1 + len(others)} are named"
        remedy = f"write method={first.run.method.use}"
        raise SpecError(problem, field="method", remedy=remedy)
    return first


def resolve_grid(
    overrides: Sequence[Override],
    *,
    target: ModelSource | None = None,
    method: PluginRef | None = None,
    by_recipe: bool = False,
) -> tuple[Experiment, ...]:
    """Return the experiments that `key=value` words ask for: one a method, alike in all else.

    Args:
        overrides: the words; those below `method` set a field of every method.
        target: a model to use in place of the suite's target.
        method: a method to use whatever the words say.
        by_recipe: the recipes count, whatever weights are given.

    Raises:
        SpecError: an unknown key, name or value, a method twice, or a word on a recipe that makes
            nothing.
        PluginError: a plugin is missing or broken.
    """
    data, rest = _take(overrides, "data")
    suite_changes, rest = _take(rest, "suite")
    method_changes, rest = _take(rest, "method")
    attack_changes, rest = _take(rest, "attack")
    for override in rest:
        if override.path[0] not in RunSpec.model_fields:
            raise unknown_key(override, overrides)
    named = [o.text for o in rest if o.path == ("method",)]
    if method is not None and named:
        remedy = "leave method out; `ilubench run` takes one"
        raise SpecError("the model is given, no method is used", field="method", remedy=remedy)
    plain = tuple(o for o in rest if o.path != ("method",))
    none = Override(("attacks",), "")  # `attacks=none` is no attack; None, the default, is all
    plain = tuple(
        none if o.path == none.path and o.text.strip().lower() in NO_VALUE else o for o in plain
    )
    asked = apply_overrides(RunSpec, {}, plain, NO_PLUGINS)
    run = validate_spec(RunSpec, asked, source="command line")
    suite, path = read_suite(run.suite, suite_changes, data, target, run.attacks or ())
    if not by_recipe:
        check_recipes(suite, suite_changes)
    if suite.lacking:
        problem = f"it has no {', '.join(suite.lacking)}, so that models can only be scored with it"
        remedy = f"ilubench score MODEL suite={run.suite}"
        raise SpecError(problem, where=str(path), remedy=remedy)
    runs = [run.model_copy(update={"method": ref}) for text in named for ref in named_methods(text)]
    methods = _methods(suite, runs or [run], method, method_changes, path)
    scorers = create_scorers(suite, path)
    chosen = None if run.attacks is None else tuple(map(attack_name, run.attacks))
    attacks = named_attacks(suite, chosen, attack_changes)
    seeds = run.seeds if run.seeds is not None else suite.seeds
    if not seeds:
        raise SpecError("no seed is given", field="seeds", remedy="write seeds=0..4")
    seed, times = Counter(seeds).most_common(1)[0]
    if times > 1:
        raise SpecError(f"{seed} is given twice", field="seeds", remedy="give each once")
    tables = suite_tables(suite)
    return tuple(
        Experiment(one, suite, use, chosen, attacks, scorers, seeds, tables)
        for one, (use, chosen) in zip(runs or [run], methods, strict=True)
    )


def _methods(
    suite: SuiteSpec,
    runs: Sequence[RunSpec],
    given: PluginRef | None,
    overrides: Sequence[Override],
    source: Path,
) -> list[tuple[str, Method]]:
    """Return each run's method, by its own name; of several, errors say which is meant."""
    labels = [run.method.use for run in runs]
    refs = [given or stands_for(suite, run.method) for run in runs]
    check_shared(dict(zip(labels, refs, strict=True)), overrides)
    found: list[tuple[str, Method]] = []
    for label, ref in zip(labels, refs, strict=True):
        with naming_method(label if len(runs) > 1 else ""):
            method = create_method(suite, ref, overrides, source)
            for name in method.environment_names():
                environment_role(suite, name)
        if (ref.use, method) in found:
            same = labels[found.index((ref.use, method))]
            problem = (
                f"{label} is the same as {same}" if label != same else f"{label} is named twice"
            )
            raise SpecError(problem, field="method", remedy="leave one of them out")
        found.append((ref.use, method))
    return found


def suite_method(suite: SuiteSpec, name: str) -> PluginRef:
    """Return a method with the suite's settings for it.

    Args:
        suite: its settings.
        name: of a method itself; a suite's label does not count here, so that none can take the
            place of the models that rows are compared with.
    """
    method = create_method(suite, PluginRef(use=name), (), Path(suite.name))
    return PluginRef(use=name, settings=method.model_dump(mode="json"))


def restore_experiment(config: Mapping[str, JsonValue], source: Path) -> Experiment:
    """Return the experiment that a run's `config.yaml` describes; no suite file is read again.

    Args:
        config: the file's content.
        source: the file, for messages.

    Raises:
        SpecError: a part is missing or wrong.
        PluginError: a plugin is missing or broken.
    """
    told = validate_spec(_RunConfig, config, source=source)
    suite = told.suite
    for name in told.attacks:
        if name not in suite.attacks:
            remedy = did_you_mean(name, suite.attacks)
            raise SpecError(f"the suite has no attack {name!r}", where=str(source), remedy=remedy)
    attacks = (restore_attack(suite, name, own) for name, own in told.attacks.items())
    ref = PluginRef(use=told.use or REFERENCE, settings=told.method)
    method = create_plugin("methods", ref, source=f"{source}: method")
    scorers, tables = create_scorers(suite, source), suite_tables(suite)
    return Experiment(
        told.run,
        suite,
        ref.use,
        method,
        tuple(attacks),
        scorers,
        told.seeds,
        tables,
        scores_only=told.use is None,
    )


class _RunConfig(Spec):
    """A run's `config.yaml`; one that only scored names no method and no attack."""

    run: RunSpec
    use: str | None = None
    method: Settings = Field(default_factory=dict)
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    attacks: dict[str, Settings] = Field(default_factory=dict)
    suite: SuiteSpec

    @model_validator(mode="after")
    def _all_or_nothing(self) -> Self:
        more = self.model_fields_set & {"method", "seeds", "attacks"}
        if self.use is None and more:
            raise ValueError(f"use: is missing, and there is {', '.join(sorted(more))}")
        return self
