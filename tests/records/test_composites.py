"""Numbers of whole models: against slow computations, TOFU's aggregation and published scores."""

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from finished_runs import Told, edit_record, write_run
from pydantic import ValidationError

from ilubench.errors import DataError, SpecError
from ilubench.experiments.scorers import create_scorers
from ilubench.interfaces import TokenLogprobs
from ilubench.leaderboard.check.figures import figure_problems
from ilubench.records.composites import composite_scores, harmonic_mean, ks_p_value
from ilubench.records.finished import read_run
from ilubench.records.ranges import Ranges
from ilubench.records.results import CompositeScore
from ilubench.records.scores import SCHEMA
from ilubench.scoring.scorers.probability import AnswerProbability, ChoiceProbability, TruthRatio
from ilubench.specs import CompositeSpec, PluginRef, SuiteSpec
from ilubench.statistics.intervals import Samples

SHARE = (0.0, 1.0)
SETS = ("retain", "authors", "facts")
KINDS = {"rouge": "rouge_l_recall", "prob": "probability", "truth": "true_better"}


def table(values: list[float], items: list[str] | None = None) -> Samples:
    return Samples(np.array([values]), (0,), tuple(items or map(str, range(len(values)))))


# What was published of a model that never saw forget10: the nine, and their harmonic mean.
NINE = {
    "retain": (0.8264372396779979, 0.8802840007841587, 0.5138097597002513),
    "authors": (0.8145, 0.3915799226316357, 0.5022027051450156),
    "facts": (0.8022792022792024, 0.4279515925645054, 0.6156096615954564),
}
UTILITY = 0.5892923390686856


def test_a_published_model_utility() -> None:
    tables = [table([value, value]) for values in NINE.values() for value in values]
    assert harmonic_mean(tables, SHARE).value == pytest.approx(UTILITY, abs=1e-12)
    assert harmonic_mean([*tables, table([0.0, 0.0])], SHARE).value == 0.0


def test_the_interval_is_the_items_jackknife() -> None:
    rng = np.random.default_rng(0)
    sets = [[f"s{n}/{k}" for k in range(size)] for n, size in enumerate((9, 5, 7))]
    tables = [table(list(rng.uniform(0.2, 0.9, len(own))), own) for own in sets for _ in range(2)]

    def value(without: str) -> float:
        means = [
            np.mean([v for v, item in zip(t.values[0], t.items, strict=True) if item != without])
            for t in tables
        ]
        return float(len(means) / sum(1 / mean for mean in means))

    items = [item for own in sets for item in own]
    left = np.array([value(item) for item in items])
    n = len(items)
    variance = (n - 1) / n * float(((left - left.mean()) ** 2).sum())
    found = harmonic_mean(tables, (None, None))
    assert found.value == pytest.approx(value(""))
    assert found.low is not None
    assert found.high is not None
    half = (found.high - found.low) / 2
    from scipy import stats

    assert half == pytest.approx(stats.t.ppf(0.975, n - 1) * math.sqrt(variance), rel=1e-6)


def test_a_single_item_has_no_interval() -> None:
    found = harmonic_mean([table([0.5]), table([0.25, 0.25])], SHARE)
    assert found.value == pytest.approx(1 / 3)
    assert (found.low, found.high) == (None, None)


def distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Largest difference of the shares of each that are at most x."""
    points = {*a, *b}
    share = [(sum(v <= x for v in a) / len(a), sum(v <= x for v in b) / len(b)) for x in points]
    return max(abs(one - other) for one, other in share)


def test_the_p_value_counts_all_orders() -> None:
    rng = np.random.default_rng(1)
    mine, never = tuple(rng.lognormal(0.5, 1, 6)), tuple(rng.lognormal(0, 1, 6))
    seen, orders = distance(mine, never), 0
    far = 0
    for chosen in combinations(range(12), 6):
        others = tuple(float(k) for k in range(12) if k not in chosen)
        far += distance(tuple(map(float, chosen)), others) >= seen - 1e-12
        orders += 1
    found = ks_p_value(table(list(mine)), table(list(never)))
    assert found.value == pytest.approx(far / orders, abs=1e-12)
    assert 0 < far < orders
    seeds = Samples(np.array([mine, never, never]), (0, 1, 2), tuple(map(str, range(6))))
    assert ks_p_value(seeds, table(list(never))).value == pytest.approx(1.0)  # the median


def test_the_same_items_are_compared() -> None:
    """An attack that scores some of the items is compared in these."""
    never = table([3, 9, 1, 9, 2, 9, 4], list("abcdefg"))
    few = [table([1, 2, 3, 4], list("cega")), table([1, 2, 3, 4], list("aceg"))]
    assert [ks_p_value(one, never).value for one in few] == [1.0, 1.0]
    assert ks_p_value(table([9, 9, 9, 10], list("aceg")), never).value == pytest.approx(2 / 70)
    with pytest.raises(DataError, match="was not asked the item 'h'"):
        ks_p_value(table([1, 2, 3, 4, 5], list("acegh")), never)


def test_of_few_items_nothing_is_compared() -> None:
    for count, given in ((1, False), (3, False), (4, True)):
        one, other = table([0.0] * count), table([1.0] * count)
        assert (ks_p_value(one, other).value is not None) is given


# ------------------------------------------------------------------ TOFU's log


def log_of(rng: np.random.Generator, size: int, wrong: int, shift: float) -> dict[str, Any]:
    """A log as TOFU's evaluation writes it: mean losses an item, by its number."""

    def losses(mean: float) -> dict[str, float]:
        return {str(n): float(v) for n, v in enumerate(rng.gamma(4, mean / 4, size))}

    return {
        "avg_gt_loss": losses(0.5),
        "avg_paraphrased_loss": losses(2.0 + shift),
        "average_perturb_loss": {str(n): list(rng.gamma(6, 0.5, wrong)) for n in range(size)},
        "rougeL_recall": {str(n): float(v) for n, v in enumerate(rng.uniform(0.1, 1, size))},
    }


def aggregated(logs: dict[str, dict[str, Any]], never: dict[str, Any]) -> tuple[float, float]:
    """Forget Quality and Model Utility, by the formulas of TOFU's aggregation."""
    from scipy.stats import hmean, ks_2samp

    def ratios(log: dict[str, Any]) -> Any:
        """The aggregation's: paraphrase over wrong ones, which the paper calls 1/R."""
        wrong = np.array(list(log["average_perturb_loss"].values())).mean(axis=-1)
        return np.exp(wrong - np.array(list(log["avg_paraphrased_loss"].values())))

    nine = []
    for name in SETS:
        log = logs[name]
        right = np.exp(-np.array(list(log["avg_gt_loss"].values())))
        if name != "retain":
            wrong = np.exp(-np.array(list(log["average_perturb_loss"].values())))
            right = right / (right + wrong.sum(-1))
        nine += [right.mean(), np.mean(list(log["rougeL_recall"].values()))]
        nine.append(np.maximum(0, 1 - 1 / ratios(log)).mean())
    return float(ks_2samp(ratios(logs["forget"]), ratios(never)).pvalue), float(hmean(nine))


SUITE = SuiteSpec.model_validate(
    {
        "name": "s",
        "version": 1,
        "title": "s",
        "target": {"model": {"path": "m"}},
        "data": {name: {"path": name} for name in ("forget", *SETS)},
        "scorers": {
            "truth_forget": PluginRef(use="truth_ratio", settings={"data": "forget"}),
            **{
                f"{kind}_{name}": PluginRef(use=use, settings={"data": name})
                for name in SETS
                for kind, use in (
                    ("rouge", "answer_rouge"),
                    ("prob", "answer_probability"),
                    ("truth", "truth_ratio"),
                )
            },
        },
        "composites": [
            {"label": "FQ", "kind": "ks", "of": ["truth_forget.truth_ratio"]},
            {
                "label": "MU",
                "kind": "harmonic_mean",
                "of": [f"{k}_{name}.{metric}" for name in SETS for k, metric in KINDS.items()],
            },
        ],
    }
)


def read(loss: float) -> TokenLogprobs:
    """An answer of one token with that loss."""
    return TokenLogprobs((-float(loss),), (False,))


def lines(who: str, logs: dict[str, dict[str, Any]], attack: str = "") -> list[dict[str, Any]]:
    """Samples of a model whose answers had these losses, by the scorers."""
    plain = {"data": "d", "prompt": "p", "completion": "{a}"}
    wrong = {**plain, "wrong": "b"}
    alone, choice, ratio = (
        AnswerProbability(**plain),
        ChoiceProbability(**wrong),
        TruthRatio(**wrong),
    )
    found = []
    for name, log in logs.items():
        for item, lost in log["avg_gt_loss"].items():
            perturbed = [read(loss) for loss in log["average_perturb_loss"][item]]
            right = read(log["avg_paraphrased_loss"][item])
            scores = {f"truth_{name}": ratio.values(right, perturbed)}
            if name != "forget":
                scorer = alone if name == "retain" else choice
                scores[f"prob_{name}"] = scorer.values(read(lost), perturbed)
                scores[f"rouge_{name}"] = {"rouge_l_recall": log["rougeL_recall"][item]}
            found += [
                {
                    **{"who": who, "attack": attack, "seed": 0, "step": 4 if attack else 0},
                    **{"scorer": scorer, "metric": metric, "item": item, "value": value},
                    **{"group": "", "label": "", "level": ""},
                }
                for scorer, metrics in scores.items()
                for metric, value in metrics.items()
            ]
    return found


def logs_of(seed: int, shift: float) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    sizes = {"forget": (40, 5), "retain": (30, 5), "authors": (20, 3), "facts": (25, 3)}
    return {name: log_of(rng, size, wrong, shift) for name, (size, wrong) in sizes.items()}


def test_as_tofu_aggregates_its_log() -> None:
    mine, attacked, never = logs_of(1, 0.4), logs_of(2, 1.2), logs_of(3, 0.0)
    samples = pa.Table.from_pylist(
        lines("reference", mine) + lines("reference", attacked, "a") + lines("retrain", never),
        schema=SCHEMA,
    )
    found = {
        (one.label, str(one.who), one.attack): one
        for one in composite_scores(SUITE, samples, Ranges.of_suite(SUITE, {}), "none")
    }
    assert len(found) == 6
    for who, attack, logs in (
        ("reference", "", mine),
        ("reference", "a", attacked),
        ("retrain", "", never),
    ):
        quality, utility = aggregated(logs, never["forget"])
        assert found["FQ", who, attack].value == pytest.approx(quality, rel=1e-9)
        assert found["FQ", who, attack].low is None
        whole = found["MU", who, attack]
        assert whole.value == pytest.approx(utility, rel=1e-9)
        assert whole.low is not None
        assert whole.high is not None
        assert 0 < whole.low < utility < whole.high < 1
    assert found["FQ", "retrain", ""].value == 1.0


def test_without_the_retrained_model() -> None:
    samples = pa.Table.from_pylist(lines("reference", logs_of(1, 0.4)), schema=SCHEMA)
    (one,) = composite_scores(SUITE, samples, Ranges.of_suite(SUITE, {}), "none")
    assert one.label == "MU"
    fewer = samples.filter(pa.compute.not_equal(samples["scorer"], "rouge_facts"))
    assert composite_scores(SUITE, fewer, Ranges(), "none") == ()
    # the method `retrain` is the model that never knew
    own = pa.Table.from_pylist(lines("method", logs_of(3, 0.0)), schema=SCHEMA)
    (quality, _) = composite_scores(SUITE, own, Ranges(), "retrain")
    assert (quality.label, quality.value) == ("FQ", 1.0)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"kind": "ks", "of": ["a.b", "a.c"]}, "ks compares two models in one metric"),
        ({"kind": "harmonic_mean", "of": ["rouge"]}, "write 'rouge' as scorer.metric"),
        ({"kind": "harmonic_mean", "of": []}, "at least 1 item"),
        ({"kind": "harmonic_mean", "of": ["a.b", "a.c", "a.b"]}, "of: a.b is named twice"),
        ({"kind": "mean", "of": ["a.b"]}, "harmonic_mean"),
    ],
)
def test_refusals(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        CompositeSpec.model_validate({"label": "L", **given})


def test_a_suite_must_have_the_scorer_and_other_labels() -> None:
    values = SUITE.model_dump(mode="json")
    for change, problem in (
        ({"of": ["nobody.m"]}, "scorer 'nobody' is not declared"),
        ({"label": "MU"}, "two metrics have the same label"),
    ):
        first, second = values["composites"]
        with pytest.raises(ValidationError, match=problem):
            SuiteSpec.model_validate({**values, "composites": [{**first, **change}, second]})


@pytest.mark.parametrize(
    ("scorer", "metric", "problem"),
    [
        ("truth_ratio", "truth_ratio", "a lower score is the better one"),
        ("truth_ratio", "closer_to_1", "a lower score is the better one"),
        ("answer_nll", "nll", "a lower score is the better one"),
        ("truth_ratio", "true_better", ""),
    ],
)
def test_what_is_averaged(scorer: str, metric: str, problem: str) -> None:
    settings = {"data": "forget", "prompt": "{q}", "completion": "{a}"}
    settings |= {"wrong": "w"} if scorer == "truth_ratio" else {}
    suite = SuiteSpec.model_validate(
        {
            **SUITE.model_dump(mode="json"),
            "scorers": {"s": {"use": scorer, "settings": settings}},
            "composites": [{"label": "H", "kind": "harmonic_mean", "of": [f"s.{metric}"]}],
        }
    )
    if not problem:
        assert set(create_scorers(suite, Path("s.yaml"))) == {"s"}
        return
    with pytest.raises(SpecError, match=f"H: no harmonic mean of '{metric}': {problem}; name met"):
        create_scorers(suite, Path("s.yaml"))


def test_a_record_says_what_its_samples_do(tmp_path: Path) -> None:
    told = Told()
    folder = write_run(tmp_path / "run", told)
    run = read_run(folder)
    assert run.suite is not None
    metric = run.suite.primary_forget[0]
    spec = CompositeSpec(label="H", kind="harmonic_mean", of=(f"{metric.scorer}.{metric.metric}",))
    suite = run.suite.model_copy(update={"composites": (spec,)})
    run = replace(run, suite=suite)
    right = run.composites
    assert {one.label for one in right} == {"H"}

    def problems(*composites: CompositeScore, version: int = 5) -> list[str]:
        record = run.record.model_copy(update={"composites": composites, "schema_version": version})
        found = figure_problems(replace(run, record=record))
        return [problem for problem in found if problem.startswith("composites")]

    assert problems(*right) == []
    assert problems(version=4) == []
    first, *others = right
    edited = first.model_copy(update={"value": first.value + 0.01})
    assert problems(edited, *others)[0].startswith(f"composites.0.value: is {edited.value}, and ")
    assert problems(first, *right)[0] == "composites.1: of the same as composites.0"
    assert problems(*others)[0].endswith(" is missing")
    stranger = first.model_copy(update={"label": "nobody's"})
    assert problems(stranger, *right)[0].startswith("composites.0: no samples of")
    edit_record(folder, composites=[json.loads(first.model_dump_json())])
    assert read_run(folder).record.composites == (first,)
