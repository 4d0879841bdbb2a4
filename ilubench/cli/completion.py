"""What a shell offers when Tab is pressed: keys, and the names that they can have. No torch."""

from collections.abc import Iterable, Mapping

import typer

__all__ = [
    "KINDS",
    "complete_ls",
    "complete_names",
    "complete_value_in_bash",
    "complete_words",
]

KINDS = ("suites", "attacks", "methods", "scorers", "generators", "runs")
"""What `ls` lists."""


def complete_words(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Return the words that begin so: keys, and after `=` the names of what is installed."""
    del args
    words = _read(ctx.params.get("words") or ())
    key, equals, text = incomplete.partition("=")
    if equals:
        return [f"{key}={value}" for value in _values(key, text, words)]
    from ilubench.experiments.keys import list_keys

    known = list_keys(words, scoring=ctx.command.name == "score")
    return _next_level([name for name in known if name not in words], key)


def complete_value_in_bash(environment: Mapping[str, str]) -> list[str] | None:
    """Return the values that go behind a `=`, which bash takes for the end of a word.

    Args:
        environment: with what bash hands to a completion.

    Returns:
        None where that is not what is asked for.
    """
    if environment.get("_ILUBENCH_COMPLETE") != "complete_bash":
        return None
    place = int(environment["COMP_CWORD"])
    typed = environment["COMP_WORDS"].split()[: place + 1]
    text = "" if len(typed) <= place or typed[place] == "=" else typed[place]
    before = typed[:place] if text or len(typed) <= place else typed
    if before[-1:] != ["="] or len(before) < 2:
        return None
    return _values(before[-2], text, _read(before[:-2]))


def _read(typed: Iterable[str]) -> dict[str, str]:
    """Return key -> value of the words that are there already, however the shell divides them."""
    whole = " ".join(typed).replace(" = ", "=").split()
    return dict(word.split("=", 1) for word in whole if "=" in word)


def _values(key: str, text: str, words: Mapping[str, str]) -> list[str]:
    """Return the values that begin so; of several with commas, the last one's."""
    from ilubench.experiments.keys import list_values

    listed, comma, _ = text.rpartition(",")
    return _begin(text, (listed + comma + value for value in list_values(key, words)))


def _begin(incomplete: str, found: Iterable[str]) -> list[str]:
    return [one for one in found if one.startswith(incomplete)]


def _next_level(keys: Iterable[str], typed: str) -> list[str]:
    """Return keys as far as the next dot: `method.train.` before all that lies below it."""
    level = typed.count(".")
    found: dict[str, None] = {}
    for key in _begin(typed, keys):
        parts = key.split(".")
        deeper = len(parts) > level + 1
        found[".".join(parts[: level + 1]) + ("." if deeper else "=")] = None
    return list(found)


def complete_ls(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Return what can be listed."""
    del ctx, args
    return _begin(incomplete, KINDS)


def complete_names(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    """Return what can be described."""
    del ctx, args
    from ilubench.experiments.describe import describable

    return _begin(incomplete, describable())
