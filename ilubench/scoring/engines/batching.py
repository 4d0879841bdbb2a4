"""Which prompts run together: by the prefix that they share, and by how much is read at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ilubench.data.vocabulary import unknown_token
from ilubench.errors import DataError, ItemError, OptionError
from ilubench.interfaces import Ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Group", "check_options", "check_prompts", "common_prefix", "group_prompts", "packs"]

_PASS = 64
"""A pass of its own must save more tokens than this: what its overhead is worth, roughly."""

_DEPTH = 50
"""Prefixes within prefixes that are looked at."""


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts that start alike.

    Attributes:
        prefix: tokens that all of them start with; empty when nothing is shared.
        members: positions of the prompts in the list that was planned, longest first.
    """

    prefix: tuple[int, ...]
    members: tuple[int, ...]


def common_prefix(prompts: Sequence[Ids]) -> tuple[int, ...]:
    """Return the longest prefix of all prompts that leaves each at least one token."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    longest = min(map(len, prompts)) - 1
    shared = 0
    while shared < longest and first[shared] == last[shared]:
        shared += 1
    return first[:shared]


def group_prompts(prompts: Sequence[Ids], *, share_prefix: bool = True) -> list[Group]:
    """Divide prompts into groups with a shared prefix, so that few tokens are run more than once.

    A group that shares little is divided further where its parts share more: few-shot prompts of
    many subjects all begin with one instruction, but each subject has its own examples.

    Args:
        prompts: non-empty prompts.
        share_prefix: False puts all prompts into one group without a prefix.
    """
    everyone = tuple(range(len(prompts)))
    _, found = _divided(prompts, everyone, 0) if share_prefix else (0, [])
    alone = set(everyone).difference(*(group.members for group in found))
    groups = [*found, Group((), tuple(sorted(alone)))] if alone else found
    return [Group(g.prefix, _longest_first(prompts, g.members)) for g in groups]


def _longest_first(prompts: Sequence[Ids], members: Sequence[int]) -> tuple[int, ...]:
    return tuple(sorted(members, key=lambda index: (-len(prompts[index]), index)))


def _divided(
    prompts: Sequence[Ids], members: tuple[int, ...], depth: int
) -> tuple[int, list[Group]]:
    """Return the groups among some prompts that save the most tokens, and how many they save."""
    if len(members) < 2 or depth > _DEPTH:
        return 0, []
    prefix = common_prefix([prompts[index] for index in members])
    whole = (len(members) - 1) * len(prefix) - _PASS
    nexts: dict[int, list[int]] = {}
    for index in members:
        nexts.setdefault(prompts[index][len(prefix)], []).append(index)
    parts = []
    if len(nexts) > 1:
        parts = [_divided(prompts, tuple(part), depth + 1) for part in nexts.values()]
    apart = sum(saved for saved, _ in parts)
    if max(whole, apart) <= 0:
        return 0, []
    if whole >= apart:
        return whole, [Group(prefix, members)]
    return apart, [group for _, groups in parts for group in groups]


def packs(sizes: Sequence[int], tokens: int, most: int) -> Iterator[tuple[int, ...]]:
    """Yield runs of neighbours that are read at once: (their positions).

    Args:
        sizes: tokens of each item.
        tokens: of all items of a pack together, unless it has only one.
        most: items of a pack.
    """
    pack: list[int] = []
    total = 0
    for position, size in enumerate(sizes):
        if pack and (total + size > tokens or len(pack) == most):
            yield tuple(pack)
            pack, total = [], 0
        pack.append(position)
        total += size
    if pack:
        yield tuple(pack)


def check_options(
    options: Sequence[int], vocabulary: int, tokenizer: "PreTrainedTokenizerBase"
) -> None:
    """Raise unless every option is a token of the model.

    Raises:
        DataError: there are no options.
        OptionError: one is no token of it.
    """
    if not options:
        raise DataError("there are no options to choose from")
    for option in options:
        if problem := unknown_token([option], vocabulary, tokenizer):
            raise OptionError(option, problem)


def check_prompts(
    prompts: Sequence[Ids],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    extra: int,
    max_length: int,
    vocabulary: int,
) -> None:
    """Raise unless every prompt can be run with ``extra`` more tokens.

    Args:
        prompts: token ids.
        tokenizer: that made them.
        extra: tokens that will follow the prompt.
        max_length: tokens that the model takes.
        vocabulary: number of token ids that the model knows.

    Raises:
        ItemError: an empty prompt, one that does not fit, or one with an unknown id.
    """
    for position, prompt in enumerate(prompts):
        if not prompt:
            raise ItemError(position, "the prompt is empty")
        if len(prompt) + extra > max_length:
            more = f" and {extra} more" if extra else ""
            raise ItemError(
                position,
                f"{len(prompt)} prompt tokens{more} do not fit max_length={max_length}; "
                "nothing is truncated",
            )
        if problem := unknown_token(prompt, vocabulary, tokenizer):
            raise ItemError(position, problem)
