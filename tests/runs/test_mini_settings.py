"""The mini suite's settings are those that its tuning records chose, by the suite's own rule."""

import json
from typing import Any, cast

import pytest
from places import LEADERBOARDS

from ilubench.experiments.experiment import resolve_experiment
from ilubench.runs.tuning.asked import method_words
from ilubench.runs.tuning.records import TuningRecord
from ilubench.specs import TuningSpec
from ilubench.specs.overrides import parse_words

RECORDS = LEADERBOARDS / "mini" / "tuning"
LABELS = sorted(path.stem for path in RECORDS.glob("*.json"))


def record(label: str) -> TuningRecord:
    text = (RECORDS / f"{label}.json").read_text(encoding="utf-8")
    return TuningRecord.model_validate(json.loads(text))


def protocol() -> TuningSpec:
    tuning = resolve_experiment(parse_words(["suite=mini"])).suite.tuning
    assert tuning is not None
    return tuning


def test_the_methods_of_the_pair_and_ilu_are_tuned() -> None:
    assert {"npo", "rmu", "ilu", "ilu-control"} <= set(LABELS)


NONE_KEEPS_UTILITY = ("undo",)
"""Methods of which no setting kept enough utility."""


@pytest.mark.parametrize("label", LABELS)
def test_the_record_is_of_the_suites_protocol(label: str) -> None:
    found, suite = record(label), resolve_experiment(parse_words(["suite=mini"])).suite
    assert (found.suite, found.suite_version) == ("mini", suite.version)
    assert found.label == label
    assert found.seeds == suite.tuning_seeds
    assert found.budget == found.suite_budget == protocol().budget == len(found.trials)
    assert not found.changes


@pytest.mark.parametrize("label", LABELS)
def test_the_chosen_setting_forgets_most_of_those_that_keep_utility(label: str) -> None:
    found, needed = record(label), protocol().utility_kept
    kept = [t for t in found.trials if t.utility_kept is not None and t.utility_kept >= needed]
    assert {trial.number for trial in found.trials if trial.eligible} == {t.number for t in kept}
    if label in NONE_KEEPS_UTILITY:
        assert not kept
        assert found.chosen is None
        return
    best = max(kept, key=lambda trial: (round(trial.forgotten or 0.0, 9), trial.utility_kept))
    assert found.chosen == best.number


@pytest.mark.parametrize("label", LABELS)
def test_the_suite_has_the_chosen_setting(label: str) -> None:
    found, search = record(label), protocol().searches[label]
    number = found.chosen
    if label in NONE_KEEPS_UTILITY:  # then the suite has what comes closest
        number = max(found.trials, key=lambda trial: trial.utility_kept or 0.0).number
    (chosen,) = (trial.settings for trial in found.trials if trial.number == number)
    plain = resolve_experiment(parse_words(["suite=mini", f"method={label}"]))
    words = method_words({**search.fixed, **cast("dict[str, Any]", dict(chosen))})
    tuned = resolve_experiment(
        [*parse_words(["suite=mini", f"method={search.use or label}"]), *words]
    )
    assert plain.method_name == tuned.method_name
    assert plain.method == tuned.method
