"""What a task's templates make of an item's values: letters of a text, nulls, printed lists.

A template writes whatever a row holds: "None" for a null, "['a', 'b']" for a list, and single
letters where it counts through a text as if it were a list. So a task is asked once more about a
copy of the item that notices this, whether its templates are Jinja's or Python code.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

from ilubench.data.values import describe_value
from ilubench.errors import DataError

__all__ = ["check_answers", "check_options", "check_values"]

_MARK = "\ue000"
"""Stands for what must not be printed; private use, so that no text has it."""


@dataclass
class _Read:
    """What a template read: place in the row -> positions, of texts and of lists."""

    letters: dict[str, set[int]] = field(default_factory=dict)
    lists: dict[str, set[int]] = field(default_factory=dict)
    values: dict[str, Sequence[object]] = field(default_factory=dict)


class _Text(str):
    """A column's text that notices when single letters are taken from it."""

    __slots__ = ("read",)
    read: set[int]

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if isinstance(key, int):
            self.read.add(key)
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[str]:
        for place in range(len(self)):
            yield self[place]


class _List(list[Any]):
    """A list that notices which of its elements are taken, and when it is printed whole."""

    read: set[int]

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401
        if isinstance(key, int):
            self.read.add(key)
        return super().__getitem__(key)

    def __str__(self) -> str:
        return _MARK

    def __format__(self, _: str) -> str:
        return _MARK


class _Mapping(dict[str, Any]):
    """A mapping that notices when it is printed whole."""

    def __str__(self) -> str:
        return _MARK

    def __format__(self, _: str) -> str:
        return _MARK


def _watched(value: object, place: str, read: _Read) -> object:
    if isinstance(value, str):
        text = _Text(value)
        text.read = read.letters.setdefault(place, set())
        return text
    if isinstance(value, list):
        # texts within a list are what they are
        found = _List(one if isinstance(one, str) else _watched(one, place, read) for one in value)
        found.read = read.lists.setdefault(place, set())
        read.values[place] = value
        return found
    if isinstance(value, Mapping):
        return _Mapping({k: _watched(one, f"{place}.{k}", read) for k, one in value.items()})
    return value


def _marked(value: object) -> object:
    """The value with the mark in place of each null."""
    if value is None:
        return _MARK
    if isinstance(value, list):
        return [_marked(one) for one in value]
    if isinstance(value, Mapping):
        return {key: _marked(one) for key, one in value.items()}
    return value


def _texts(task: Any, doc: Mapping[str, Any]) -> Iterator[str]:  # noqa: ANN401
    """Yield what the task's templates write of an item."""
    parts: list[Callable[[Mapping[str, Any]], Any]] = [task.doc_to_text, task.doc_to_target]
    if task.config.doc_to_choice is not None:
        parts.append(task.doc_to_choice)
    for part in parts:
        made = part(doc)
        yield from (one for one in (made if isinstance(made, list) else [made]) if type(one) is str)


def check_values(where: str, task: Any, doc: Mapping[str, Any], options: int) -> None:  # noqa: ANN401
    """Raise where a template prints a null or a list, or takes the letters of a text for a list.

    Args:
        where: names task and item.
        task: lm-eval's object.
        doc: the item; the templates fit it.
        options: how many options it has; 0 where nothing is chosen.

    Raises:
        DataError: names the column.
    """
    for column, value in doc.items():
        marked = _marked(value)
        if marked != value and _prints(task, doc, {**doc, column: marked}):
            raise DataError(f"{where}: column {column!r} is or holds a null, which is no text")
    read = _Read()
    copy = {column: _watched(value, column, read) for column, value in doc.items()}
    asked, counts_through = "", isinstance(task.config.doc_to_text, str)
    try:
        asked = task.doc_to_text(copy)
        if task.config.doc_to_choice is not None:
            task.doc_to_choice(copy)
    except Exception:  # noqa: BLE001 - a task's own code may not take the copy's values
        pass
    for place, letters in read.letters.items():
        # code may well look at the first letter of a word, a template does not
        if len(letters) > (0 if counts_through else 1):
            raise DataError(
                f"{where}: column {place!r} is text, and the task reads single letters of it: a "
                "list of texts is wanted"
            )
    if isinstance(asked, str) and _MARK in asked:
        shown = [name for name, value in doc.items() if isinstance(value, list | Mapping)]
        columns = ", ".join(map(repr, shown))
        raise DataError(f"{where}: a list ({columns}) is printed where the task has text")
    for place, taken in read.lists.items():
        if options and len(taken) > 1:
            check_options(where, f"column {place!r}", read.values[place], options)


def _prints(task: Any, doc: Mapping[str, Any], marked: Mapping[str, Any]) -> bool:  # noqa: ANN401
    """Whether nulls are printed: the same texts come out with the mark where "None" was."""
    try:
        plain, found = list(_texts(task, doc)), list(_texts(task, marked))
    except Exception:  # noqa: BLE001 - a task's own code may not take the mark
        return False
    return plain != found and plain == [text.replace(_MARK, "None") for text in found]


def check_options(where: str, what: str, options: object, wanted: int = 0) -> None:
    """Raise unless options are a list of texts.

    Args:
        where: names task and item.
        what: has them: a column, or the template.
        options: what is there.
        wanted: how many the task asks about; 0 for any number.

    Raises:
        DataError: they are not; names the place.
    """
    if isinstance(options, str) or not isinstance(options, Sequence):
        shown = describe_value(options)
        raise DataError(f"{where}: {what} is {shown}, and a list of texts is wanted")
    for place, option in enumerate(options, start=1):
        if not isinstance(option, str):
            shown = "null" if option is None else describe_value(option)
            problem = f"option {place} of {what} is {shown}, not text"
            raise DataError(f"{where}: {problem}; write it in quotation marks")
    if wanted and len(options) != wanted:
        problem = f"{what} has {len(options)} options, and the task asks about {wanted}"
        raise DataError(f"{where}: {problem}")


def check_answers(where: str, options: Sequence[str], right: Sequence[int | str]) -> None:
    """Raise unless a model can choose rightly or wrongly among the options that are compared.

    Args:
        where: names task and item.
        options: texts, two at least.
        right: the right ones, by place or by text.

    Raises:
        DataError: an option is blank, there is only one, or the right one is written twice.
    """
    if len(options) < len(("right", "wrong")):
        raise DataError(f"{where}: one option: every model chooses it")
    for place, option in enumerate(options, start=1):
        if not option.strip():
            raise DataError(f"{where}: option {place} is blank")
    texts = [options[one] if isinstance(one, int) else one for one in right]
    if set(options) <= set(texts):
        raise DataError(f"{where}: every option is a right answer")
    for text in texts:
        if options.count(text) > 1:
            places = " and ".join(str(n) for n, one in enumerate(options, 1) if one == text)
            raise DataError(f"{where}: options {places} are the same text, and the right answer")
