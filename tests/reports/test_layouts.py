"""The paper's tables from finished runs: scales, states, published rows, columns, and LaTeX."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from finished_runs import Told, write_run
from markdown_tables import split
from page_boards import published_row
from places import LEADERBOARDS
from runs import command

SUITE: dict[str, Any] = {
    "primary_forget": [
        {"label": "1 - VerbMem_f", "scorer": "asked", "metric": "acc"},
        {"label": "FQ", "scorer": "asked", "metric": "acc"},
    ],
    "utility": [{"label": "KnowMem_r", "scorer": "kept", "metric": "acc", "chance": 0.25}],
}
NAME = "NPO [a_b] & 50% {x} \\input"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("layouts")
    told = {"npo": Told("npo", suite=SUITE), "none": Told("none", suite=SUITE, after=0.1, end=0.1)}
    return [write_run(folder / name, one) for name, one in told.items()]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("board") / "known"
    figures = {("VerbMem_f (0-100)", "unlearned"): 2.53, ("VerbMem_f (0-100)", "core"): 35.38}
    figures |= {("FA (%)", "core"): 16.5, ("RA (0-1)", "mean"): 0.42, ("VerbMem_f", "seen"): 9.0}
    published_row(folder, "paper", figures, title=NAME)
    return folder


def laid(*words: Any, code: int = 0) -> str:
    done = command("table", *map(str, words))
    assert done.code == code, done.err
    return done.out if code == 0 else done.err


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [split(line) for line in (lines[0], *lines[2:])]


MUSE = ("--layout", "muse", "--columns", "VerbMem_f,KnowMem_r,FA")


def test_an_attack_that_failed_in_the_first_run_is_shown_of_the_others(
    runs: list[Path], tmp_path: Path
) -> None:
    first = Path(shutil.copytree(runs[0], tmp_path / "npo"))
    record = json.loads((first / "results.json").read_text())
    for row in record["rows"].values():
        row["attacks"] = [part for part in row["attacks"] if part["attack"] != "seen"]
        row["ra_attacks"] = [name for name in row["ra_attacks"] if name != "seen"]
        row["status"] = "incomplete"
    (first / "results.json").write_text(json.dumps(record))
    (first / "samples.parquet").unlink()
    _, *body = rows(laid(first, runs[1], *MUSE, "--format", "md"))
    assert [row[1] for row in body if row[0] == "seen"] == ["none"]
    (first / "results.json").write_text(json.dumps({**record, "rows": {}}))
    assert "leave it out" in laid(first, runs[1], *MUSE, code=3)


def test_the_muse_table_is_on_the_papers_scales(runs: list[Path], board: Path) -> None:
    twice = ("--layout", "muse", "--columns", "VerbMem_f,KnowMem_r, FA,FA")
    head, *body = rows(laid(*runs, *twice, "--reported", board, "--format", "md"))
    assert head[3:] == ["VerbMem_f (0-100)", "KnowMem_r (0-100)", "FA (%)"]
    found = {(row[0], row[1]): row[2:] for row in body}
    before, after = found["before fine-tuning", "npo"], found["seen", "npo"]
    assert before[0] == "measured (known)"
    assert [cell.split(" ")[0] for cell in before[1:]] == ["20.00", "90.00", "-"]
    assert [cell.split(" ")[0] for cell in after[1:]] == ["50.00", "90.00", "70.00"]
    low, high = map(float, re.findall(r"[\d.]+", before[1])[1:])
    assert low < 20 < high
    assert found["before fine-tuning", "none"][1].startswith("90.00")
    source = "reported (some model, unverified, from others' notes)"
    assert found["before fine-tuning", NAME] == [source, "2.53", "-", "-"]
    assert found["core", NAME] == [source, "35.38", "-", "16.50"]
    # a figure on another scale is not taken for one on this
    assert ("seen", NAME) not in found


def test_the_wmdp_table_has_means_over_the_attacks(runs: list[Path], board: Path) -> None:
    words = ("--layout", "wmdp", "--columns", "FA,RA,FQ", "--reported", board)
    head, *body = rows(laid(runs[0], *words, "--format", "md"))
    assert head == ["method", "source", "FA (%)", "RA (0-1)", "FQ (0-1)"]
    npo, paper = body
    assert [cell.split(" ")[0] for cell in npo[2:]] == ["65.00", "0.55", "0.80"]
    assert paper[2:] == ["-", "0.42", "-"]


def test_an_attack_that_the_first_metric_lacks_has_its_row(
    runs: list[Path], tmp_path: Path
) -> None:
    first = Path(shutil.copytree(runs[0], tmp_path / "npo"))
    record = json.loads((first / "results.json").read_text())
    row = next(iter(record["rows"].values()))
    row["attacks"] = [part for part in row["attacks"] if part["attack"] != "seen"]
    row["ra_attacks"] = [name for name in row["ra_attacks"] if name != "seen"]
    row["status"] = "incomplete"
    (first / "results.json").write_text(json.dumps(record))
    (first / "samples.parquet").unlink()
    words = ("--layout", "muse", "--columns", "VerbMem_f,FA", "--format", "md")
    found = {row[0]: row for row in rows(laid(first, *words))}
    assert found["seen"][4].startswith("70.00")


def test_mean_fa_is_over_the_attacks_of_ra() -> None:
    """Of 21 attacks, most of which have no task of their own, over the six benign ones."""
    own = LEADERBOARDS / "mini" / "measured" / "npo-attacks"
    words = ("--layout", "wmdp", "--columns", "FA", "--format", "md")
    (_, (_, _, found)) = rows(laid(own, *words))
    record = json.loads((own / "results.json").read_text())
    row = next(iter(record["rows"].values()))
    mine = [part for part in row["attacks"] if part["attack"] in row["ra_attacks"]]
    ends = [part["steps"][-1]["fa"]["value"] for part in mine]
    assert len(ends) == 6
    assert float(found) == pytest.approx(100 * sum(ends) / 6, abs=0.01)


def test_fa_that_is_a_loss_is_no_percentage() -> None:
    run = LEADERBOARDS / "smol" / "measured" / "npo"
    words = ("--layout", "muse", "--columns", "FA", "--format", "md")
    found = {row[0]: row[3] for row in rows(laid(run, *words))}
    record = json.loads((run / "results.json").read_text())
    attacks = next(iter(record["rows"].values()))["attacks"]
    fa = {part["attack"]: part["steps"][-1]["fa"]["value"] for part in attacks}
    assert found["gsm8k"] == "-"
    assert float(found["agnews"].split()[0]) == pytest.approx(100 * fa["agnews"], abs=0.01)


def test_the_latex_is_whole(runs: list[Path], board: Path) -> None:
    text = laid(*runs, *MUSE, "--reported", board, "--format", "latex")
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [("begin", "tabular"), ("end", "tabular")]
    lines = [line for line in text.splitlines() if not line.startswith("%")]
    body = "\n".join(lines)
    columns = re.search(r"\\begin\{tabular\}\{(l+)\}", body)
    assert columns is not None
    for line in (line for line in lines if line.endswith(r"\\")):
        assert len(re.findall(r"(?<!\\)&", line)) == len(columns[1]) - 1
        assert line[0] not in "[*"
    bare = re.sub(r"\\[&%$#_{}]", "", body)
    assert bare.count("{") == bare.count("}")
    assert not set("#%$^~") & set(bare)
    assert "_" not in bare
    assert set(re.findall(r"\\([a-zA-Z]+)", bare)) <= {"begin", "end", "hline", "textbackslash"}
    assert r"NPO [a\_b] \& 50\% \{x\} \textbackslash{}input" in body


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--layout", "mus"), "did you mean 'muse'?"),
        (("--layout", "muse", "--columns", "VerbMem"), "did you mean 'VerbMem_f'?"),
        (("--layout", "muse"), "known measures no KnowMem_f: leave it out by --columns VerbMem_f,"),
        (("--layout", "wmdp", "--pairs"), "give one"),
        (("--reported", "x"), "add --layout"),
        (("--columns", "recover"), "did you mean 'recovery'?"),
        (("--columns", "tier"), "--columns tier: "),
        (("--attacks", "--columns", "rank"), "it takes no --pairs, --layout or --columns"),
    ],
)
def test_what_cannot_be_laid_out_is_said(
    words: tuple[str, ...], says: str, runs: list[Path]
) -> None:
    assert says in laid(runs[0], *words, code=2)


def test_columns_of_the_ranked_table_are_chosen_by_name(runs: list[Path]) -> None:
    text = laid(*runs, "--columns", "method,half-life,core,rank", "--format", "md")
    head, npo, *_ = rows(text)
    assert head == ["method", "half-life", "RA_core over {core}", "rank"]
    assert npo[0] == "npo"
    assert npo[1] == ">100"


def test_a_folder_without_rows_of_papers_is_refused(runs: list[Path], tmp_path: Path) -> None:
    assert "no rows of papers" in laid(runs[0], *MUSE, "--reported", tmp_path, code=3)
