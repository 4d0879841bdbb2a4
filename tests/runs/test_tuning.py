"""Tuning: what is tried, what is chosen, and that no attack is part of it."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from doubles import SilentProgress
from hypothesis import given, settings
from hypothesis import strategies as st
from places import FIXTURES, ROOT
from runs import TINY, Outcome, command
from transformers import LlamaConfig

from ilubench.errors import DataError, SpecError
from ilubench.experiments.experiment import Experiment, resolve_experiment
from ilubench.interfaces.discovery import find_plugin, list_entries
from ilubench.runs.jobs import Job
from ilubench.runs.plan import Plan
from ilubench.runs.tuning.asked import method_words, propose_searches, resolve_tuning
from ilubench.runs.tuning.choice import (
    Tried,
    blend_with_best,
    choose_setting,
    closest_setting,
    has_forgotten_all,
    is_eligible,
    is_open,
    least_kept,
    share_forgotten,
)
from ilubench.runs.tuning.records import TuningRecord
from ilubench.runs.tuning.run import plan_tuning, tune
from ilubench.runs.tuning.space import Setting, draw_settings
from ilubench.runs.tuning.suite_settings import suite_digest, suite_settings
from ilubench.specs import RangeSpec, SearchSpec, SuiteSpec
from ilubench.specs.overrides import parse_words
from ilubench.specs.yaml_files import validate_spec
from ilubench.training.proposals import layers_at, propose

SHAKY = f"{FIXTURES / 'shaky.py'}:Shaky"


def search(**space: Any) -> SearchSpec:
    return validate_spec(SearchSpec, {"space": {k.replace("__", "."): v for k, v in space.items()}})


# --------------------------------------------------------------------------- what is tried


def test_a_grid_of_the_budget_s_size_is_tried_whole_and_in_order() -> None:
    space = search(beta=[0.1, 0.2, 0.3], train__steps=[60, 90])
    pairs = [(beta, steps) for beta in (0.1, 0.2, 0.3) for steps in (60, 90)]
    assert draw_settings(space, 6) == [{"beta": b, "train.steps": s} for b, s in pairs]


def test_a_larger_grid_gives_distinct_points_spread_over_all_candidates() -> None:
    space = search(a=[1, 2, 3], b=["x", "y"], c=[[1], [1, 2], [2], [3]])
    found = draw_settings(space, 12)
    assert len({repr(setting) for setting in found}) == 12
    for name, most in (("a", 6), ("b", 8), ("c", 5)):
        counted = Counter(repr(setting[name]) for setting in found)
        assert len(counted) == len(space.space[name])  # type: ignore[arg-type]
        assert max(counted.values()) <= most


def test_the_points_of_a_range_are_spread_on_its_scale_and_easy_to_write_down() -> None:
    space = search(
        beta={"low": 0.01, "high": 1, "log": True},
        gamma={"low": 0.5, "high": 2.5},
        train__steps={"low": 10, "high": 12, "whole": True},
    )
    found = draw_settings(space, 12)
    beta = sorted(float(str(setting["beta"])) for setting in found)
    gamma = sorted(float(str(setting["gamma"])) for setting in found)
    assert 4 <= sum(value < 0.1 for value in beta) <= 8  # half of the ratios
    assert 4 <= sum(value < 1.5 for value in gamma) <= 8  # half of the differences
    assert 0.01 <= beta[0] < 0.03
    assert 0.4 < beta[-1] <= 1
    assert all(float(f"{value:.3g}") == value for value in beta + gamma)
    steps = Counter(setting["train.steps"] for setting in found)
    assert set(steps) == {10, 11, 12}
    assert all(isinstance(value, int) for value in steps)


@settings(max_examples=30)
@given(
    low=st.floats(1e-6, 1.0),
    ratio=st.floats(1.3, 1e4),
    log=st.booleans(),
    budget=st.integers(1, 9),
)
def test_no_point_lies_outside_its_range(low: float, ratio: float, log: bool, budget: int) -> None:
    high = low * ratio
    found = draw_settings(search(x={"low": low, "high": high, "log": log}), budget)
    assert len(found) == budget
    assert all(low <= float(str(setting["x"])) <= high for setting in found)


def test_the_same_settings_are_tried_at_every_call_and_by_every_method() -> None:
    space = {"weight": RangeSpec(low=0.1, high=2, log=True), "beta": RangeSpec(low=0, high=1)}
    ilu = SearchSpec(space=space)
    control = SearchSpec(use="ilu", fixed={"penalty": "cross_entropy"}, space=space)
    assert draw_settings(ilu, 9) == draw_settings(control, 9) == draw_settings(ilu, 9)
    assert draw_settings(ilu, 5) == draw_settings(ilu, 9)[:5]


@pytest.mark.parametrize(
    "space", [{"a": [1, 2, 3]}, {"a": {"low": 1, "high": 3, "whole": True}}, {"a": [1], "b": [2]}]
)
def test_a_space_smaller_than_the_budget_is_an_error(space: Any) -> None:
    with pytest.raises(
        SpecError, match=r"settings in the space: [13], fewer than every method's budget of 4"
    ) as caught:
        draw_settings(search(**space), 4, where="s.yaml", field="tuning.searches.npo.space")
    assert str(caught.value).startswith("s.yaml: tuning.searches.npo.space: settings in")
    assert str(caught.value).endswith("add candidates or widen a range")


def test_numbers_that_three_digits_cannot_tell_apart_are_too_few() -> None:
    with pytest.raises(
        SpecError, match="settings in the space: 1, fewer than every method's budget of 3"
    ):
        draw_settings(search(x={"low": 1.001, "high": 1.002}), 3)
    (only,) = draw_settings(search(x={"low": 1.2349, "high": 1.2351}), 1)
    assert 1.2349 <= float(str(only["x"])) <= 1.2351  # 1.23, moved into the range


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"beta": {"low": 2, "high": 1}}, "`low` must be below `high`"),
        ({"beta": {"low": 0, "high": 1, "log": True}}, "must begin above 0"),
        ({"beta": {"low": 0.5, "high": 2, "whole": True}}, "must have whole ends"),
        ({"beta": [0.1, 0.1]}, "'beta' has a candidate twice"),
        ({"beta": []}, "'beta' has no candidate"),
        ({"use": "ilu", "fixed": {"a": 1}, "space": {"a": [1, 2]}}, "in `fixed` and in `space`"),
        ({"use": "ilu"}, "space: is missing"),
        ({}, "must have 1 or more entries, and has 0"),
    ],
)
def test_a_search_that_says_nothing_sensible_is_an_error(given_: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        validate_spec(SearchSpec, given_, source="s.yaml")


def test_one_and_true_are_two_candidates() -> None:
    assert [s["a"] for s in draw_settings(search(a=[1, True, "1"]), 3)] == [1, True, "1"]


# --------------------------------------------------------------------------- what is chosen


def test_the_most_forgotten_of_those_that_keep_the_utility_is_chosen() -> None:
    trials = [
        Tried(0.2, 1.00),
        Tried(0.7, 0.95),
        Tried(0.9, 0.94),  # forgets most, and loses too much
        Tried(0.6, 1.05),
        Tried(None, None),
    ]
    assert choose_setting(trials, 0.95) == 1
    assert choose_setting(trials, 0.94) == 2
    assert choose_setting(trials, 1.00) == 3
    assert [is_eligible(trial, 0.95) for trial in trials] == [True, True, False, True, False]


def test_of_equals_the_one_that_keeps_more_is_chosen_then_the_one_tried_first() -> None:
    assert choose_setting([Tried(0.5, 0.96), Tried(0.5, 0.99), Tried(0.5, 0.98)], 0.95) == 1
    assert choose_setting([Tried(0.4, 0.99), Tried(0.5, 0.96), Tried(0.5, 0.96)], 0.95) == 1


def test_where_none_keeps_the_utility_none_is_chosen_and_the_closest_is_known() -> None:
    trials = [Tried(None, None), Tried(0.9, 0.3), Tried(0.1, 0.8), Tried(0.2, 0.8)]
    assert choose_setting(trials, 0.95) is None
    assert closest_setting(trials) == 2
    assert closest_setting([Tried(None, None)]) is None
    assert choose_setting([Tried(None, None)], 0.95) is None


@given(
    trials=st.lists(
        st.builds(Tried, st.floats(0, 1), st.floats(-1, 1.2)) | st.just(Tried(None, None)),
        max_size=9,
    ),
    needed=st.floats(0.1, 1),
)
def test_nothing_eligible_is_better_than_what_is_chosen(trials: list[Tried], needed: float) -> None:
    best = choose_setting(trials, needed)
    able = [trial for trial in trials if is_eligible(trial, needed)]
    assert (best is None) == (not able)
    if best is not None:
        assert trials[best] in able
        assert trials[best].forgotten == pytest.approx(
            max(t.forgotten for t in able if t.forgotten is not None), abs=2e-9
        )


def test_each_forget_metric_counts_to_its_chance_level_and_alike() -> None:
    chance = {"FQ": 0.75, "1 - VerbMem": 0.5}
    assert share_forgotten({"FQ": 0.75, "1 - VerbMem": 0.5}, chance) == pytest.approx(1.0)
    assert share_forgotten({"FQ": 0.375, "1 - VerbMem": 0.5}, chance) == pytest.approx(0.75)
    # avoiding the right answer is no better than not knowing it
    assert share_forgotten({"FQ": 1.0, "1 - VerbMem": 0.25}, chance) == pytest.approx(0.75)
    with pytest.raises(DataError, match="FQ: a model that knows nothing is at 0"):
        share_forgotten({"FQ": 0.1}, {"FQ": 0.0})
    with pytest.raises(DataError, match="no forget metric"):
        share_forgotten({}, {})


def test_utility_kept_is_that_of_the_worst_metric_above_chance() -> None:
    chance, before = {"MC": 0.25, "nll": -9.0}, {"MC": 0.75, "nll": -1.0}
    assert least_kept({"MC": 0.65, "nll": -1.4}, before, chance) == pytest.approx(0.8)
    assert least_kept({"MC": 0.75, "nll": -5.0}, before, chance) == pytest.approx(0.5)
    blind = {**before, "nll": -9.0}
    assert least_kept({"MC": 0.65, "nll": -99.0}, blind, chance) == pytest.approx(0.8)
    with pytest.raises(DataError, match=r"above chance in no utility metric \(MC\)"):
        least_kept({"MC": 0.7}, {"MC": 0.25}, chance)


# --------------------------------------------------------------------------- the suite


def changed(folder: Path, **fields: Any) -> Path:
    """Write the tiny suite with scores that say something of an untrained model, and fields."""
    settings = yaml.safe_load(TINY.read_text())["scorers"]["forget_nll"]["settings"]
    retain = {"use": "answer_nll", "settings": {**settings, "data": "retain_mc"}}
    own = {
        "extends": str(TINY),
        "scorers": {"retain_nll": retain},
        "primary_forget": [metric("NLL_f", "forget_nll")],
        "utility": [metric("NLL_r", "retain_nll")],
        "tuning_seeds": [1000, 1001],
        "attacks": {name: {"use": "no_such_attack", "fa": None} for name in ("gsm8k", "agnews")},
    }
    path = folder / "suite.yaml"
    path.write_text(yaml.safe_dump({**own, **fields}, sort_keys=False))
    return path


def metric(label: str, scorer: str) -> dict[str, Any]:
    return {"label": label, "scorer": scorer, "metric": "nll", "direction": "lower", "chance": 20.0}


def protocol(budget: int, **searches: Any) -> dict[str, Any]:
    return {"budget": budget, "searches": searches}


def shaky(*strength: float, mood: str = "fine") -> dict[str, Any]:
    return {"use": SHAKY, "fixed": {"mood": mood}, "space": {"strength": list(strength)}}


def tuned(suite: Path, out: Path, *words: str) -> Outcome:
    return command("tune", f"suite={suite}", f"out={out}", "device=cpu", *words)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `out` folder of this module: the target is made once."""
    return tmp_path_factory.mktemp("tuning") / "out"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite whose attacks are broken, and its searches."""
    hopeless = shaky(1.0, 1.5, 2.0, 3.0)
    mixed = {"use": SHAKY, "space": {"strength": [0.0, 0.02], "mood": ["fine", "diverge"]}}
    failing = {"use": SHAKY, "space": {"strength": [0.0, 0.02], "mood": ["fine", "raise"]}}
    searches = {
        "noise": shaky(0.0, 0.02, 0.03, 1.0),
        "hopeless": hopeless,
        "mixed": mixed,
        "failing": failing,
        "npo": {"beta": [0.05, 0.1], "train.lr": [1e-4, 1e-3]},
    }
    folder = tmp_path_factory.mktemp("suite")
    return changed(folder, tuning=protocol(4, **searches))


@pytest.fixture(scope="module")
def noise(suite: Path, out: Path) -> TuningRecord:
    done = tuned(suite, out, "method=noise", "--json")
    assert done.code == 0, done.err
    (record,) = done.json
    return TuningRecord.model_validate(record)


def test_what_a_tuning_records_obeys_the_rule(noise: TuningRecord) -> None:
    assert [trial.settings["strength"] for trial in noise.trials] == [0.0, 0.02, 0.03, 1.0]
    assert (noise.label, noise.use, noise.fixed) == ("noise", SHAKY, {"mood": "fine"})
    assert (noise.budget, noise.suite_budget, noise.changes) == (4, 4, ())
    original = noise.original
    chance, known = original.utility_chance["NLL_r"], original.utility["NLL_r"]
    able = []
    for trial in noise.trials:
        assert trial.state == ("cut" if trial.number == 4 else "done")
        assert trial.forgotten == pytest.approx(min(trial.forget["NLL_f"], 20.0) / 20.0)
        kept = (trial.utility["NLL_r"] - chance) / (known - chance)
        assert trial.utility_kept == pytest.approx(kept)
        assert trial.eligible == (kept >= 0.95)
        assert set(trial.jobs) == ({"1000"} if trial.state == "cut" else {"1000", "1001"})
        if trial.eligible:
            able.append((trial.forgotten, trial.number))
    assert 1 < len(able) < 4
    assert noise.trials[0].utility_kept == pytest.approx(1.0)
    assert (noise.cut, noise.ended, noise.proposed) == (1, "", False)
    assert noise.chosen == max(able)[1] == next(t.number for t in noise.trials if t.chosen)


def test_the_figures_are_those_of_a_run_with_the_same_words(
    noise: TuningRecord, suite: Path, out: Path
) -> None:
    words = noise.words
    assert words[:2] == (f"suite={suite}", f"method={SHAKY}")
    done = command("run", *words, "attacks=none", "seeds=1000,1001", f"out={out}", "--json")
    assert done.code == 0, done.err
    assert noise.chosen is not None
    for scorer, figures in (("forget_nll", "forget"), ("retain_nll", "utility")):
        scores = [
            score["value"]
            for score in done.json["scores"]
            if score["who"] == "method" and score["scorer"] == scorer
        ]
        assert len(scores) == 2
        (value,) = getattr(noise.trials[noise.chosen - 1], figures).values()
        assert abs(value) == pytest.approx(sum(scores) / 2, rel=1e-5)


def test_nothing_is_attacked_and_only_the_tuning_seeds_are_used(
    noise: TuningRecord, suite: Path, out: Path
) -> None:
    assert noise.seeds == (1000, 1001)
    (asked,) = resolve_tuning(parse_words([f"suite={suite}", f"out={out}", "method=noise"]))
    plan = plan_tuning(asked).plan
    assert plan.experiment.scorers.keys() == {"forget_nll", "retain_nll"}  # those of the metrics
    assert {job.stage for job in plan.jobs} == {"target", "unlearn", "score"}
    assert {job.seed for job in plan.jobs if "setting" in job.label} == {1000, 1001}
    assert all(trial.experiment.attacks == () for trial in asked.trials)
    assert not (out / "store" / "attack").exists()


def test_a_second_call_answers_from_the_cache(noise: TuningRecord, suite: Path, out: Path) -> None:
    done = tuned(suite, out, "method=noise")
    assert done.code == 0
    assert "of which 2 to do" in done.err  # those that were cut short
    assert ": done," not in done.err
    (path,) = (out / "tuning").glob("tiny-noise-*/tuning.json")
    assert TuningRecord.model_validate_json(path.read_text()) == noise


class Interrupts:
    """A reporter that is interrupted after so many jobs."""

    def __init__(self, after: int) -> None:
        self.left = after

    def planned(self, plan: Plan) -> None:
        pass

    def started(self, job: Job) -> SilentProgress:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return SilentProgress()

    def silent(self, job: Job, seconds: float) -> None:
        pass

    def tell(self, text: str) -> None:
        pass

    def show(self, label: str) -> SilentProgress:
        return SilentProgress()

    def finished(self, outcome: Any) -> None:
        pass


def test_an_interrupted_tuning_goes_on_and_ends_the_same(
    noise: TuningRecord, suite: Path, out: Path, tmp_path: Path
) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "target").symlink_to(out / "store" / "target")
    (asked,) = resolve_tuning(parse_words([f"suite={suite}", f"out={tmp_path}", "method=noise"]))
    with pytest.raises(KeyboardInterrupt):
        tune(asked, Interrupts(5))
    assert not (tmp_path / "tuning").exists()
    rest = tune(asked, Interrupts(13)).record  # 2 + 16 jobs in all
    without = {"trials", "cost"}
    assert rest.model_dump(exclude=without) == noise.model_dump(exclude=without)
    for mine, theirs in zip(rest.trials, noise.trials, strict=True):
        assert mine.model_dump(exclude={"cost"}) == theirs.model_dump(exclude={"cost"})


def test_the_table_shows_every_setting_and_what_to_put_into_the_suite(
    noise: TuningRecord, suite: Path, out: Path
) -> None:
    shown = tuned(suite, out, "method=noise").out
    assert "noise: 4 settings, tuning seeds 1000, 1001, no attack" in shown
    rows = [line for line in shown.splitlines() if "│" in line]
    assert sum("cut after seed 1000" in row for row in rows) == noise.cut == 1
    assert "Cut short: 1 settings" in shown
    assert sum("chosen" in row for row in rows) == 1
    assert "NOT the suite's protocol" not in shown
    assert "methods:\n" in shown
    assert f"Record: {out / 'tuning' / noise.tuning / 'tuning.json'}" in shown.replace("\n", "")


def test_the_record_says_all_that_a_setting_was(noise: TuningRecord) -> None:
    assert noise.space == {"strength": [0.0, 0.02, 0.03, 1.0]}
    for trial in noise.trials:
        settings = {"strength": trial.settings["strength"], "mood": "fine"}
        assert trial.method == {"use": SHAKY, "settings": settings}


def test_what_the_suite_s_methods_say_is_in_the_record_too(tmp_path: Path, out: Path) -> None:
    searches = {"ilu": {"weight": {"low": 0.1, "high": 2, "log": True}}}
    own = {"npo": {"beta": 0.2}, "ilu": {"base": "npo", "environment_batch": 3}}
    suite = changed(tmp_path, tuning=protocol(1, **searches), methods=own)
    (record,) = tuned(suite, out, "--json").json
    space = {"low": 0.1, "high": 2.0, "log": True, "whole": False}
    assert record["space"] == {"weight": space}
    (trial,) = record["trials"]
    found = _method(suite, "method=ilu", f"method.weight={trial['settings']['weight']}")
    assert trial["method"] == {"use": "ilu", "settings": found.model_dump(mode="json")}
    assert trial["method"]["settings"]["base"]["settings"]["beta"] == 0.2


def test_a_record_from_before_still_loads(noise: TuningRecord) -> None:
    raw = noise.model_dump(mode="json")
    del raw["space"], raw["suite_digest"]
    for trial in raw["trials"]:
        del trial["method"]
    old = TuningRecord.model_validate(raw)
    assert (old.space, old.suite_digest, old.trials[0].method) == ({}, "", {})
    assert old.trials[0].forgotten == noise.trials[0].forgotten


@pytest.mark.parametrize(
    ("word", "matters"),
    [
        ("suite.methods.npo.beta=0.7", False),
        ("suite.seeds=5", False),
        ("suite.title=other", False),
        ("suite.tuning.budget=1", False),
        ("suite.attacks.gsm8k.title=other", False),
        ("suite.max_length=100", True),
        ("suite.scorers.retain_nll.settings.limit=3", True),
        ("data.forget_mc.limit=3", True),
        ("data.gsm8k.train.limit=3", True),
    ],
)
def test_the_suite_s_digest_is_of_what_matters(suite: Path, word: str, matters: bool) -> None:
    def found(*words: str) -> str:
        return suite_digest(
            resolve_experiment(parse_words([f"suite={suite}", "attacks=none", *words])).suite
        )

    assert (found() != found(word)) == matters


def test_the_digest_is_in_the_record(noise: TuningRecord, suite: Path) -> None:
    read = resolve_experiment(parse_words([f"suite={suite}", "attacks=none"])).suite
    assert noise.suite_digest == suite_digest(read)


def test_a_setting_that_does_not_fit_the_model_is_found_before_any_job(tmp_path: Path) -> None:
    suite = changed(tmp_path, tuning=protocol(2, rmu={"layer": [1, 6]}))
    done = tuned(suite, tmp_path / "none")
    assert done.code == 2
    assert "method.layer: the model has 2 layers, no layer 6; give one of 0..1" in done.err
    assert not (tmp_path / "none").exists()


# --------------------------------------------------------------------------- what is carried on


def test_a_setting_is_open_while_it_could_still_be_chosen() -> None:
    assert is_open(Tried(0.5, 0.95), 0.95, None)
    assert not is_open(Tried(0.9, 0.94), 0.95, None)
    assert not is_open(Tried(None, None), 0.95, None)
    assert is_open(Tried(0.7, 0.95), 0.95, Tried(0.6, 1.0))
    assert not is_open(Tried(0.6, 1.0), 0.95, Tried(0.6, 1.0))  # of equals the first is chosen
    assert blend_with_best({"FQ": 0.2}, {"FQ": 0.8}, 0.5) == {"FQ": pytest.approx(0.5)}
    assert not is_eligible(Tried(0.9, 1.0, whole=False), 0.95)
    assert has_forgotten_all(Tried(0.995, 1.0))
    assert not has_forgotten_all(Tried(0.98, 1.0))


@given(
    measured=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=3),
    left=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=3),
    before=st.none() | st.builds(Tried, st.floats(0, 1), st.floats(0.9, 1)),
)
def test_what_is_cut_would_not_have_been_chosen(
    measured: list[tuple[float, float]],
    left: list[tuple[float, float]],
    before: Tried | None,
) -> None:
    def mean(pairs: list[tuple[float, float]], place: int) -> float:
        return sum(pair[place] for pair in pairs) / len(pairs)

    share, every = len(measured) / len(measured + left), measured + left
    one = {"a": 1.0}
    best = [blend_with_best({"a": mean(measured, at)}, one, share)["a"] for at in (0, 1)]
    if not is_open(Tried(best[0], best[1]), 0.9, before):
        whole = Tried(mean(every, 0), mean(every, 1))
        tried = [whole] if before is None else [before, whole]
        assert choose_setting(tried, 0.9) != len(tried) - 1


def test_a_search_ends_where_a_time_s_settings_bring_nothing(tmp_path: Path, out: Path) -> None:
    own = {**protocol(6, noise=shaky(0.02, 0.0, 0.01, 0.005, 0.03, 1.0)), "patience": 2}
    suite = changed(tmp_path, tuning=own)
    done = tuned(suite, out, "--json")
    (record,) = done.json
    assert [trial["settings"]["strength"] for trial in record["trials"]] == [0.02, 0.0, 0.01, 0.005]
    assert (record["chosen"], record["budget"], record["patience"]) == (1, 6, 2)
    assert record["ended"] == "no gain"
    assert [trial["state"] for trial in record["trials"]] == ["done"] * 4
    shown = tuned(suite, out).out
    assert "Ended after 4 of 6 settings: the last 2 brought no better choice" in shown
    # a gain goes on, and a search that has no choice yet does
    hopeless = {**protocol(4, noise=shaky(1.0, 1.5, 0.0, 0.01)), "patience": 1}
    (record,) = tuned(changed(tmp_path, tuning=hopeless), out, "--json").json
    assert [trial["state"] for trial in record["trials"]] == ["cut", "cut", "done", "done"]
    assert (record["chosen"], record["ended"], record["cut"]) == (4, "", 2)


def test_a_search_ends_where_all_is_forgotten(tmp_path: Path, out: Path) -> None:
    known = [{**metric("NLL_f", "forget_nll"), "chance": 1.0}]
    own = {**protocol(3, noise=shaky(0.0, 0.01, 0.02)), "patience": 1}
    suite = changed(tmp_path, tuning=own, primary_forget=known)
    (record,) = tuned(suite, out, "--json", "allow_weak_target=true").json
    assert (len(record["trials"]), record["chosen"], record["ended"]) == (1, 1, "all forgotten")


def test_an_interrupted_search_decides_the_same(tmp_path: Path, out: Path) -> None:
    own = {**protocol(4, noise=shaky(0.02, 1.0, 0.0, 0.01)), "patience": 2}
    suite = changed(tmp_path, tuning=own)
    (whole,) = tuned(suite, out, "--json").json
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "target").symlink_to(out / "store" / "target")
    (asked,) = resolve_tuning(parse_words([f"suite={suite}", f"out={tmp_path}"]))
    for jobs in (3, 4, 4):
        with pytest.raises(KeyboardInterrupt):
            tune(asked, Interrupts(jobs))
    rest = tune(asked, Interrupts(99)).record.model_dump(mode="json")
    for record in (rest, whole):
        for trial in (record, *record["trials"]):
            del trial["cost"]
    assert rest == whole
    assert whole["cut"] == 1
    assert not list((tmp_path / "store" / "unlearn").glob("*/DONE"))[1:]  # the original's alone


# --------------------------------------------------------------------------- what is proposed


def test_of_a_method_without_a_search_its_own_for_the_model_is_tried(
    tmp_path: Path, out: Path
) -> None:
    suite = changed(tmp_path)
    done = tuned(suite, out, "method=npo", "budget=1", "suite.tuning.utility_kept=0.01", "--json")
    assert done.code == 0, done.err
    (record,) = done.json
    assert (record["proposed"], record["label"], record["suite_budget"]) == (True, "npo", 8)
    printed = command("tune", "--propose", f"suite={suite}", "method=npo")
    assert printed.out.rstrip() in done.err.replace("proposed for this model:\n", "")
    own = yaml.safe_load(printed.out)
    pasted = changed(tmp_path, **own)
    (asked,) = resolve_tuning(parse_words([f"suite={pasted}", "method=npo", "budget=1"]))
    assert not asked.proposed
    assert dict(asked.trials[0].settings) == record["trials"][0]["settings"]


def test_a_variant_of_the_suite_keeps_what_makes_it_one(tmp_path: Path) -> None:
    own = {"use": "ilu", "penalty": "cross_entropy", "base": {"use": "simnpo"}, "weight": 0.3}
    suite = changed(tmp_path, methods={"control": own})
    found = propose_searches(parse_words([f"suite={suite}", "method=control"]))["control"]
    assert found.use == "ilu"
    assert found.fixed == {"penalty": "cross_entropy", "base": "simnpo"}
    assert set(found.space) == {"train.lr", "weight"}


def test_learning_rates_go_with_the_width_and_layers_with_the_depth() -> None:
    def config(width: int, depth: int) -> LlamaConfig:
        return LlamaConfig(hidden_size=width, num_hidden_layers=depth)

    for width, low, high in ((4096, 2e-6, 3e-5), (2048, 4e-6, 6e-5), (576, 1.4e-5, 2.1e-4)):
        (rates,) = propose(config(width, 8), (2e-6, 3e-5)).space.values()
        assert rates == RangeSpec(low=low, high=high, log=True)
    assert layers_at(config(64, 32), 1 / 8, 7 / 32, 3 / 8) == (4, 7, 12)
    assert layers_at(config(64, 30), 1 / 8, 7 / 32, 3 / 8) == (4, 7, 11)
    assert layers_at(config(64, 1), 1 / 8, 1.0) == (0,)


def test_every_method_that_trains_proposes_what_it_takes(tmp_path: Path) -> None:
    suite = changed(tmp_path)
    names = [
        name
        for name in list_entries("methods")
        if find_plugin("methods", name).__module__.startswith("ilubench.")
        and find_plugin("methods", name).trains
    ]
    assert len(names) > 10
    words = [f"suite={suite}", f"method={','.join(names)}", "budget=2"]
    for asked in resolve_tuning(parse_words(words)):
        assert "train.lr" in asked.search.space
        assert len(asked.search.space) > 1


def test_a_loss_of_one_s_own_proposes_its_learning_rate(tmp_path: Path) -> None:
    text = (
        "from ilubench.training import LossMethod\n"
        "class Mine(LossMethod):\n"
        "    def loss(self, model, batch, prepared): ...\n"
    )
    (tmp_path / "mine.py").write_text(text)
    use = f"{tmp_path / 'mine.py'}:Mine"
    found = propose_searches(parse_words([f"suite={changed(tmp_path)}", f"method={use}"]))
    assert (found["mine"].use, set(found["mine"].space)) == (use, {"train.lr"})


def test_what_is_proposed_fits_the_model(tmp_path: Path) -> None:
    suite = changed(tmp_path)  # two layers
    words = [f"suite={suite}", "method=rmu,rr,lat"]
    found = propose_searches(parse_words(words))
    assert found["rmu"].space["layer"] == (0, 1)
    assert found["rmu"].fixed == {"scale": "relative"}
    assert (found["rr"].fixed, found["lat"].fixed) == ({"layers": (1,)}, {"layers": (0,)})
    for asked in resolve_tuning(parse_words([*words, "budget=3"])):
        plan_tuning(asked)


# --------------------------------------------------------------------------- what goes wrong


def test_both_ends_of_a_range_must_fit_the_model(tmp_path: Path) -> None:
    layers = {"low": 0, "high": 40, "whole": True}
    suite = changed(tmp_path, tuning=protocol(1, rmu={"layer": layers}))
    done = tuned(suite, tmp_path / "none")
    assert done.code == 2
    problem = "the model has 2 layers, no layer 40; give one of 0..1"
    assert done.err == f"error: tuning.searches.rmu: method.layer: {problem}\n"


def test_a_target_that_misses_what_the_suite_states_stops_a_tuning(
    tmp_path: Path, out: Path
) -> None:
    stated = {**metric("NLL_r", "retain_nll"), "stated": {"value": 1.0, "within": 0.1}}
    suite = changed(tmp_path, tuning=protocol(1, noise=shaky(0.07)), utility=[stated])
    done = tuned(suite, out)
    assert done.code == 3
    assert "for the original model, and the suite states 1 +- 0.1" in done.err


def test_no_setting_is_chosen_by_the_rows_of_an_attack(tmp_path: Path) -> None:
    settings = yaml.safe_load(TINY.read_text())["scorers"]["forget_nll"]["settings"]
    spy = {"use": "answer_nll", "settings": {**settings, "data": "gsm8k.eval"}}
    suite = changed(
        tmp_path,
        tuning=protocol(1, noise=shaky(0.0)),
        scorers={"spy": spy},
        primary_forget=[metric("spied", "spy")],
        utility=[metric("spied too", "spy")],
    )
    done = tuned(suite, tmp_path / "none")
    assert done.code == 2
    assert "scorers.spy: spied is scored on gsm8k.eval, rows of an attack" in done.err


def test_where_no_setting_keeps_the_utility_it_leaves_with_4(suite: Path, out: Path) -> None:
    done = tuned(suite, out, "method=hopeless")
    assert done.code == 4
    assert "No setting is chosen: none keeps the utility" in done.out
    assert "Closest: setting " in done.out
    assert "methods:" not in done.out
    (record,) = tuned(suite, out, "method=hopeless", "--json").json
    assert (record["chosen"], record["methods"], record["words"]) == (None, {}, [])
    kept = [trial["utility_kept"] for trial in record["trials"]]
    assert record["closest"] == 1 + kept.index(max(kept))


def test_a_setting_that_diverges_is_tried_recorded_and_never_chosen(suite: Path, out: Path) -> None:
    done = tuned(suite, out, "method=mixed", "--json")
    assert done.code == 0, done.err
    (record,) = done.json
    bad = [trial for trial in record["trials"] if trial["settings"]["mood"] == "diverge"]
    assert [trial["state"] for trial in bad] == ["diverged", "diverged"]
    assert not any(trial["eligible"] or trial["chosen"] for trial in bad)
    assert all(trial["utility_kept"] is None and trial["forget"] == {} for trial in bad)
    assert bad[0]["failures"][0]["message"] == "step 3: the loss is not finite"
    assert record["trials"][record["chosen"] - 1]["settings"]["mood"] == "fine"


def test_a_setting_that_fails_otherwise_leaves_with_4(suite: Path, out: Path) -> None:
    done = tuned(suite, out, "method=failing")
    assert done.code == 4
    assert "failed: RuntimeError: the dog ate the gradients" in done.out
    (folder,) = (out / "tuning").glob("tiny-failing-*")
    traces = sorted((folder / "failures").glob("*.txt"))
    assert len(traces) == 2  # of the first seed: a setting that failed is not carried on
    assert "the dog ate the gradients" in traces[0].read_text()
    record = json.loads((folder / "tuning.json").read_text())
    assert [t["state"] for t in record["trials"]] == ["done", "failed", "done", "failed"]
    assert record["chosen"] in (1, 3)


def test_an_original_that_can_do_nothing_is_an_error_before_any_setting(
    tmp_path: Path, out: Path
) -> None:
    blind = changed(
        tmp_path,
        tuning=protocol(1, noise=shaky(0.0)),
        utility=[{**metric("NLL_r", "retain_nll"), "chance": 0.5}],
    )
    done = tuned(blind, out, "method=noise", "allow_weak_target=true")
    assert done.code == 3
    assert "above chance in no utility metric (NLL_r)" in done.err
    assert "setting 1" not in done.err  # nothing was trained in vain


REFUSED = [
    (["method=npoo"], "unknown method 'npoo'; did you mean 'npo'?"),
    (
        ["method=none"],
        "tuning.searches.none: none trains nothing, so that there is nothing to tune",
    ),
    (
        [f"method={SHAKY}"],
        "tuning.searches.shaky: " + SHAKY + " proposes no search, and the suite says none; write",
    ),
    (["method=npo", "method.beta=3"], "method.beta: cannot be set here"),
    (["seeds=0"], "a method is tuned on the suite's `tuning_seeds`"),
    (["attacks=gsm8k"], "nothing is attacked while a method is tuned"),
    (["attack.train.lr=1"], "nothing is attacked while a method is tuned"),
    (["budget=0"], "budget: must be a number from 1 to"),
    (
        ["budget=5", "method=noise"],
        "settings in the space: 4, fewer than every method's budget of 5",
    ),
    (["suite.tuning_seeds=0,1000"], "[0]: in `seeds` and in `tuning_seeds`"),
]


@pytest.mark.parametrize(("words", "message"), REFUSED)
def test_words_that_have_no_place_are_refused(
    suite: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    done = tuned(suite, tmp_path / "none", *words)
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("searches", "message"),
    [
        (
            {"npo": {"beta": [0.1]}, "ilu": {"base.betta": [0.1]}},
            "tuning.searches.ilu: method.base.betta: unknown setting 'betta'; did you mean 'beta'?",
        ),
        (
            {"npo": {"train.lrr": [0.1]}},
            "tuning.searches.npo: method.train.lrr: unknown setting 'lrr'",
        ),
        ({"npo": {"beta": [-1.0]}}, "tuning.searches.npo: beta: must be above 0"),
        ({"npoo": {"beta": [0.1]}}, "tuning.searches.npoo: unknown method 'npoo'; did you mean"),
        (
            {"control": {"use": "ilu", "fixed": {"penalti": "irm"}, "space": {"weight": [1]}}},
            "tuning.searches.control: method.penalti: unknown setting",
        ),
    ],
)
def test_every_setting_is_checked_before_any_job(
    tmp_path: Path, searches: Mapping[str, Any], message: str
) -> None:
    suite = changed(tmp_path, tuning=protocol(1, **searches))
    done = tuned(suite, tmp_path / "none")
    assert done.code == 2
    assert f"{suite}: {message}" in done.err
    assert not (tmp_path / "none").exists()


def test_a_suite_without_a_protocol_is_named(tmp_path: Path) -> None:
    suite = changed(tmp_path)
    done = tuned(suite, tmp_path / "none")
    assert done.code == 2
    assert f"{suite}: the suite says of no method what is to be tried; name one" in done.err


def test_a_suite_that_reports_a_seed_it_tunes_on_is_refused(tmp_path: Path) -> None:
    path = changed(tmp_path, seeds=[0, 1001])
    with pytest.raises(SpecError, match=r"\[1001\]: in `seeds` and in `tuning_seeds`"):
        resolve_experiment(parse_words([f"suite={path}"]))


# --------------------------------------------------------------------------- budgets and labels


def test_another_budget_or_suite_is_marked(suite: Path, out: Path) -> None:
    words = ["method=npo", "budget=2", "suite.tuning.utility_kept=0.5"]
    (record,) = tuned(suite, out, *words, "--json").json
    assert (record["budget"], record["suite_budget"], len(record["trials"])) == (2, 4, 2)
    assert record["changes"] == ["suite.tuning.utility_kept=0.5"]
    assert record["utility_kept_needed"] == 0.5
    shown = tuned(suite, out, *words).out
    mark = "NOT the suite's protocol: budget 2, the suite's is 4; suite.tuning.utility_kept=0.5"
    assert mark in shown
    (again,) = tuned(suite, out, "suite.tuning.budget=2", "method=npo", "--json").json
    assert (again["budget"], again["suite_budget"]) == (2, 4)


def test_a_trained_method_is_tuned_and_its_cost_counted(suite: Path, out: Path) -> None:
    done = tuned(suite, out, "method=npo", "suite.tuning.utility_kept=0.01", "--json")
    (record,) = done.json
    assert done.code == 0, done.err
    assert record["cost"]["steps"] == 4 * 2 * 6  # settings, seeds, the suite's steps
    assert sum(trial["cost"]["steps"] for trial in record["trials"]) == record["cost"]["steps"]
    assert record["cost"]["seconds"] > record["cost"]["train_seconds"] > 0
    assert (record["engine"], record["device"]) == ("hf", "cpu")


def test_without_a_method_every_label_is_tuned(tmp_path: Path, out: Path) -> None:
    searches = {"one": shaky(0.0), "two": shaky(0.1)}
    suite = changed(tmp_path, tuning={**protocol(1, **searches), "utility_kept": 0.1})
    done = tuned(suite, out, "--json")
    assert done.code == 0, done.err
    assert [record["label"] for record in done.json] == ["one", "two"]


# --------------------------------------------------------------------------- what is written down


def _method(suite: Path, *words: str) -> Any:
    return resolve_experiment(parse_words([f"suite={suite}", "attacks=none", *words])).method


@pytest.mark.parametrize(
    ("use", "settings", "written"),
    [
        ("npo", {"beta": 0.3}, {"beta": 0.3}),
        (
            "npo",
            {"train.epochs": 2.0, "train.lr": 2e-3},
            {"train": {"steps": None, "epochs": 2.0, "lr": 2e-3}},
        ),
        (
            "ilu",
            {"weight": 0.2, "base.beta": 0.3, "environments": ("agnews", "gsm8k")},
            {
                "base": {"use": "npo", "settings": {"beta": 0.3}},
                "weight": 0.2,
                "environments": ["agnews", "gsm8k"],
            },
        ),
        (
            "ilu",
            {"base.beta": 4.0, "base": "simnpo"},
            {"base": {"use": "simnpo", "settings": {"beta": 4.0}}},
        ),
        ("ilu", {"base": "graddiff", "train.steps": 3}, {"base": "graddiff"}),
    ],
)
def test_what_goes_into_the_suite_gives_the_same_method_as_the_words(
    tmp_path: Path, use: str, settings: Setting, written: dict[str, Any]
) -> None:
    words = [f"{o.key}={o.text}" for o in method_words(settings)]
    suite = changed(tmp_path)
    before = _method(suite, f"method={use}")
    by_words = _method(suite, f"method={use}", *words)
    found = suite_settings(by_words, settings)
    assert {name: found[name] for name in written} == written
    by_suite = _method(changed(tmp_path, methods={use: found}), f"method={use}")
    assert by_suite == by_words
    assert by_suite != before


def test_the_document_s_suite_is_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    blocks = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    assert len(blocks) == 3
    own = yaml.safe_load(blocks[0])
    path = changed(tmp_path, **own)
    found: Experiment = resolve_experiment(
        parse_words([f"suite={path}", "attacks=none", "method=none"])
    )
    assert found.suite.tuning is not None
    assert len(resolve_tuning(parse_words([f"suite={path}"]))) == len(own["tuning"]["searches"])
    mine = yaml.safe_load(blocks[2])
    assert mine.pop("extends") == "mini"
    (label,) = mine["tuning"]["searches"]
    assert SuiteSpec.model_fields.keys() >= mine.keys()
    assert validate_spec(SearchSpec, mine["tuning"]["searches"][label]).use is not None
