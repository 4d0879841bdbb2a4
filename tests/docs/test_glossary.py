"""The glossary's numbers, computed again from the records and through ilubench.statistics."""

import re
from functools import cache

import numpy as np
import pytest
from places import LEADERBOARDS, ROOT
from rouge_score.rouge_scorer import RougeScorer

from ilubench.records.finished import FinishedRun, read_run
from ilubench.records.wording import note_text
from ilubench.statistics.aggregate import COLLAPSED_UTILITY, aggregate
from ilubench.statistics.intervals import Array, Figure, Samples
from ilubench.statistics.row import Chances, Course, MethodRuns, RobustnessRow
from ilubench.statistics.verdict import BOUND, Verdict, judge_row

TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")


@cache
def run(name: str) -> FinishedRun:
    return read_run(LEADERBOARDS / "mini" / "measured" / name)


def row(name: str) -> RobustnessRow:
    return run(name).rows["FQ"]


def about(heading: str) -> str:
    """Return the text below a heading, with its line breaks as spaces."""
    (found,) = re.findall(rf"^##+ {re.escape(heading)}\n(.*?)(?=^##)", TEXT, re.M | re.S)
    return " ".join(str(found).split())


def shown(figure: Figure | float | None) -> str:
    value = figure.value if isinstance(figure, Figure) else figure
    assert value is not None
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 and value else f"{value:.3f}"


def test_models() -> None:
    assert f"f_0 is {shown(row('rmu').forget_original)}" in about("Target model, original")
    text = about('retrain, "never knew"')
    assert f"FQ is {shown(row('retrain').forget_unlearned)}" in text
    assert f"chance](#chance) ({shown(row('retrain').forget_chance)})" in text
    (mine, other) = (row(name).attacks[0] for name in ("rmu", "retrain"))
    assert mine.attack == "gsm8k"
    difference = f"{shown(mine.steps[-1].forget)} - {shown(other.steps[-1].forget)} = "
    assert difference + shown(mine.never_knew) in text


def test_suite() -> None:
    suite = run("rmu").suite
    assert suite is not None
    assert f"For `mini`: {', '.join(suite.core_unseen)}." in about("Core attacks")
    steps = [str(point.step) for point in row("rmu").attacks[0].steps]
    assert f"steps {', '.join(steps[:-1])} and {steps[-1]}." in about("Checkpoint")
    assert run("ilu").record.seen == ("gsm8k",)


def test_verdict() -> None:
    text = about("Verdict")
    for name, verdict in (("rmu", Verdict.CAME_BACK), ("npo", Verdict.STAYED)):
        found = row(name).recovery
        low, high = shown(found.low), shown(found.high)
        assert f"{shown(found)} [{low}, {high}]" in text
        assert judge_row(row(name)).verdict == verdict
    assert f"above {shown(BOUND).rstrip('0')}0." in text


def test_metrics() -> None:
    forgotten = row("rmu").forget_unlearned.value
    assert forgotten is not None
    assert f"{100 * (1 - forgotten):.1f} % of them" in about("Forget quality (FQ)")
    assert f"= {shown(forgotten)}." in about("Forget quality (FQ)")
    for metric in ("VerbMem", "KnowMem"):
        true, written = re.findall(r'"([a-z ]+)"', about(metric))
        score = RougeScorer(["rougeL"]).score(true, written)["rougeL"].fmeasure
        assert re.search(rf"= {shown(score)}\b", about(metric))
        assert f"1 - {metric}_f = {shown(1 - score)}." in about(metric)
    assert f"= {100 * (0.30 - 0.48) / 0.48:.1f}." in about("PrivLeak")
    attack, original = (row(name).attacks[0] for name in ("rmu", "none"))
    before, after = attack.steps[0].fa, attack.steps[-1].fa
    assert f"from {shown(before)} to {shown(after)}" in about("FA")
    told = f"{shown(after)} - {shown(original.steps[-1].fa)} = {shown(attack.fa_difference)}."
    assert told in about("FA")


def test_utility() -> None:
    text, utility = about("Utility kept"), row("npo").utility
    suite = run("npo").suite
    assert suite is not None
    assert [metric.label for metric in suite.utility] == ["MC_r", "VerbMem_r", "KnowMem_r"]
    one = f"({shown(utility.unlearned[0])} - .25) / ({shown(utility.original[0])} - .25)"
    assert f"{one} = {shown(utility.kept[0])}" in text
    assert (
        f"VerbMem_r keeps {shown(utility.kept[1])}, its KnowMem_r {shown(utility.kept[2])}" in text
    )
    assert utility.worst == 2
    assert f"= {shown((0.55 - 0.25) / (1 - 0.25))}" in about("Collapsed")
    assert COLLAPSED_UTILITY > 0.4


def test_robustness() -> None:
    found = row("rmu")
    gsm8k = found.attacks[0]
    values = [shown(point.forget) for point in gsm8k.steps]
    assert f"| {shown(found.forget_original)} |" in about("Robustness")
    assert f"| {shown(found.forget_unlearned)} |" in about("Robustness")
    assert f"| {', '.join(values[1:])} at 32, 64, 96, 128 |" in about("Robustness")
    quartiles = f"({values[1]} + {values[2]} + {values[4]}) / 3 = {shown(gsm8k.ra)}."
    assert quartiles in about("RA")
    by_attack = {part.attack: shown(part.ra) for part in found.attacks}
    core = " + ".join(by_attack[name] for name in found.ra_core_attacks)
    assert f"({core}) / 5 = {shown(found.ra_core)}." in about("RA_core, RA_all")
    assert found.worst_at is not None
    where = f"{shown(found.worst_case)} ({found.worst_at[0]}, step {found.worst_at[1]})"
    assert where in about("Worst case")
    told = f"({values[0]} - {values[4]}) / ({values[0]} - .000) = {shown(gsm8k.recovery)}."
    assert told in about("Recovery")
    assert gsm8k.half_life.note is not None
    assert f"`{note_text(gsm8k.half_life.note)}`" in about("Half-life")
    interval = found.forget_unlearned
    told = f"{shown(interval)} [{shown(interval.low)}, {shown(interval.high)}] from "
    assert f"{told}{interval.n_seeds} seeds and {interval.n_items} items" in about("Interval")


def test_made_up_course() -> None:
    """Half-life and area of the course that the glossary makes up, through the aggregator."""

    def table(mean: float) -> Samples:
        # one item half a step above the mean, one below: an interval needs a spread
        values: Array = np.array([[mean - 0.01, mean + 0.01]])
        return Samples(values, (0,), ("a", "b"))

    told = [float(x) for x in re.findall(r"f_t = ([.\d, ]+) at", about("Half-life"))[0].split(",")]
    steps, forget = (0, 32, 64, 96, 128), tuple(map(table, (0.8, *told)))
    keeps = (table(0.9),)
    course = Course("a", steps, forget, (keeps,) * 5, None, (32, 64, 128), 128)
    found = aggregate(
        MethodRuns(table(0.8), keeps, (course,)),
        MethodRuns(table(0.0), keeps, (course,)),
        Chances(0.75, (0.0,)),
    ).attacks[0]
    assert found.half_life.value == pytest.approx(80)
    assert "the half-life is 80." in about("Half-life")
    assert f"= {shown(found.area)}." in about("Area")


def test_rank() -> None:
    board = (LEADERBOARDS / "mini" / "README.md").read_text()
    (table,) = re.findall(r"^\*\*FQ\*\*.*?(?=^\*\*1 - )", board, re.M | re.S)
    ranks = {name: rank for rank, name in re.findall(r"^\| (\S+) \| \[([\w-]+)", table, re.M)}
    assert f"ilu has rank {ranks['ilu']} of 15" in about("Rank")
    assert ranks["npo"] == "1-8"
    assert sum(rank.startswith("1-") for rank in ranks.values()) == 8


def test_gate() -> None:
    end = row("none").attacks[0].steps[-1].fa
    assert f"gsm8k's is {shown(end)} - .000 = {shown(end)}." in about("Gate")
