"""Names -> objects, once: suite file, method, attacks, scorers and data of one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, JsonValue

from ilubench.errors import PluginError, SpecError, did_you_mean
from ilubench.interfaces import Generator, Method, PromptAttack, Scorer, WeightAttack
from ilubench.loading import load_yaml, merge, task_file, validate
from ilubench.overrides import Override, PluginLookup, apply
from ilubench.plugins import create, find
from ilubench.specs import (
    AttackSpec,
    DataSource,
    Estimator,
    FineTuningAccuracySpec,
    GeneratorSpec,
    MetricSpec,
    ModelSource,
    PluginRef,
    RunSpec,
    SuiteSpec,
)
from ilubench.suite_methods import (
    check_methods,
    check_suite_models,
    method_settings,
    stands_for,
    variants,
)
from ilubench.tables import Tables

__all__ = [
    "Attack",
    "Experiment",
    "load_suite",
    "metric_name",
    "resolve",
    "suite_tables",
    "suite_variants",
    "with_method",
]


@dataclass(frozen=True)
class Attack:
    """A resolved attack: its spec, its plugin, and the scorer of its FA task."""

    name: str
    spec: AttackSpec
    plugin: WeightAttack | PromptAttack
    fa: Scorer | None

    def role(self, role: str, suite: SuiteSpec) -> str:
        """Return the full name of a role: the attack's own, else the suite's."""
        if role in self.spec.data:
            return f"{self.name}.{role}"
        if role in suite.data:
            return role
        remedy = did_you_mean(role, [*self.spec.data, *suite.data])
        raise SpecError(f"unknown data role {role!r}", where=f"attack {self.name}", remedy=remedy)


@dataclass(frozen=True)
class Experiment:
    """Everything that one run needs, resolved."""

    run: RunSpec
    suite: SuiteSpec
    method_name: str
    method: Method
    attacks: tuple[Attack, ...]
    scorers: Mapping[str, Scorer]
    seeds: tuple[int, ...]
    tables: Tables

    @property
    def metrics(self) -> tuple[MetricSpec, ...]:
        """Primary forget metrics, then utility."""
        return self.suite.primary_forget + self.suite.utility

    @property
    def seen(self) -> tuple[str, ...]:
        """Attacks whose data the method trained on."""
        mine = {self.environment_role(name) for name in self.method.environment_names()}
        return tuple(
            attack.name
            for attack in self.attacks
            if {attack.role(role, self.suite) for role in attack.plugin.roles()} & mine
        )

    def environment_role(self, name: str) -> str:
        """Return the data role of an environment.

        Raises:
            SpecError: the suite declares no such environment.
        """
        known = self.suite.environments
        if name not in known:
            problem = f"suite {self.suite.name} has no environment {name!r}"
            raise SpecError(problem, field="method.environments", remedy=did_you_mean(name, known))
        return known[name]


def metric_name(scorer: str, metric: str) -> str:
    """Return how a scorer's metric is named in records."""
    return f"{scorer}/{metric}"


def _extended(
    kind: str, values: Mapping[str, JsonValue], below_of: tuple[Path, ...] = ()
) -> dict[str, JsonValue]:
    below = values.get("extends")
    own = {key: value for key, value in values.items() if key != "extends"}
    if below is None:
        return own
    path = task_file(kind, str(below)).resolve()
    if path in below_of:
        raise SpecError("extends itself", where=str(path), field="extends", remedy="name another")
    return merge(_extended(kind, load_yaml(path), (*below_of, path)), own)


def load_suite(name: str) -> tuple[dict[str, JsonValue], Path]:
    """Return a suite's raw fields, `extends` resolved, and the file that they came from.

    Raises:
        SpecError: no such suite or attack, or not YAML.
    """
    path = task_file("suites", name)
    values = _extended("suites", load_yaml(path))
    attacks = values.get("attacks")
    if isinstance(attacks, Mapping):
        values["attacks"] = {
            key: _extended("attacks", attack) if isinstance(attack, Mapping) else attack
            for key, attack in attacks.items()
        }
    return values, path


def _no_plugins(group: str, use: str) -> type[BaseModel]:
    raise SpecError(f"{group} {use!r} cannot be set here")


_NO_LOOKUP = PluginLookup(_no_plugins, lambda _group, _use: {})


def _take(
    overrides: Sequence[Override], head: str
) -> tuple[tuple[Override, ...], tuple[Override, ...]]:
    mine = tuple(o.below() for o in overrides if o.path[0] == head and len(o.path) > 1)
    rest = tuple(o for o in overrides if not (o.path[0] == head and len(o.path) > 1))
    return mine, rest


def _sources(raw: Mapping[str, JsonValue]) -> dict[str, dict[str, Any]]:
    """Return `data.<place>` -> raw source: roles, those of attacks, the inputs of generators.

    An attack whose role is generated may have a generator of its own name; then its input, which
    has the rows of the hub, is what a local file stands for.
    """
    suite = cast("dict[str, Any]", raw)
    places = dict(suite.get("data") or {})
    attacks = {name: attack or {} for name, attack in (suite.get("attacks") or {}).items()}
    for owner, attack in attacks.items():
        places |= {f"{owner}.{name}": s for name, s in (attack.get("data") or {}).items()}
    groups = [suite.get("generators"), *(attack.get("generators") for attack in attacks.values())]
    for group in groups:
        for owner, values in (group or {}).items():
            places |= {f"{owner}.{name}": s for name, s in (values.get("inputs") or {}).items()}
    return places


def _data_overrides(
    raw: dict[str, JsonValue], overrides: Sequence[Override]
) -> dict[str, JsonValue]:
    """Point roles at local files, or set fields of their sources."""
    places = _sources(raw)
    for override in overrides:
        heads = (".".join(override.path[:length]) for length in range(len(override.path), 0, -1))
        role = next((head for head in heads if head in places), None)
        if role is None:
            remedy = did_you_mean(override.key, places)
            raise SpecError(
                f"unknown data role {override.key!r}", field=f"data.{override.key}", remedy=remedy
            )
        source = places[role]
        if role == override.key:
            for name in ("hub", "revision", "subset", "generated"):
                source.pop(name, None)
            source["path"] = override.text
        else:
            change = override.below(role.count(".") + 1)
            prefix = f"data.{role}."
            source.update(apply(DataSource, source, (change,), _NO_LOOKUP, prefix=prefix))
    return raw


def _other_weights(
    raw: dict[str, JsonValue], overrides: Sequence[Override]
) -> dict[str, JsonValue]:
    """Drop where the suite's models come from when the overrides say another place.

    Other weights bring their own tokenizer: the suite's stays only where the overrides speak of it.
    """
    places = ("hub", "path", "packaged")
    old = (*places, "revision", "sha256", "license", "gated")
    changed: dict[str, JsonValue] = {}
    for name in ("target", "retrain"):
        told = {o.path[1:] for o in overrides if o.path[0] == name}
        given = dict(cast("Mapping[str, Any]", raw.get(name) or {}))
        if any(("model", place) in told for place in places) and all(
            path[:1] != ("tokenizer",) for path in told
        ):
            given.pop("tokenizer", None)
        for part in ("model", "tokenizer"):
            if given.get(part) and any((part, place) in told for place in places):
                given[part] = {k: value for k, value in given[part].items() if k not in old}
        changed |= {name: given} if given else {}
    return {**raw, **changed}


def _suite(
    name: str,
    overrides: Sequence[Override],
    data: Sequence[Override],
    target: ModelSource | None,
) -> tuple[SuiteSpec, Path]:
    raw, path = load_suite(name)
    known = validate(SuiteSpec, raw, source=path)  # the file is right before it is changed
    if target is not None:
        raw["target"] = {"model": target.model_dump(mode="json")}
        known = validate(SuiteSpec, raw, source=path)
    if data:
        raw = _data_overrides(raw, data)
    if overrides:
        raw = _other_weights(raw, overrides)
        raw = apply(SuiteSpec, raw, overrides, _NO_LOOKUP, prefix="suite.")
    suite = validate(SuiteSpec, raw, source=f"suite {name}") if data or overrides else known
    check_methods(suite, path)
    return suite, path


def suite_variants(name: str) -> dict[str, PluginRef]:
    """Return the labels of a suite's `methods`: what each stands for, and its own settings.

    Raises:
        SpecError: no such suite, or it is wrong.
    """
    suite, _ = _suite(name, (), (), None)
    return variants(suite)


def _method(
    suite: SuiteSpec, ref: PluginRef, overrides: Sequence[Override], source: Path
) -> Method:
    lookup = PluginLookup(
        find, lambda group, use: method_settings(suite, use) if group == "methods" else {}
    )
    found = find("methods", ref.use)
    if not issubclass(found, Method):
        raise PluginError(f"{ref.use!r} is not a method (a subclass of ilubench.interfaces.Method)")
    settings = merge(method_settings(suite, ref.use), ref.settings)
    settings = apply(found, settings, overrides, lookup, prefix="method.")
    check_suite_models(suite, found, settings)
    label = f"method {ref.use} (settings of suite {source.name})"
    return cast(
        "Method", create("methods", PluginRef(use=ref.use, settings=settings), source=label)
    )


def _attack(
    name: str, spec: AttackSpec, everyone: Sequence[Override], mine: Sequence[Override]
) -> Attack:
    found = find("attacks", spec.use)
    if not issubclass(found, WeightAttack | PromptAttack):
        raise PluginError(f"attack {name!r}: {spec.use!r} is no WeightAttack and no PromptAttack")
    if issubclass(found, PromptAttack) and spec.fa is not None:
        problem = f"{spec.use} changes no weights, so that it has no task to be learned"
        raise SpecError(problem, where=f"attack {name}", field="fa", remedy="leave it out")
    lookup = PluginLookup(find, lambda _g, _u: {})
    settings = apply(found, spec.settings, everyone, lookup, prefix="attack.")
    settings = apply(found, settings, mine, lookup, prefix=f"attack.{name}.")
    ref = PluginRef(use=spec.use, settings=settings)
    plugin = create("attacks", ref, source=f"attack {name}")
    fa = None
    if spec.fa is not None:
        fa = cast("Scorer", create("scorers", spec.fa.scorer, source=f"attack {name}: fa.scorer"))
        _check_metric(fa, spec.fa, f"attack {name}: fa.metric")
    return Attack(name, spec, plugin, fa)


def _check_metric(scorer: Scorer, spec: MetricSpec | FineTuningAccuracySpec, where: str) -> None:
    known = scorer.metrics()
    if spec.metric not in known:
        remedy = did_you_mean(spec.metric, known)
        raise SpecError(f"the scorer has no metric {spec.metric!r}", where=where, remedy=remedy)
    if known[spec.metric] != Estimator():
        problem = f"{spec.metric!r} is not a mean over items ({known[spec.metric].kind})"
        remedy = "a row's metric must be one; the scorer itself may stay: its score is shown"
        raise SpecError(problem, where=where, remedy=remedy)


def _attacks(
    suite: SuiteSpec, names: tuple[str, ...] | None, overrides: Sequence[Override]
) -> tuple[Attack, ...]:
    chosen = suite.attacks if names is None else names
    for name in chosen:
        if name not in suite.attacks:
            remedy = did_you_mean(name, suite.attacks)
            raise SpecError(
                f"suite {suite.name} has no attack {name!r}", field="attacks", remedy=remedy
            )
    found = []
    for name in dict.fromkeys(chosen):
        mine = tuple(o.below() for o in overrides if o.path[0] == name and len(o.path) > 1)
        everyone = tuple(o for o in overrides if o.path[0] not in suite.attacks)
        found.append(_attack(name, suite.attacks[name], everyone, mine))
    return tuple(found)


def _generator(spec: GeneratorSpec) -> Generator:
    ref = PluginRef(use=spec.use, settings=spec.settings)
    return cast("Generator", create("generators", ref))


def suite_tables(suite: SuiteSpec) -> Tables:
    """Return the rows of a suite's roles and of its attacks' own (`gsm8k.train`); none is read."""
    sources = dict(suite.data)
    for name, attack in suite.attacks.items():
        sources.update({f"{name}.{role}": source for role, source in attack.data.items()})
    return Tables(sources, suite.all_generators(), _generator)


def resolve(
    overrides: Sequence[Override],
    *,
    target: ModelSource | None = None,
    method: PluginRef | None = None,
) -> Experiment:
    """Return the experiment that `key=value` words ask for.

    Args:
        overrides: the words.
        target: a model to use in place of the suite's target.
        method: a method to use whatever the words say.

    Raises:
        SpecError: an unknown key, name or value.
        PluginError: a plugin is missing or broken.
    """
    data, rest = _take(overrides, "data")
    suite_changes, rest = _take(rest, "suite")
    method_changes, rest = _take(rest, "method")
    attack_changes, rest = _take(rest, "attack")
    for override in rest:
        if override.path[0] in ("data", "attack"):
            raise SpecError(f"{override.key!r} needs a name", remedy=f"{override.key}.<name>=...")
    names = {o.path[0]: o.text for o in rest if o.path == ("method",)}
    if method is not None and names:
        remedy = "leave method out; `ilubench run` takes one"
        raise SpecError("the model is given, no method is used", field="method", remedy=remedy)
    plain = tuple(o for o in rest if o.path != ("method",))
    none = Override(("attacks",), "")  # `attacks=none` is no attack; None, the default, is all
    plain = tuple(none if o == Override(("attacks",), "none") else o for o in plain)
    asked = apply(RunSpec, {}, plain, _NO_LOOKUP)
    run = validate(RunSpec, {**asked, **names}, source="command line")
    suite, path = _suite(run.suite, suite_changes, data, target)
    ref = method or stands_for(suite, run.method)
    chosen = _method(suite, ref, method_changes, path)
    scorers = {
        name: cast("Scorer", create("scorers", ref, source=f"{path}: scorers.{name}"))
        for name, ref in suite.scorers.items()
    }
    for spec in suite.primary_forget + suite.utility:
        _check_metric(scorers[spec.scorer], spec, f"{path}: {spec.label}")
    attacks = _attacks(suite, run.attacks, attack_changes)
    seeds = tuple(dict.fromkeys(run.seeds if run.seeds is not None else suite.seeds))
    if not seeds:
        raise SpecError("no seed is given", field="seeds", remedy="write seeds=0..4")
    experiment = Experiment(
        run, suite, ref.use, chosen, attacks, scorers, seeds, suite_tables(suite)
    )
    for name in chosen.environment_names():
        experiment.environment_role(name)
    return experiment


def with_method(experiment: Experiment, name: str) -> Experiment:
    """Return the same experiment for another method, with the suite's settings for it.

    Args:
        experiment: of any method.
        name: of a method itself; a suite's label does not count here, so that none can take the
            place of the models that rows are compared with.
    """
    ref = PluginRef(use=name)
    method = _method(experiment.suite, ref, (), Path(experiment.suite.name))
    return Experiment(
        experiment.run,
        experiment.suite,
        ref.use,
        method,
        experiment.attacks,
        experiment.scorers,
        experiment.seeds,
        experiment.tables,
    )
