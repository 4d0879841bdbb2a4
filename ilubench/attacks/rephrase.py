"""Rephrasing: the same questions in other words, in another frame, with other options shown."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from ilubench.data.values import text_in
from ilubench.errors import DataError, did_you_mean
from ilubench.interfaces import Item, Options, PromptAttack, PromptContext, Row

__all__ = ["Rephrase"]


class Rephrase(PromptAttack):
    r"""Each question is asked in all the other ways that are named; the question itself is not.

    Attributes:
        role: of other wordings, each a row; several may be of one question.
        key: column in which a wording and the question that it stands for have the same text.
        replaces: the question's column -> the wording's column that stands for it; by default all
            that both have besides `key` and `id`.
        frames: words in the place of the `Question:` and `Answer:` of a scorer's template.
        options: `lettered` shows a multiple choice's options behind letters and takes a letter for
            the answer; `plain` shows none and compares their texts.
        rule: what becomes of the wordings' scores. `mean` stays on the scale of one question, with
            its chance level. `best` is what an attacker has who tries all of them; it also raises
            what is reached by a model that knows nothing, and is to be read beside `retrain`.
    """

    role: str | None = None
    key: str = "id"
    replaces: dict[str, str] = Field(default_factory=dict)
    frames: tuple[tuple[str, str], ...] = ()
    options: tuple[Options, ...] = ()
    rule: Literal["mean", "best"] = "mean"

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if self.role is None and not self.frames and not self.options:
            raise ValueError("no other wording is named; give role, frames or options")
        if any(not word.strip() or set(word) & set("{}") for pair in self.frames for word in pair):
            raise ValueError("frames: give two texts without braces, such as [Q:, A:]")
        return self

    def roles(self) -> tuple[str, ...]:
        """Return the role of the wordings."""
        return () if self.role is None else (self.role,)

    def shows(self) -> tuple[str, ...]:
        """Return none: a wording is asked, without its answer."""
        return ()

    def ways(self) -> int:
        """Return the number of wordings; those of a role are counted as one."""
        return len(self.roles()) + len(self.frames) + len(self.options)

    def rewrite(self, item: Item, context: PromptContext) -> Sequence[Item]:
        """Return the item in other words; none where the role has no wording of it.

        Raises:
            DataError: a wording lacks a column.
        """
        worded = []
        if self.role is not None:
            named = text_in(item.fields.get(self.key))
            rows = context.rows.get(self.role, ())
            own = [row for row in rows if named and text_in(row.get(self.key)) == named]
            if not own:
                return ()
            worded = [
                replace(item, fields={**item.fields, **dict(self._changes(item, row))})
                for row in own
            ]
        framed = [replace(item, frame=frame) for frame in self.frames]
        return [*worded, *framed, *(replace(item, options=options) for options in self.options)]

    def _changes(self, item: Item, row: Row) -> Iterator[tuple[str, JsonValue]]:
        same = {name: name for name in row if name in item.fields and name not in (self.key, "id")}
        for name, theirs in (self.replaces or same).items():
            for column, columns in ((theirs, row), (name, item.fields)):
                if column not in columns:
                    where = f"data.{self.role}" if columns is row else f"item {item.id!r}"
                    remedy = did_you_mean(column, columns)
                    raise DataError(f"{where}: there is no column {column!r}; {remedy}")
            yield name, row[theirs]

    def reduce(self, scores: Sequence[float]) -> float:
        """Return their mean, or the best."""
        return fmean(scores) if self.rule == "mean" else max(scores)
