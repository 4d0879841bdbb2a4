"""How figures look, and what they are written as."""

from __future__ import annotations

import contextlib
import io
import re
from typing import TYPE_CHECKING, Any

from ilubench.errors import UsageError
from ilubench.specs.untrusted import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = [
    "BAND",
    "CHANCE",
    "COLOURS",
    "DASHES",
    "INK",
    "REFERENCE_COLOUR",
    "drawing",
    "figure_svg",
    "new_figure",
    "save_figure",
]

# Okabe & Ito's colours, which colour-blind readers can tell apart
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES = ("-", "--", "-.", ":")
REFERENCE_COLOUR = "#6f7780"
CHANCE = "#9aa1a9"
BAND = 0.15
"""Opacity of an interval."""

INK = "#010203"
"""Of words and axes: a page shows its own ink in its place."""

# what each format would write of the day, left out so that equal runs give equal files
UNDATED: Mapping[str, dict[str, None]] = {
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
    ".png": {},
}

_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a name may have dollars
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "pdf.fonttype": 42,  # whole fonts: text of a paper can be searched
    "svg.hashsalt": "ilubench",
}


@contextlib.contextmanager
def drawing() -> Iterator[None]:
    """Draw in the house's style."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE):
        yield


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of that size in inches, its parts placed as they need room."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Figure, out: Path) -> None:
    """Write a figure; the same figure gives the same bytes.

    Raises:
        UsageError: a file that cannot be written, or whose name ends in no known format.
    """
    if out.suffix not in UNDATED:
        raise UsageError(f"--out {out}: must end in {', '.join(UNDATED)}")
    file = io.BytesIO()
    with drawing():
        figure.savefig(
            file, format=out.suffix[1:], metadata=UNDATED[out.suffix], dpi=150, facecolor="white"
        )
    content = file.getvalue()
    # no XML has control characters, and a stranger's name may
    out.write_bytes(printable(content.decode()).encode() if out.suffix == ".svg" else content)


def figure_svg(figure: Figure, name: str) -> str:
    """Return a figure as an `<svg>` element for a page: its words are text, in the page's ink.

    Args:
        figure: drawn in :func:`drawing`.
        name: what its ids begin with, so that several can stand on a page.
    """
    import matplotlib as mpl

    file = io.StringIO()
    with drawing(), mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata=UNDATED[".svg"], transparent=True)
    text = _short(printable(file.getvalue()))
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    for place, colour in enumerate(COLOURS):
        text = text.replace(colour, f"var(--c{place})")
    return text.replace(INK, "currentColor")


# --- inside ---


def _short(text: str) -> str:
    """Leave out of an SVG what nobody sees, some two thirds of it."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' transform="rotate\(-?0 [^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)  # the page's
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda id: id[0] if id[1] in used else "", text)
    # of a point; a name between two tags keeps its digits
    text = re.sub("<[^>]*>", lambda tag: re.sub(r"(\d+\.\d{2})\d+", r"\1", tag[0]), text)
    text = re.sub(r"\s+", " ", text).replace("> <", "><")
    text = re.sub(r'style="[^"]*"', lambda style: re.sub("([;:]) ", r"\1", style[0]), text)
    return re.sub(r"<g>(<(?:use|text|path)\b[^<]*(?:/>|</text>))</g>", r"\1", text)
