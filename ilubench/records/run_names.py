"""How runs of one table are told apart: the method's name, and the settings that differ. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

from pydantic import JsonValue

from ilubench.records.finished import FinishedRun
from ilubench.records.results import RunRecord

__all__ = ["run_names"]

UNCHECKED = " (not recomputed)"
MOST_KEYS = 3
NUMERIC = frozenset("0123456789+-.,e")


def run_names(runs: Sequence[FinishedRun]) -> tuple[str, ...]:
    """Return one name a run, unique among them: `npo`, or `ilu (penalty=cross_entropy)`.

    Runs of one method show the shortest set of settings that tells them apart, written as on the
    command line, without `method.`; words before numbers. Method version and seeds count as
    settings; runs that differ in nothing of these show their id. One whose figures are its
    record's, since there is nothing to recompute them from, says so.

    Raises:
        ValueError: a run's id appears twice.
    """
    records = [run.record for run in runs]
    ids = [record.run for record in records]
    if len(set(ids)) != len(ids):
        raise ValueError(f"a run appears twice: {ids}")
    named = {}
    methods = dict.fromkeys(record.method_name for record in records)
    for method in methods:
        mine = [record for record in records if record.method_name == method]
        for record, tail in zip(mine, _tails(mine), strict=True):
            named[record.run] = f"{method} ({tail})" if tail else method
    marks = ("" if run.samples is not None else UNCHECKED for run in runs)
    return tuple(named[one.run] + mark for one, mark in zip(records, marks, strict=True))


def _tails(records: Sequence[RunRecord]) -> list[str]:
    """What follows the method's name, one text a run."""
    if len(records) == 1:
        return [""]
    settings = [dict(_settings(record)) for record in records]
    keys = sorted({key for own in settings for key in own})
    differing = [key for key in keys if len({own.get(key) for own in settings}) > 1]
    for size in range(1, min(MOST_KEYS, len(differing)) + 1):
        found = [(_texts(settings, keys), keys) for keys in combinations(differing, size)]
        unique = [
            (sum(_is_number(settings, key) for key in keys), sum(map(len, texts)), texts)
            for texts, keys in found
            if len(set(texts)) == len(texts)
        ]
        if unique:
            return min(unique)[-1]
    texts = _texts(settings, differing)
    return texts if len(set(texts)) == len(texts) else [record.run for record in records]


def _texts(settings: Sequence[Mapping[str, str]], keys: Sequence[str]) -> list[str]:
    return [", ".join(f"{key}={own[key]}" for key in keys if key in own) for own in settings]


def _is_number(settings: Sequence[Mapping[str, str]], key: str) -> bool:
    return all(set(own.get(key, "0")) <= NUMERIC for own in settings)


def _settings(record: RunRecord) -> Iterator[tuple[str, str]]:
    yield from _flat("", record.method.get("settings"))
    yield "version", str(record.method_version)
    yield "seeds", ",".join(map(str, record.seeds))


def _flat(name: str, value: JsonValue) -> Iterator[tuple[str, str]]:
    """Dotted names and values; a plugin's settings stand below its own name."""
    if isinstance(value, dict) and set(value) == {"use", "settings"}:
        yield name, _word(value["use"])
        value = value["settings"]
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _flat(f"{name}.{key}" if name else key, below)
    else:
        yield name, _word(value)


def _word(value: JsonValue) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(map(_word, value))
    return json.dumps(value)
