"""Evaluation items in training text, found by word n-grams. Pure, no torch.

The rule is that of PaLM (Chowdhery et al. 2022, arXiv:2204.02311, section 8): an item counts as
contained when 70 % of the 8-grams of one of its texts occur in the training text, wherever they
are. Shorter texts are looked for as a whole. Words are runs of letters, digits and underscores, in
lower case, so that punctuation and line breaks do not matter.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from ilubench.interfaces import Row

__all__ = ["Overlap", "item_texts", "overlaps"]

N = 8
CONTAINED = 0.7

Words: TypeAlias = list[str]
Gram: TypeAlias = tuple[str, ...]

_WORD = re.compile(r"\w+")


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
    Labels, names and options are too short to tell anything.
    """
    texts = [value for key, value in row.items() if key != "id" and isinstance(value, str)]
    long = [text for text in texts if len(_words(text)) >= N]
    return long or sorted(texts, key=lambda text: len(_words(text)))[-1:]


def overlaps(
    training: Sequence[str], evaluations: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, Overlap]:
    """Return what of each set of items is in the training text.

    Args:
        training: the documents.
        evaluations: name of the set -> item's id -> its texts; no set is empty.
    """
    asked = {
        name: {item: [words for text in texts if (words := _words(text))] for item, texts in own}
        for name, own in ((name, items.items()) for name, items in evaluations.items())
    }
    documents = [_words(text) for text in training]
    places = _places(
        documents, [w for own in asked.values() for texts in own.values() for w in texts]
    )
    found = {}
    for name, own in asked.items():
        contained = [item for item, texts in own.items() if _contained(texts, places)]
        twice = [item for item in contained if _duplicate(own[item], places, documents)]
        found[name] = Overlap(len(own), tuple(contained), tuple(twice))
    return found


def _words(text: str) -> Words:
    return _WORD.findall(text.lower())


def _grams(words: Words, size: int) -> Iterator[Gram]:
    return zip(*(words[start:] for start in range(size)), strict=False)


def _own_grams(words: Words) -> Iterator[Gram]:
    return _grams(words, min(N, len(words)))


def _places(documents: Sequence[Words], texts: Sequence[Words]) -> dict[Gram, list[int]]:
    """N-gram of an item, if any document has it -> those documents; of all sizes together."""
    wanted: dict[int, set[Gram]] = {}
    for words in texts:
        wanted.setdefault(min(N, len(words)), set()).update(_own_grams(words))
    found: dict[Gram, list[int]] = {}
    for number, words in enumerate(documents):
        for size, grams in wanted.items():
            for gram in grams.intersection(_grams(words, size)):
                found.setdefault(gram, []).append(number)
    return found


def _contained(texts: Sequence[Words], places: Mapping[Gram, Sequence[int]]) -> bool:
    for words in texts:
        known = [gram in places for gram in _own_grams(words)]
        if sum(known) >= CONTAINED * len(known):
            return True
    return False


def _duplicate(
    texts: Sequence[Words], places: Mapping[Gram, Sequence[int]], documents: Sequence[Words]
) -> bool:
    begins = [gram for words in texts for gram in islice(_own_grams(words), 1)]
    first, *others = (set(places.get(gram, ())) for gram in begins)
    return any(
        all(f" {' '.join(words)} " in f" {' '.join(documents[number])} " for words in texts)
        for number in first.intersection(*others)
    )
