"""Who is best and how sure that is, on hand-made ranks."""

from __future__ import annotations

import pytest

from ilubench.records.columns import rank_range
from ilubench.reports.leaders import Stand, leaders_across, leaders_text


def stands(*rows: tuple[str, int, int]) -> list[Stand]:
    return [Stand(*row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([], "No method is ranked."),
        ([("a", 1, 0)], "a is the only ranked method: there is none to compare it with."),
        ([("a", 1, 0), ("b", 2, 0)], "a is better than the other ranked method."),
        (
            [("a", 1, 0), ("b", 2, 0), ("c", 3, 0)],
            "a is better than each of the other 2 ranked methods.",
        ),
        (
            [("a", 1, 1), ("b", 2, 1), ("c", 2, 2)],
            "No method is better than a, which is not told apart from 1 of the other 2 ranked "
            "methods.",
        ),
        (
            [("a", 1, 1), ("b", 1, 2), ("c", 2, 1), ("d", 4, 0)],
            "No single best: 2 of 4 methods cannot be told apart: a and b. c and those below are "
            "each worse than at least one above.",
        ),
        (
            [("a", 1, 1), ("b", 1, 1), ("c", 3, 0)],
            "No single best: 2 of 3 methods cannot be told apart: a and b. c is worse than at "
            "least one above.",
        ),
        (
            [("a", 1, 1), ("b", 1, 1)],
            "None of the 2 ranked methods can be told apart from another.",
        ),
    ],
)
def test_of_one_metric(rows: list[tuple[str, int, int]], says: str) -> None:
    assert leaders_text(stands(*rows)) == says


def test_of_several_metrics_only_those_that_lead_in_each() -> None:
    one = stands(("a", 1, 1), ("b", 1, 1), ("c", 3, 0))
    other = stands(("b", 1, 1), ("c", 1, 1), ("a", 3, 0))
    assert leaders_across({"FQ": one, "V": other}) == (
        "b is the only one of 3 methods that is never worse, in 2 metrics. Each of the other 2 is "
        "worse than another in at least one."
    )
    only = stands(("c", 1, 0), ("a", 2, 1), ("b", 2, 1))
    assert leaders_across({"FQ": one, "V": only}) == (
        "No method is among the best in all 2 metrics. Best in FQ: a and b; in V: c."
    )
    # a row that one metric does not rank can lead in none
    assert "b is the only one of 2 methods" in leaders_across({"FQ": one, "V": other[:2]})
    assert leaders_across({"FQ": one, "V": []}) == "No method is ranked in every metric."
    tied = stands(("a", 1, 1), ("b", 1, 1))
    assert leaders_across({"FQ": tied, "V": tied}) == (
        "None of 2 methods can be told apart from another in any of 2 metrics."
    )


def test_many_names_are_counted() -> None:
    rows = [Stand(f"m{k}", 1, 11) for k in range(12)]
    text = leaders_text([*rows, Stand("z", 13, 0)])
    assert "m8, m9 and 2 more. z is worse" in text


@pytest.mark.parametrize(("rank", "ties", "text"), [(1, 0, "1"), (1, 7, "1-8"), (3, 7, "3-10")])
def test_a_rank_ends_before_those_that_are_worse(rank: int, ties: int, text: str) -> None:
    assert rank_range(rank, ties) == text
