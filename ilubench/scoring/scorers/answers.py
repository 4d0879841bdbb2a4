"""Log-likelihoods of continuations, the cheapest way that an engine has."""

from collections.abc import Sequence

from ilubench.errors import ItemError, OptionError
from ilubench.interfaces import MAX_OPTIONS, Engine, Ids

__all__ = ["loglikelihoods"]


def loglikelihoods(
    engine: Engine, pairs: Sequence[tuple[Ids, Ids]], *, flags: bool
) -> list[tuple[float, bool]]:
    """Return (log-likelihood in nats, is the argmax) of each continuation.

    Where all are single tokens and nobody asks for the flags, each context's next-token row gives
    the answer to all its options; otherwise the continuations' tokens are scored one by one. Never
    both ways in one call, so that an item's options stay comparable to the last bit.

    Args:
        engine: with weights loaded.
        pairs: (context, continuation).
        flags: whether the flags are needed; they are False otherwise.

    Raises:
        ItemError: a pair that the engine cannot take; the position is the pair's.
    """
    for position, (_, continuation) in enumerate(pairs):
        if not continuation:
            raise ItemError(position, "an answer adds no token to the prompt; nothing to score")
    options = sorted({continuation[0] for _, continuation in pairs})
    single = all(len(continuation) == 1 for _, continuation in pairs)
    if flags or not single or len(options) > MAX_OPTIONS:
        return [(scored.total, all(scored.greedy)) for scored in engine.logprobs(pairs)]
    rows_of: dict[tuple[int, ...], int] = {}
    first: list[int] = []  # the first pair of each context
    for position, (context, _) in enumerate(pairs):
        if rows_of.setdefault(tuple(context), len(rows_of)) == len(first):
            first.append(position)
    try:
        rows = engine.choices(list(rows_of), options)
    except ItemError as error:
        raise ItemError(first[error.position], error.problem) from error
    except OptionError as error:
        asked = [continuation[0] for _, continuation in pairs]
        raise ItemError(asked.index(error.option), error.problem) from error
    column = {option: place for place, option in enumerate(options)}
    return [
        (rows[rows_of[tuple(context)]][column[continuation[0]]], False)
        for context, continuation in pairs
    ]
