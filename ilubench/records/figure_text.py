"""Figures and times as people read them."""

from ilubench.records.markdown import cell
from ilubench.records.wording import note_text
from ilubench.statistics.intervals import Figure

__all__ = ["figure_cell", "figure_text", "format_duration"]


def figure_text(figure: Figure | None, digits: int = 3) -> str:
    """Return `value [low, high]`, or the words of a figure that has no value."""
    if figure is None:
        return "-"
    if figure.value is None:
        return note_text(figure.note) or "n/a"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.{digits}f}"
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def figure_cell(figure: Figure | None) -> str:
    """Return a figure as a cell of a Markdown table; its note may hold names that others chose."""
    text = figure_text(figure)
    return cell(text) if figure is None or figure.value is None else text


def format_duration(seconds: float) -> str:
    """Return a time as people say it: `12 s`, `3 min`, `2.5 h`, `3.1 days`."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 99.5 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 72 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
