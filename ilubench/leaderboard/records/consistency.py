"""What a record says in two places must agree; what was left out or changed is named. Pure."""

import math
from collections.abc import Iterator

from ilubench.errors import DivergedError, did_you_mean
from ilubench.leaderboard.records.models import Entry
from ilubench.leaderboard.records.safe_json import named
from ilubench.records.likeness import suite_conditions
from ilubench.records.results import OverlapRecord, RunRecord
from ilubench.records.run_files import libraries_of
from ilubench.records.training_data import named_environments, seen_by, trained_roles
from ilubench.specs import SuiteSpec
from ilubench.specs.untrusted import shorten

__all__ = ["entry_problems", "incomplete", "run_problems"]

ENGINES = ("hf", "vllm")


def incomplete(run: RunRecord) -> str:
    """Return why a run is no finished one; empty where it is.

    One that diverged in some seeds is finished, too: it would do so again.
    """
    if not run.attacks:
        return "attacks: nothing was attacked; run it with the suite's attacks"
    failed = [one for one in run.failures if one.kind != DivergedError.__name__]
    if failed:
        first = f"{shorten(failed[0].label)} ({shorten(failed[0].kind)})"
        what = f"{len(failed)} jobs failed, first {first}"
        return f"failures: {what}; the same command again does what is missing"
    diverged = bool(run.failures)
    ended = ("cached", "done", "failed", "skipped") if diverged else ("cached", "done")
    for job in run.jobs:
        if job.state not in ended:
            return f"jobs: {shorten(job.label)} is {job.state}; the same command again does it"
    if not run.rows:
        every = "since every seed diverged; lower the method's train.lr"
        remedy = "the same command again does what is missing"
        return f"rows: there is none{f', {every}' if diverged else f'; {remedy}'}"
    for label, row in run.rows.items():
        status = row.get("status") if isinstance(row, dict) else None
        if status == "incomplete" or (status == "diverged") != diverged:
            told = "jobs diverged" if diverged else "not every seed went through every attack"
            return f"rows.{label}.status: {shorten(str(status))}: {told}"
    return ""


def run_problems(run: RunRecord, suite: SuiteSpec) -> Iterator[str]:
    """Yield what is wrong with a run's record without a look at its samples."""
    problem = incomplete(run)
    if problem:
        yield problem
    if run.engine not in ENGINES:
        yield f"engine: no {shorten(run.engine)}; {did_you_mean(run.engine, ENGINES)}"
    yield from _number_problems(run)
    for name, value in suite_conditions(suite).items():
        if name == "world_size":  # on how many devices a run was made, no suite says
            continue
        found = run.conditions.get(name, value)
        if found != value:
            yield f"conditions.{name}: is {shorten(str(found))}, and {value} by config.suite"
    further = tuple(name for name in run.attacks if suite.attacks[name].further)
    if run.further != further:
        mine, theirs = (shorten(", ".join(names) or "none") for names in (run.further, further))
        yield f"further: is {mine}, and {theirs} by config.suite"
    if not run.protocol:  # records of the first version have none
        return
    if list(run.protocol) != list(run.attacks):
        yield "protocol: must have the run's attacks, in their order"
        return
    for name, told in run.protocol.items():
        use, asked = told.get("use") if isinstance(told, dict) else None, suite.attacks[name].use
        if use != asked:
            yield f"protocol.{named(name)}.use: is {shorten(str(use))}, in the suite {asked}"
    yield from _row_hash_problems(run)


def entry_problems(entry: Entry, suite: SuiteSpec) -> Iterator[str]:
    """Yield what an entry says in two places and not alike; names the field."""
    run, config = entry.run, entry.config
    yield from _name_problems(entry)
    for problem in run_problems(run, suite):
        yield f"run.{problem}"
    seeds = list(run.seeds)
    for place, told in (("config", config), ("environment", entry.environment)):
        if told.get("seeds") != seeds:
            yield f"{place}.seeds: are {told.get('seeds')!r:.80}, and the run's {seeds!r:.80}"
    if config.get("method") != run.method.get("settings"):
        yield "config.method: other settings than run.method.settings"
    attacks = config.get("attacks")
    settings = attacks if isinstance(attacks, dict) else {}
    if list(settings) != list(run.attacks):
        yield "config.attacks: must be those of run.attacks, in their order"
    missing = sorted(set(suite.benign_attacks) - set(run.attacks))
    if missing:
        yield f"run.attacks: the suite's {missing[0]} is missing; a row has all benign ones"
    for name, asked in run.protocol.items():
        if isinstance(asked, dict) and asked.get("settings") != settings.get(name):
            yield f"run.protocol.{named(name)}.settings: are not those of config.attacks"
    data = entry.environment.get("data")
    if run.data and data != run.data:
        yield "environment.data: other rows than run.data"
    if run.libraries and libraries_of(entry.environment) != run.libraries:
        yield "environment.libraries: others than run.libraries"
    yield from _training_problems(entry, suite)
    weighed = [one.seed for one in entry.weights]
    if len(set(weighed)) != len(weighed) or not set(weighed) <= set(run.seeds):
        yield "weights: must be of the run's seeds, each once"


# --- inside ---


def _name_problems(entry: Entry) -> Iterator[str]:
    for field, text in (("title", entry.title), ("submission.by", entry.submission.by)):
        if not text.strip():
            yield f"{field}: is empty"
    if not entry.entry.endswith(f"-{entry.run.method_version}"):
        yield f"entry: must end with the method's version, -{entry.run.method_version}"


def _number_problems(run: RunRecord) -> Iterator[str]:
    """Numbers that follow from no samples have bounds at least."""
    for name, value in run.cost.items():
        if value < 0:
            yield f"cost.{named(name)}: {value} is below 0"
    for place, job in enumerate(run.jobs):
        if job.seconds is not None and job.seconds < 0:
            yield f"jobs.{place}.seconds: {job.seconds} is below 0"
    for place, score in enumerate(run.scores):
        if not 0 <= (score.most_chosen or 0) <= 1:
            yield f"scores.{place}.most_chosen: {score.most_chosen} is no share"
    for place, overlap in enumerate(run.overlap):
        if not _sound(overlap):
            yield f"overlap.{place}: counts and share do not go together"


def _training_problems(entry: Entry, suite: SuiteSpec) -> Iterator[str]:
    run, declared = entry.run, entry.trains_on
    known = {*suite.data, *suite.environments.values()}
    known |= {f"{name}.{role}" for name, spec in suite.attacks.items() for role in spec.data}
    for name in named_environments(run.method.get("settings")):
        if name != "forget" and name not in suite.environments:
            yield f"run.method.settings: no environment {shorten(name)} in the suite"
    for role in declared:
        if role not in known:
            yield f"trains_on: no data role {shorten(role)}; {did_you_mean(role, known)}"
    left_out = [role for role in trained_roles(run, suite) if role not in declared]
    if left_out:
        yield f"trains_on: {left_out[0]} is missing, which the method trained on"
    seen = seen_by(run, suite, declared)
    if set(seen) != set(run.seen):
        told = ", ".join(run.seen) or "none"
        follows = ", ".join(seen) or "none"
        yield f"run.seen: is {shorten(told)}, and {follows} by what it trains on"


def _row_hash_problems(run: RunRecord) -> Iterator[str]:
    for name, told in run.protocol.items():
        data = told.get("data") if isinstance(told, dict) else None
        for role, facts in data.items() if isinstance(data, dict) else ():
            full = f"{name}.{role}"
            rows = facts.get("rows") if isinstance(facts, dict) else None
            if full in run.data and rows != run.data[full]:
                where = f"protocol.{named(name)}.data.{named(role)}.rows"
                yield f"{where}: other rows than data.{full}"


def _sound(overlap: OverlapRecord) -> bool:
    counts = 0 <= overlap.duplicates <= overlap.items and 0 <= overlap.contained <= overlap.items
    return counts and math.isclose(overlap.share, overlap.contained / overlap.items, abs_tol=1e-9)
