"""ROUGE-L over words as the package `rouge_score` has them, or over letters of any script."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, TypeAlias

from ilubench.errors import DataError

__all__ = ["RougeTokens", "check_references", "rouge_l", "unicode_words"]

RougeTokens: TypeAlias = Literal["latin", "unicode"]
"""`latin`: runs of a-z and 0-9 in lower case, as MUSE counts; all else parts words.

`unicode`, version 1: :func:`unicode_words`. Figures of the two are not comparable.
"""

_LATIN = re.compile("[a-z0-9]+")
_UNSPACED = re.compile(
    "[\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""Letters of scripts that put no spaces between words: Thai, Lao, Burmese, Khmer, kana, Han."""

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

    Equal to `rouge_score`'s without a stemmer, bit by bit; importing that takes seconds.
    """
    right, found = (
        unicode_words(text) if tokens == "unicode" else _LATIN.findall(text.lower())
        for text in (reference, written)
    )
    if not right or not found:
        return 0.0
    common = [0] * (len(found) + 1)  # of the reference's words so far with each beginning of found
    for word in right:
        before = 0
        for place, other in enumerate(found, start=1):
            longest = before + 1 if word == other else max(common[place], common[place - 1])
            before, common[place] = common[place], longest
    precision, recall = common[-1] / len(found), common[-1] / len(right)
    return 2 * precision * recall / (precision + recall) if common[-1] else 0.0


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
