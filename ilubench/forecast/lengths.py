"""How long training sequences are: counted, counted on some rows, or as stated."""

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

from ilubench.data import batches as training_data
from ilubench.data.batches import Stream
from ilubench.data.rows import Tables, render
from ilubench.interfaces import Dataset, Drawn, Lengths, Row
from ilubench.specs import DataSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "MOST_ROWS",
    "Group",
    "counted",
    "drawn",
    "in_order",
    "joined",
    "lengths_of",
    "stated",
]

MOST_ROWS = 2000
"""Rows of a role that are tokenised; of more, so many are taken at equal distances."""

_STEPS = 400
"""Steps whose batches are made up; what follows is like them."""

_CHARACTERS = 4.0
"""Characters a token, where there is no tokenizer yet."""


@dataclass(frozen=True)
class Group:
    """Batches of some steps together.

    Attributes:
        batches: micro-batches.
        tokens: positions, padding included.
        squares: sum of the padded lengths' squares.
        answers: target tokens.
        largest: positions of the largest micro-batch.
        longest: its answers.
    """

    batches: float = 0.0
    tokens: float = 0.0
    squares: float = 0.0
    answers: float = 0.0
    largest: int = 0
    longest: int = 0

    def with_batch(self, lengths: Lengths, places: Sequence[int]) -> "Group":
        """Return the same and one more micro-batch; items without tokens are left out."""
        part = [at for at in places if lengths.tokens[at]]
        if not part:
            return self
        width = max(lengths.tokens[at] for at in part)
        answers = sum(lengths.answers[at] for at in part)
        return Group(
            self.batches + 1,
            self.tokens + width * len(part),
            self.squares + width * width * len(part),
            self.answers + answers,
            max(self.largest, width * len(part)),
            max(self.longest, answers),
        )

    def times(self, factor: float) -> "Group":
        """Return so many times the batches."""
        return Group(
            self.batches * factor,
            self.tokens * factor,
            self.squares * factor,
            self.answers * factor,
            self.largest,
            self.longest,
        )


def drawn(batches: Drawn) -> Group:
    """Return what the batches of a loop come to, in the order of training."""
    items, steps, count = batches.items, batches.steps, batches.count
    if not steps or not count or not len(items):
        return Group()
    order = Stream(len(items), batches.seed, batches.stream)
    made, size, run = min(steps, _STEPS), batches.micro or count, batches.run or items
    total = Group()
    for step in range(made):
        chosen = sorted(order.step(step, count), key=lambda at: (items.tokens[at], at))
        for start in range(0, count, size):
            total = total.with_batch(run, chosen[start : start + size])
    return total.times(steps / made)


def in_order(lengths: Lengths, size: int, *, shortest_first: bool = True) -> Group:
    """Return the batches of a data set, each item once."""
    places = list(range(len(lengths)))
    if shortest_first:
        places.sort(key=lambda at: lengths.tokens[at])
    total = Group()
    for start in range(0, len(places), size):
        total = total.with_batch(lengths, places[start : start + size])
    return total


class _Some(Tables):
    """At most so many of the rows of each role, at equal distances."""

    def __init__(self, tables: Tables, most: int) -> None:
        self._whole, self._most = tables, most

    def source(self, role: str) -> DataSource:
        return self._whole.source(role)

    def gated(self, role: str) -> bool:
        return self._whole.gated(role)

    def rows(self, role: str) -> list[Row]:
        return evenly(self._whole.rows(role), self._most)


def evenly(rows: list[Row], most: int) -> list[Row]:
    """Return all rows, or ``most`` of them at equal distances."""
    if len(rows) <= most:
        return rows
    return [rows[place * len(rows) // most] for place in range(most)]


def counted(
    tables: Tables, role: str, tokenizer: "PreTrainedTokenizerBase | None", max_length: int
) -> Lengths:
    """Return the lengths of a role's training sequences.

    Args:
        tables: have the rows.
        role: which.
        tokenizer: of the model; None where it is not made yet, then characters are counted.
        max_length: tokens that a sequence may have.

    Raises:
        DataError: rows are missing, or one does not become a training sequence.
    """
    rows = tables.rows(role)
    some = _Some(tables, MOST_ROWS)
    if tokenizer is None:
        return _from_characters(some, role, len(rows), max_length)
    found = lengths_of(training_data.tokenize_roles(some, (role,), tokenizer, max_length))
    if len(rows) <= MOST_ROWS:
        return found
    return _stretched(found, round(len(found) * len(rows) / MOST_ROWS))


def lengths_of(dataset: Dataset) -> Lengths:
    """Return the lengths of training examples."""
    return Lengths(
        tuple(len(item.input_ids) for item in dataset),
        tuple(sum(item.loss_mask) for item in dataset),
        tuple(item.loss_mask.index(True) for item in dataset),
        "counted",
    )


def _stretched(some: Lengths, count: int) -> Lengths:
    made = some.some([place * len(some) // count for place in range(count)])
    return replace(made, origin="sampled")


def _from_characters(tables: Tables, role: str, count: int, max_length: int) -> Lengths:
    source = tables.source(role)
    parts: list[tuple[int, int]] = []
    for row in tables.rows(role):
        prompt, answer = (
            math.ceil(len(render(template, row, source, role)) / _CHARACTERS)
            for template in (source.prompt, source.completion)
        )
        limit = min(max_length, source.max_length or max_length)
        parts += _cut(prompt, answer, limit, source)
    found = Lengths(
        tuple(prompt + answer for prompt, answer in parts),
        tuple(answer for _, answer in parts),
        tuple(prompt for prompt, _ in parts),
        "stated",
    )
    if count <= MOST_ROWS:
        return found
    stretched = _stretched(found, round(len(parts) * count / MOST_ROWS))
    return Lengths(stretched.tokens, stretched.answers, stretched.prompts, "stated")


def _cut(prompt: int, answer: int, limit: int, source: DataSource) -> list[tuple[int, int]]:
    """Return (prompt, answer) of the parts of a sequence, as `ilubench.data.batches` cuts it."""
    whole = max(2, prompt + answer + 1)
    if whole <= limit:
        return [(min(prompt, whole - 1), whole - min(prompt, whole - 1))]
    if source.overlong == "windows":
        count = math.ceil(whole / limit)
        width = math.ceil(whole / count)
        return [(1, width - 1)] * count
    return [(min(prompt, limit - 1), limit - min(prompt, limit - 1))]


def stated(source: DataSource, max_length: int, rows: int, tokens: float) -> Lengths:
    """Return lengths that are all the stated mean, cut as the suite cuts.

    Args:
        source: how rows are rendered and cut.
        max_length: tokens that a sequence may have.
        rows: after the cut by `offset` and `limit`.
        tokens: mean of a row.
    """
    limit = min(max_length, source.max_length or max_length)
    prompt = round(tokens / 2) if source.prompt else 1
    parts = _cut(prompt, max(1, round(tokens) - prompt), limit, source)
    return Lengths(
        tuple(p + a for p, a in parts) * rows,
        tuple(a for _, a in parts) * rows,
        tuple(p for p, _ in parts) * rows,
        "stated",
    )


def joined(parts: Sequence[Lengths]) -> Lengths:
    """Return several roles' sequences, one role after the other."""
    return reduce(operator.add, parts, Lengths((), (), (), "counted"))
