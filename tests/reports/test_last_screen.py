"""The last screen of a run: its sentence by rule, its size, and that its figures are the row's."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hand_rows import BACK, EITHER, STAYED, Interval, figure, hand_record, hand_row
from places import LEADERBOARDS

from ilubench.records.finished import FinishedRun, read_run
from ilubench.records.reference_sets import shipped_notes
from ilubench.records.results import FailureRecord, ModelScore, ReferenceRecord
from ilubench.reports.last_screen import LINES, Ended, last_screen
from ilubench.reports.screen_tables import BARS
from ilubench.reports.verdict_text import percent, verdict_text
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.row import RobustnessRow

FOLDER = Path("runs/mini-npo-1")
NEVER = NoteKind.NOT_FORGOTTEN
Rows = Mapping[str, RobustnessRow]


@cache
def measured(name: str) -> FinishedRun:
    return read_run(LEADERBOARDS / name)


def screen(
    rows: Rows,
    width: int = 80,
    command: Sequence[str] = ("ilubench", "run", "method=npo"),
    *,
    bars: bool = True,
    **record: Any,
) -> str:
    attacks = tuple(part.attack for row in list(rows.values())[:1] for part in row.attacks)
    given = hand_record(**{"attacks": attacks, **record})
    return str(last_screen(Ended(given, rows, None, FOLDER, command), width, bars=bars))


def sentence(rows: Rows, **record: Any) -> str:
    return verdict_text(hand_record(**record), rows, None)


def test_metrics_that_lack_an_attack_show_none_under_it() -> None:
    """Not every metric can be asked under every attack: figures go by names, never by places."""
    some = hand_row({"a": (0.01, 0.0, 0.02), "c": (0.03, 0.0, 0.04)}, STAYED)
    more = hand_row({"a": (0.05, 0.0, 0.1), "b": (0.07, 0.0, 0.1), "c": (0.54, 0.4, 0.6)}, STAYED)
    for rows in ({"FQ": some, "K": more}, {"K": more, "FQ": some}):
        shown = screen(rows, attacks=("a", "b", "c"), bars=False)
        (head,) = (
            line.split()[2:] for line in shown.splitlines() if line.startswith("recovery, %")
        )
        cells = {
            line.split()[0]: dict(zip(head, line.split()[1:], strict=True))
            for line in shown.partition("recovery, %")[2].splitlines()
            if line.startswith(("FQ", "K"))
        }
        assert cells == {
            "FQ": {"a": "1", "b": "-", "c": "3"},
            "K": {"a": "5", "b": "7", "c": "54"},
        }


def test_attacks_whose_short_names_are_alike_keep_their_whole_ones() -> None:
    names = [f"relearn_forget_{k}" for k in "abcdefg"]
    row = hand_row({name: (0.1 * k, 0.0, 0.9) for k, name in enumerate(names)}, STAYED)
    shown = screen({"FQ": row}, attacks=tuple(names), bars=False)
    (head,) = (line for line in shown.splitlines() if line.startswith("recovery, %"))
    assert head.split()[2:] == [*names[-3:], "and", "4", "more"]


def test_the_sentence_says_at_what_price_it_came_back() -> None:
    price = "after b, which leaves 62% of the utility"
    both = hand_row({"a": STAYED, "b": BACK}, STAYED, left={"b": 0.62})
    assert price in sentence({"FQ": both})
    assert price in sentence({"FQ": hand_row({"b": BACK}, BACK, left={"b": 0.62})})
    assert "which leaves" not in sentence({"FQ": hand_row({"b": BACK}, BACK, left={"b": 0.91})})


# --------------------------------------------------------------------------- what happened


@pytest.mark.parametrize(
    ("row", "begin", "parts"),
    [
        (
            hand_row({"a": STAYED, "b": EITHER}, STAYED),
            "It stayed forgotten: 4.0% [1.0, 8.0] of what was forgotten is known again (FQ)",
            ("in the mean of 2 attacks", "most after b: 6.0% [-2.0, 14.0]"),
        ),
        (hand_row({"a": BACK}, BACK), "Part of it came back: 30.0% [20.0, 40.0]", ("after a.",)),
        (
            hand_row({"a": (0.9, 0.8, 1.0)}, (0.9, 0.8, 1.0)),
            "Most of it came back: 90.0% [80.0, 100.0]",
            (),
        ),
        (
            hand_row({"a": BACK, "b": STAYED, "c": STAYED}, EITHER),
            "Part of it came back: 30.0% [20.0, 40.0]",
            ("after a, 6.0% [-2.0, 14.0] in the mean of 3 attacks",),
        ),
        (
            hand_row({"a": EITHER}, EITHER),
            "Whether it stayed forgotten cannot be told: 6.0% [-2.0, 14.0]",
            ("The interval reaches across 10%.",),
        ),
        (
            hand_row({"a": STAYED}, STAYED, status="incomplete"),
            "Whether it stayed forgotten cannot be told: not all attacks were carried out",
            ("So far, 4.0% [1.0, 8.0]",),
        ),
        (
            hand_row({"a": STAYED, "b": STAYED}, STAYED, left={"b": 0.2}),
            "Whether it stayed forgotten cannot be told: b left less than 50% of the utility",
            ("4.0% [1.0, 8.0]",),
        ),
        (
            hand_row({"a": STAYED}, STAYED, status="unknown", kept=NoteKind.UTILITY_AT_CHANCE),
            "Whether it stayed forgotten cannot be told: FQ, undefined: the utility",
            ("not above chance",),
        ),
        (
            hand_row({"a": STAYED, "b": NEVER}, NEVER),
            "Whether it stayed forgotten cannot be told: FQ, recovery is undefined",
            (),
        ),
        (
            hand_row({"a": NEVER}, NEVER),
            "Nothing was forgotten: FQ is 0.600 [0.500, 0.700] after unlearning",
            ("was 0.021 [0.000, 0.040] before; the interval of the difference contains 0",),
        ),
        (
            hand_row({"a": NoteKind.BELOW_ORIGINAL}, NoteKind.BELOW_ORIGINAL),
            "Nothing was forgotten",
            ("the difference lies below 0",),
        ),
        (
            hand_row({"a": BACK}, BACK, status="collapsed", kept=(0.31, 0.2, 0.42)),
            "Collapsed: unlearning left 31.0% [20.0, 42.0] of the utility, less than 50%.",
            (),
        ),
        (hand_row({"a": BACK}, BACK, status="diverged"), "Diverged: ", ("no verdict",)),
    ],
)
def test_the_sentence(row: RobustnessRow, begin: str, parts: tuple[str, ...]) -> None:
    told = sentence({"FQ": row})
    assert told.startswith(begin)
    assert [part for part in parts if part not in told] == []
    assert "significant" not in told


def test_the_worst_of_several_metrics_is_told() -> None:
    rows = {"FQ": hand_row({"a": STAYED}, STAYED), "VM": hand_row({"a": BACK}, BACK)}
    assert "(VM, the worst of 2 metrics)" in sentence(rows)
    rows["KM"] = hand_row({"a": NEVER}, NEVER)
    assert sentence(rows).startswith("Not all was forgotten: KM is 0.600")


def test_runs_without_a_row() -> None:
    assert sentence({}, attacks=()).startswith("Unlearned, and not attacked")
    assert sentence({}, method={}, attacks=()).startswith("Scored, as it is")
    failed = FailureRecord(label="attack npo with a, seed 0", kind="ValueError", message="no")
    assert sentence({}, failures=(failed,)).startswith("No verdict: 1 of 4 jobs failed")
    original = {"FQ": hand_row({"a": NEVER}, NEVER)}
    assert sentence(original, method={"use": "none"}).startswith("The original model")


def test_the_collapsed_metric_is_named() -> None:
    run = measured("news-medium/measured/ilu")
    told = verdict_text(run.record, run.recorded, run.suite)
    row = next(iter(run.recorded.values()))
    worst = row.utility.worst
    assert worst is not None
    sides = (side[worst].value for side in (row.utility.unlearned, row.utility.original))
    after, before = (f"{value:.3f}" for value in sides)
    assert f"of the utility in VerbMem_r ({after}, was {before}), less than 50%" in told


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ((0.0449, -0.0004, 0.0996), "4% [0, 10]"),  # no -0
        ((-0.126, -0.2, -0.004), "-13% [-20, 0]"),
        (0.5, "50%"),
        (NEVER, "-"),
    ],
)
def test_ratios_as_percent(given: Interval | float | NoteKind, text: str) -> None:
    assert percent(figure(given)) == text


# --------------------------------------------------------------------------- its size


def matrix() -> Iterator[tuple[str, Rows, dict[str, Any]]]:
    names = ["gsm8k", "agnews", "sst2", "winogrande", "mnli", "qqp", "x" * 40, "few", "pre", "ten"]
    for metrics in (1, 3, 6, 9):
        labels = [f"1 - Metric{k}_f" for k in range(metrics)]
        for count in (1, 3, 6, 10):
            attacks = {name: (STAYED, BACK, EITHER)[k % 3] for k, name in enumerate(names[:count])}
            row = hand_row(attacks, EITHER, core=names[1:count], left={"sst2": 0.4, "mnli": 0.7})
            yield f"{metrics}m-{count}a", dict.fromkeys(labels, row), {"seen": ("gsm8k",)}
    one = hand_row({"gsm8k": STAYED}, STAYED)
    yield "five seeds", {"FQ": one}, {"seeds": tuple(range(5))}
    yield "ilu", {"FQ": one}, {"seeds": (0, 1), "method": {"use": "ilu", "settings": {}}}
    yield "levels", {"FQ": hand_row({"fewshot": BACK, "prefix": STAYED}, BACK, levels=True)}, {}
    failed = FailureRecord(label="attack npo with a, seed 0", kind="E", message="word " * 90)
    broken = hand_row({"gsm8k": STAYED}, STAYED, status="diverged")
    notes = tuple(f"prefix: scorer s{k} was left out: {'why ' * 40}" for k in range(9))
    yield "failures", {"FQ": broken}, {"failures": (failed,) * 7, "notes": notes}
    yield "notes", {"FQ": one}, {"notes": notes}
    long = {"use": "./a/very/long/path/to_a_file_of_ones_own.py:" + "Method" * 9, "settings": {}}
    yield "long names", {"a label of a metric " * 4: one}, {"method": long, "suite": "s" * 60}
    yield "a name with lines", {"two\nlines": one}, {}
    yield "nothing", {}, {"attacks": ()}
    yield "scored", {}, {"attacks": (), "method": {}, "scores": scores(30)}
    yield "not attacked", {}, {"attacks": (), "scores": scores(2, "reference", "method")}
    yield "all failed", {}, {"failures": (failed,) * 7}


def scores(count: int, *who: Any) -> tuple[ModelScore, ...]:
    given = {"metric": "acc", "estimator": {"kind": "mean"}, "value": 0.25, "se": 0.1, "n": 4}
    return tuple(
        ModelScore(scorer=f"scorer{k}", who=one, seed=0, **given)
        for k in range(count)
        for one in who or ("reference",)
    )


@pytest.mark.parametrize("width", [40, 60, 80, 140])
@pytest.mark.parametrize("case", list(matrix()), ids=lambda case: case[0])
def test_it_fits(case: tuple[str, Rows, dict[str, Any]], width: int) -> None:
    _, rows, record = case
    for command in ((), ("ilubench", "run", "method=npo", "suite=mini", *["data.r=f.csv"] * 4)):
        lines = screen(rows, width, command, **record).split("\n")
        assert len(lines) <= LINES
        assert max(map(len, lines)) <= max(60, min(width, 80)), lines
        assert [line for line in lines if line != line.rstrip()] == []
        assert all(any(line.startswith(name) for line in lines) for name in ("results", "next"))
        assert "\n\n\n" not in "\n".join(lines)


def test_without_block_characters_it_is_ascii() -> None:
    rows = {"FQ": hand_row({"a": BACK, "b": (1.3, 1.1, 1.5)}, BACK)}
    assert screen(rows, bars=False).isascii()
    (line,) = [line for line in screen(rows).split("\n") if BARS[-1] in line]
    assert line.split() == ["FQ", "30", BARS[1], "130", BARS[7]]


# --------------------------------------------------------------------------- its parts


def test_a_seen_attack_is_marked() -> None:
    rows = {"FQ": hand_row({"a": STAYED, "b": STAYED}, STAYED, core=("b",))}
    shown = screen(rows, seen=("a",))
    assert re.search(r"^recovery, % +a\* +b$", shown, re.M)
    assert "a*: seen, the method trains on it; not in RA_core, but in recovery" in shown
    assert "RA_core counts b, and so there is no rank" in screen(rows, seen=("b",))
    assert "seen" not in screen(rows)


def test_without_core_attacks_ra_is_over_all() -> None:
    head = screen({"FQ": hand_row({"a": STAYED}, STAYED)}).split("higher")[1].split("\n")
    assert " RA " in head[1]
    assert "0.574 [0.480, 0.660]" in head[2]


def test_what_is_unusual() -> None:
    rows = {"FQ": hand_row({"a": STAYED, "b": STAYED}, STAYED, left={"a": 0.62, "b": 0.9})}
    shown = screen(rows, notes=("prefix: scorer s was left out: it has no prompt",))
    assert "utility falls below 90% of what unlearning left: a to 62%" in shown
    assert "! prefix: scorer s was left out: it has no prompt" in shown
    assert "! 1 seed: intervals are over items only" in shown
    assert "1 seed:" not in screen(rows, seeds=(0, 1))


def test_shipped_references_stand_in_the_first_line() -> None:
    taken = ReferenceRecord(run="r", samples="", attacks=("a",), seeds=(0,), scored=False)
    notes = tuple(shipped_notes({"reference": taken}))
    rows = {"FQ": hand_row({"a": STAYED}, STAYED)}
    shown = screen(rows, references={"reference": taken}, notes=(*notes, "another"))
    assert "references shipped" in shown.split("\n")[0]
    assert "not measured in this run" not in shown
    assert "! another" in shown


@pytest.mark.parametrize(
    ("given", "following"),
    [
        ({}, "ilubench run method=npo seeds=0..4  (about 3 min, job after job)"),
        ({"seeds": (7,)}, "seeds=0..4  (about 4 min, job after job)"),
        ({"command": ()}, "the same command with seeds=0..4 (about 3 min, job after job)"),
        ({"command": ("ilubench", "run", "seeds=3", "x=a b")}, "ilubench run 'x=a b' seeds=0..4"),
        ({"seeds": (0, 1)}, "ilubench ls methods suite=mini"),
        ({"seeds": (0, 1), "suite": "my-own"}, "ilubench ls methods suite=FILE"),
        (
            {"seeds": (0, 1), "method": {"use": "ilu"}},
            "ilubench run method=npo method.penalty=cross_entropy  the control",
        ),
        ({"method": {"use": "none"}}, "ilubench gates runs/mini-npo-1"),
        ({"attacks": ()}, "ilubench ls attacks"),
        (
            {"attacks": (), "command": ("ilubench", "run", "attacks=none", "method=npo")},
            "ilubench run method=npo  attacks it",
        ),
        ({"method": {}, "attacks": ()}, "ilubench attack MODEL suite=mini"),
        (
            {"failures": (FailureRecord(label="l", kind="k", message="m"),)},
            "ilubench run method=npo  tries again what failed",
        ),
    ],
)
def test_what_next(given: dict[str, Any], following: str) -> None:
    rows = {} if given.get("attacks") == () else {"FQ": hand_row({"a": STAYED}, STAYED)}
    last = screen(rows, **given).split("next     ")[1]
    assert following in " ".join(last.split("\n"))


# --------------------------------------------------------------------------- its figures


MEASURED = ["mini/measured/ilu", "mini/measured/dpo", "news-medium/measured/npo"]


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.parametrize("width", [60, 80])
def test_every_figure_is_in_the_row(name: str, width: int) -> None:
    """Three digits of figures, recovery and utility in percent: none or one digit."""
    run = measured(name)
    shown = str(last_screen(Ended(run.record, run.recorded, run.suite, FOLDER), width))
    told, metrics, *others = shown.partition("\n")[2].split("\n\n")
    allowed = set()
    for row in run.recorded.values():
        for value in numbers(dataclasses.asdict(row)):
            scaled = (f"{value:.3f}", f"{100 * value:.1f}", f"{100 * value:.0f}")
            allowed |= {text if float(text) else text.lstrip("-") for text in scaled}
    allowed |= {
        "10",
        "95",
        str(len(run.record.attacks)),
        str(len(run.recorded)),
    }  # bound, intervals
    by_attack = others[0] if others and others[0].startswith("recovery") else ""
    found = re.findall(r"(?<![\w.-])-?\d+(?:\.\d+)?(?![\w.]| - )", told + metrics + by_attack)
    assert len(found) > 15
    assert set(found) <= allowed


def test_recovery_by_attack_has_room_before_notes() -> None:
    run = measured("mini/measured/ilu-control-attacks")  # 21 attacks, 20 notes
    shown = str(last_screen(Ended(run.record, run.recorded, run.suite, FOLDER), 80))
    assert re.search(r"^recovery, % .* and 19 more$", shown, re.M)
    assert "more, with --details" in shown
    assert len(shown.splitlines()) <= LINES


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from numbers(one)
    elif isinstance(value, float):
        yield value


def test_scores_are_means_over_the_seeds() -> None:
    given = {"scorer": "s", "metric": "acc", "estimator": {"kind": "mean"}, "se": 0.1, "n": 4}
    values = (("reference", 0, 1.0), ("method", 0, 0.2), ("method", 1, 0.4))
    told = tuple(ModelScore(who=w, seed=s, value=v, **given) for w, s, v in values)
    shown = screen({}, attacks=(), scores=told)
    assert re.search(r"^score +original +unlearned\ns\.acc +1\.000 +0\.300$", shown, re.M)
