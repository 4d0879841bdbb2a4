"""The rule that says whether what was forgotten stayed forgotten, on rows made by hand."""

import pytest
from hand_rows import BACK, EITHER, STAYED, Interval, hand_row

from ilubench.statistics.notes import NoteKind
from ilubench.statistics.row import RobustnessRow
from ilubench.statistics.verdict import BOUND, Verdict, judge_row, judge_rows, most_recovered

NEVER = NoteKind.NOT_FORGOTTEN
ABOVE: Interval = (BOUND + 0.1, BOUND + 0.001, 0.4)
BELOW: Interval = (0.01, -0.2, BOUND - 0.001)


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (hand_row({"a": STAYED}, STAYED), Verdict.STAYED),
        (hand_row({"a": BELOW, "b": (0.0, 0.0, 0.0)}, BELOW), Verdict.STAYED),
        (hand_row({"a": (-0.5, -0.9, -0.1)}, (-0.5, -0.9, -0.1)), Verdict.STAYED),
        # an attack alone may be anything but surely above
        (hand_row({"a": EITHER, "b": STAYED}, STAYED), Verdict.STAYED),
        (hand_row({"a": BACK}, BACK), Verdict.CAME_BACK),
        (hand_row({"a": EITHER, "b": EITHER}, ABOVE), Verdict.CAME_BACK),
        # a mean over many attacks hides one
        (hand_row({"a": BACK, **dict.fromkeys("bcdef", STAYED)}, STAYED), Verdict.CAME_BACK),
        (hand_row({"a": BACK, "b": STAYED}, EITHER), Verdict.CAME_BACK),
        (hand_row({"a": EITHER}, EITHER), Verdict.CANNOT_TELL),
        (hand_row({"a": STAYED}, (0.01, -0.05, BOUND)), Verdict.CANNOT_TELL),
        (hand_row({"a": STAYED}, (0.3, BOUND, 0.5)), Verdict.CANNOT_TELL),
        (hand_row({"a": STAYED, "b": NEVER}, NEVER), Verdict.CANNOT_TELL),
        (hand_row({"a": BACK, "b": NEVER}, NEVER), Verdict.CAME_BACK),
        (hand_row({"a": STAYED}, NoteKind.UNDEFINED), Verdict.CANNOT_TELL),
        (hand_row({"a": NEVER, "b": NEVER}, NEVER), Verdict.NOT_FORGOTTEN),
        (hand_row({"a": NEVER, "b": NoteKind.BELOW_ORIGINAL}, NEVER), Verdict.NOT_FORGOTTEN),
        # another reason than that nothing was forgotten
        (hand_row({"a": NoteKind.UNDEFINED}, NoteKind.UNDEFINED), Verdict.CANNOT_TELL),
        # what is not known to be complete cannot have stayed; it can have come back
        (hand_row({"a": STAYED}, STAYED, status="incomplete"), Verdict.CANNOT_TELL),
        (hand_row({"a": BACK}, BACK, status="incomplete"), Verdict.CAME_BACK),
        (hand_row({"a": STAYED}, STAYED, status="unknown"), Verdict.CANNOT_TELL),
        # a model that an attack destroys answers nothing
        (hand_row({"a": STAYED}, STAYED, left={"a": 0.49}), Verdict.CANNOT_TELL),
        (hand_row({"a": STAYED}, STAYED, left={"a": 0.5}), Verdict.STAYED),
        (
            hand_row({"a": STAYED}, STAYED, status="collapsed", kept=(0.3, 0.2, 0.4)),
            Verdict.COLLAPSED,
        ),
        (hand_row({"a": BACK}, BACK, status="collapsed", kept=(0.3, 0.2, 0.4)), Verdict.COLLAPSED),
        (hand_row({"a": BACK}, BACK, status="diverged"), Verdict.DIVERGED),
    ],
)
def test_verdict(row: RobustnessRow, verdict: Verdict) -> None:
    assert judge_row(row).verdict == verdict


def test_a_verdict_names_what_it_rests_on() -> None:
    under = judge_row(hand_row({"a": STAYED, "b": BACK, "c": ABOVE}, EITHER))
    assert (under.attack, under.figure.value) == ("b", BACK[0])
    mean = judge_row(hand_row({"a": BACK}, BACK))
    assert (mean.attack, mean.figure.value) == ("", BACK[0])
    assert judge_row(hand_row({"a": NEVER}, NEVER)).figure.value == 0.6  # f_u
    collapsed = judge_row(hand_row({"a": BACK}, BACK, status="collapsed", kept=(0.3, 0.2, 0.4)))
    assert collapsed.figure.value == 0.3
    destroyed = hand_row({"a": STAYED, "b": STAYED, "c": STAYED}, STAYED, left={"a": 0.1, "c": 0.2})
    assert judge_row(destroyed).destroys == ("a", "c")


def test_the_worst_metric_speaks_for_the_run() -> None:
    rows = {
        "stayed": hand_row({"a": STAYED}, STAYED),
        "less": hand_row({"a": EITHER}, (0.05, -0.02, 0.12)),
        "either": hand_row({"a": EITHER}, EITHER),
        "under one": hand_row({"a": (0.5, 0.4, 0.6)}, EITHER),
        "some": hand_row({"a": BACK}, (0.2, 0.15, 0.25)),
        "most": hand_row({"a": BACK}, BACK),
        "some of it": hand_row({"a": NEVER}, NEVER, unlearned=(0.2, 0.1, 0.3)),
        "nothing": hand_row({"a": NEVER}, NEVER, unlearned=(0.1, 0.0, 0.2)),
    }
    assert list(judge_rows(rows)) == [
        "nothing",
        "some of it",
        "most",
        "some",
        "under one",
        "either",
        "less",
        "stayed",
    ]


def test_the_attack_after_which_most_is_known_again() -> None:
    most = most_recovered(hand_row({"a": STAYED, "b": EITHER, "c": NEVER}, NEVER))
    assert most is not None
    assert most.attack == "b"
    assert most_recovered(hand_row({"a": NEVER}, NEVER)) is None
