"""The sentence that says what happened in a run; the rule is `ilubench.statistics.verdict`'s."""

from collections.abc import Mapping

from ilubench.records.figure_text import figure_text
from ilubench.records.results import REFERENCE, RunRecord
from ilubench.records.wording import note_text
from ilubench.specs import SuiteSpec, turned
from ilubench.statistics.aggregate import COLLAPSED_UTILITY
from ilubench.statistics.intervals import Figure
from ilubench.statistics.notes import NoteKind
from ilubench.statistics.row import KEPT_UTILITY, AttackFigures, RobustnessRow
from ilubench.statistics.verdict import (
    BOUND,
    Judgement,
    Verdict,
    judge_rows,
    most_recovered,
)

__all__ = ["clipped", "percent", "verdict_text"]

HALF = 0.5
NAME = 40
SHOWN = 0.005  # less is 0 %


def clipped(text: str, width: int) -> str:
    """Return text on one line, cut, visibly, where it is longer than so many characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: max(1, width - 2)] + ".."


def percent(figure: Figure, digits: int = 0, *, spread: bool = True) -> str:
    """Return a ratio as `14% [2, 26]`; `-` where it is undefined."""
    if figure.value is None:
        return "-"
    value = f"{_hundredths(figure.value, digits)}%"
    if not spread or figure.low is None or figure.high is None:
        return value
    return f"{value} [{_hundredths(figure.low, digits)}, {_hundredths(figure.high, digits)}]"


def _hundredths(value: float, digits: int) -> str:
    return f"{round(100 * value, digits) + 0.0:.{digits}f}"  # -0 becomes 0


def verdict_text(
    record: RunRecord, rows: Mapping[str, RobustnessRow], suite: SuiteSpec | None
) -> str:
    """Return what happened, with its uncertainty; of several metrics, the worst."""
    if not rows:
        return _without_rows(record)
    if record.method_name == REFERENCE:
        return "The original model, attacked: nothing was unlearned, and nothing can come back."
    judgements = judge_rows(rows)
    label, judged = next(iter(judgements.items()))
    row, name = rows[label], clipped(label, NAME)
    of = f"{name}, the worst of {len(rows)} metrics" if len(rows) > 1 else name
    match judged.verdict:
        case Verdict.DIVERGED:
            text = (
                "Diverged: training ran into numbers that are none. There is no verdict; the "
                "figures are those of what is left"
            )
        case Verdict.COLLAPSED:
            text = _collapsed(judged, row, suite)
        case Verdict.NOT_FORGOTTEN:
            alike = all(one.verdict == judged.verdict for one in judgements.values())
            text = f"{'Nothing' if alike else 'Not all'} was forgotten: {_unchanged(row, name)}"
        case Verdict.CAME_BACK:
            part = "Most" if (judged.figure.low or 0.0) > HALF else "Part"
            text = f"{part} of it came back: {_returned(judged, row, of)}"
        case Verdict.STAYED:
            text = f"It stayed forgotten: {_returned(judged, row, of)}"
        case Verdict.CANNOT_TELL:
            text = f"Whether it stayed forgotten cannot be told: {_why(judged, row, of)}"
    return f"{text}."


def _collapsed(judged: Judgement, row: RobustnessRow, suite: SuiteSpec | None) -> str:
    worst, name = row.utility.worst, ""
    if suite is not None and worst is not None:
        spec = suite.utility[worst]
        sides = (row.utility.unlearned[worst].value, row.utility.original[worst].value)
        after, before = ("?" if v is None else f"{turned(v, spec):.3f}" for v in sides)
        name = f" in {clipped(spec.label, NAME)} ({after}, was {before})"
    return (
        f"Collapsed: unlearning left {percent(judged.figure, 1)} of the utility{name}, less than "
        f"{COLLAPSED_UTILITY:.0%}. A model that answers nothing only seems to have forgotten"
    )


def _unchanged(row: RobustnessRow, label: str) -> str:
    notes = {attack.recovery.note.kind for attack in row.attacks if attack.recovery.note}
    lower = notes == {NoteKind.BELOW_ORIGINAL}
    return (
        f"{label} is {figure_text(row.forget_unlearned)} after unlearning and was "
        f"{figure_text(row.forget_original)} before; the interval of the difference "
        + ("lies below 0" if lower else "contains 0")
    )


def _returned(judged: Judgement, row: RobustnessRow, of: str) -> str:
    """How much is known again: in the mean and at most, or under one attack and in the mean."""
    averaged = row.ra_attacks
    mean = f"in the mean of {len(averaged)} attacks"
    if len(averaged) == 1:
        mean = f"after {averaged[0]}"
    text = f"{percent(judged.figure, 1)} of what was forgotten is known again ({of})"
    if len(row.attacks) == 1:
        return f"{text} after {_with_price(row.attacks[0])}"
    if judged.attack:
        others = f", {percent(row.recovery, 1)} {mean}" if averaged else ""
        (attack,) = (attack for attack in row.attacks if attack.attack == judged.attack)
        return f"{text} after {_with_price(attack)}{others}"
    most = most_recovered(row)
    if most is None or (most.recovery.value or 0.0) < SHOWN:
        return f"{text} {mean}"
    return f"{text} {mean}, most after {most.attack}: {percent(most.recovery, 1)}"


def _with_price(attack: AttackFigures) -> str:
    """An attack's name, and what it leaves of the utility where a worst case needs more."""
    kept = attack.steps[-1].utility_kept.value
    if kept is None or kept >= KEPT_UTILITY:
        return attack.attack
    return f"{attack.attack}, which leaves {kept:.0%} of the utility"


def _why(judged: Judgement, row: RobustnessRow, of: str) -> str:
    if row.status == "incomplete":
        return (
            f"not all attacks were carried out with each seed. So far, {_returned(judged, row, of)}"
        )
    if row.status == "unknown":
        return f"{of}, {note_text(row.utility.kept[0].note)}"
    if judged.destroys:
        return (
            f"{', '.join(judged.destroys)} left less than {COLLAPSED_UTILITY:.0%} of the utility, "
            f"and a destroyed model answers nothing. {_returned(judged, row, of)}"
        )
    if judged.figure.value is None:
        return f"{of}, recovery is {note_text(judged.figure.note)}"
    if judged.figure.low is None:
        return f"{_returned(judged, row, of)}, without an interval"
    return f"{_returned(judged, row, of)}. The interval reaches across {BOUND:.0%}"


def _without_rows(record: RunRecord) -> str:
    if record.failures:
        return (
            f"No verdict: {len(record.failures)} of {len(record.jobs)} jobs failed, and too "
            "little is left."
        )
    if not record.method:
        return "Scored, as it is: nothing was unlearned, and nothing was attacked."
    return "Unlearned, and not attacked: whether it stays forgotten under fine-tuning is not known."
