"""One report in each format: nothing of a name that others chose is read as markup or formula."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import pytest
from finished_runs import Told, write_run
from rich.console import Console
from rich.text import Text
from runs import command

from ilubench.cli import formats
from ilubench.cli.formats import Format, in_format
from ilubench.cli.run_folders import within
from ilubench.records.markdown import cell, table

NAME = r"=a|b, *c* \d [e] <f> & 50% $x_1$ {y}~^#"
REPORT = "\n\n".join(
    [
        f"Suite {cell(NAME)}. 95 % intervals.",
        "**FQ**: higher = better forgotten",
        table(
            ["method", "RA", "note"],
            [
                [cell(NAME), "0.586 [0.509, 0.662]", "1"],
                ["npo", "-", cell("- (no row)")],
                ["rmu", "0.100 [-0.004, 0.105] (sst2)", "2"],
            ],
        ),
        "- first remark\n- second remark",
    ]
)
LINES = [f"Suite {NAME}. 95 % intervals.", "FQ: higher = better forgotten"]


def test_no_name_moves_the_cursor(tmp_path: Path) -> None:
    changes = {"engine": "hf\x1b[2J", "method": {"use": "n\x1bpo", "settings": {"\u202ea": "\x9b"}}}
    run = write_run(tmp_path / "a", Told(), **changes)
    for details in ((), ("--details",)):
        done = command("show", str(run), *details)
        assert done.code == 0
        assert "n\ufffdpo" in done.out
        assert not {"\x1b", "\u202e", "\x9b"} & set(done.out)


def test_markdown_stays_as_it_is() -> None:
    assert in_format(REPORT, Format.MD) == REPORT


def test_csv_has_a_column_for_each_part_of_a_figure() -> None:
    lines = in_format(REPORT, Format.CSV).splitlines()
    comments = [line for line in lines if line.startswith("# ")]
    assert comments == [f"# {line}" for line in [*LINES, "- first remark", "- second remark"]]
    rows = list(csv.reader(line for line in lines if line and line not in comments))
    assert rows == [
        ["method", "RA", "RA low", "RA high", "RA note", "note"],
        [f"'{NAME}", "0.586", "0.509", "0.662", "", "1"],
        ["npo", "", "", "", "", "'- (no row)"],
        ["rmu", "0.100", "-0.004", "0.105", "sst2", "2"],
    ]


def test_latex_is_escaped() -> None:
    text = in_format(REPORT, Format.LATEX)
    name = (
        r"=a\textbar{}b, *c* \textbackslash{}d [e] \textless{}f\textgreater{} \& 50\% \$x\_1\$ "
        r"\{y\}\textasciitilde{}\textasciicircum{}\#"
    )
    assert rf"{name} & 0.586 [0.509, 0.662] & 1 \\" in text
    assert text.splitlines()[0] == f"% {LINES[0]}"
    assert text.count(r"\begin{tabular}{lll}") == text.count(r"\end{tabular}") == 1


def test_no_row_of_latex_begins_as_the_argument_of_the_one_before() -> None:
    names = ("[a]", "*b", "c")
    text = in_format(table(["method"], [[cell(name)] for name in names]), Format.LATEX)
    assert [line for line in text.splitlines() if line.endswith(r"\\")][1:] == [
        *(r"{}[a] \\", r"{}*b \\", r"c \\")
    ]


def test_html_is_escaped() -> None:
    text = in_format(REPORT, Format.HTML)
    root = ElementTree.fromstring(f"<div>{text}</div>")
    assert [one.text for one in root.iter("p")][:2] == LINES
    rows = [[one.text for one in row] for row in root.iter("tr")]
    assert rows[1] == [NAME, "0.586 [0.509, 0.662]", "1"]
    assert rows[0] == ["method", "RA", "note"]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_a_terminal_cuts_no_figure_short(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    out = Console(file=io.StringIO(), width=width, markup=False)
    monkeypatch.setattr("ilubench.cli.words.console", lambda stderr: out)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    formats.show(REPORT, {}, None)
    assert isinstance(out.file, io.StringIO)
    shown = out.file.getvalue()
    for text in ("0.586", "[0.509, 0.662]", "[-0.004, 0.105]", "(sst2)", "- second remark"):
        assert text in shown, shown
    assert "…" not in shown
    assert max(len(Text(line)) for line in shown.splitlines()) <= width
    assert "**" not in shown


def test_json_is_what_the_command_found(capsys: pytest.CaptureFixture[str]) -> None:
    for wanted, as_json in ((Format.JSON, False), (None, True)):
        formats.show(REPORT, {"a": [1]}, wanted, as_json=as_json)
        assert json.loads(capsys.readouterr().out) == {"a": [1]}


MEASURED = Path(__file__).parents[2] / "leaderboards" / "mini" / "measured"


def _takes_formats(*words: str) -> None:
    assert command(*words, "--format", "JSON").json == command(*words, "--json").json
    assert "|---|" in command(*words, "--format", "md").out
    assert command(*words, "--format", "latex").out.count(r"\begin{tabular}") >= 1
    head = next(csv.reader(_table_lines(command(*words, "--format", "csv").out)))
    assert len(head) > 1


def _table_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize(
    "words",
    [
        ("subsets", MEASURED / "sam"),
        ("ls", "methods"),
        ("ls", "runs", MEASURED.parents[1] / "news-scratch"),
        ("describe", "npo"),
    ],
)
def test_commands_that_print_tables_take_a_format(words: Sequence[object]) -> None:
    _takes_formats(*map(str, words))


@pytest.mark.slow
def test_comparisons_take_a_format() -> None:
    one, other, third, none = (str(MEASURED / name) for name in ("npo", "rmu", "sam", "none"))
    _takes_formats("table", one, other)
    _takes_formats("table", "--attacks", one, other)
    _takes_formats("matched", f"a={one}", f"b={other}")
    _takes_formats("stability", one, other, third)
    _takes_formats("variance", one)
    _takes_formats("gates", none)


def test_without_a_format_a_pipe_gets_markdown() -> None:
    words = ("subsets", str(MEASURED / "sam"))
    assert command(*words).out == command(*words, "--format", "md").out
    refused = command(*words, "--format", "tex")
    assert refused.code == 2
    assert "'tex'" in refused.err


def test_gates_end_with_a_verdict() -> None:
    from ilubench.reports.gates import Gate, gates_verdict

    kept = Gate("gsm8k", "fa_end", 0.9, 0.3, passed=True)
    failed = Gate("agnews", "fa_end", 0.1, 0.3, passed=False)
    assert gates_verdict([kept]) == "All 1 bounds hold for gsm8k."
    told = gates_verdict([kept, failed])
    assert told.startswith("1 of 2 bounds do not hold: agnews: fa_end is 0.1 and must be >= 0.3.")
    assert "Next: change the settings or data of agnews" in told


def test_a_folder_of_runs_stands_for_the_runs_in_it(tmp_path: Path) -> None:
    for name in ("b", "a", "store", "deep/er"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "results.json").write_text("{}")
    (tmp_path / "runs" / "planned").mkdir()
    (tmp_path / "runs" / "planned" / "plan.json").write_text("{}")
    found = within([tmp_path / "runs", tmp_path / "runs" / "b", tmp_path / "none"])
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["runs/a", "runs/b", "runs/deep/er", "runs/b", "none"]
    (tmp_path / "stopped" / "one").mkdir(parents=True)
    (tmp_path / "stopped" / "one" / "plan.json").write_text("{}")
    refused = command("table", str(tmp_path / "stopped"))
    assert refused.code == 2
    assert "no finished run in it, only one; the same `ilubench run` goes on" in refused.err
