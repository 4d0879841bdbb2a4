"""What ROUGE counts as words: as in the package `rouge_score`, or letters of any script."""

import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

from ilubench.errors import DataError

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

__all__ = ["RougeTokens", "check_references", "rouge_scorer", "unicode_words"]

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


class _Unicode:
    """What `rouge_score` asks of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return unicode_words(text)


def rouge_scorer(tokens: RougeTokens) -> "RougeScorer":
    """Return ROUGE-L without a stemmer, over what counts as words."""
    from rouge_score import rouge_scorer  # type: ignore[import-untyped, unused-ignore]

    own = None if tokens == "latin" else _Unicode()
    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False, tokenizer=own)


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
