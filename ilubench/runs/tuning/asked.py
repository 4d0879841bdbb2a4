"""`ilubench tune` words and a suite's `tuning` -> every setting that is to be tried, resolved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pydantic import JsonValue

from ilubench.errors import PluginError, SpecError
from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.experiments.method_words import named_methods
from ilubench.records.results import REFERENCE
from ilubench.runs.tuning.proposed import propose_search
from ilubench.runs.tuning.space import Setting, draw_settings, list_ends
from ilubench.specs import Plain, PluginRef, SearchSpec, SuiteSpec, TuningSpec
from ilubench.specs.overrides import Override
from ilubench.specs.suite_files import load_suite
from ilubench.specs.values import convert_value

__all__ = ["Trial", "Tuning", "method_words", "propose_searches", "resolve_tuning"]

_REFUSED = {
    "attacks": "nothing is attacked while a method is tuned; leave it out",
    "attack": "nothing is attacked while a method is tuned; leave it out",
    "seeds": "a method is tuned on the suite's `tuning_seeds`; leave it out",
    "keep": "nothing is attacked while a method is tuned; leave it out",
    "never_knew": "nothing is attacked while a method is tuned; leave it out",
}
_CHANGES = {"suite", "data", "memory", "allow_weak_target"}
"""Heads of words that may change what is found; `suite` alone names the suite."""


@dataclass(frozen=True)
class Trial:
    """A setting to try, and the experiment that has it: the tuning seeds, no attacks."""

    settings: Setting
    experiment: Experiment


@dataclass(frozen=True)
class Tuning:
    """One method's tuning, everything resolved.

    Attributes:
        label: of the search.
        search: what the suite says of it.
        spec: the suite's protocol.
        suite: whose models are unlearned, with all its scorers; a trial's has those of metrics.
        budget: settings to try.
        suite_budget: what the suite's file says.
        changes: words that change the suite or its data.
        trials: in the order in which they are tried.
        ends: of the space; they must fit the model, too.
        proposed: whether the suite says no such search: it fits the model.
    """

    label: str
    search: SearchSpec
    spec: TuningSpec
    suite: SuiteSpec
    budget: int
    suite_budget: int
    changes: tuple[str, ...]
    trials: tuple[Trial, ...]
    ends: tuple[Trial, ...]
    proposed: bool

    @property
    def use(self) -> str:
        """The method's name."""
        return self.search.use or self.label


def _text(value: Plain | tuple[Plain, ...]) -> str:
    if isinstance(value, tuple):
        return ",".join(map(_text, value))
    return "none" if value is None else str(value)


def method_words(settings: Mapping[str, Plain | tuple[Plain, ...]]) -> tuple[Override, ...]:
    """Return settings as `method.<path>=<value>` words, short paths first."""
    words = (Override(("method", *path.split(".")), _text(v)) for path, v in settings.items())
    return tuple(sorted(words, key=lambda word: (len(word.path), word.path)))


def _is_change(override: Override) -> bool:
    return override.path[0] in _CHANGES and override.path != ("suite",)


def _check(overrides: Sequence[Override]) -> None:
    for override in overrides:
        head = override.path[0]
        if head in _REFUSED:
            raise SpecError("cannot be set here", field=override.key, remedy=_REFUSED[head])
        if head == "method" and len(override.path) > 1:
            remedy = "the suite's tuning.searches say what is tried; change it there"
            raise SpecError("cannot be set here", field=override.key, remedy=remedy)


MOST = 10_000
"""Settings that a budget can have, as in a suite."""


def _budget(overrides: Sequence[Override]) -> int | None:
    for override in overrides:
        if override.path == ("budget",):
            value = convert_value(int, override.text, "budget")
            if not isinstance(value, int) or not 1 <= value <= MOST:
                problem = f"must be a number from 1 to {MOST}"
                raise SpecError(problem, field="budget", remedy="write budget=8")
            return value
    return None


def _suite_budget(name: str) -> int:
    """Return the budget of the suite's file, which words may have changed."""
    tuning = cast("dict[str, JsonValue]", load_suite(name)[0].get("tuning") or {})
    return cast("int", tuning.get("budget", TuningSpec().budget))


def _trial(
    settings: Setting,
    tuning: tuple[str, SearchSpec],
    words: Sequence[Override],
    place: str,
    suite: Experiment,
) -> Trial:
    label, search = tuning
    use = Override(("method",), search.use or label)
    asked = [*words, use, *method_words({**search.fixed, **settings})]
    try:
        found = resolve_experiment(sorted(asked, key=lambda o: (len(o.path), o.path)))
    except SpecError as error:
        field = f"tuning.searches.{label}: {error.field}" if error.field else ""
        raise SpecError(error.problem, where=place, field=field, remedy=error.remedy) from error
    except PluginError as error:
        raise PluginError(f"{place}: tuning.searches.{label}: {error}") from error
    return Trial(settings, _for_tuning(found, suite))


def resolve_tuning(overrides: Sequence[Override]) -> tuple[Tuning, ...]:
    """Return what `ilubench tune` is asked to do: one tuning a label; nothing is computed.

    Args:
        overrides: the words; `method` is a label or several, without it every label of the suite's
            searches is meant; `budget` is another number of settings than the suite's.

    Raises:
        SpecError: no label, an unknown setting, a value that a method does not take, a method that
            cannot be tuned, a space smaller than the budget, or a word that has no place here.
        PluginError: a method is unknown or broken.
    """
    _check(overrides)
    budget = _budget(overrides)
    suite, plain = _suite(overrides)
    spec, path = suite.suite.tuning or TuningSpec(), str(load_suite(suite.run.suite)[1])
    _check_scorers(suite, path)
    seeds = ",".join(map(str, suite.suite.tuning_seeds))
    words = [*plain, Override(("seeds",), seeds)]
    changes = [f"{o.key}={o.text}" for o in overrides if _is_change(o)]
    found = []
    for name in _labels(overrides, suite, path):
        proposed = name not in spec.searches
        label, search = propose_search(suite, name) if proposed else (name, spec.searches[name])
        number = budget or spec.budget
        field = f"tuning.searches.{label}.space"
        points = draw_settings(search, number, where=path, field=field)
        trials, ends = (
            tuple(_trial(point, (label, search), words, path, suite) for point in settings)
            for settings in (points, list_ends(search, points[0]))
        )
        tuning = Tuning(
            label,
            search,
            spec,
            suite.suite,
            number,
            _suite_budget(suite.run.suite),
            tuple(changes),
            trials,
            ends,
            proposed,
        )
        found.append(tuning)
    return tuple(found)


def propose_searches(overrides: Sequence[Override]) -> dict[str, SearchSpec]:
    """Return label -> the search that a method proposes, also where the suite has one.

    Args:
        overrides: the words, as of `resolve_tuning`.

    Raises:
        SpecError: no label, a method that cannot be tuned, or a word that has no place here.
        PluginError: a method is unknown or broken.
    """
    _check(overrides)
    suite, _ = _suite(overrides)
    path = str(load_suite(suite.run.suite)[1])
    return dict(propose_search(suite, name) for name in _labels(overrides, suite, path))


def _suite(overrides: Sequence[Override]) -> tuple[Experiment, list[Override]]:
    """Return the suite without attacks and the words for it, without methods and budget."""
    plain = [o for o in overrides if o.path not in (("budget",), ("method",))]
    plain.append(Override(("attacks",), ""))
    return resolve_experiment(plain, method=PluginRef(use=REFERENCE)), plain


def _labels(overrides: Sequence[Override], suite: Experiment, path: str) -> list[str]:
    named = (o.text for o in overrides if o.path == ("method",))
    searches = suite.suite.tuning.searches if suite.suite.tuning is not None else {}
    labels = [ref.use for text in named for ref in named_methods(text)] or list(searches)
    if not labels:
        problem = "the suite says of no method what is to be tried"
        remedy = "name one, whose search fits the model: method=npo; or add tuning.searches"
        raise SpecError(problem, where=path, remedy=remedy)
    return labels


def _check_scorers(suite: Experiment, place: str) -> None:
    """Refuse a metric of the rows of an attack: it would choose what does well under it.

    Raises:
        SpecError: names metric and rows.
    """
    attacked = {
        f"{name}.{role}" for name, spec in suite.suite.attacks.items() for role in spec.data
    }
    for metric in suite.suite.metrics:
        for role in attacked.intersection(suite.scorers[metric.scorer].roles()):
            problem = f"{metric.label} is scored on {role}, rows of an attack"
            remedy = "settings are chosen before any attack: give the metric rows of its own"
            raise SpecError(problem, where=place, field=f"scorers.{metric.scorer}", remedy=remedy)


def _for_tuning(experiment: Experiment, suite: Experiment) -> Experiment:
    """Let a trial score what the choice is made by, of rows that all trials read once."""
    names = dict.fromkeys(name for metric in suite.suite.metrics for name in metric.scorers)
    scorers = {name: experiment.scorers[name] for name in names}
    kept = {name: suite.suite.scorers[name] for name in names}
    spec = experiment.suite.model_copy(update={"scorers": kept})
    return replace(experiment, suite=spec, scorers=scorers, tables=suite.tables)
