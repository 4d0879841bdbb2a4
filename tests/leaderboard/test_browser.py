"""The leaderboards' page in a real browser: what a reader does, and what a stranger tries."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from axe_playwright_python.sync_playwright import Axe
from chromium import WAIT, launched, needs_chromium
from page_boards import ADDRESS, CITATION, FORMULA, MARKUP, hostile_board, rich_board
from playwright.sync_api import Browser, Page, expect

from ilubench.leaderboard.site.build import build_site

WIDE, NARROW = (1280, 900), (390, 844)

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=WAIT)
    with launched() as found:
        yield found


def _site(folder: Path, board: Any) -> Path:
    board(folder / "leaderboards")
    return build_site(folder / "leaderboards", folder / "site").page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _site(tmp_path_factory.mktemp("rich"), rich_board)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _site(tmp_path_factory.mktemp("hostile"), hostile_board)


class Visit:
    """A page, and what went on beside it."""

    def __init__(self, browser: Browser, site: Path, **settings: Any) -> None:
        self.site = site
        width, height = settings.pop("size", WIDE)
        self.context = browser.new_context(viewport={"width": width, "height": height}, **settings)
        self.context.set_default_timeout(WAIT)
        self.page: Page = self.context.new_page()
        self.troubles: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", lambda dialog: self.troubles.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, state: str = "#metric=FQ") -> Page:
        self.page.goto(self.site.as_uri() + state)
        return self.page

    def close(self) -> None:
        """Nothing was loaded but the file, and nothing went wrong."""
        self.context.close()
        main = self.site.as_uri()
        others = [url for url in self.requests if url.split("#")[0] != main and not _own(url)]
        assert others == []
        assert self.troubles == []


def _own(url: str) -> bool:
    """A file that the page makes itself, or its empty icon."""
    return url.startswith(("blob:", "data:image/"))


@pytest.fixture
def visit(browser: Browser, site: Path) -> Iterator[Visit]:
    found = Visit(browser, site)
    yield found
    found.close()


def _expect_methods(page: Page, methods: list[str]) -> None:
    """The page is drawn anew after the address has changed, which is later than the click."""
    expect(page.locator("#table tbody th.of-method a")).to_have_text(methods)


def _state(page: Page) -> dict[str, str]:
    """The address's own words."""
    words = page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))")
    assert isinstance(words, dict)
    return words


def _saved(page: Page, name: str) -> str:
    with page.expect_download() as waiting:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(waiting.value.path()).read_bytes().decode()


ALL_METRICS = ["sam", "NPO & friends", "rmu", "wild", "retrain", "none"]
RANKED = ["NPO & friends", "sam", "rmu", "wild", "retrain", "none"]


def test_rows_stand_as_ranked_with_the_fallen_and_the_references_apart(visit: Visit) -> None:
    page = visit.open()
    _expect_methods(page, RANKED)
    assert page.locator("tbody.ranked tr").count() == 3
    assert "collapsed" in page.locator("tbody.last").inner_text()
    assert "References: not ranked" in page.locator("tbody.reference").inner_text()
    assert page.locator("tr[data-row=rmu-1] .disputed").count() == 1
    assert page.locator("tr[data-row=npo-1] .disputed").count() == 0
    assert "Relearning, by B. Attacker" in page.locator("tr[data-row=npo-1]").inner_text()
    assert page.locator("#reported tr[data-row=paper-npo]").count() == 1
    assert "unverified, from others' notes" in page.locator("#reported").inner_text()
    assert "NPO, as printed" not in page.locator("#table").inner_text()


def test_sorting_is_told_and_keeps_the_groups(visit: Visit) -> None:
    page = visit.open("#metric=FQ&cols=core,fu")
    heads = page.locator("#table thead th[aria-sort]")
    assert heads.all_inner_texts()[0].startswith("Rank")
    button = page.get_by_role("button", name="f_u")
    button.click()
    head = page.locator("th.of-fu[aria-sort]")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert heads.count() == 1
    _expect_methods(page, [*RANKED[:1], "rmu", "sam", *RANKED[3:]])
    assert page.evaluate("document.activeElement.dataset.key") == "sort-fu"
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    _expect_methods(page, ["sam", "rmu", *RANKED[:1], "wild", "none", "retrain"])
    assert _state(page)["sort"] == "fu"


def test_filters_by_tier_training_and_words(visit: Visit) -> None:
    page = visit.open()
    page.get_by_text("Filter", exact=True).click()
    page.get_by_role("checkbox", name="verified weights").check()
    expect(page.locator("#count")).to_have_text("2 of 6 rows")
    _expect_methods(page, ["NPO & friends", "rmu"])
    page.get_by_role("checkbox", name="verified method").check()
    _expect_methods(page, ["NPO & friends", "sam", "rmu"])
    page.get_by_label("Attacks in its training").select_option("some")
    expect(page.locator("#count")).to_have_text("1 of 6 rows")
    _expect_methods(page, ["sam"])
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#count")).to_have_text("6 of 6 rows")
    page.get_by_label("Search").press_sequentially("FRIENDS")
    expect(page.locator("#count")).to_have_text("1 of 6 rows")
    assert page.evaluate("document.activeElement.id") == "search"
    assert page.locator("#scatter .point").count() == 1
    page.get_by_label("Search").fill("nothing like it")
    expect(page.locator("#table")).to_have_text("No row passes the filters.")


def test_the_metric_switch_shows_the_other_metric(visit: Visit) -> None:
    page = visit.open()
    before = page.locator("tr[data-row=rmu-1] td.of-core").inner_text()
    page.get_by_role("link", name="1 - VerbMem_f").click()
    cell = page.locator("tr[data-row=rmu-1] td.of-core")
    expect(cell).not_to_have_text(before)
    assert cell.inner_text().startswith("0.650")
    assert "undefined" in page.locator("tr[data-row=rmu-1] td.of-recovery").inner_text()
    current = page.locator("#metrics a[aria-current]")
    assert current.all_inner_texts() == ["1 - VerbMem_f"]


def test_a_link_shows_the_same_and_the_back_button_goes_back(visit: Visit) -> None:
    state = "#suite=known&metric=1+-+VerbMem_f&sort=method&dir=desc&tier=verified-weights"
    page = visit.open(f"{state}&q=r&row=npo-1&heat=ra&show=rmu-1")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_role("heading", level=2)).to_have_text("NPO & friends")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    _expect_methods(page, ["rmu", "NPO & friends"])
    assert page.get_by_label("Search").input_value() == "r"
    assert page.get_by_role("checkbox", name="verified weights").is_checked()
    assert page.locator("#curve-legend li").all_inner_texts() == ["rmu (undefined)"]
    assert page.locator("#heat-kind a[aria-current]").inner_text() == "RA"
    assert page.locator("#metrics a[aria-current]").inner_text() == "1 - VerbMem_f"
    page.go_back()
    expect(dialog).to_be_visible()
    page.go_forward()
    expect(dialog).to_be_hidden()
    page.get_by_role("link", name="FQ", exact=True).click()
    expect(page.locator("#metrics a[aria-current]")).to_have_text("FQ")
    page.go_back()
    expect(page.locator("#metrics a[aria-current]")).to_have_text("1 - VerbMem_f")


def test_nonsense_in_the_address_is_the_default(visit: Visit) -> None:
    page = visit.open("#suite=x&metric=y&sort=z&dir=up&row=<b>&tier=a,b&show=c&heat=d&seen=e")
    _expect_methods(page, ALL_METRICS)
    assert page.get_by_role("dialog").is_hidden()


def test_all_of_a_row_is_reached_by_keyboard_alone(visit: Visit) -> None:
    page = visit.open()
    page.get_by_label("Search").focus()
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.dataset.key") == "row-npo-1":
            break
    assert page.evaluate("document.activeElement.dataset.key") == "row-npo-1"
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    assert page.evaluate("document.activeElement.id") == "detail-title"
    text = dialog.inner_text()
    assert "Rank 1 in FQ: told apart from every other ranked row." in text
    assert "Best known attack: Relearning, submitted by B. Attacker: worst case 0.111" in text
    assert "3 / 12" in text
    assert "ab" * 32 in text
    assert "A. Maintainer" in text
    assert CITATION.splitlines()[1].strip() in text
    assert "lr" not in text.split("Settings")[0].split("Submission")[1]
    links = dialog.locator("a")
    assert {a.get_attribute("href") for a in links.all()} == {
        "https://code.test/npo",
        "https://w.test/0",
    }
    assert all("noopener" in (a.get_attribute("rel") or "") for a in links.all())
    for _ in range(30):  # the focus stays inside
        page.keyboard.press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || "
            "document.getElementById('detail').contains(document.activeElement)"
        )
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    assert page.evaluate("document.activeElement.dataset.key") == "row-npo-1"


def test_points_are_links_with_words(visit: Visit) -> None:
    page = visit.open()
    point = page.locator("[data-key=point-rmu-1]")
    name = point.get_attribute("aria-label") or ""
    assert name.startswith("rmu, verified weights, disputed, rank 3, RA_core 0.350 [")
    point.focus()
    tip = page.locator("#tip")
    expect(tip).to_be_visible()
    assert "disputed" in tip.inner_text()
    shapes = {
        tier: page.locator(f"#scatter .mark.{tier}").first.evaluate("e => e.tagName")
        for tier in ("verified-weights", "verified-method", "reference", "submitted")
    }
    assert shapes == {
        "verified-weights": "rect",
        "verified-method": "path",
        "reference": "path",
        "submitted": "circle",
    }
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()


def test_curves_are_of_the_chosen_rows(visit: Visit) -> None:
    page = visit.open("#metric=FQ&show=rmu-1")
    assert page.locator("#curves figure").count() == 2
    assert page.locator("#curves .line").count() == 2
    assert page.locator("#curves .band").count() == 2
    page.get_by_label("show the curves of sam").check()
    expect(page.locator("#curves .line")).to_have_count(4)
    assert page.locator("#curve-legend li").all_inner_texts() == ["rmu", "sam"]
    page.get_by_text("The curves as a table").click()
    table = page.locator("#curve-table table")
    assert table.locator("thead th").all_inner_texts() == ["attack, checkpoint", "rmu", "sam"]
    first = table.locator("tbody tr").nth(1)
    assert first.locator("th").inner_text() == "core, step 25"
    # (0.75 - 0.35) / (0.75 - 0.1)
    assert first.locator("td").first.inner_text().startswith("0.615 [")
    page.locator("#curve-kind").get_by_role("link", name="FQ").click()
    expect(first.locator("td").first).to_have_text(re.compile(r"^0\.350 \["))


def test_the_heatmap_has_numbers_and_readable_ink(visit: Visit) -> None:
    page = visit.open()
    cells = page.locator("#heat tbody tr", has_text="rmu").locator("td")
    assert cells.all_inner_texts() == ["0.615", "0.769"]
    page.locator("#heat-kind").get_by_role("link", name="RA").click()
    expect(cells.first).to_have_text("0.350")
    assert page.locator("#heat td.none").count() == 0
    low = page.evaluate(
        """[...document.querySelectorAll("#heat td, .steps span")].filter((cell) => {
          const parts = (text) => text.match(/[\\d.]+/g).slice(0, 3).map((part) => {
            const c = part / 255;
            return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
          });
          const light = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
          const style = getComputedStyle(cell);
          const pair = [light(parts(style.color)), light(parts(style.backgroundColor))].sort();
          return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05) < 4.5;
        }).length"""
    )
    assert low == 0


# --------------------------------------------------------------------------- the first screen


def test_all_metrics_come_first_with_the_verdict_and_the_weakest_rank(visit: Visit) -> None:
    page = visit.open("")
    assert page.locator("#metrics a[aria-current]").inner_text() == "All metrics"
    assert (
        page.locator("#verdict .said").inner_text().startswith("No method is among the best in all")
    )
    heads = [text.split("\n")[0] for text in page.locator("#table thead th").all_inner_texts()]
    assert heads == [
        *("Rank▲", "Method", "FQ", "1 - VerbMem_f", "Recovery", "Utility kept"),
        *("FA difference", "Curves"),
    ]
    assert page.locator("tr[data-row=npo-1] td.of-rank").inner_text().split("\n") == [
        *("3", "1 - VerbMem_f")
    ]
    assert page.locator("#scatter > svg").count() == 2
    sheet = list(csv.DictReader(io.StringIO(_saved(page, "CSV"))))
    assert [line["metric"] for line in sheet] == ["FQ"] * 6 + ["1 - VerbMem_f"] * 6
    page.locator("#metrics").get_by_role("link", name="FQ").click()
    expect(page.locator("#verdict .said")).to_have_text(
        "NPO & friends is better than each of the other 2 ranked methods."
    )


def test_columns_are_chosen_and_kept_in_the_link(visit: Visit) -> None:
    page = visit.open()
    assert page.locator("#table thead th").count() == 8
    page.locator("summary", has_text="Columns").click()
    page.get_by_role("checkbox", name="Half-life").check()
    expect(page.locator("#table thead th.of-half")).to_have_count(1)
    assert _state(page)["cols"] == "core,recovery,worst,kept,fa,half"
    assert (
        page.get_by_role("checkbox", name="Recovery beyond control").count() == 0
    )  # no row has it
    page.get_by_role("checkbox", name="Half-life").uncheck()
    expect(page.locator("#table thead th.of-half")).to_have_count(0)
    assert "cols" not in _state(page)


def test_each_picture_is_saved_as_an_svg(visit: Visit) -> None:
    page = visit.open("")
    for name in ("robustness", "along", "heat"):
        with page.expect_download() as waiting:
            page.locator(f"[data-picture={name}]").click()
        root = ElementTree.fromstring(Path(waiting.value.path()).read_text())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        words = " ".join(one.text or "" for one in root.iter("{http://www.w3.org/2000/svg}text"))
        assert "rmu" in words
        assert "script" not in {one.tag.split("}")[-1] for one in root.iter()}


def test_every_point_has_its_name(visit: Visit, browser: Browser, site: Path) -> None:
    small = Visit(browser, site, size=NARROW)
    for page in (visit.open(), small.open()):
        assert (
            page.locator("#scatter .name").count() == page.locator("#scatter .point").count() == 6
        )
    small.close()


def test_without_a_script_the_rows_are_there(browser: Browser, site: Path) -> None:
    visit = Visit(browser, site, java_script_enabled=False)
    page = visit.open()
    assert "NPO & friends" in page.locator("table").first.inner_text()
    assert "There are no rows" not in page.locator("body").inner_text()
    visit.close()


def test_a_phone_shows_a_score_without_scrolling(browser: Browser, site: Path) -> None:
    visit = Visit(browser, site, size=NARROW)
    page = visit.open("")
    page.locator("#table").scroll_into_view_if_needed()
    score = page.locator("tr[data-row=npo-1] td.of-core .value").first
    box = score.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= NARROW[0]
    assert (
        page.locator("#table").evaluate("e => { e.scrollLeft = 150; return e.scrollLeft }") == 150
    )
    left = "e => e.getBoundingClientRect().left"
    table, head, body = (
        page.locator(f"#table{part}").first.evaluate(left)
        for part in ("", " thead .of-method", " tbody .of-method")
    )
    assert head == body
    assert 0 <= head - table <= 1
    visit.close()


# --------------------------------------------------------------------------- exports


def test_csv_has_what_is_shown(visit: Visit) -> None:
    page = visit.open("#metric=FQ&sort=fu&tier=verified-weights,submitted")
    lines = list(csv.DictReader(io.StringIO(_saved(page, "CSV"))))
    assert [line["entry"] for line in lines] == ["npo-1", "rmu-1", "wild-1"]
    npo = lines[0]
    assert npo["method"] == "NPO & friends"
    assert (npo["suite"], npo["metric"], npo["tier"]) == ("known 1", "FQ", "verified-weights")
    assert (npo["rank"], npo["seeds"], npo["disputed"]) == ("1", "3", "false")
    assert float(npo["RA_core"]) == 0.6
    assert float(npo["RA_core_low"]) < 0.6 < float(npo["RA_core_high"])
    assert (npo["worst_case"], npo["worst_case_low"]) == ("0.111", "0.1")
    assert (lines[2]["rank"], lines[2]["status"]) == ("", "collapsed")


def test_json_has_what_is_shown(visit: Visit) -> None:
    page = visit.open("#metric=FQ&q=friends")
    found = json.loads(_saved(page, "JSON"))
    assert (found["suite"], found["version"], found["metric"]) == ("known", 1, "FQ")
    (row,) = found["rows"]
    assert row["RA_core"]["value"] == 0.6
    assert row["worst_case"]["of"] == "Relearning, by B. Attacker"
    assert (row["rank"], row["entry"], row["ties"]) == (1, "npo-1", [])


def test_latex_and_bibtex_have_what_is_shown(visit: Visit) -> None:
    page = visit.open("#metric=FQ&tier=verified-weights")
    tex = _saved(page, "LaTeX")
    lines = [line for line in tex.splitlines() if line.startswith(("1 &", "3 &"))]
    assert [line.split(" & ")[1] for line in lines] == ["NPO \\& friends", "rmu (disputed)"]
    assert "$0.600$ {\\footnotesize $[0.5" in lines[0]
    assert tex.count("\\begin{tabular}") == tex.count("\\end{tabular}") == 1
    bib = _saved(page, "BibTeX")
    assert "@article{npo24," in bib
    assert "\\textit{Optimization}" in bib


# --------------------------------------------------------------------------- light, dark, small


def test_the_theme_follows_the_system_until_it_is_chosen(browser: Browser, site: Path) -> None:
    visit = Visit(browser, site, color_scheme="dark")
    page = visit.open()

    def paper() -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    button = page.get_by_role("button", name="Dark")
    expect(button).to_have_attribute("aria-pressed", "true")
    assert paper() == "rgb(20, 23, 27)"
    button.click()
    expect(button).to_have_attribute("aria-pressed", "false")
    assert paper() == "rgb(255, 255, 255)"
    page.reload()
    assert paper() == "rgb(255, 255, 255)"
    visit.close()


@pytest.mark.parametrize("state", ["", "#metric=FQ&row=rmu-1"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_no_accessibility_rule_is_broken(
    browser: Browser, site: Path, size: tuple[int, int], scheme: str, state: str
) -> None:
    visit = Visit(browser, site, size=size, color_scheme=scheme, reduced_motion="reduce")
    page = visit.open(state)
    for summary in page.locator("main summary").all() if not state else []:
        summary.click()
    found = Axe().run(page).response["violations"]
    told = [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found
        for node in one["nodes"]
    ]
    assert told == []
    visit.close()


@pytest.mark.parametrize("state", ["", "#suite=known&row=npo-1"])
def test_a_phone_scrolls_the_tables_and_not_the_page(
    browser: Browser, hostile: Path, site: Path, state: str
) -> None:
    for file in (site, hostile):
        visit = Visit(browser, file, size=NARROW)
        page = visit.open(state)
        page.locator("#detail" if state else "#table").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]
        assert page.evaluate("document.getElementById('detail').scrollWidth") <= NARROW[0]
        table = page.locator("#table")
        assert table.evaluate("e => e.scrollWidth > e.clientWidth")
        if not state:
            table.focus()
            page.keyboard.press("ArrowRight")
            expect(page.locator("#table thead th.of-rank")).not_to_be_in_viewport(ratio=1)
        visit.close()


# --------------------------------------------------------------------------- strangers


def test_hostile_texts_are_shown_and_do_nothing(browser: Browser, hostile: Path) -> None:
    visit = Visit(browser, hostile)
    page = visit.open("#row=npo-1")
    expect(page.get_by_role("dialog")).to_be_visible()
    dialog = page.get_by_role("dialog").inner_text()
    assert MARKUP in dialog
    assert "{{ 7*7 }}" in dialog
    page.get_by_role("button", name="Close").click()
    assert MARKUP in page.locator("#table").inner_text()
    assert MARKUP in page.locator("#reported").inner_text()
    for link in page.locator("#metrics a, #curve-kind a, #heat-kind a").all():
        link.click()
    page.locator("[data-key=row-rmu-1]").click()
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("document.scripts.length") == 2
    assert page.locator("img, iframe, object, embed").count() == 0
    listening = page.evaluate(
        "[...document.querySelectorAll('*')].flatMap((e) => [...e.attributes])"
        ".filter((a) => a.name.startsWith('on') || a.name === 'style').map((a) => a.name)"
    )
    assert set(listening) <= {"style"}  # set by the page's own script, never from a text
    links = {a.get_attribute("href") or "" for a in page.locator("a").all()}
    own = {"docs/index.html", "docs/governance.html", "https://arxiv.org/abs/2506.01339"}
    strangers = {link for link in links if not link.startswith("#")} - own
    assert strangers == {ADDRESS, "https://p.test/1"}
    visit.close()


def test_hostile_texts_do_nothing_in_exported_files(browser: Browser, hostile: Path) -> None:
    visit = Visit(browser, hostile)
    page = visit.open()
    sheet = _saved(page, "CSV")
    cells = [cell for line in csv.reader(io.StringIO(sheet)) for cell in line]
    assert f"'{FORMULA}" in cells
    assert MARKUP in cells
    numbers = re.compile(r"^-?[\d.]+(e[+-]?\d+)?$")
    assert not [c for c in cells if c[:1] in "=+-@" and c and not numbers.match(c)]
    names = {row["method"] for row in json.loads(_saved(page, "JSON"))["rows"]}
    assert names == {MARKUP, FORMULA}
    tex = _saved(page, "LaTeX")
    assert set(re.findall(r"\\[a-zA-Z]+", tex)) <= {
        *("\\begin", "\\end", "\\toprule", "\\midrule", "\\bottomrule", "\\footnotesize"),
        *("\\textless", "\\textgreater", "\\textbackslash", "\\textbar", "\\textquotedbl"),
    }
    bib = _saved(page, "BibTeX")
    assert "@misc{a," in bib
    assert "\\input" not in bib
    visit.close()
