"""Scores by subset of the items, from a run's samples."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ilubench.errors import DataError
from ilubench.records.scores import SCHEMA
from ilubench.reports.subsets import subsets_of, subsets_text

GROUPS = {"g0": "given", "g1": "given", "h0": "held_out", "h1": "held_out", "h2": "held_out"}


def value(attack: str, step: int, seed: int, item: str) -> float:
    """Given items are forgotten; held-out ones come back by .1 a step, more under `b`."""
    if item.startswith("g"):
        return 0.0
    return 0.2 + 0.01 * seed + (0.1 * step if attack == "a" else 0.3 * step)


def samples(*, who: str = "method") -> pa.Table:
    rows = [
        {
            "who": owner,
            "attack": attack,
            "seed": seed,
            "step": step,
            "scorer": scorer,
            "metric": "acc",
            "item": item,
            "group": group if scorer == "forget_mc" else "",
            "value": value(attack, step, seed, item) if owner == who else 9.0,
            "level": "",
        }
        for owner in dict.fromkeys(("reference", who))
        for attack, step in (("", 0), ("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1))
        for seed in (0, 1)
        for scorer in ("forget_mc", "plain", "fa")
        for item, group in GROUPS.items()
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def test_figures_are_the_subsets_means() -> None:
    given, held_out = subsets_of(samples())
    assert (given.metric, given.group, given.items) == ("forget_mc.acc", "given", 2)
    assert (held_out.group, held_out.items) == ("held_out", 3)
    assert given.unlearned.value == 0.0
    assert held_out.unlearned.value == pytest.approx(0.205)
    assert held_out.attacked is not None
    # the mean of a's end (.2 more) and b's (.3 more)
    assert held_out.attacked.value == pytest.approx(0.205 + 0.25)
    assert (held_out.attacked.n_seeds, held_out.attacked.n_items) == (2, 3)


def test_attacks_that_score_a_part_of_the_items() -> None:
    """The mean of the attacks' means: `a` scores h0 alone, and no given item."""
    found = samples()
    by_a = pc.equal(found["attack"], "a")
    left_out = pc.and_(by_a, pc.invert(pc.is_in(found["item"], pa.array(["h0", "h1"]))))
    odd = pc.and_(left_out, pc.equal(found["scorer"], "forget_mc"))
    found = found.filter(pc.invert(odd))
    more = [
        {**row, "value": 1.0} if row["attack"] == "a" and row["item"] == "h0" else row
        for row in found.to_pylist()
    ]
    given, held_out = subsets_of(pa.Table.from_pylist(more, schema=SCHEMA))
    assert held_out.attacked is not None
    of_a, of_b = (1.0 + 0.405) / 2, 0.505
    assert held_out.attacked.value == pytest.approx((of_a + of_b) / 2)
    assert (held_out.items, held_out.attacked.n_items) == (3, 3)
    assert held_out.attacked.low is not None
    assert given.attacked is not None
    assert given.attacked.value == 0.0, "b's alone"


def test_the_original_alone() -> None:
    """In a run of `none` there are only the original's samples."""
    only = samples(who="reference")
    _, held_out = subsets_of(only.filter(pc.equal(only["attack"], "")))
    assert held_out.unlearned.value == pytest.approx(0.205)
    assert held_out.attacked is None


def test_a_table_has_a_line_a_subset() -> None:
    text = subsets_text(subsets_of(samples())).splitlines()
    assert len(text) == 4
    assert text[3].startswith("| forget_mc.acc | held_out | 3 | 0.205")


def test_no_subsets_and_missing_items_are_errors() -> None:
    found = samples()
    with pytest.raises(DataError, match="belongs to a subset"):
        subsets_of(found.filter(pc.equal(found["scorer"], "plain")))
    lost = pc.and_(pc.equal(found["item"], "h1"), pc.equal(found["seed"], 1))
    with pytest.raises(DataError, match="other items"):
        subsets_of(found.filter(pc.invert(lost)))
