"""Which prompts run together: by length, and by the prefix that they share."""

from collections.abc import Sequence
from dataclasses import dataclass

from ilubench.errors import ItemError
from ilubench.interfaces import Ids

__all__ = ["Group", "check_prompts", "common_prefix", "plan"]

MIN_PREFIX = 16
"""Shorter prefixes are not worth a pass of their own."""


@dataclass(frozen=True, slots=True)
class Group:
    """Prompts that start alike.

    Attributes:
        prefix: tokens that all of them start with; empty when nothing is shared.
        batches: positions of the prompts in the list that was planned, batch by batch.
    """

    prefix: tuple[int, ...]
    batches: tuple[tuple[int, ...], ...]


def common_prefix(prompts: Sequence[Ids]) -> tuple[int, ...]:
    """Return the longest prefix of all prompts that leaves each at least one token."""
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    longest = min(map(len, prompts)) - 1
    shared = 0
    while shared < longest and first[shared] == last[shared]:
        shared += 1
    return first[:shared]


def _batches(
    prompts: Sequence[Ids], members: Sequence[int], size: int
) -> tuple[tuple[int, ...], ...]:
    longest_first = sorted(members, key=lambda index: (-len(prompts[index]), index))
    return tuple(
        tuple(longest_first[start : start + size]) for start in range(0, len(members), size)
    )


def plan(prompts: Sequence[Ids], batch_size: int, *, share_prefix: bool = True) -> list[Group]:
    """Divide prompts into groups with a shared prefix, and these into batches by length.

    A group of its own must fill half a batch (or be half of all prompts), so that many small groups
    do not become many small batches.

    Args:
        prompts: non-empty prompts.
        batch_size: prompts a batch at most.
        share_prefix: False puts all prompts into one group without a prefix.
    """
    alike: dict[tuple[int, ...], list[int]] = {}
    for index, prompt in enumerate(prompts):
        key = tuple(prompt[:MIN_PREFIX]) if share_prefix and len(prompt) > MIN_PREFIX else ()
        alike.setdefault(key, []).append(index)
    enough = max(2, min(batch_size, len(prompts)) / 2)
    groups, rest = [], list(alike.pop((), ()))
    for members in alike.values():
        if len(members) < enough:
            rest.extend(members)
            continue
        prefix = common_prefix([prompts[index] for index in members])
        groups.append(Group(prefix, _batches(prompts, members, batch_size)))
    if rest:
        groups.append(Group((), _batches(prompts, rest, batch_size)))
    return groups


def check_prompts(prompts: Sequence[Ids], *, extra: int, max_length: int, vocabulary: int) -> None:
    """Raise unless every prompt can be run with ``extra`` more tokens.

    Args:
        prompts: token ids.
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
        if max(prompt) >= vocabulary or min(prompt) < 0:
            raise ItemError(
                position,
                f"a token id is outside the model's vocabulary of {vocabulary}; "
                "do tokenizer and model belong together?",
            )
