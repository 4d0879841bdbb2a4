"""A record's suite against the one that ilubench ships: a changed suite is another benchmark."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING

from pydantic import JsonValue

from ilubench.records.likeness import setting_differences, suite_differences
from ilubench.records.results import RunRecord
from ilubench.specs import SuiteSpec
from ilubench.specs.untrusted import shorten
from ilubench.specs.yaml_files import task_names

if TYPE_CHECKING:
    from ilubench.experiments.experiment import Experiment

__all__ = ["suite_problems"]


def suite_problems(
    run: RunRecord, suite: SuiteSpec, settings: Mapping[str, JsonValue], *, whole: bool = True
) -> Iterator[str]:
    """Yield what can change a figure and is not as the shipped suite of that version has it.

    A suite that ilubench does not ship, and an older version of one that it does, are not compared
    with anything; their records must be alike among each other.

    Args:
        run: the record.
        suite: as it was run.
        settings: attack -> its settings as it was run.
        whole: whether it must have all attacks of the suite, and no others.
    """
    if run.suite not in task_names("suites"):
        return
    shipped = _shipped(run.suite)
    known = shipped.suite
    if run.suite_version > known.version:
        problem = f"is {run.suite_version}; this ilubench has version {known.version}"
        yield f"run.suite_version: {problem} of {run.suite}: upgrade ilubench"
    if run.suite_version != known.version:
        return
    same = sorted(suite.attacks.keys() & known.attacks.keys())
    roles = {*run.data, "target"} if run.target else set(run.data)
    for field, mine, theirs in suite_differences(suite, known, same, roles):
        both = f"is {shorten(str(mine))}, and {shorten(str(theirs))} in the suite"
        yield f"config.suite.{field}: {both}"
    more = sorted(set(suite.benign_attacks) ^ set(known.benign_attacks))
    if more and whole:
        yield f"config.suite.attacks: {shorten(more[0])} is not in both this and the shipped suite"
    for attack in shipped.attacks:
        if attack.name not in settings and not whole:
            continue
        theirs = attack.plugin.model_dump(mode="json")
        for field, one, other in setting_differences(settings.get(attack.name), theirs):
            where = f"config.attacks.{attack.name}.{field}".rstrip(".")
            yield f"{where}: is {shorten(str(one))}, and {shorten(str(other))} in the suite"


# --- inside ---


@cache
def _shipped(name: str) -> "Experiment":
    """The suite as a run without changes has it."""
    from ilubench.experiments.experiment import resolve_experiment
    from ilubench.specs import PluginRef
    from ilubench.specs.overrides import parse_words

    return resolve_experiment(parse_words([f"suite={name}"]), method=PluginRef(use="none"))
