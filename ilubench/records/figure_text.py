"""Figures as people read them."""

from ilubench.records.wording import note_text
from ilubench.statistics.intervals import Figure

__all__ = ["figure_text"]


def figure_text(figure: Figure | None, digits: int = 3) -> str:
    """Return `value [low, high]`, or the words of a figure that has no value."""
    if figure is None:
        return "-"
    if figure.value is None:
        return note_text(figure.note) or "n/a"
    if figure.low is None or figure.high is None:
        return f"{figure.value:.{digits}f}"
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"
