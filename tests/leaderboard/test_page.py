"""The leaderboards' page and README tables: what they say follows from the records."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from finished_runs import ITEMS
from page_boards import FORMULA, MARKUP, WORDS, copied, hostile_board, published_row, rich_board
from runs import command

from ilubench.errors import DataError, UsageError
from ilubench.leaderboard.records.files import read_board, read_entry_run
from ilubench.leaderboard.site.build import PAGE, README, build_site, find_stale
from ilubench.leaderboard.site.html import embedded_json, render_page
from ilubench.leaderboard.site.packing import Texts, pack_course, pack_figures, thousandths
from ilubench.leaderboard.site.plain import plain_tables
from ilubench.leaderboard.site.ranked import ranked_groups
from ilubench.leaderboard.site.readme import BEGIN, END, readme_text
from ilubench.leaderboard.site.reported import reported_tables
from ilubench.leaderboard.site.view import page_data
from ilubench.records.wording import note_text, table_note_texts
from ilubench.reports.ranking import rank_runs
from ilubench.statistics.intervals import Figure, no_figure
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.recovery_curve import recovery_curve
from leaderboards import TINY, edit_json, tiny_entry


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rich") / "leaderboards"
    rich_board(folder)
    return folder


@pytest.fixture(scope="module")
def data(root: Path) -> dict[str, Any]:
    board = read_board(root / "known")
    return page_data([(board, ranked_groups(board))])


@pytest.fixture(scope="module")
def rows(data: dict[str, Any]) -> dict[str, Any]:
    return {row["id"]: row for row in data["boards"][0]["rows"]}


def test_figures_are_whole_thousandths_as_tables_print_them() -> None:
    texts = Texts()
    beyond, undefined = Note(NoteKind.BEYOND, numbers=(64,)), Note(NoteKind.UNDEFINED)
    figure = Figure(0.66875, 0.59729, 0.74020, 5, 12, "seeds-and-items")
    assert pack_figures(figure, texts, (5, 12)) == [669, 597, 740]
    assert pack_figures(figure, texts, (5, 13)) == [669, 597, 740, 5, 12]
    assert pack_figures(Figure(0.5, None, None, 5, 12, "none"), texts, (5, 12)) == [500]
    assert pack_figures(Figure(0.5, 0.25, None, 5, 12, "seeds-and-items"), texts, (5, 12)) == [
        *(500, 250),
        None,
    ]
    assert pack_figures(None, texts) is None
    assert [pack_figures(no_figure(note), texts) for note in (beyond, undefined, beyond)] == [
        0,
        1,
        0,
    ]
    assert pack_course([figure, no_figure(undefined)], texts) == 1
    assert (texts.all(), texts.of(NoteKind.BEYOND)) == ([">64", "undefined"], [0])
    assert thousandths(0.0625) == int(f"{0.0625:.3f}".replace("0.", ""))


def test_ranks_are_those_of_the_runs(root: Path, rows: dict[str, Any]) -> None:
    board = read_board(root / "known")
    runs = [read_entry_run(entry, board.folder) for entry in board.entries]
    ids = {entry.run.run: entry.entry for entry in board.entries}
    for k, table in enumerate(rank_runs(runs).tables):
        names = {row.name: ids[row.run.record.run] for row in table.rows}
        for row in table.rows:
            found = rows[names[row.name]]["m"][k]
            assert (found["rank"], found["note"]) == (row.rank, note_text(row.note))
            assert found["ties"] == [names[name] for name in row.ties]
            core = row.figures.ra_core
            assert core is not None
            assert core.value is not None
            assert found["core"][0] == thousandths(core.value)
    assert [rows[name]["m"][0]["rank"] for name in ("npo-1", "rmu-1", "none-1")] == [1, 3, None]


def test_notes_call_entries_as_the_table_does(tmp_path: Path) -> None:
    """By their titles; a title that two entries have says whose it is."""
    told = {
        "mine": replace(TINY["npo"], settings={"beta": 0.1}),
        "again": replace(TINY["npo"], settings={"beta": 0.2}, noise=5),
        "none": TINY["none"],
    }
    root = tmp_path / "leaderboards"
    for label, one in told.items():
        tiny_entry(root, label, one)
    edit_json(root / "known" / "mine-1.json", lambda entry: entry.update(title="My NPO"))
    edit_json(root / "known" / "none-1.json", lambda entry: entry.update(title="Untouched"))

    def notes() -> tuple[str, ...]:
        (group,) = ranked_groups(read_board(root / "known"))
        return tuple(table_note_texts(group.ranks[0].notes))

    assert {"not told apart: My NPO from again", "not told apart: again from My NPO"} & set(notes())
    assert "Untouched is a reference: listed, never ranked" in notes()
    edit_json(root / "known" / "again-1.json", lambda entry: entry.update(title="My NPO"))
    assert any("My NPO (mine-1)" in note and "My NPO (again-1)" in note for note in notes())
    edit_json(root / "known" / "none-1.json", lambda entry: entry.update(title="My NPO (mine-1)"))
    assert "none-1 is a reference: listed, never ranked" in notes()


def test_recovery_ends_at_the_attacks_own_figure(
    root: Path, data: dict[str, Any], rows: dict[str, Any]
) -> None:
    names = [attack["name"] for attack in data["boards"][0]["attacks"]]
    board = read_board(root / "known")
    run = read_entry_run(board.entry("rmu-1"), board.folder)
    mine, original = run.scores("FQ"), run.original("FQ")
    for course, part in zip(mine.courses, run.rows["FQ"].attacks, strict=True):
        curve = recovery_curve(mine, original, course)
        assert len(curve) == len(course.steps) - 1
        assert curve[-1] == part.recovery
        shown = rows["rmu-1"]["m"][0]["attacks"][names.index(course.attack)]
        assert shown[5][-3:] == pack_figures(part.recovery, Texts(), (3, 12))
        assert len(shown[4]) == 3 * len(curve)  # the first is f_u


def test_where_nothing_was_forgotten_the_curve_says_why(
    data: dict[str, Any], rows: dict[str, Any]
) -> None:
    # the second metric counts the other way: there every method knows more than before
    course = rows["npo-1"]["m"][1]["attacks"][0][5]
    assert data["texts"][course] == "undefined: f_u is below f_0, nothing was forgotten"


def test_rows_say_tier_dispute_and_reference(rows: dict[str, Any]) -> None:
    found = {name: (r["tier"], r["disputed"], r["reference"]) for name, r in rows.items()}
    assert found == {
        "none-1": ("submitted", False, True),
        "retrain-1": ("submitted", False, True),
        "npo-1": ("verified-weights", False, False),
        "rmu-1": ("verified-weights", True, False),
        "sam-1": ("verified-method", False, False),
        "wild-1": ("submitted", False, False),
    }
    assert rows["wild-1"]["m"][0]["status"] == "collapsed"
    assert rows["wild-1"]["m"][0]["rank"] is None


def test_a_stronger_verified_attack_is_credited(
    root: Path, rows: dict[str, Any], tmp_path: Path
) -> None:
    best = rows["npo-1"]["m"][0]["best"]
    assert (best["title"], best["by"], best["figure"]) == (
        "Relearning",
        "B. Attacker",
        [111, 100, 122],
    )
    assert rows["rmu-1"]["m"][0]["best"] is None
    mine = copied(root, tmp_path / "leaderboards")
    attack = mine / "known" / "attacks" / "relearn-1.json"
    edit_json(attack, lambda record: record["results"][0].update(verified=False))
    board = read_board(mine / "known")
    found = page_data([(board, ranked_groups(board))])
    assert all(row["m"][0]["best"] is None for row in found["boards"][0]["rows"])  # type: ignore


def test_reported_rows_are_no_rows(data: dict[str, Any]) -> None:
    board = data["boards"][0]
    assert [one["entry"] for one in board["reported"]] == ["paper-npo"]
    assert "paper-npo" not in {row["id"] for row in board["rows"]}


def test_an_entry_whose_figures_do_not_follow_is_refused(root: Path, tmp_path: Path) -> None:
    mine = copied(root, tmp_path / "leaderboards")

    def better(entry: Any) -> None:
        entry["run"]["rows"]["FQ"]["ra_core"]["value"] = 0.99

    edit_json(mine / "known" / "npo-1.json", better)
    with pytest.raises(DataError, match="ra_core"):
        build_site(mine, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def test_other_engines_have_their_own_table(root: Path, tmp_path: Path) -> None:
    mine = copied(root, tmp_path / "leaderboards")
    edit_json(mine / "known" / "rmu-1.json", lambda entry: entry["run"].update(engine="vllm"))
    board = read_board(mine / "known")
    groups = ranked_groups(board)
    assert [[entry.entry for entry in group.entries] for group in groups] == [
        ["none-1", "npo-1", "retrain-1", "sam-1", "wild-1"],
        ["rmu-1"],
    ]
    boards: Any = page_data([(board, groups)])["boards"]
    assert [one["id"] for one in boards] == ["known", "known-2"]
    assert [len(one["reported"]) for one in boards] == [1, 0]
    text = readme_text(None, board, groups)
    assert text.index("engine hf") < text.index("engine vllm")


def test_unlike_entries_are_refused_by_name(root: Path, tmp_path: Path) -> None:
    mine = copied(root, tmp_path / "leaderboards")

    def other(entry: Any) -> None:
        entry["config"]["attacks"]["core"]["train"]["lr"] = 0.2

    edit_json(mine / "known" / "rmu-1.json", other)
    with pytest.raises(UsageError, match=r"rmu-1\.json differ in train\.lr of core"):
        build_site(mine, tmp_path / "site")


def test_published_figures_stand_before_and_after_each_attack(tmp_path: Path) -> None:
    values = {("FQ (0-1)", "unlearned"): 0.68, ("FQ (0-1)", "core"): 0.36, ("FA (%)", "core"): 82.0}
    published_row(tmp_path / "known", "whole", values)
    published_row(tmp_path / "known", "part", {("FQ (0-1)", "seen"): 0.5})
    fq, fa = reported_tables(read_board(tmp_path / "known").reported)
    assert (fq.metric, fq.states) == ("FQ (0-1)", ("before attacks", "seen", "core"))
    assert [cells for _, cells in fq.rows] == [("-", "0.5", "-"), ("0.68", "-", "0.68 → 0.36")]
    assert (fa.states, [cells for _, cells in fa.rows]) == (("core",), [("82",)])


def test_columns_stand_once(data: dict[str, Any], rows: dict[str, Any]) -> None:
    keys = [column["key"] for column in data["columns"]]
    assert len(keys) == len(set(keys))
    figures = {column["key"] for column in data["columns"] if column["kind"] != "own"}
    assert figures <= set(rows["npo-1"]["m"][0])
    assert sum(column["page"] for column in data["columns"]) == 7
    assert rows["npo-1"]["m"][0]["worst"] == [111, 100, 122]
    assert rows["npo-1"]["m"][0]["of"]["worst"] == "Relearning, by B. Attacker"
    assert rows["rmu-1"]["m"][0]["of"]["kept"] == "U"


def test_items_that_came_back_are_counted(data: dict[str, Any], rows: dict[str, Any]) -> None:
    """All 12 went from .1 to .75; `core` ends at .35, `seen` at .25."""
    for part in rows["rmu-1"]["m"][0]["attacks"]:
        taken, back, items = part[6]
        assert (taken, back, len(items)) == (12, 12, 4)
        assert data["texts"][items[0][0]] in ITEMS


# --------------------------------------------------------------------------- the page as HTML


def test_the_page_says_what_it_is_and_where_its_records_are(data: dict[str, Any]) -> None:
    page = render_page(data, repository="https://code.test/r")
    elements = _Elements(page).found
    names = {a.get("name"): a.get("content") for tag, a in elements if tag == "meta"}
    assert "language model" in (names["description"] or "")
    assert "https://code.test/r" in {a.get("href") for _, a in elements}
    assert "Repository" not in render_page(data)
    days = [row["by"]["day"] for row in data["boards"][0]["rows"]]
    assert f"Newest record: {max([*days, '2026-01-02'])}" in page


class _Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.now = ""
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.now = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.now = ""

    def handle_data(self, data: str) -> None:
        if self.now in self.inside:
            self.inside[self.now][-1] += data


def _policy(elements: _Elements) -> dict[str, str]:
    (content,) = [
        a["content"] for t, a in elements.found if a.get("http-equiv") == "Content-Security-Policy"
    ]
    parts = [part.strip().split(" ", 1) for part in (content or "").split(";")]
    return {part[0]: part[1] for part in parts}


def _sha256(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_the_policy_allows_the_pages_own_script_and_style_alone(data: dict[str, Any]) -> None:
    elements = _Elements(render_page(data))
    policy = _policy(elements)
    _, script = elements.inside["script"]
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == _sha256(script)
    assert policy["style-src"] == _sha256(elements.inside["style"][0])
    assert policy["img-src"] == "data:"
    assert (policy["base-uri"], policy["form-action"]) == ("'none'", "'none'")


def test_the_page_names_nothing_outside_of_it(data: dict[str, Any]) -> None:
    for tag, attributes in _Elements(render_page(data)).found:
        assert tag not in ("iframe", "img", "object", "embed", "base")
        assert "src" not in attributes, tag
        assert re.match(
            r"data:image/|docs/[a-z]+\.html$|https://arxiv\.org/",
            attributes.get("href") or "data:image/",
        ), tag
        assert not any(name.startswith("on") or name == "style" for name in attributes)


@pytest.mark.parametrize(
    "text", [MARKUP, WORDS, FORMULA, "</SCRIPT>", "<!--<script>", "\u2029\ud800"]
)
def test_embedded_texts_stay_inside_and_come_back_whole(text: str) -> None:
    found = embedded_json({"a": text, text: "b"})
    assert not set("<>&\u2028\u2029") & set(found)
    assert found.isascii()
    assert json.loads(found) == {"a": text, text: "b"}


def test_a_hostile_board_makes_a_page_with_the_same_elements(
    data: dict[str, Any], tmp_path: Path
) -> None:
    board = read_board(hostile_board(tmp_path / "leaderboards"))
    boards = [(board, ranked_groups(board))]
    tables = [*plain_tables(boards)]
    assert MARKUP in {text for row in tables[0].rows for text in row}
    hostile = render_page(page_data(boards), tables)
    kept = [
        replace(one, head=("a",) * len(one.head), rows=tuple(("a",) * len(row) for row in one.rows))
        for one in tables
    ]
    harmless = render_page(data, kept)
    assert [tag for tag, _ in _Elements(hostile).found] == [
        tag for tag, _ in _Elements(harmless).found
    ]
    embedded = _Elements(hostile).inside["script"][0]
    assert json.loads(embedded)["boards"][0]["title"] == MARKUP
    assert "{{ 7*7 }}" in embedded


# --------------------------------------------------------------------------- READMEs


def test_a_readme_gets_its_tables_and_keeps_the_rest(root: Path) -> None:
    board = read_board(root / "known")
    groups = ranked_groups(board)
    new = readme_text(None, board, groups)
    assert new.startswith(f"# known\n\n{BEGIN}\n")
    mine = f"# Ours\n\nBefore.\n\n{BEGIN}\nold\n{END}\n\nAfter.\n"
    text = readme_text(mine, board, groups)
    assert text.startswith(f"# Ours\n\nBefore.\n\n{BEGIN}\n")
    assert text.endswith(f"{END}\n\nAfter.\n")
    assert "\nold\n" not in text
    assert readme_text(text, board, groups) == text


def test_a_readmes_table_is_ranked_and_marked(root: Path) -> None:
    board = read_board(root / "known")
    text = readme_text(None, board, ranked_groups(board))
    first = text[text.index("**FQ**") : text.index("**1 - VerbMem")]
    lines = [line for line in first.splitlines() if line.startswith("|")][2:]
    cells = [[part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert [(row[0], row[1]) for row in cells] == [
        ("1", "[NPO & friends](npo-1.json)"),
        ("2", "[sam](sam-1.json)"),
        ("3", "[rmu](rmu-1.json)"),
        ("- (collapsed: U 8%)", "[wild](wild-1.json)"),
        ("- (reference)", "[retrain](retrain-1.json)"),
        ("- (reference)", "[none](none-1.json)"),
    ]
    assert [row[2] for row in cells[:3]] == [
        "verified-weights",
        "verified-method",
        "verified-weights, **disputed**",
    ]
    assert cells[0][8] == "0.111 [0.100, 0.122] (Relearning, by B. Attacker)"
    assert cells[0][11] == "[code](https://code.test/npo)"
    assert "Smallest difference of RA_core that this table could have shown" in first
    after = text[text.index("**Reported in papers**") :]
    assert "[NPO, as printed](reported/paper-npo.json)" in after
    assert "unverified, from others' notes" in after
    assert "paper-npo" not in first


def test_hostile_texts_break_no_cell(tmp_path: Path) -> None:
    board = read_board(hostile_board(tmp_path / "leaderboards"))
    text = readme_text(None, board, ranked_groups(board))
    tables: list[list[str]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            tables[-1].append(line)
        elif tables[-1]:
            tables.append([])
    assert len(tables) == 4  # measured, reported, where from, and nothing behind
    for lines in tables[:-1]:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
    assert not re.search(r"(?<!\\)<(?!!-- )", text)
    assert "](javascript:" not in text.replace("\\]", "")
    assert "(https://x.test/%22onmouseover=%22window.hacked=1%22%7C%29%3Cb%3E)" in text


@pytest.mark.parametrize(
    "text",
    [
        "# No place\n",
        f"{BEGIN}\n",
        f"{END}\n{BEGIN}\n",
        f"{BEGIN}{END}{BEGIN}{END}",
        f"{BEGIN}{END}{END}",
    ],
)
def test_a_readme_without_one_place_for_tables_is_refused(text: str, root: Path) -> None:
    board = read_board(root / "known")
    with pytest.raises(DataError, match=r"README\.md: no place for the tables, or more than one"):
        readme_text(text, board, ranked_groups(board))


def test_a_stale_readme_is_told(root: Path, tmp_path: Path) -> None:
    mine = copied(root, tmp_path / "leaderboards")
    readme = mine / "known" / README
    assert find_stale(mine) == (readme,)
    assert not readme.exists()
    found = build_site(mine, tmp_path / "site")
    assert found.readmes == (readme,)
    assert found.page == tmp_path / "site" / PAGE
    assert found.size == found.page.stat().st_size
    assert find_stale(mine) == ()
    assert build_site(mine, tmp_path / "site").readmes == ()
    (mine / "known" / "rmu-1.json").unlink()
    assert find_stale(mine) == (readme,)


def test_the_command_builds_and_checks(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = copied(root, tmp_path / "leaderboards")
    monkeypatch.chdir(tmp_path)
    before = command("leaderboard", "build", "--check")
    assert before.code == 3
    assert "README.md" in before.out
    assert not (tmp_path / "site").exists()
    assert command("leaderboard", "build").code == 0
    assert (tmp_path / "site" / PAGE).stat().st_size > 10_000
    assert command("leaderboard", "build", str(mine), "--check").code == 0
    unsafe = command("leaderboard", "build", "--repository", "javascript:alert(1)")
    assert unsafe.code == 2
    assert "must be an https address" in unsafe.err
    nowhere = command("leaderboard", "build", "nowhere")
    assert nowhere.code == 3
    assert "nowhere: no such folder" in nowhere.err
