"""lm-eval task files, read without lm-eval: where a task is defined and what it measures."""

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import yaml
from pydantic import JsonValue

from ilubench.errors import SpecError, did_you_mean
from ilubench.loading import task_file, task_names

__all__ = ["TaskFacts", "task_facts"]

Config: TypeAlias = dict[str, JsonValue]

_DEFAULT_METRICS = {
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
    "loglikelihood": ("acc",),
}
_MEANS = frozenset({"acc", "acc_norm", "acc_mutual_info", "exact_match", "brier_score"})
"""Metrics that lm-eval averages where a task does not name an aggregation."""


@dataclass(frozen=True)
class TaskFacts:
    """What a task's files say.

    Attributes:
        name: the task's or group's name inside lm-eval.
        is_group: it stands for several tasks.
        file: where the task or group is defined.
        files: that file and those it includes.
        names: (lm-eval's metric, its filter) -> the name of the scorer's metric.
        num_fewshot: examples in the prompt.
        own_examples: the file brings its few-shot examples along.
    """

    name: str
    is_group: bool
    file: Path
    files: tuple[Path, ...]
    names: Mapping[tuple[str, str], str]
    num_fewshot: int
    own_examples: bool


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's files; `!function` references become None."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)


def _read(path: Path) -> tuple[Config, tuple[Path, ...]]:
    """Return a task file's fields, with those it includes below, and the files read."""
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"cannot be read ({error})", where=str(path)) from error
    if not isinstance(config, dict):
        raise SpecError("the top level must be a mapping of fields", where=str(path))
    merged: Config = {}
    files: tuple[Path, ...] = (path,)
    included = config.pop("include", None)
    for name in included if isinstance(included, list) else [included] if included else []:
        below, more = _read(path.parent / name)
        merged |= below
        files += more
    return merged | config, files


def _defining(name: str, files: Sequence[Path]) -> Path | None:
    """Return the file that defines a task, group or tag; one of that name is looked at first."""
    line = re.compile(
        rb"""^['"]?(?:task|group|tag)['"]?:\s*['"]?"""
        + re.escape(name.encode())
        + rb"""['"]?\s*$""",
        re.MULTILINE,
    )
    likely = [path for path in files if path.stem.lstrip("_") == name]
    return next((path for path in (*likely, *files) if line.search(path.read_bytes())), None)


@cache
def _builtin(name: str) -> Path | None:
    """Return the file that defines one of lm-eval's own tasks, groups or tags."""
    spec = importlib.util.find_spec("lm_eval")
    if spec is None or spec.origin is None:
        return None
    return _defining(name, sorted((Path(spec.origin).parent / "tasks").rglob("*.yaml")))


def _locate(name: str, beside: Path | None = None) -> Path:
    if name.endswith((".yaml", ".yml")) or name in task_names("evals"):
        return task_file("evals", name)
    found = _defining(name, sorted(beside.glob("*.yaml"))) if beside else None
    found = found or _builtin(name)
    if found is None:
        remedy = did_you_mean(name, task_names("evals")) + " (or a task of lm-eval)"
        raise SpecError(f"unknown evaluation task {name!r}", field="task", remedy=remedy)
    return found


def _first_task(config: Config, folder: Path) -> Config:
    """Return the configuration of a group's first task; a task's own as it is."""
    members = config.get("task")
    if not isinstance(members, list) or not members:
        return config
    first = members[0]
    if isinstance(first, dict) and isinstance(first.get("task"), list):
        return _first_task(first, folder)
    changes = dict(first) if isinstance(first, dict) else {}
    file = _locate(str(changes.get("task") or changes.get("group") or first), folder)
    return _first_task(_read(file)[0], file.parent) | {
        key: value for key, value in changes.items() if key not in {"task", "group"}
    }


def _names(config: Config) -> dict[tuple[str, str], str]:
    listed = config.get("metric_list")
    if isinstance(listed, list):
        metrics = [
            str(entry["metric"])
            for entry in listed
            if isinstance(entry, dict)
            and entry.get("metric")
            and entry.get("aggregation", "mean" if entry["metric"] in _MEANS else "") == "mean"
        ]
    else:
        kind = str(config.get("output_type", "generate_until"))
        metrics = list(_DEFAULT_METRICS.get(kind, ()))
    listed = config.get("filter_list")
    entries = listed if isinstance(listed, list) else [{"name": "none"}]
    filters = [str(entry["name"]) for entry in entries if isinstance(entry, dict)]
    return {
        (metric, name): metric if place == 0 else f"{metric}_{name.split('-')[0]}"
        for metric in metrics
        for place, name in enumerate(filters)
    }


@cache
def task_facts(name: str) -> TaskFacts:
    """Find a task: in `tasks/evals`, at a path that ends in `.yaml`, or among lm-eval's own.

    The first filter of a task gives its metrics their plain names; the metrics of another are named
    after it: `exact_match` (strict) and `exact_match_flexible`.

    Raises:
        SpecError: no such task, or none of its metrics is a mean over items.
    """
    file = _locate(name)
    config, files = _read(file)
    leaf = _first_task(config, file.parent)
    names = _names(leaf)
    if not names:
        raise SpecError("no metric is a mean over items", where=str(file), field="metric_list")
    shots, examples = leaf.get("num_fewshot"), leaf.get("fewshot_config")
    own = str(config.get("group") or config.get("task"))
    is_path = name.endswith((".yaml", ".yml"))
    return TaskFacts(
        name=own if is_path else name,
        is_group=isinstance(config.get("task"), list) or not (is_path or own == name),
        file=file,
        files=files,
        names=names,
        num_fewshot=shots if isinstance(shots, int) else 0,
        own_examples=isinstance(examples, dict) and "samples" in examples,
    )
