"""`ilubench plot`: what is drawn is what the rows say; wrong words name those that work."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_runs import Told, write_run
from hand_rows import figure as hand_figure
from hand_rows import hand_row
from matplotlib.collections import FillBetweenPolyCollection
from runs import command

from ilubench.records.finished import read_run
from ilubench.reports.figures.courses import Line, draw_attacks, draw_courses, lines_of
from ilubench.reports.figures.style import figure_svg, new_figure
from ilubench.reports.figures.trials import draw_trials, tuned_attacks
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.row import TrialFigures


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    told = {
        "npo": Told("npo", end=0.4, noise=1),
        "ilu": Told("ilu", end=0.6, noise=2, seen=("seen",)),
        "none": Told("none", noise=3),
    }
    return {name: write_run(tmp_path / name, one) for name, one in told.items()}


def band(panel: Any) -> tuple[float, float]:
    """Return the ends of the first band of a panel, at its last step."""
    (path, *_) = (
        part.get_paths()[0]
        for part in panel.collections
        if isinstance(part, FillBetweenPolyCollection)
    )
    corners = np.asarray(path.vertices)
    ends = corners[corners[:, 0] == corners[:, 0].max(), 1]
    return ends.min(), ends.max()


def test_lines_bands_and_chance_are_the_rows(runs: dict[str, Path]) -> None:
    read = [read_run(path) for path in runs.values()]
    figure = draw_attacks(read)
    names = read[0].record.attacks
    courses = [panel for panel in figure.axes if panel.get_title()]
    assert [panel.get_title() for panel in courses] == ["seen (seen by ilu)", *names[1:]]
    for k, panel in enumerate(courses):
        lines = {str(line.get_label()): line for line in panel.lines}
        assert list(lines) == ["npo", "ilu", "none (original)", "chance"]
        for run, line in zip(read, lines.values(), strict=False):
            points = run.rows["FQ"].attacks[k].steps
            assert np.asarray(line.get_xdata()).tolist() == [point.step for point in points]
            assert np.asarray(line.get_ydata()).tolist() == [point.forget.value for point in points]
        last = read[0].rows["FQ"].attacks[k].steps[-1].forget
        assert band(panel) == (last.low, last.high)
        chance = read[0].rows["FQ"].forget_chance
        np.testing.assert_allclose(np.asarray(lines["chance"].get_ydata(), float), chance)


def test_an_attack_alone(runs: dict[str, Path]) -> None:
    figure = draw_attacks([read_run(runs["npo"])], attacks=["core"])
    assert [panel.get_title() for panel in figure.axes] == ["core", ""]
    upper, lower = figure.axes
    (mine,) = [line for line in lower.lines if line.get_label() == "npo"]
    steps = read_run(runs["npo"]).rows["FQ"].attacks[1].steps
    assert np.asarray(mine.get_ydata()).tolist() == [step.fa.value for step in steps if step.fa]
    assert {line.get_label() for line in upper.lines} >= {"npo", "none (original)", "chance"}


def hand_line(**attack: Any) -> Line:
    row = hand_row({"a": (0.1, 0.0, 0.2)}, (0.1, 0.0, 0.2), levels=True)
    return Line("npo", replace(row, attacks=(replace(row.attacks[0], **attack),)), "#000000", "-")


def test_an_attack_without_a_course_has_no_panel() -> None:
    row = hand_line().row
    figure = draw_courses([hand_line()], "FQ", [row.attacks[0].attack, "best_of_n"], "mini")
    assert [panel.get_title() for panel in figure.axes] == ["a"]


def test_fa_has_a_row_only_below_attacks_that_have_one(runs: dict[str, Path]) -> None:
    (line,) = (one for one in lines_of([read_run(runs["npo"])], "FQ") if not one.reference)
    first, *_ = line.row.attacks
    parts = [replace(first, attack=f"a{k}", steps=first.steps) for k in range(3)]
    bare = tuple(replace(step, fa=None) for step in first.steps)
    parts += [replace(first, attack="b", steps=bare)]
    line = replace(line, row=replace(line.row, attacks=tuple(parts)))
    figure = draw_courses([line], "FQ", [part.attack for part in parts], "mini")
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["a0", "a1", "a2", "", "", "", "b"]


def test_levels_have_their_names_and_no_panel_that_is_empty() -> None:
    figure = draw_courses([hand_line()], "FQ", ["a"], "mini")
    (panel,) = figure.axes
    assert [tick.get_text() for tick in panel.get_xticklabels()] == ["none", "level-1", "level-2"]
    assert panel.get_xlabel() == "level"
    assert figure.get_supxlabel().startswith("levels on mini")
    assert panel.get_ylim() == (-0.03, 1.05)


def test_a_likelihood_is_not_cut_off() -> None:
    steps = tuple(
        replace(one, forget=hand_figure((6.2, 5.0, 7.0)))
        for one in hand_line().row.attacks[0].steps
    )
    (panel,) = draw_courses([hand_line(steps=steps)], "NLL", ["a"], "mini").axes
    low, high = panel.get_ylim()
    assert low < 1
    assert high > 7


def test_the_best_so_far_after_each_trial() -> None:
    best = tuple(hand_figure((value, value - 0.1, value + 0.1)) for value in (0.6, 0.6, 0.4))
    none = hand_figure(NoteKind.NO_UTILITY_KEPT)
    trials = TrialFigures(4, 1, best[2], best[2], best[2], (none, *best), (0,), (4,))
    lines = [hand_line(trials=trials)]
    assert tuned_attacks(lines) == ("a",)
    (panel,) = draw_trials(lines, "FQ").axes
    (line,) = panel.lines
    assert np.asarray(line.get_xdata()).tolist() == [2, 3, 4]  # the first kept no utility
    assert np.asarray(line.get_ydata()).tolist() == [0.6, 0.6, 0.4]
    assert band(panel) == pytest.approx((0.3, 0.7))  # in steps, down from .5 to .7


def test_what_is_left_out_of_an_svg_is_no_word() -> None:
    figure = new_figure(3, 2)
    figure.text(0.1, 0.5, "npo: steps=15; a > b -- c")
    shown = figure_svg(figure, "one")
    assert ">npo: steps=15; a &gt; b -- c<" in shown
    assert "font-family" not in shown
    assert "<!--" not in shown


@pytest.mark.parametrize("ending", ["svg", "pdf", "png"])
def test_the_same_runs_give_the_same_file(
    runs: dict[str, Path], tmp_path: Path, ending: str
) -> None:
    files = [tmp_path / f"{name}.{ending}" for name in ("one", "two")]
    for file in files:
        done = command("plot", *map(str, runs.values()), "--out", str(file))
        assert done.code == 0, done.err
    one, two = (file.read_bytes() for file in files)
    assert one == two
    assert len(one) > 1000


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--metric", "FK"], "--metric FK: choose from: FQ"),
        (["--attack", "cor"], "--attack cor: did you mean 'core'?"),
        (["--out", "figure.jpg"], "must end in .svg, .pdf, .png"),
    ],
)
def test_wrong_words_are_named(runs: dict[str, Path], words: list[str], named: str) -> None:
    done = command("plot", str(runs["npo"]), "--out", "figure.svg", *words)
    assert done.code == 2
    assert named in done.err
    assert not Path("figure.svg").exists()


def test_a_place_that_is_not_there_is_named(runs: dict[str, Path]) -> None:
    done = command("plot", str(runs["npo"]), "--out", "no/such/folder/figure.svg")
    assert done.code == 3
    assert "no/such/folder/figure.svg: there is no such" in done.err
