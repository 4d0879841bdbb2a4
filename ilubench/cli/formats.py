"""What a command found, as tables of a terminal, Markdown, CSV, LaTeX, HTML or JSON.

Reports are written as Markdown, which a reader of CommonMark takes apart again: so that escapes of
names that others chose are undone once, and made anew for each format.
"""

import csv
import html
import io
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from markdown_it.token import Token
    from rich.console import Console
    from rich.table import Table

__all__ = ["Format", "FormatOption", "in_format", "show"]


class Format(StrEnum):
    """How a command writes what it found."""

    MD = "md"
    CSV = "csv"
    LATEX = "latex"
    HTML = "html"
    JSON = "json"


FormatOption = Annotated[
    Format | None,
    typer.Option(
        "--format",
        case_sensitive=False,
        help="without: tables in a terminal, Markdown in a pipe or file",
    ),
]

_FIGURE = re.compile(r"(-?\d+\.\d+) \[(-?\d+\.\d+), (-?\d+\.\d+)\](?: \((.*)\))?")
"""A value with its interval, and what may stand in brackets behind it."""

HEAD_WIDTH = 9
"""Of a heading's line at least, where a table must be narrow."""

TEXT_WIDTH = 30
"""Of a column of sentences at least."""

_FIGURE_PARTS = ("", " low", " high", " note")

_TEX = {char: f"\\{char}" for char in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
}


@dataclass
class _Block:
    """A table: its head, then its rows; or, without rows, a line of text."""

    text: str = ""
    rows: list[list[str]] = field(default_factory=list)


def show(report: str, plain: object, wanted: Format | None, *, as_json: bool = False) -> None:
    """Print what a command found.

    Args:
        report: as Markdown.
        plain: the same as JSON has it.
        wanted: the format; None: tables where a terminal reads, else Markdown.
        as_json: another way to say JSON.
    """
    if as_json or wanted is Format.JSON:
        typer.echo(json.dumps(plain))
    elif wanted is not None:
        typer.echo(in_format(report, wanted))
    elif sys.stdout.isatty():
        from ilubench.cli.words import console

        out = console(stderr=False)
        for block in _blocks(report):
            shown = _terminal(block.rows, out) if block.rows else block.text
            out.print(shown, highlight=False)
    else:
        typer.echo(report.rstrip("\n"))


def in_format(report: str, wanted: Format) -> str:
    """Return a Markdown report in another format: text becomes comments, in HTML paragraphs."""
    if wanted is Format.MD:
        return report.rstrip("\n")
    write, around = {
        Format.CSV: (_csv, "# {}"),
        Format.LATEX: (_latex, "% {}"),
        Format.HTML: (_html, "<p>{}</p>"),
    }[wanted]
    escape = html.escape if wanted is Format.HTML else str
    return "\n".join(
        write(block.rows) if block.rows else around.format(escape(block.text))
        for block in _blocks(report)
    )


def _blocks(report: str) -> Iterator[_Block]:
    from markdown_it import MarkdownIt

    table: _Block | None = None
    bullet = ""
    for token in MarkdownIt("commonmark").enable("table").parse(report):
        if token.type == "table_open":
            table = _Block()
        elif token.type == "table_close" and table is not None:
            yield table
            table = None
        elif token.type == "tr_open" and table is not None:
            table.rows.append([])
        elif token.type in ("list_item_open", "list_item_close"):
            bullet = "- " if token.type == "list_item_open" else ""
        elif token.type == "inline" and table is not None:
            table.rows[-1].append(_text(token))
        elif token.type == "inline":
            yield from (_Block(bullet + line) for line in _text(token).splitlines())


def _text(inline: "Token") -> str:
    """Return the text of a paragraph or cell, its escapes undone and its emphasis left out."""
    children = inline.children or ()
    return "".join("\n" if part.type == "softbreak" else part.content for part in children)


def _terminal(rows: Sequence[Sequence[str]], out: "Console") -> "Table":
    """Return a table that fits: with intervals on a second line, or each row as lines of its own.

    No figure is ever cut short.
    """
    from rich.measure import Measurement
    from rich.table import Column, Table
    from rich.text import Text

    head, *body = rows
    broken = [[re.sub(r" (?=\[|\(|->)", "\n", cell) for cell in row] for row in body]
    widths = [max(map(len, "\n".join(cells).split("\n"))) for cells in zip(*broken, strict=True)]
    narrow = [
        textwrap.fill(name, max(HEAD_WIDTH, width))
        for name, width in zip(head, widths or map(len, head), strict=True)
    ]
    for names, cells, wraps in ((head, body, 0), (narrow, broken, 0), (narrow, body, 1)):
        fixed = len(head) - wraps  # a last column of long text may go over several lines
        table = Table(*(Column(Text(n), no_wrap=k < fixed) for k, n in enumerate(names)))
        probe = Table(*(Column(Text(n), no_wrap=True) for n in names))
        for row in cells:
            table.add_row(*map(Text, row))
            probe.add_row(*map(Text, (*row[:fixed], *(cell[:TEXT_WIDTH] for cell in row[fixed:]))))
        if Measurement.get(out, out.options.update(max_width=10**6), probe).maximum <= out.width:
            return table
    table = Table(show_header=False)
    for row in body:
        for name, cell in zip(head, row, strict=True):
            table.add_row(Text(name), Text(cell))
        table.add_section()
    return table


def _csv(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as CSV: a column of figures becomes value, low and high."""
    columns = [part for column in zip(*rows, strict=True) for part in _divided(column)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(zip(*columns, strict=True))
    return out.getvalue()


def _divided(column: Sequence[str]) -> Iterator[list[str]]:
    """Yield a column as it is, or those that its figures are made of."""
    head, *cells = column
    found = [_FIGURE.fullmatch(cell) for cell in cells]
    if not any(found):
        yield [head, *map(_harmless, cells)]
        return
    notes = ["" if cell == "-" else cell for cell in cells]
    parts = [
        one.groups("") if one else ("", "", "", note)
        for one, note in zip(found, notes, strict=True)
    ]
    for place, name in enumerate(_FIGURE_PARTS):
        values = [part[place] for part in parts]
        if any(values):
            yield [head + name, *map(_harmless, values)]


def _harmless(cell: str) -> str:
    """Return a cell that no spreadsheet takes for a formula."""
    if cell[:1] not in ("=", "+", "-", "@") or cell == "-" or re.fullmatch(r"[-+]?[\d.]+", cell):
        return cell
    return f"'{cell}"


def _latex(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a `tabular`; it needs no package."""
    lines = [" & ".join("".join(_TEX.get(c, c) for c in cell) for cell in row) for row in rows]
    # behind a line's end, a bracket would be a length, and a star part of the command
    head, *body = (rf"{'{}' if line[:1] in ('[', '*') else ''}{line} \\" for line in lines)
    columns = "l" * len(rows[0])
    begin, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([begin, r"\hline", head, r"\hline", *body, r"\hline", end])


def _html(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(["th", *["td"] * len(rows)], rows, strict=False)
    )
    lines = [f"<thead><tr>{head}</tr></thead>", *(f"<tr>{line}</tr>" for line in body)]
    return "\n".join(["<table>", *lines, "</table>"])
