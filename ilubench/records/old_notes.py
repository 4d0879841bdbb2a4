"""Notes of records of version 1, which were words: read as kinds with their data. Pure."""

import re

from pydantic import JsonValue

from ilubench.statistics.notes import NoteKind

__all__ = ["with_kinds"]

NUMBER = r"(?P<number>\d+(?:\.\d*)?(?:e[-+]?\d+)?)"
OLD = {
    "zero variance: .*": NoteKind.ZERO_VARIANCE,
    "undefined": NoteKind.UNDEFINED,
    "no interval: .*": NoteKind.NO_INTERVAL,
    f">{NUMBER}": NoteKind.BEYOND,
    f"upper end >{NUMBER}": NoteKind.OPEN_END,
    "n/a: the attack takes no steps": NoteKind.NO_STEPS,
    "core attacks not run: (?P<names>.+)": NoteKind.CORE_NOT_RUN,
    "undefined: the utility to compare with .*": NoteKind.UTILITY_AT_CHANCE,
    f"n/a: no checkpoint keeps {NUMBER}%.*": NoteKind.NO_UTILITY_KEPT,
    "undefined: f_u is below f_0, .*": NoteKind.BELOW_ORIGINAL,
    "undefined: the interval of .*": NoteKind.NOT_FORGOTTEN,
    "n/a: the (?P<who>[a-z]+) model was not attacked with (?P<names>.+)": NoteKind.NOT_ATTACKED,
    "n/a: fine-tuning accuracy was not measured": NoteKind.NO_FA,
    "n/a: the retrained model was attacked with no seed of the method": (
        NoteKind.RETRAIN_SHARES_NO_SEED
    ),
}
"""As version 1 had them; what ilubench says today is nothing to these."""


def with_kinds(value: JsonValue) -> JsonValue:
    """Return rows of version 1 with the kinds that the words of their notes stand for.

    Words that no ilubench wrote become `UNDEFINED` beside a figure without a value, else nothing.
    """
    if isinstance(value, list):
        return [with_kinds(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: with_kinds(below) for name, below in value.items()}
    if isinstance(found.get("note"), str):
        found["note"] = _kind(str(found["note"]), defined=found.get("value") is not None)
    return found


def _kind(words: str, *, defined: bool) -> JsonValue:
    for pattern, kind in OLD.items():
        match = re.fullmatch(pattern, words)
        if match is not None:
            told = match.groupdict()
            names = [told[name] for name in ("who", "names") if name in told]
            number = float(told["number"]) if "number" in told else None
            if kind == NoteKind.NO_UTILITY_KEPT and number is not None:
                number /= 100
            return {"kind": kind, "names": names, "numbers": [] if number is None else [number]}
    return None if defined else {"kind": NoteKind.UNDEFINED}
