"""ROUGE-L over words as the package `rouge_score` has them, or over letters of any script."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Literal, TypeAlias

from ilubench.errors import DataError

__all__ = ["RougeTokens", "check_references", "rouge_l", "rouge_l_recall", "unicode_words"]

RougeTokens: TypeAlias = Literal["latin", "stemmed", "unicode"]
"""`latin`: runs of a-z and 0-9 in lower case, as MUSE counts; all else parts words.

`stemmed`: these, those of four and more letters without their endings (Porter's stemmer), as TOFU
counts. `unicode`, version 1: :func:`unicode_words`. Figures of the three are not comparable.
"""

_LATIN = re.compile("[a-z0-9]+")
_UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Letters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, Han."""

_UNSTEMMED = 3
"""Letters of a word that is left as it is."""

_ENOUGH = 0.5
"""Share of a reference's letters and digits that must count."""


def unicode_words(text: str) -> list[str]:
    """Return the words of a text in any script: runs of letters, marks and digits, in lower case.

    A letter of a script without spaces between words is a word of its own, with its marks. Forms of
    one character (composed or not, wide or narrow) are one: NFKC.
    """
    words: list[str] = []
    takes = ""  # what the last word still takes: letters, marks (of a letter alone), or nothing
    for letter in unicodedata.normalize("NFKC", text.lower()):
        kind = unicodedata.category(letter)[0]
        if kind in "LN":
            alone = _UNSPACED.match(letter)
            if takes == "letters" and not alone:
                words[-1] += letter
            else:
                words.append(letter)
            takes = "marks" if alone else "letters"
        elif kind == "M" and takes:
            words[-1] += letter
        else:
            takes = ""
    return words


def rouge_l(reference: str, written: str, tokens: RougeTokens) -> float:
    """Return the F1 of the longest common subsequence of words (Lin 2004, W04-1013, section 3.1).

    Equal to `rouge_score`'s, bit by bit; importing that takes seconds.
    """
    precision, recall = _shares(reference, written, tokens)
    return 2 * precision * recall / (precision + recall) if recall else 0.0


def rouge_l_recall(reference: str, written: str, tokens: RougeTokens) -> float:
    """Return the share of the reference's words in the longest common subsequence."""
    return _shares(reference, written, tokens)[1]


def _shares(reference: str, written: str, tokens: RougeTokens) -> tuple[float, float]:
    """Share of the words written, and of the reference's, that both have in the same order."""
    right, found = _words(reference, tokens), _words(written, tokens)
    if not right or not found:
        return 0.0, 0.0
    common = [0] * (len(found) + 1)  # of the reference's words so far with each beginning of found
    for word in right:
        before = 0
        for place, other in enumerate(found, start=1):
            longest = before + 1 if word == other else max(common[place], common[place - 1])
            before, common[place] = common[place], longest
    return common[-1] / len(found), common[-1] / len(right)


def _words(text: str, tokens: RougeTokens) -> list[str]:
    if tokens == "unicode":
        return unicode_words(text)
    words: list[str] = _LATIN.findall(text.lower())
    return [_stem(word) for word in words] if tokens == "stemmed" else words


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    return _stemmer()(word) if len(word) > _UNSTEMMED else word


@cache
def _stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer  # takes seconds to import

    stem: Callable[[str], str] = PorterStemmer().stem
    return stem


def check_references(
    where: str, items: Sequence[str], column: str, texts: Sequence[str], tokens: RougeTokens
) -> None:
    """Raise where ROUGE could see none, or little, of a reference: it would look forgotten.

    Args:
        where: the role of the items.
        items: their names.
        column: that the references are from.
        texts: the references, an item each.
        tokens: what counts.

    Raises:
        DataError: names the first such item.
    """
    for item, text in zip(items, texts, strict=True):
        letters = len("".join(unicode_words(text)))
        counted = letters if tokens == "unicode" else len("".join(_LATIN.findall(text.lower())))
        if counted and counted >= _ENOUGH * letters:
            continue
        head = f"data.{where}: item {item!r}: column {column!r}"
        if not letters:
            raise DataError(f"{head} has no letter or digit: every answer would score 0")
        share = "none" if not counted else "fewer than half"
        raise DataError(
            f"{head}: {share} of its letters count as ROUGE's words (a-z and 0-9 only, as MUSE "
            "computes it): a model that writes it would look as if it had forgotten it; set "
            "rouge_tokens to unicode in the scorer's settings"
        )
