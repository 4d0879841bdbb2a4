"""`ilubench report`: what its page and figures show is what the rows say, whoever named them."""

from __future__ import annotations

import html
import re
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from chromium import launched, needs_chromium
from finished_runs import Told, edit_record, write_run
from matplotlib.container import ErrorbarContainer
from places import LEADERBOARDS
from runs import command

from ilubench.errors import DataError
from ilubench.records import bounded_parquet
from ilubench.records.figure_text import figure_text
from ilubench.records.finished import read_run
from ilubench.reports.figures.courses import lines_of
from ilubench.reports.figures.overviews import (
    draw_by_attack,
    draw_costs,
    draw_heatmap,
    draw_tradeoff,
    heatmap_scale,
    least_kept,
    under,
)
from ilubench.reports.figures.style import figure_svg
from ilubench.reports.item_changes import changes_of
from ilubench.reports.page.report import read_report, render_report
from ilubench.reports.verdict_text import verdict_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WHITE = "rgb(255, 255, 255)"
HOSTILE = '<script>alert(1)</script>"&$x^2$'


@pytest.fixture(scope="module")
def npo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("npo") / "npo", Told("npo", end=0.4, noise=1))


@pytest.fixture(scope="module")
def both(npo: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    told = Told("ilu", end=0.6, noise=2, seen=("seen",))
    return [npo, write_run(tmp_path_factory.mktemp("ilu") / "ilu", told)]


def page_of(*runs: Path) -> str:
    return render_report(read_report([read_run(run) for run in runs]))


def test_the_page_says_what_happened_before_anything_else(npo: Path) -> None:
    page, run = page_of(npo), read_run(npo)
    row = run.rows["FQ"]
    text = html.unescape(re.sub(r"<[^>]+>", " ", page[page.index("<body>") :]))
    verdict = text.index(verdict_text(run.record, run.rows, run.suite))
    assert verdict < text.index("original")
    for figure in (row.forget_original, row.forget_unlearned, row.worst_case, row.recovery):
        assert figure_text(figure) in text
    for attack in row.attacks:
        assert figure_text(attack.recovery) in text


def test_the_page_loads_nothing_and_runs_nothing(npo: Path) -> None:
    page = page_of(npo)
    assert "default-src 'none'" in page
    assert "<script" not in page
    addresses = set(re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(one.startswith(("#", "data:,")) for one in addresses), addresses


def test_strangers_words_are_text(npo: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(npo, run)
    edit_record(run, notes=[HOSTILE], method={"use": HOSTILE, "settings": {}})
    page = page_of(run)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 2
    assert "$x^2$" in page  # in the figures, too: no mathematics


def test_ids_are_unique_and_every_reference_has_one(both: list[Path]) -> None:
    page = page_of(*both)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', page))
    assert used <= set(ids)
    assert used


def test_no_colour_of_the_print_is_left(both: list[Path]) -> None:
    """Words and axes are in the page's ink, lines in its colours: both have two themes."""
    page = page_of(*both)
    assert "#010203" not in page
    assert "var(--c0)" in page
    assert "var(--c1)" in page


def test_figures_for_papers(both: list[Path], tmp_path: Path) -> None:
    out = [tmp_path / name for name in ("one", "two")]
    for folder in out:
        done = command(
            "report",
            *map(str, both),
            "--out",
            str(tmp_path / "page.html"),
            "--figures",
            str(folder),
            "--form",
            "pdf",
        )
        assert done.code == 0, done.err
    one, two = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in out)
    assert one == two
    assert {f"m1-{name}.pdf" for name in ("course", "attacks", "utility")} <= one.keys()


def test_one_page_on_two_runs_needs_a_place(both: list[Path]) -> None:
    done = command("report", *map(str, both))
    assert done.code == 2
    assert "add --out FILE" in done.err
    done = command("report", str(both[0]), "--figures", str(both[0] / "f"), "--form", "jpg")
    assert done.code == 2
    assert "--form jpg: no form of a figure; choose from: svg, pdf, png" in done.err
    assert not (both[0] / "f").exists()
    done = command("report", str(both[0]), "--form", "pdf")
    assert (done.code, done.out) == (2, "")
    assert "add --figures DIR" in done.err


# --------------------------------------------------------------------------- figures


def numbers(panel: Axes) -> list[str]:
    return [text.get_text() for text in panel.texts]


def test_the_heatmap_has_the_lowest_that_keeps_the_utility(both: list[Path]) -> None:
    lines = lines_of([read_run(run) for run in both], "FQ")
    panel = draw_heatmap(lines, "FQ").axes[0]
    wanted = []
    for line in lines:
        for attack in line.row.attacks:
            value = least_kept(attack)
            mark = "*" if attack.attack in line.seen else ""
            wanted.append("-" if value is None else f"{value:.2f}{mark}")
    assert numbers(panel) == wanted
    assert any(text.endswith("*") for text in wanted)
    told = panel.get_xlabel()
    assert ("* the method trains on it" in told, "- no checkpoint" in told) == (True, "-" in wanted)


@pytest.mark.parametrize(
    ("cells", "ends"),
    [
        ([0.2, np.nan, 0.9], (0, 1)),
        ([6.3, np.nan, 5.1], (5.1, 6.3)),  # likelihoods
        ([np.nan], (0, 1)),
    ],
)
def test_the_heatmaps_colours_span_its_values(
    cells: list[float], ends: tuple[float, float]
) -> None:
    assert heatmap_scale(np.array([cells])) == ends


def test_points_stand_at_the_rows_figures(both: list[Path]) -> None:
    lines = lines_of([read_run(run) for run in both], "FQ")
    panel = draw_tradeoff(lines, "FQ").axes[0]
    found = {
        text.get_text(): tuple(text.xy)  # type: ignore[attr-defined]
        for text in panel.texts
    }
    for line in lines:
        worst = line.row.utility.worst
        assert worst is not None
        assert found[line.title] == (line.row.utility.kept[worst].value, under(line.row)[1].value)


def test_seconds_are_written_as_numbers(both: list[Path]) -> None:
    lines = lines_of([read_run(run) for run in both], "FQ")
    figure = draw_costs(lines, lambda line: 12.0 if line.title == lines[0].title else 31.0, "FQ")
    assert figure is not None
    assert "mathdefault" not in figure_svg(figure, "costs")
    texts = [tick.get_text() for tick in figure.axes[0].get_xticklabels(which="both")]
    assert {text for text in texts if text} >= {"20", "30"}


def test_bars_are_the_intervals_of_recovery(npo: Path) -> None:
    run = read_run(npo)
    panel = draw_by_attack(lines_of([run], "FQ"), "recovery").axes[0]
    bars = [one for one in panel.containers if isinstance(one, ErrorbarContainer)]
    for bar, attack in zip(bars, run.rows["FQ"].attacks, strict=True):
        (segment,) = bar[2][0].get_segments()
        figure = attack.recovery
        ends = np.array([figure.low, figure.high], float)
        np.testing.assert_allclose(np.asarray(segment)[:, 0], ends)


def test_a_cut_interval_has_an_arrow_and_an_attack_without_fa_no_row() -> None:
    run = read_run(LEADERBOARDS / "mini" / "measured" / "npo-attacks")
    (line, *_) = lines_of([run], "FQ")
    panel = draw_by_attack([line], "recovery").axes[0]
    left, right = panel.get_xlim()
    ends = [(part.recovery.low, part.recovery.high) for part in line.row.attacks]
    cut = [low < left for low, _ in ends if low is not None]
    cut += [high > right for _, high in ends if high is not None]
    arrows = [one for one in panel.lines if one.get_marker() in ("<", ">")]
    assert len(arrows) == sum(cut) > 0
    panel = draw_by_attack([line], "fa_difference").axes[0]
    known = [part.attack for part in line.row.attacks if part.fa_difference.value is not None]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == known
    assert len(known) < len(line.row.attacks)


def test_names_of_points_on_each_other_can_be_read(both: list[Path]) -> None:
    run = read_run(both[0])
    (line, *_) = lines_of([run], "FQ")
    panel = draw_tradeoff([line, line, line], "FQ").axes[0]
    heights = {text.get_position()[1] for text in panel.texts}
    assert len(heights) == 3


# --------------------------------------------------------------------------- items


def test_items_that_came_back_are_counted_from_the_samples() -> None:
    run = read_run(LEADERBOARDS / "mini" / "measured" / "npo")
    assert run.samples is not None
    asked = {"scorer": "forget_mc", "metric": "acc"}
    mine = run.samples.filter(
        pc.and_(*(pc.equal(run.samples[name], value) for name, value in asked.items()))
    ).to_pandas()

    def means(**where: Any) -> dict[str, float]:
        lines = mine
        for name, value in where.items():
            lines = lines[lines[name] == value]
        found: dict[str, float] = (1 - lines.groupby("item").value.mean()).to_dict()
        return found

    changes = {change.attack: change for change in changes_of(run, "FQ")}
    last = {a.attack: a.steps[-1].step for a in run.rows["FQ"].attacks}
    before, after = means(who="reference", attack=""), means(who="method", attack="")
    end = means(who="method", attack="sst2", step=last["sst2"])
    taken = {i for i in after if after[i] - before[i] >= 0.5}
    back = {i for i in taken if after[i] - end[i] >= 0.5 * (after[i] - before[i])}
    assert changes["sst2"].taken == len(taken) > 0
    assert {one.item for one in changes["sst2"].back} == back


def test_what_models_wrote_stands_beside_where_it_is_kept(
    npo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(npo, run)
    read = read_run(run)
    assert read.suite is not None
    (back, *_) = [c for c in changes_of(read, "FQ") if c.back]
    spec = read.suite.primary_forget[0]
    lines = [
        {"who": who, "attack": attack, "seed": 0, "step": 9, "scorer": spec.scorer}
        | {"metric": spec.metric, "item": back.back[0].item, "value": 0.0, "text": text}
        for who, attack, text in (
            ("reference", "", "known"),
            ("method", "", "gone"),
            ("method", back.attack, f"again {HOSTILE}"),
        )
    ]
    pq.write_table(pa.Table.from_pylist(lines), run / "texts.parquet")
    page = page_of(run)
    for text in ("<q>known</q>", "<q>gone</q>", "<q>again &lt;script&gt;"):
        assert text in page
    monkeypatch.setattr(bounded_parquet, "MAX_EXPANDED", 10)
    with pytest.raises(
        DataError, match=r"texts\.parquet would unpack to \d+ bytes; 10 are allowed"
    ):
        changes_of(read, "FQ")
    monkeypatch.undo()
    (run / "texts.parquet").write_bytes(b"no table")
    done = command("report", str(run))
    assert done.code == 3
    assert "texts.parquet" in done.err


# --------------------------------------------------------------------------- in a browser


def _note(into: list[str], name: str, event: object) -> None:
    into.append(getattr(event, name))


@needs_chromium
def test_a_browser_finds_nothing_wrong(both: list[Path], tmp_path: Path) -> None:
    """Neither axe nor the console, light, dark and on a telephone; nothing is wider than it."""
    from axe_playwright_python.sync_playwright import Axe

    file = tmp_path / "page.html"
    file.write_text(page_of(*both))
    with launched() as browser:
        for theme, width in (("light", 1280), ("dark", 390)):
            context = browser.new_context(
                color_scheme=theme,  # type: ignore[arg-type]
                viewport={"width": width, "height": 800},
            )
            page = context.new_page()
            said: list[str] = []
            asked: list[str] = []
            page.on("console", partial(_note, said, "text"))
            page.on("request", partial(_note, asked, "url"))
            page.goto(file.as_uri())
            found = Axe().run(page)
            assert found.violations_count == 0, found.generate_report()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert said == []
            page.emulate_media(media="print")  # black on white, whatever the screen has
            assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 30, 35)"
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == WHITE
            assert {url for url in asked if not url.startswith("data:")} == {file.as_uri()}
