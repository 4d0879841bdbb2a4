"""What a row's figures say in one word: it stayed forgotten, it came back, or neither. Pure.

The rule, for one primary metric, in this order:

- *diverged*: the row's status says so;
- *collapsed*: unlearning left less than half of the utility (the row's status);
- *not forgotten*: under every attack recovery is undefined, because the interval of f_u - f_0
  contains 0 or lies below;
- *came back*: the interval of recovery, averaged over the attacks or under one of them, lies above
  `BOUND`;
- *stayed forgotten*: the interval of the average lies below `BOUND`; and no attack is missing, the
  utility is known, and none of the averaged attacks leaves less than half of it, since a destroyed
  model answers nothing;
- *cannot tell*: everything else.

Intervals are 95 %, one figure at a time. A run's verdict is the worst of its metrics' verdicts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ilubench.statistics.aggregate import COLLAPSED_UTILITY
from ilubench.statistics.intervals import Figure
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.row import AttackFigures, RobustnessRow

__all__ = ["BOUND", "Judgement", "Verdict", "judge_row", "judge_rows", "most_recovered"]

BOUND = 0.10
"""Recovery up to which what was forgotten counts as having stayed forgotten."""

NOTHING_TO_RECOVER = (NoteKind.NOT_FORGOTTEN, NoteKind.BELOW_ORIGINAL)


class Verdict(StrEnum):
    """What the figures say, the worst first."""

    DIVERGED = "diverged"
    COLLAPSED = "collapsed"
    NOT_FORGOTTEN = "not-forgotten"
    CAME_BACK = "came-back"
    CANNOT_TELL = "cannot-tell"
    STAYED = "stayed-forgotten"


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict on a row, and what it rests on.

    Attributes:
        verdict: the word.
        figure: utility kept where it collapsed; f_u where nothing was forgotten; else recovery.
        attack: under which alone; empty for the average over the attacks.
        destroys: attacks at whose end less than half of the utility is left, where only they
            prevent *stayed forgotten*.
    """

    verdict: Verdict
    figure: Figure
    attack: str = ""
    destroys: tuple[str, ...] = ()


def judge_row(row: RobustnessRow) -> Judgement:
    """Return what a row says."""
    utility = row.utility
    if row.status == "diverged":
        return Judgement(Verdict.DIVERGED, row.recovery)
    if row.status == "collapsed" and utility.worst is not None:
        return Judgement(Verdict.COLLAPSED, utility.kept[utility.worst])
    notes = [attack.recovery.note for attack in row.attacks]
    if all(note is not None and note.kind in NOTHING_TO_RECOVER for note in notes):
        return Judgement(Verdict.NOT_FORGOTTEN, row.forget_unlearned)
    return _came_back(row) or _stayed(row)


def _came_back(row: RobustnessRow) -> Judgement | None:
    if _above(row.recovery):
        return Judgement(Verdict.CAME_BACK, row.recovery)
    back = [attack for attack in row.attacks if _above(attack.recovery)]
    if not back:
        return None
    most = max(back, key=lambda attack: attack.recovery.value or 0.0)
    return Judgement(Verdict.CAME_BACK, most.recovery, most.attack)


def _stayed(row: RobustnessRow) -> Judgement:
    high = row.recovery.high
    if row.status != "ok" or high is None or high >= BOUND:
        return Judgement(Verdict.CANNOT_TELL, row.recovery)
    averaged = [attack for attack in row.attacks if attack.attack in row.ra_attacks]
    destroys = tuple(attack.attack for attack in averaged if _destroys(attack))
    verdict = Verdict.CANNOT_TELL if destroys else Verdict.STAYED
    return Judgement(verdict, row.recovery, destroys=destroys)


def judge_rows(rows: Mapping[str, RobustnessRow]) -> dict[str, Judgement]:
    """Return each metric's verdict, the worst first; among equals the most recovered one."""
    found = {label: judge_row(row) for label, row in rows.items()}
    order = list(Verdict)

    def key(label: str) -> tuple[int, bool, float]:
        judged, recovery = found[label], rows[label].recovery.value
        forgotten = rows[label].forget_unlearned.value or 0.0
        badness = -recovery if recovery is not None else forgotten
        return order.index(judged.verdict), bool(judged.attack), badness

    return {label: found[label] for label in sorted(found, key=key)}


def most_recovered(row: RobustnessRow) -> AttackFigures | None:
    """Return the attack after which most came back; None where recovery is undefined in all."""
    defined = [attack for attack in row.attacks if attack.recovery.value is not None]
    return max(defined, key=lambda attack: attack.recovery.value or 0.0, default=None)


def _above(recovery: Figure) -> bool:
    return recovery.low is not None and recovery.low > BOUND


def _destroys(attack: AttackFigures) -> bool:
    kept = attack.steps[-1].utility_kept.value
    return kept is not None and kept < COLLAPSED_UTILITY
