"""What a method trained on, by a run's record and suite, and the attacks that it saw. Pure."""

from collections.abc import Iterator

from pydantic import JsonValue

from ilubench.records.results import REFERENCE, RETRAIN, RunRecord
from ilubench.specs import SuiteSpec

__all__ = ["environment_roles", "named_environments", "seen_by", "trained_roles"]

TRAINED = "train"
"""The role of an attack's training rows, where a record does not name its roles."""


def trained_roles(run: RunRecord, suite: SuiteSpec) -> tuple[str, ...]:
    """Return the data roles that a run's method trained on, by its settings and its record.

    The forget and retain sets, the environments that its settings name, and the training rows of
    the attacks that its record marks as seen. A reference (`none`, `retrain`) has none.
    """
    if run.method_name in (REFERENCE, RETRAIN):
        return ()
    roles = [*suite.forget, *suite.retain, *environment_roles(run, suite)]
    for attack in run.seen:
        roles += sorted(_roles_of(run, suite, attack))
    return tuple(dict.fromkeys(roles))


def environment_roles(run: RunRecord, suite: SuiteSpec) -> tuple[str, ...]:
    """Return the data roles of the environments that a method's settings name."""
    names = named_environments(run.method.get("settings"))
    return tuple(suite.environments[name] for name in names if name in suite.environments)


def seen_by(run: RunRecord, suite: SuiteSpec, trains_on: tuple[str, ...]) -> tuple[str, ...]:
    """Return the attacks whose rows are among those that a method trains on."""
    return tuple(name for name in run.attacks if _roles_of(run, suite, name) & set(trains_on))


def named_environments(settings: JsonValue) -> Iterator[str]:
    """Yield the environments that a method's settings name, and those of methods that it wraps."""
    if not isinstance(settings, dict):
        return
    for name, value in settings.items():
        if name == "environments" and isinstance(value, list):
            yield from (one for one in value if isinstance(one, str))
        else:
            yield from named_environments(value)


# --- inside ---


def _roles_of(run: RunRecord, suite: SuiteSpec, attack: str) -> set[str]:
    """Full names of the roles that an attack trains on."""
    told = run.protocol.get(attack)
    data = told.get("data") if isinstance(told, dict) else None
    roles = list(data) if isinstance(data, dict) else [TRAINED]
    own = suite.attacks[attack].data if attack in suite.attacks else {}
    return {f"{attack}.{role}" if role in own else role for role in roles}
