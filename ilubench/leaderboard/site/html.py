"""The page: one file, no server, nothing loaded from anywhere.

Strangers' texts are on it. They arrive as JSON that cannot end its element, are shown as text by a
script that builds no markup from strings, and a Content-Security-Policy lets the browser run that
script and nothing else.
"""

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from pydantic import JsonValue

from ilubench.leaderboard.site.plain import PlainTable
from ilubench.records.columns import COLUMNS, NAMES

__all__ = ["embedded_json", "render_page"]

SCRIPTS = (
    "format.js",
    "state.js",
    "charts.js",
    "table.js",
    "detail.js",
    "exports.js",
    "page.js",
)
"""The page's script, in the order in which it is put together."""


ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Crect width='16' height='16' rx='3' fill='%230b57a4'/%3E%3Cpath d='M3 4h10v2H3zM3 7h7v2H3z"
    "M3 10h4v2H3z' fill='%23fff'/%3E%3C/svg%3E"
)

PAPER = "https://arxiv.org/abs/2506.01339"
"""Of the method whose protocol the benchmark took up."""


def render_page(
    data: Mapping[str, JsonValue], plain: Sequence[PlainTable] = (), repository: str = ""
) -> str:
    """Return the page as HTML.

    Args:
        data: what it shows (:func:`ilubench.leaderboard.site.view.page_data`).
        plain: the same as tables, for a browser that runs no script.
        repository: the address of the records' repository; without: no link to it.
    """
    import jinja2

    style = _spare(_text("page.css"))
    script = (
        '"use strict";\n(() => {\n' + "".join(_spare(_text(name)) for name in SCRIPTS) + "})();\n"
    )
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(
        _text("index.html.j2")
    )
    return template.render(
        policy=_policy(script, style),
        style=_raw(style, "style"),
        script=_raw(script, "script"),
        data=_raw(embedded_json(data), "script"),
        labels=NAMES,
        explained=[column for column in COLUMNS if column.figure],
        day=data["day"],
        empty=not data["boards"],
        plain=plain,
        icon=ICON,
        paper=PAPER,
        repository=repository,
    )


def embedded_json(value: Mapping[str, JsonValue]) -> str:
    """Return JSON that may stand in a `<script>` element, whatever texts it holds.

    `<`, `>` and `&` become escapes, so that neither `</script>` nor `<!--` is there; all other than
    ASCII does too, and with it the line separators that old scripts take for the end of a line.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _text(name: str) -> str:
    found = files("ilubench.leaderboard.site").joinpath("template", name)
    return found.read_text(encoding="utf-8").replace("\r\n", "\n")


def _spare(text: str) -> str:
    """Leave out indentation, empty lines and lines that are a comment; no text spans lines."""
    lines = (line.strip() for line in text.splitlines())
    comment = re.compile(r"//|/\*.*\*/$")
    return "".join(f"{line}\n" for line in lines if line and not comment.match(line))


def _raw(text: str, element: str) -> str:
    """Mark our own text as what an element holds; it must not end that element."""
    import markupsafe

    if f"</{element}" in text.lower() or "<!--" in text:
        raise ValueError(f"a text would end its <{element}>")
    return markupsafe.Markup(text)


def _policy(script: str, style: str) -> str:
    """Return the Content-Security-Policy: nothing but this script, this style and data: images."""
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
