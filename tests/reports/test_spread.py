"""Where a run's spread comes from: components of what its samples have."""

from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from places import LEADERBOARDS

from ilubench.errors import DataError
from ilubench.records.run_files import read_run_samples
from ilubench.reports.spread import variance_report, variance_text
from ilubench.statistics.intervals import Array
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.variance_components import Component, Factorial, decompose_variance

NPO = LEADERBOARDS / "mini" / "measured" / "npo" / "samples.parquet"


def of_table(values: Array) -> tuple[Component, ...]:
    levels = tuple(tuple(range(n)) for n in values.shape)
    return decompose_variance(Factorial(values, ("seed", "item"), levels))


def test_report_of_a_measured_run() -> None:
    """Every metric but FA has f_u, RA and RA by attack; the numbers are those of the tables."""
    samples = read_run_samples(NPO)
    whole = variance_report(samples)
    report = [table for table in whole if table.metric == "forget_mc.acc"]
    assert [table.figure for table in report] == ["f_u", "RA", "RA by attack"]
    assert report[0].levels == "10 seed x 128 item"
    assert report[2].levels == "6 attack x 10 seed x 128 item"
    assert "attack" not in {part.name for part in report[2].components}
    assert "attack x seed" in {part.name for part in report[2].components}
    rows = samples.to_pylist()
    x = np.zeros((10, 128))
    own = [r for r in rows if (r["who"], r["attack"], r["scorer"]) == ("method", "", "forget_mc")]
    order = {item: k for k, item in enumerate(sorted({r["item"] for r in own}))}
    for row in own:
        x[row["seed"], order[row["item"]]] = row["value"]
    expected = of_table(x)
    assert [p.variance for p in report[0].components] == pytest.approx(
        [p.variance for p in expected]
    )
    assert {t.metric.split(".")[0] for t in whole} == {
        "forget_knowmem",
        "forget_mc",
        "forget_rephrased",
        "forget_verbmem",
        "retain_knowmem",
        "retain_mc",
        "retain_verbmem",
    }
    assert "| forget_mc.acc | RA (10 seed x 128 item) | item | 0." in variance_text(report)
    with pytest.raises(DataError, match="no samples of any metric"):
        variance_report(samples.slice(0, 0))


def line(**changes: object) -> dict[str, object]:
    row = {"who": "method", "attack": "", "seed": 0, "step": 0, "scorer": "s", "metric": "m"}
    return {**row, "item": "x", "value": 0.5, "label": "", **changes}


def test_report_says_what_it_cannot_split() -> None:
    """One seed, equal scores, classes: no components, and the reason."""
    single = [line(item=item, value=k) for k, item in enumerate("xy")]
    equal = [line(scorer="t", item=item, seed=seed) for item in "xy" for seed in (0, 1)]
    classes = [line(scorer="u", item=item, label="1") for item in "xy"]
    report = variance_report(pa.Table.from_pylist(single + equal + classes))
    assert [(t.metric, t.note) for t in report] == [
        ("s.m", Note(NoteKind.TOO_FEW_LEVELS)),
        ("t.m", Note(NoteKind.ALL_EQUAL)),
    ]
    assert "| s.m | f_u (1 seed x 2 item) | no components" in variance_text(report)
    uneven = [line(seed=0), line(seed=1, item="y")]
    with pytest.raises(DataError, match=r"s\.m: seeds 0 and 1 were scored on other items"):
        variance_report(pa.Table.from_pylist(uneven))


def test_report_by_attack_uses_the_shared_items() -> None:
    """An attack that scores fewer items: the components are over those that all attacks have."""
    rows = [
        line(attack=attack, seed=seed, step=step, item=item, value=float(rng))
        for rng, (attack, seed, step, item) in enumerate(
            product(("a", "b"), (0, 1, 2), (10, 20), ("x", "y", "z"))
        )
        if (attack, item) != ("b", "z")
    ]
    report = variance_report(pa.Table.from_pylist(rows))
    assert [t.levels for t in report] == ["3 seed x 2 item", "2 attack x 3 seed x 2 item"]


def test_report_averages_all_levels_of_an_attack_without_steps() -> None:
    """Five levels count alike; of five steps only the quartiles would, here 1, 2 and 5."""
    rng = np.random.default_rng(8)
    values = rng.random((5, 3, 4))
    rows = [
        line(attack="a", seed=s, step=k + 1, item=f"i{i}", value=values[k, s, i], level=f"l{k}")
        for k, s, i in product(range(5), range(3), range(4))
    ]
    (found,) = variance_report(pa.Table.from_pylist(rows))
    expected = of_table(values.mean(axis=0))
    assert [p.variance for p in found.components] == pytest.approx([p.variance for p in expected])
    steps = [{name: value for name, value in row.items() if name != "level"} for row in rows]
    (other,) = variance_report(pa.Table.from_pylist(steps))
    assert other.components[-1].variance != pytest.approx(found.components[-1].variance)
