"""Where rows come from."""

from datetime import date
from operator import not_
from typing import Literal, Self

from pydantic import Field, model_validator

from ilubench.specs.about import DataAbout
from ilubench.specs.base import Settings, Spec

__all__ = ["DataSource", "GeneratorSpec"]

_TODAY = date(2024, 7, 26)
"""The day that the template of Llama 3 writes where it cannot ask for one."""


class DataSource(Spec):
    """Rows from exactly one of: a hub data set, a local file, a generator's table.

    ``prompt`` and ``completion`` are ``str.format`` templates over the row's columns; the loss is
    on the completion's tokens and the end-of-sequence token. An empty prompt means: loss on all.

    Attributes:
        hub: a data set, as org/name.
        revision: commit, branch or tag of it.
        subset: of the data set.
        split: of the data set.
        path: a local file or folder.
        where: column -> value of the rows that are kept.
        offset: rows left out at the beginning.
        limit: rows at most.
        prompt: template of what is shown; no loss.
        completion: template of what is learned or asked for.
        labels: column -> words in the place of its numbers.
        max_length: tokens of a sequence; none: the suite's.
        overlong: what becomes of a longer text.
        chat: whether prompt and completion are turns of a conversation, written by the model's own
            chat template, in training and in scoring; the loss is on the answer and on what ends
            the assistant's turn.
        system: the conversation's system turn; none: what the template does by itself.
        today: the day that a template is told which writes one.
        blank: what becomes of a row whose completion is blank, before `offset` and `limit` count.
        license: as its owner states it.
        gated: whether terms must be accepted; then no text is recorded.
    """

    hub: str | None = None
    revision: str | None = None
    subset: str | None = None
    split: str = "train"
    path: str | None = None
    # left out where it is not given, older records stay equal
    files: tuple[str, ...] = Field(
        default=(),
        exclude_if=not_,
        description="names in use for one file; of a hub data set or a folder, the first one there",
    )
    generated: str | None = Field(default=None, description="`<generator>.<table>`")

    where: dict[str, str | int] = Field(default_factory=dict)
    offset: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    shuffle: int | None = Field(default=None, description="seed of a shuffle before the cut")

    prompt: str = ""
    completion: str = "{text}"
    labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    # left out where they are not given, older records stay equal
    chat: bool = Field(default=False, exclude_if=not_)
    system: str = Field(default="", exclude_if=not_)
    today: date = Field(default=_TODAY, exclude_if=lambda value: value == _TODAY)

    max_length: int | None = Field(default=None, ge=2)
    overlong: Literal["error", "windows", "truncate"] = "error"

    # left out where it is not given, older records stay equal
    blank: Literal["error", "leave_out"] = Field(
        default="error", exclude_if=lambda value: value == "error"
    )

    license: str = ""
    gated: bool = False
    publish_text: bool = Field(default=False, description="generated text may be recorded")
    about: DataAbout | None = Field(
        default=None, exclude=True, description="sizes, for `ilubench plan`; in no record"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("hub", "path", "generated") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError(f"give exactly one of hub, path, generated (given: {given or 'none'})")
        for name in ("revision", "subset"):
            if getattr(self, name) is not None and self.hub is None:
                raise ValueError(f"{name}: {given[0]} has none, only hub has; leave it out")
        if self.generated and self.generated.count(".") != 1:
            raise ValueError("`generated` is `<generator>.<table>`")
        if self.gated and self.publish_text:
            raise ValueError("publish_text: text of a gated source is never recorded; leave it out")
        for name in ("system", "today"):
            if not self.chat and name in self.model_fields_set:
                raise ValueError(f"{name}: there is no chat; set chat to true, or leave it out")
        return self


class GeneratorSpec(Spec):
    """A plugin that makes tables, from nothing or from other roles' rows.

    Attributes:
        use: its name, or FILE.py:Class.
        settings: its fields.
        inputs: rows that it reads, by name.
    """

    use: str
    settings: Settings = Field(default_factory=dict)
    inputs: dict[str, DataSource] = Field(default_factory=dict)
