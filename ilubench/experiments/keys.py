"""The keys that words can have: of the run, its suite, method, attacks and data. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel

from ilubench.errors import IlubenchError, SpecError, closest_word, did_you_mean
from ilubench.interfaces.discovery import list_entries
from ilubench.interfaces.sources import list_settings
from ilubench.specs import DataSource, RunSpec, ScoreSpec, SuiteSpec
from ilubench.specs.meaning import spec_within
from ilubench.specs.overrides import Override
from ilubench.specs.suite_files import load_suite
from ilubench.specs.yaml_files import task_names

__all__ = ["GROUPS_OF_KEYS", "list_keys", "list_values", "unknown_key"]

GROUPS_OF_KEYS = {
    "method.<setting>": "a setting of the method",
    "attack.<setting>": "a setting of all attacks",
    "attack.<name>.<setting>": "a setting of one attack",
    "data.<role>": "a file in the place of a role's rows; data.<role>.<field> for one field",
    "suite.<field>": "a field of the suite",
}
"""What can be set below the run's own keys."""

_MEANT = {
    "model": ("suite.target.model.path=<folder>", "suite.target.model.hub=<org/name>"),
    "checkpoint": ("suite.target.model.path=<folder>",),
    "dataset": ("data.<role>=<file>",),
    "data": ("data.<role>=<file>",),
    "seed": ("seeds={}",),
    "env": ("method.environments=<name>",),
    "learning_rate": ("method.train.lr={}", "attack.train.lr={}"),
    "bs": ("method.train.batch_size={}", "attack.train.batch_size={}"),
    "gpu": ("device=cuda",),
    "output": ("out={}",),
}
"""Keys of other programs -> the words for them here."""


def list_keys(words: Mapping[str, str], *, scoring: bool = False) -> list[str]:
    """Return all keys with which a run's words may set something, the short ones first.

    Args:
        words: those that say which suite and method it is; without: the defaults.
        scoring: those of `ilubench score` instead.
    """
    found = [name for name in _fields(RunSpec, 2) if not name.startswith("method.")]
    suite = _suite(words)
    found += [f"method.{name}" for name in _method(suite, words)]
    attacks = cast("dict[str, Any]", suite.get("attacks") or {})
    kinds = {str((attack or {}).get("use", "finetune")) for attack in attacks.values()}
    shared = dict.fromkeys(name for kind in sorted(kinds) for name in _plugin("attacks", kind))
    found += [f"attack.{name}" for name in shared]
    found += [f"attack.{attack}.{name}" for attack in attacks for name in shared]
    roles = [*(suite.get("data") or {})]
    roles += [f"{name}.{role}" for name, a in attacks.items() for role in (a or {}).get("data", {})]
    found += [f"data.{role}{below}" for role in roles for below in ("", *_DATA_FIELDS)]
    found += [f"suite.{name}" for name in _fields(SuiteSpec, 3)]
    if scoring:
        below = [key for key in found if key.startswith(("data.", "suite."))]
        found = [*ScoreSpec.model_fields, *below]
    return sorted(dict.fromkeys(found), key=lambda key: key.count("."))


def unknown_key(unknown: Override, words: Sequence[Override]) -> SpecError:
    """Return the error of a word whose key is none: it names the words that were meant.

    Args:
        unknown: the word.
        words: all words, which say which method's settings are looked through.
    """
    key = unknown.key
    last = key.casefold().replace("-", "_")
    text = unknown.text or "<value>"
    known = list_keys({o.key: o.text for o in words})
    scoring = key in ScoreSpec.model_fields
    there = scoring or last in _MEANT or any(one.endswith(f".{last}") for one in known)
    if len(unknown.path) == 1 and not there:
        last = closest_word(last, {one.rpartition(".")[2] for one in known}) or last
    meant = [word.format(text) for word in _MEANT.get(last, ())]
    if not meant:
        heads: dict[str, str] = {}  # one of each group: the shortest, which comes first
        for one in known:
            if f".{one}".endswith(f".{last}"):
                heads.setdefault(one.split(".", maxsplit=1)[0], one)
        heads = {last: last} if last in known else heads
        if "data" in heads:
            heads["data"] = f"data.<role>.{last}"
        meant = [f"{one}={text}" for one in heads.values()]
    known_heads = [*RunSpec.model_fields, "data", "attack"]
    remedy = f"did you mean {' or '.join(meant)}?" if meant else did_you_mean(key, known_heads)
    if scoring and not meant:
        remedy = f"`ilubench score MODEL {key}={text}` takes it"
    return SpecError(f"unknown setting {unknown.path[0]!r}", field=key, remedy=remedy)


def _suite(words: Mapping[str, str]) -> Mapping[str, Any]:
    """The fields of the suite that the words name, else of the default's."""
    try:
        return load_suite(words.get("suite", str(RunSpec.model_fields["suite"].default)))[0]
    except IlubenchError:  # whoever resolves the words says so
        return {}


def _plugin(group: str, use: str) -> list[str]:
    target = list_entries(group).get(use)
    return [] if target is None else [setting.name for setting in list_settings(target)]


def _method(suite: Mapping[str, Any], words: Mapping[str, str]) -> Iterator[str]:
    """Yield the settings of each method, and below `base` those of its base."""
    default = RunSpec.model_fields["method"].default.use
    methods = suite.get("methods") or {}
    for label in words.get("method", default).split(","):
        use = (methods.get(label) or {}).get("use", label)
        yield from _plugin("methods", use)
        base = words.get("method.base") or (methods.get(use) or {}).get("base")
        if isinstance(base, str):
            yield from (f"base.{name}" for name in _plugin("methods", base))


def _fields(model: type[BaseModel], depth: int) -> Iterator[str]:
    """Yield a spec's fields that take a value, and those of the specs within it."""
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is not dict:
            yield name
        within = spec_within(field.annotation)
        if depth > 1 and within is not None:
            yield from (f"{name}.{below}" for below in _fields(within, depth - 1))


_DATA_FIELDS = tuple(f".{name}" for name in DataSource.model_fields)


def list_values(key: str, words: Mapping[str, str]) -> list[str]:
    """Return the values that a key can have, where they are names; none where they are not.

    Args:
        key: dotted.
        words: the other words, which say which suite's names count.
    """
    suite = _suite(words)
    if key in ("attacks", "scorers"):
        return [*(suite.get(key) or {})]
    if key == "method.environments":
        return [*(suite.get("environments") or {})]
    if key in ("method", "method.base"):
        variants = [name for name, own in (suite.get("methods") or {}).items() if "use" in own]
        return [*list_entries("methods"), *(variants if key == "method" else ())]
    field = RunSpec.model_fields.get(key)
    choices = [] if field is None else _choices(field.annotation)
    return list(task_names("suites")) if key == "suite" else choices


def _choices(annotation: object) -> list[str]:
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]
