"""Figures and texts as the page carries them: whole thousandths, each text once. Pure."""

from collections.abc import Sequence

from pydantic import JsonValue

from ilubench.records.wording import note_text
from ilubench.statistics.intervals import Figure
from ilubench.statistics.notes import Note, NoteKind

__all__ = ["Texts", "pack_course", "pack_figures", "thousandths"]


class Texts:
    """Texts by number, each kept once."""

    def __init__(self) -> None:
        """Start without any."""
        self._known: dict[str, int] = {}
        self._kinds: dict[NoteKind, dict[int, None]] = {}

    def number(self, text: str) -> int:
        """Return a text's number."""
        return self._known.setdefault(text, len(self._known))

    def note(self, note: Note | None) -> int:
        """Return the number of what a note says."""
        if note is None:
            return self.number("n/a")
        number = self.number(note_text(note))
        self._kinds.setdefault(note.kind, {})[number] = None
        return number

    def of(self, kind: NoteKind) -> list[JsonValue]:
        """Return the numbers of the texts that notes of a kind have."""
        return list(self._kinds.get(kind, {}))

    def all(self) -> list[JsonValue]:
        """Return all texts, by number."""
        return list(self._known)


def thousandths(value: float) -> int:
    """Return a number as tables print it with three digits, times 1000."""
    return round(float(f"{value:.3f}") * 1000)


def pack_figures(figure: Figure | None, texts: Texts, usual: tuple[int, int] = (0, 0)) -> JsonValue:
    """Return a figure.

    None where there is none; the number of its note where it is undefined; else `[value]`,
    `[value, low, high]` (`high` is None where it is open) or, where it rests on other than the
    `usual` (seeds, items), `[value, low, high, seeds, items]`.
    """
    if figure is None:
        return None
    if figure.value is None:
        return texts.note(figure.note)
    n = (figure.n_seeds, figure.n_items)
    if figure.low is None:
        return [thousandths(figure.value)] if n == usual else [*_ends(figure), *n]
    return _ends(figure) if n == usual else [*_ends(figure), *n]


def pack_course(figures: Sequence[Figure], texts: Texts) -> JsonValue:
    """Return figures in a row, three numbers each; the number of a note where one is undefined."""
    undefined = next((figure for figure in figures if figure.value is None), None)
    if undefined is not None:
        return texts.note(undefined.note)
    return [number for figure in figures for number in _ends(figure)]


def _ends(figure: Figure) -> list[JsonValue]:
    parts = (figure.value, figure.low, figure.high)
    return [None if part is None else thousandths(part) for part in parts]
