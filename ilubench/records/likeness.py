"""Whether two runs measured the same experiment, by their suites as they were run. Pure."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

from pydantic import JsonValue

from ilubench.specs import MemorySpec, SuiteSpec

__all__ = [
    "STATED",
    "condition_differences",
    "conditions_text",
    "memory_differences",
    "setting_differences",
    "suite_conditions",
    "suite_differences",
]

Leaves: TypeAlias = Iterator[tuple[str, object]]

OF_THE_MACHINE = ("micro_batch", "save_every_s")
"""Settings that say how a machine does the work, and change no figure."""

MEASURED = (
    "target",
    "untouched",
    "generators",
    "data",
    "forget",
    "retain",
    "environments",
    "scorers",
    "primary_forget",
    "utility",
    "composites",
    "max_length",
    "dtype",
    "score_batch",
    "core_unseen",
)
"""A suite's fields that can change a figure; `attacks` counts where it was run."""

SCORED_WITH = ("score_batch",)
"""A suite's fields that say how it is scored; a sum's rounding, hence a score, depends on them."""

WORDS = re.compile(
    r"(^|\.)(data|inputs)\.[^.]+\.(license|gated|publish_text)$"
    r"|^(target\.(model|tokenizer|recipe\.init)|untouched)\.(license|gated)$"
    r"|^attacks\.[^.]+\.(title$|protocol\b)"
)
"""Fields within them that cannot."""

STATED: Mapping[str, Any] = {
    name: {"__all__": {"stated"}} for name in ("primary_forget", "utility")
}
"""What is published of a suite's metrics, to be left out of a dump: it changes no figure."""

_PLACES = r"(?:hub|revision|subset|split|path|files)$"
PLACE = re.compile(rf"^(?:data|attacks\.(?P<attack>[^.]+)\.data)\.(?P<role>[^.]+)\.{_PLACES}")
INPUT = re.compile(rf"^attacks\.(?P<attack>[^.]+)\.generators\.[^.]+\.inputs\.[^.]+\.{_PLACES}")
MODEL = re.compile(
    r"^(?:target\.(?:model|tokenizer|recipe\.init)|untouched)\.(?:hub|revision|path)$"
)
"""Fields that say where rows or weights lie, whose hashes are compared themselves."""


def suite_differences(
    a: SuiteSpec, b: SuiteSpec, attacks: Collection[str], known: Collection[str] = ()
) -> Iterator[tuple[str, object, object]]:
    """Yield (field, of a, of b) for all that can change a figure and differs.

    Titles, descriptions, seeds, methods, tuning and gates cannot.

    Args:
        a: a suite with a run's changes.
        b: another.
        attacks: that were run; others do not count.
        known: roles (`forget`, `gsm8k.train`) whose rows are compared themselves, and `target`
            where weights and tokenizer are: files of the same content may lie anywhere.
    """
    for name, one, other in _differences(_measured(a, attacks), _measured(b, attacks)):
        if not _known(name, known):
            yield name, one, other


def suite_conditions(suite: SuiteSpec) -> dict[str, str | int]:
    """Return what the scores of a run depend on besides its suite's content.

    The world size is that of every run whose models were not divided among several devices; the
    record of another says so itself.
    """
    return {"world_size": 1, **{name: getattr(suite, name) for name in SCORED_WITH}}


def condition_differences(
    a: Mapping[str, str | int], b: Mapping[str, str | int]
) -> Iterator[tuple[str, object, object]]:
    """Yield (condition, of a, of b) for each that both tell, and not alike."""
    for name in sorted(a.keys() & b.keys()):
        if a[name] != b[name]:
            yield name.replace("_", " "), a[name], b[name]


def conditions_text(conditions: Mapping[str, str | int]) -> str:
    """Return conditions for people: `score batch 64, world size 1`."""
    return ", ".join(f"{name.replace('_', ' ')} {conditions[name]}" for name in sorted(conditions))


def setting_differences(a: object, b: object) -> Iterator[tuple[str, object, object]]:
    """Yield (dotted name, of a, of b) for each setting that can change a result and differs.

    Args:
        a: settings, mappings in each other.
        b: others of the same thing.
    """
    yield from _differences(_leaves("", a), _leaves("", b))


def memory_differences(
    a: MemorySpec, b: MemorySpec, suite: SuiteSpec
) -> Iterator[tuple[str, object, object]]:
    """Yield (field, of a, of b) for what training kept unlike, where that can change a result.

    Where it lay (`offload`), and what was computed again (`checkpointing`), cannot.

    Args:
        a: what a run kept; its attacks trained with it, too.
        b: what another kept.
        suite: of both; its weights' type decides what counts.
    """
    one, other = (_leaves("memory", kept.determines(suite.dtype)) for kept in (a, b))
    yield from _differences(one, other)


def _differences(a: Leaves, b: Leaves) -> Iterator[tuple[str, object, object]]:
    one, other = dict(a), dict(b)
    for name in dict.fromkeys((*one, *other)):
        if one.get(name) != other.get(name):
            yield name, one.get(name), other.get(name)


def _leaves(name: str, value: object) -> Leaves:
    """Dotted names and values of settings that can change a result."""
    if not isinstance(value, Mapping):
        yield name, value
        return
    for key, below in value.items():
        if key not in OF_THE_MACHINE:
            yield from _leaves(f"{name}.{key}" if name else str(key), below)


def _measured(suite: SuiteSpec, attacks: Collection[str]) -> Leaves:
    values: dict[str, JsonValue] = suite.model_dump(mode="json", exclude=dict(STATED))
    values["dtype"] = suite.dtypes
    for field in MEASURED:
        yield from _told(field, values.get(field))  # `untouched` is left out where there is none
    for name in sorted(set(attacks) & suite.attacks.keys()):
        yield from _told(f"attacks.{name}", suite.attacks[name].model_dump(mode="json"))


def _told(name: str, value: object) -> Leaves:
    return (leaf for leaf in _leaves(name, value) if not WORDS.search(leaf[0]))


def _known(name: str, known: Collection[str]) -> bool:
    if MODEL.match(name):
        return "target" in known
    if found := INPUT.match(name):  # the rows that are made of it are known, or not
        return any(role.startswith(f"{found['attack']}.") for role in known)
    if found := PLACE.match(name):
        attack = found["attack"]
        return (f"{attack}.{found['role']}" if attack else found["role"]) in known
    return False
