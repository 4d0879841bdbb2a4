"""`ilubench tune` words and a suite's `tuning` -> every setting that is to be tried, resolved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from pydantic import JsonValue

from ilubench.errors import PluginError, SpecError, did_you_mean
from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.experiments.method_words import named_methods
from ilubench.records.results import REFERENCE
from ilubench.runs.tuning.space import Setting, draw_settings
from ilubench.specs import Plain, PluginRef, SearchSpec, TuningSpec
from ilubench.specs.overrides import Override
from ilubench.specs.suite_files import load_suite
from ilubench.specs.values import convert_value

__all__ = ["Trial", "Tuning", "method_words", "resolve_tuning"]

_REFUSED = {
    "attacks": "nothing is attacked while a method is tuned; leave it out",
    "attack": "nothing is attacked while a method is tuned; leave it out",
    "seeds": "a method is tuned on the suite's `tuning_seeds`; leave it out",
    "keep": "nothing is attacked while a method is tuned; leave it out",
    "never_knew": "nothing is attacked while a method is tuned; leave it out",
}
_NO_CHANGE = {(name,) for name in ("suite", "method", "budget", "engine", "device", "out")}
"""Words that leave the suite as it is; the record says them elsewhere."""


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
        budget: settings to try.
        suite_budget: what the suite's file says.
        changes: words that change the suite or its data.
        trials: in the order in which they are tried.
    """

    label: str
    search: SearchSpec
    spec: TuningSpec
    budget: int
    suite_budget: int
    changes: tuple[str, ...]
    trials: tuple[Trial, ...]

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


def _check(overrides: Sequence[Override]) -> None:
    for override in overrides:
        head = override.path[0]
        if head in _REFUSED:
            raise SpecError("cannot be set here", field=override.key, remedy=_REFUSED[head])
        if head == "method" and len(override.path) > 1:
            remedy = "the suite's tuning.searches say what is tried; change it there"
            raise SpecError("cannot be set here", field=override.key, remedy=remedy)


def _budget(overrides: Sequence[Override]) -> int | None:
    for override in overrides:
        if override.path == ("budget",):
            value = convert_value(int, override.text, "budget")
            if not isinstance(value, int) or value < 1:
                raise SpecError("must be at least 1", field="budget", remedy="write budget=8")
            return value
    return None


def _suite_budget(name: str, given: TuningSpec) -> int:
    """Return the budget of the suite's file, which words may have changed."""
    tuning = cast("dict[str, JsonValue]", load_suite(name)[0].get("tuning") or {})
    return cast("int", tuning.get("budget", given.budget))


def _trial(
    settings: Setting, tuning: tuple[str, SearchSpec], words: Sequence[Override], place: str
) -> Trial:
    label, search = tuning
    use = Override(("method",), search.use or label)
    asked = [*words, use, *method_words({**search.fixed, **settings})]
    try:
        return Trial(
            settings, resolve_experiment(sorted(asked, key=lambda o: (len(o.path), o.path)))
        )
    except SpecError as error:
        field = f"tuning.searches.{label}: {error.field}" if error.field else ""
        raise SpecError(error.problem, where=place, field=field, remedy=error.remedy) from error
    except PluginError as error:
        raise PluginError(f"{place}: tuning.searches.{label}: {error}") from error


def resolve_tuning(overrides: Sequence[Override]) -> tuple[Tuning, ...]:
    """Return what `ilubench tune` is asked to do: one tuning a label; nothing is computed.

    Args:
        overrides: the words; `method` is a label or several, without it every label is meant;
            `budget` is another number of settings than the suite's.

    Raises:
        SpecError: no `tuning` in the suite, an unknown label or setting, a value that a method
            does not take, a space smaller than the budget, or a word that has no place here.
        PluginError: a method is missing or broken.
    """
    _check(overrides)
    budget = _budget(overrides)
    plain = [o for o in overrides if o.path not in (("budget",), ("method",))]
    plain.append(Override(("attacks",), ""))
    suite = resolve_experiment(plain, method=PluginRef(use=REFERENCE))
    spec, path = suite.suite.tuning, str(load_suite(suite.run.suite)[1])
    if spec is None:
        remedy = "add tuning.budget and tuning.searches to the suite's file"
        raise SpecError("the suite does not say how methods are tuned", where=path, remedy=remedy)
    named = (o.text for o in overrides if o.path == ("method",))
    labels = [ref.use for text in named for ref in named_methods(text)] or list(spec.searches)
    for label in labels:
        if label not in spec.searches:
            problem, remedy = f"no search {label!r}", did_you_mean(label, spec.searches)
            raise SpecError(problem, where=path, field="tuning.searches", remedy=remedy)
    seeds = ",".join(map(str, suite.suite.tuning_seeds))
    words = [*plain, Override(("seeds",), seeds)]
    changes = [f"{o.key}={o.text}" for o in overrides if o.path not in _NO_CHANGE]
    found = []
    for label in labels:
        search, number = spec.searches[label], budget or spec.budget
        field = f"tuning.searches.{label}.space"
        points = draw_settings(search, number, where=path, field=field)
        trials = tuple(_trial(point, (label, search), words, path) for point in points)
        suite_budget = _suite_budget(suite.run.suite, spec)
        tuning = Tuning(label, search, spec, number, suite_budget, tuple(changes), trials)
        found.append(_sharing_data(tuning, suite))
    return tuple(found)


def _sharing_data(tuning: Tuning, suite: Experiment) -> Tuning:
    """Let the trials read their rows once."""
    trials = (
        replace(trial, experiment=replace(trial.experiment, tables=suite.tables))
        for trial in tuning.trials
    )
    return replace(tuning, trials=tuple(trials))
