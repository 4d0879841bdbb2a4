"""The news-scratch suite's tables: spans to train on and passages to recite, from MUSE-News.

The items of MUSE-News `verbmem` are windows over the rows of `raw`, joined by a blank line. They
were cut by tokens, not characters (they begin and end inside words; about 1,024 tokens of prompt
and 128 of continuation), and prompt and continuation were decoded and stripped one by one, so that
the white space at the seam is lost. Therefore items are located with all white space ignored.

The retain items are cut from the `privleak` retain texts alike: item i takes the lengths, in
characters, of the forget item i's prompt and continuation, rounded up to whole words, from the
middle of its text.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import ClassVar, cast

from pydantic import Field

from ilubench.errors import DataError
from ilubench.interfaces import Generator
from ilubench.interfaces import Row as InputRow

__all__ = ["VerbatimSpans", "cut_item", "item_rows", "merge_spans", "span_tables"]

Row = dict[str, str]

ROW_SEPARATOR = "\n\n"  # what joins consecutive rows of `raw` in the items

_WORD = re.compile(r"\S+")


def span_tables(
    raw: Sequence[Mapping[str, str]],
    verbmem: Sequence[Mapping[str, str]],
    retain: Sequence[Mapping[str, str]],
    *,
    items: int = 20,
    shortest: bool = False,
    retain_chars: int | None = None,
) -> dict[str, list[Row]]:
    """Build the suite's four tables from rows as MUSE-News publishes them.

    Args:
        raw: rows of `raw` forget, in their published order: `text`.
        verbmem: rows of `verbmem` forget: `prompt`, `gt`.
        retain: rows of `privleak` retain: `text`.
        items: how many items each domain gets: the first rows of `verbmem` and of `retain`.
        shortest: take the `verbmem` items whose spans of rows are shortest instead.
        retain_chars: cut each retain text to its first whole words of so many characters.

    Returns:
        `forget_spans` and `retain_spans` (`id`, `text`), `forget_verbmem` and `retain_verbmem`
        (`id`, `prompt`, `gt`). Overlapping forget spans are merged, so there may be fewer than
        items.

    Raises:
        DataError: too few rows, a missing field, an item that is in no span of rows, or a retain
            text that is too short.
    """
    if items < 1:
        raise DataError(f"items is {items}: at least one item is needed")
    texts = _column(raw, "text", "raw", len(raw))
    asked = len(verbmem) if shortest else items
    prompts = _column(verbmem, "prompt", "verbmem", max(asked, items))
    answers = _column(verbmem, "gt", "verbmem", max(asked, items))
    kept = _column(retain, "text", "retain", items)
    if retain_chars is not None:
        kept = [_take(text, list(_WORD.finditer(text)), retain_chars)[0] or text for text in kept]

    rows = item_rows(texts, prompts, answers)
    numbers = sorted(range(len(rows)), key=lambda index: (_length(texts, rows[index]), index))
    numbers = sorted(numbers[:items]) if shortest else list(range(items))
    prompts, answers = [prompts[i] for i in numbers], [answers[i] for i in numbers]
    spans = merge_spans([rows[i] for i in numbers])
    cuts = [
        cut_item(text, len(prompt), len(answer), name=f"retain row {index}")
        for index, (text, prompt, answer) in enumerate(zip(kept, prompts, answers, strict=True))
    ]
    return {
        "forget_spans": [
            {"id": f"raw-{first}-{last}", "text": ROW_SEPARATOR.join(texts[first : last + 1])}
            for first, last in spans
        ],
        "forget_verbmem": [
            {"id": f"verbmem-{index}", "prompt": prompt, "gt": answer}
            for index, prompt, answer in zip(numbers, prompts, answers, strict=True)
        ],
        "retain_spans": [
            {"id": f"retain-{index}", "text": text} for index, text in enumerate(kept)
        ],
        "retain_verbmem": [
            {"id": f"retain-{index}", "prompt": prompt, "gt": answer}
            for index, (prompt, answer) in enumerate(cuts)
        ],
    }


def _length(texts: Sequence[str], rows: tuple[int, int]) -> int:
    return sum(len(text) for text in texts[rows[0] : rows[1] + 1])


def item_rows(
    texts: Sequence[str], prompts: Sequence[str], answers: Sequence[str]
) -> list[tuple[int, int]]:
    """Find the consecutive rows that each item covers, all white space ignored.

    Args:
        texts: the rows' texts, in order.
        prompts: the items' prompts.
        answers: the items' continuations, one for each prompt.

    Returns:
        The first and the last row of each item, both included; of several places, the first.

    Raises:
        DataError: an item is nowhere in the rows, or has no text; the message says which.
    """
    compact = [_compact(text) for text in texts]
    starts = list(accumulate((len(text) for text in compact), initial=0))[:-1]
    joined = "".join(compact)
    found = []
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        needle = _compact(prompt + answer)
        begin = joined.find(needle) if needle else -1
        if begin < 0:
            shown = prompt[:40]
            raise DataError(
                f"verbmem item {index} ({shown!r}...) is not in the raw rows; "
                "give the raw file that the items were cut from, complete and in order"
            )
        end = begin + len(needle) - 1
        found.append((bisect_right(starts, begin) - 1, bisect_right(starts, end) - 1))
    return found


def merge_spans(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Merge the spans (first row, last row) that share a row; the result is sorted.

    Spans that only touch (2-3 and 4-5) stay apart.
    """
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def cut_item(text: str, prompt_chars: int, answer_chars: int, *, name: str) -> tuple[str, str]:
    """Cut a prompt and its continuation out of the middle of a text.

    Args:
        text: the text to cut from.
        prompt_chars: length of the prompt, in characters.
        answer_chars: length of the continuation, in characters.
        name: what the text is called in an error.

    Returns:
        Prompt and continuation: whole words, each at most a word longer than asked for, stripped.

    Raises:
        DataError: the text is shorter than both together.
    """
    begin = max(0, len(text) - prompt_chars - answer_chars) // 2
    words = list(_WORD.finditer(text, _word_start(text, begin)))
    prompt, rest = _take(text, words, prompt_chars)
    answer, _ = _take(text, rest, answer_chars)
    if len(prompt) < prompt_chars or len(answer) < answer_chars:
        raise DataError(
            f"{name} has {len(text)} characters, too few for a prompt of {prompt_chars} "
            f"and a continuation of {answer_chars}; give longer texts"
        )
    return prompt, answer


def _take(
    text: str, words: Sequence[re.Match[str]], chars: int
) -> tuple[str, Sequence[re.Match[str]]]:
    """Return the shortest leading run of words of at least `chars` characters, and the others."""
    for count, word in enumerate(words, start=1):
        if word.end() - words[0].start() >= chars:
            return text[words[0].start() : word.end()], words[count:]
    return "", ()


def _word_start(text: str, position: int) -> int:
    """Return the start of the word that holds `position`, or `position` itself between words."""
    while position > 0 and not text[position - 1].isspace():
        position -= 1
    return position


def _compact(text: str) -> str:
    """Return the text without any white space."""
    return "".join(text.split())


def _column(rows: Sequence[Mapping[str, str]], field: str, table: str, count: int) -> list[str]:
    """Return one field of the first `count` rows, or say what is missing."""
    if len(rows) < max(count, 1):
        raise DataError(f"{table} has {len(rows)} rows, {max(count, 1)} are needed")
    for index, row in enumerate(rows[:count]):
        if not isinstance(row.get(field), str):
            raise DataError(f"{table} row {index} has no text in field {field!r}")
    return [row[field] for row in rows[:count]]


class VerbatimSpans(Generator):
    """Texts to train on and passages to recite, cut from MUSE's raw, verbmem and privleak rows.

    Its inputs are `raw` ({text}), `verbmem` ({prompt, gt}) and `retain` ({text}).

    Attributes:
        items: passages of each domain.
        shortest: take the items with the shortest spans of rows, not the first items.
        retain_chars: length of the retain spans in characters; whole texts when None.
    """

    version: ClassVar[int] = 1

    items: int = Field(default=20, ge=1)
    shortest: bool = False
    retain_chars: int | None = Field(default=None, ge=1)

    def tables(self, inputs: Mapping[str, Sequence[InputRow]]) -> Mapping[str, Sequence[InputRow]]:
        """Return `forget_spans`, `forget_verbmem`, `retain_spans`, `retain_verbmem`.

        Raises:
            DataError: an input is missing, or does not fit the others.
        """
        missing = sorted({"raw", "verbmem", "retain"} - set(inputs))
        if missing:
            raise DataError(f"verbatim_spans needs the input {missing[0]!r}; add it to `inputs`")
        raw, verbmem, retain = (
            cast("Sequence[Mapping[str, str]]", inputs[name])
            for name in ("raw", "verbmem", "retain")
        )
        found = span_tables(
            raw,
            verbmem,
            retain,
            items=self.items,
            shortest=self.shortest,
            retain_chars=self.retain_chars,
        )
        return cast("Mapping[str, Sequence[InputRow]]", found)
