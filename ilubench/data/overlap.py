"""Evaluation items in training text, found by word n-grams. Pure, no torch.

The rule is that of PaLM (Chowdhery et al. 2022, arXiv:2204.02311, section 8): an item counts as
contained when 70 % of the 8-grams of one of its texts occur in the training text, wherever they
are. Shorter texts are looked for as a whole. Words are runs of letters and digits, in lower case,
so that punctuation and line breaks do not matter.

A blank (underscores that stand alone, as in WinoGrande's sentences) parts a text: training text has
a word of its own there, so that no n-gram goes across. A part of fewer than 8 words counts as one
n-gram; where all parts are so short, one training document must have them all.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from pydantic import JsonValue

from ilubench.data.values import number_in
from ilubench.interfaces import Row

__all__ = ["Overlap", "asks_same", "count_overlaps", "item_texts"]

N = 8
CONTAINED = 0.7

Words: TypeAlias = list[str]
Parts: TypeAlias = list[Words]
Gram: TypeAlias = tuple[str, ...]

_WORD = re.compile(r"[^\W_]+")
_BLANK = re.compile(r"(?<!\w)_+(?!\w)")


@dataclass(frozen=True, slots=True)
class Overlap:
    """What of a set of items is in a training text.

    Attributes:
        items: number of items.
        contained: ids of those that are contained, in the items' order.
        duplicates: ids of those whose texts all stand word for word in one training document.
    """

    items: int
    contained: tuple[str, ...]
    duplicates: tuple[str, ...]

    @property
    def share(self) -> float:
        """Share of the items that are contained, 0-1."""
        return len(self.contained) / self.items


def item_texts(row: Row) -> list[str]:
    """Return the texts of an evaluation item: its columns of at least 8 words, else its longest.

    The columns, not the rendered prompt: the words of a template are in every training text.
    Labels, names and options are too short to tell anything. Where no column is a text that long,
    those inside lists and mappings count (messages, long options). Empty: the row has no words.
    """
    columns = [value for key, value in row.items() if key != "id"]
    plain = [value for value in columns if isinstance(value, str)]
    inside = [text for value in columns if not isinstance(value, str) for text in _strings(value)]
    for texts in (plain, inside):
        if long := [text for text in texts if _length(text) >= N]:
            return long
    return [text for text in sorted(plain or inside, key=_length)[-1:] if _length(text)]


def asks_same(item: Row, shown: Row, prompt: str) -> bool:
    """Whether a row that is shown with its answer asks what the item asks.

    Of the columns that both have, those texts count that stand in the shown prompt (where none
    does, all but numbers, in any order), word for word, and of what is in lists, one: the same
    question with another choice of wrong options has the same answer. Ids and numbers do not count.
    Where they have no column in common, the prompt is looked through for the item's texts.

    Args:
        item: what is asked.
        shown: the example.
        prompt: of the example, as it is shown, without its answer.
    """
    both = [(item[name], shown[name]) for name in item if name != "id" and name in shown]
    texts = [(a, b) for a, b in both if isinstance(a, str) and isinstance(b, str)]
    asked = [(a, b) for a, b in texts if b.strip() and b.strip() in prompt]
    below = [(a, b) for a, b in both if isinstance(a, list | dict) and isinstance(b, list | dict)]
    if not texts and not below:
        found = f" {_plain(prompt)} "
        return any(f" {_plain(text)} " in found for text in item_texts(item))
    if not asked:
        worded = [pair for pair in texts if None in map(number_in, pair)]
        asked = list(
            zip(*(sorted(own, key=_plain) for own in zip(*worded, strict=True)), strict=True)
        )
    if not all(_plain(a) == _plain(b) for a, b in asked):
        return False
    options = [[sorted(map(_plain, _strings(one))) for one in pair] for pair in below]
    return all(bool({*a} & {*b}) if asked else a == b for a, b in options)


def _plain(text: str) -> str:
    return " ".join(_words(text)) or text.strip()


def _strings(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        for below in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(below)


def count_overlaps(
    training: Sequence[str], evaluations: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, Overlap]:
    """Return what of each set of items is in the training text.

    Args:
        training: the documents.
        evaluations: name of the set -> item's id -> its texts; no set is empty.
    """
    asked = {
        name: {item: [parts for text in texts if (parts := _parts(text))] for item, texts in own}
        for name, own in ((name, items.items()) for name, items in evaluations.items())
    }
    places = _places(
        training,
        [
            words
            for own in asked.values()
            for texts in own.values()
            for parts in texts
            for words in parts
        ],
    )

    @cache
    def document(number: int) -> str:
        return f" {' '.join(_words(training[number]))} "

    found = {}
    for name, own in asked.items():
        contained = [
            item for item, texts in own.items() if any(_contained(parts, places) for parts in texts)
        ]
        twice = [item for item in contained if _duplicate(own[item], places, document)]
        found[name] = Overlap(len(own), tuple(contained), tuple(twice))
    return found


def _words(text: str) -> Words:
    return _WORD.findall(text.lower())


def _length(text: str) -> int:
    return len(_words(text))


def _parts(text: str) -> Parts:
    """The words on each side of the text's blanks; of most texts, all its words."""
    return [words for part in _BLANK.split(text) if (words := _words(part))]


def _grams(words: Words, size: int) -> Iterator[Gram]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _own_grams(words: Words) -> Iterator[Gram]:
    return _grams(words, min(N, len(words)))


def _places(training: Sequence[str], parts: Parts) -> dict[Gram, list[int]]:
    """N-gram of an item, if any document has it -> those documents; of all sizes together."""
    wanted: dict[int, set[Gram]] = {}
    for own in parts:
        wanted.setdefault(min(N, len(own)), set()).update(_own_grams(own))
    found: dict[Gram, list[int]] = {}
    for number, text in enumerate(training):
        words = _words(text)
        for size, grams in wanted.items():
            for gram in grams.intersection(_grams(words, size)):
                found.setdefault(gram, []).append(number)
    return found


def _contained(parts: Parts, places: Mapping[Gram, Sequence[int]]) -> bool:
    if all(len(words) < N for words in parts):
        return bool(_together(parts, places))
    known = [gram in places for words in parts for gram in _own_grams(words)]
    return sum(known) >= CONTAINED * len(known)


def _together(parts: Parts, places: Mapping[Gram, Sequence[int]]) -> set[int]:
    """The documents that have the first n-gram of every part."""
    first, *others = (set(places.get(next(_own_grams(words)), ())) for words in parts)
    return first.intersection(*others)


def _duplicate(
    texts: Sequence[Parts], places: Mapping[Gram, Sequence[int]], document: Callable[[int], str]
) -> bool:
    parts = [words for own in texts for words in own]
    return any(
        all(f" {' '.join(words)} " in document(number) for words in parts)
        for number in _together(parts, places)
    )
