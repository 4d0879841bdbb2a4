"""Whether what is said of an attack's settings is still said of its own."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import JsonValue

__all__ = ["TRAINING", "with_own_protocol", "with_own_protocols"]

TRAINING = ("lr", "steps", "epochs", "batch_size")
"""Fields of an attack's `train` that its protocol speaks of."""


def with_own_protocol(
    below: Mapping[str, JsonValue], attack: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Return an attack whose protocol, if it is of the attack below, is of the same settings.

    Where it trains otherwise, or on other data, than the one below, the protocol becomes `default`
    and says so.

    Args:
        below: the attack that it was made from, raw.
        attack: with its own fields, raw.
    """
    same = attack.get("protocol") == below.get("protocol")
    changed = [*_changed(below, attack)] if same and attack.get("protocol") is not None else []
    if not changed:
        return dict(attack)
    note = f"{', '.join(changed)} are other than those that were chosen for it"
    return {**attack, "protocol": {"kind": "default", "note": note}}


def with_own_protocols(
    below: Mapping[str, JsonValue], suite: Mapping[str, JsonValue]
) -> dict[str, JsonValue]:
    """Return a suite each of whose attacks has a protocol of its own settings, or none.

    Args:
        below: the suite that it was made from, raw.
        suite: with its own fields, raw.
    """
    known, attacks = below.get("attacks"), suite.get("attacks")
    if not isinstance(known, Mapping) or not isinstance(attacks, Mapping):
        return dict(suite)
    checked = dict(attacks)
    for name, attack in attacks.items():
        before = known.get(name)
        if isinstance(before, Mapping) and isinstance(attack, Mapping):
            checked[name] = with_own_protocol(before, attack)
    return {**suite, "attacks": checked}


def _changed(below: Mapping[str, Any], attack: Mapping[str, Any]) -> Iterator[str]:
    sides = [_part(_part(one, "settings"), "train") for one in (below, attack)]
    for name in TRAINING:
        if sides[0].get(name) != sides[1].get(name):
            yield f"train.{name}"
    asked = _part(_part(_part(attack, "fa"), "scorer"), "settings").get("data")
    roles = [_part(one, "data") for one in (below, attack)]
    for role in dict.fromkeys((*roles[0], *roles[1])):
        if role != asked and roles[0].get(role) != roles[1].get(role):
            yield f"data.{role}"


def _part(values: object, name: str) -> Mapping[str, Any]:
    found = values.get(name) if isinstance(values, Mapping) else None
    return found if isinstance(found, Mapping) else {}
