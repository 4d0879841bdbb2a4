"""Rows with figures of one's own: what the last screen of a run reads, without any scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from ilubench.records.results import JobRecord, RunRecord
from ilubench.statistics.intervals import Figure
from ilubench.statistics.notes import Note, NoteKind
from ilubench.statistics.row import (
    AttackFigures,
    RobustnessRow,
    Status,
    StepFigures,
    UtilityFigures,
)

Interval = tuple[float, float, float]
UNDEFINED = NoteKind.NOT_FORGOTTEN
STAYED: Interval = (0.04, 0.01, 0.08)
BACK: Interval = (0.30, 0.20, 0.40)
EITHER: Interval = (0.06, -0.02, 0.14)


def figure(given: Interval | float | NoteKind) -> Figure:
    """A figure with its interval, without one, or undefined for this reason."""
    if isinstance(given, NoteKind):
        return Figure(None, None, None, 1, 40, "none", Note(given))
    if isinstance(given, tuple):
        return Figure(*given, 1, 40, "item-only")
    return Figure(given, None, None, 1, 40, "none")


def hand_row(
    attacks: Mapping[str, Interval | NoteKind],
    mean: Interval | NoteKind,
    *,
    status: Status = "ok",
    core: Sequence[str] = (),
    kept: Interval | NoteKind = (0.98, 0.95, 1.01),
    left: Mapping[str, float] | None = None,
    levels: bool = False,
    unlearned: Interval = (0.6, 0.5, 0.7),
) -> RobustnessRow:
    """A row.

    Args:
        attacks: name -> recovery.
        mean: recovery over the attacks.
        status: the row's.
        core: core attacks; without, no RA_core.
        kept: utility kept after unlearning.
        left: attack -> utility kept at its end.
        levels: the attacks take no steps.
        unlearned: f_u.
    """
    found = []
    for name, recovery in attacks.items():
        at_end = (left or {}).get(name, 1.0)
        steps = tuple(
            StepFigures(
                step,
                figure((0.55, 0.45, 0.65)),
                (figure((0.9, 0.85, 0.95)),),
                figure(1.0 if step < 2 else at_end),
                eligible=step > 0 and (step < 2 or at_end >= 0.9),
                fa=None if levels else figure((0.812, 0.7, 0.9)),
                level=f"level-{step}" if levels and step else "",
            )
            for step in range(3)
        )
        found.append(
            AttackFigures(
                name,
                steps,
                figure((0.571, 0.47, 0.67)),
                figure(recovery),
                figure(NoteKind.NO_STEPS),
                figure(NoteKind.NO_STEPS),
                figure(NoteKind.NO_FA),
                None,
            )
        )
    worst = None if isinstance(kept, NoteKind) else 0
    return RobustnessRow(
        status,
        figure((0.021, 0.0, 0.04)),
        figure(unlearned),
        0.75,
        UtilityFigures((figure(0.97),), (figure(0.95),), (figure(kept),), worst),
        tuple(found),
        tuple(attacks),
        figure((0.574, 0.48, 0.66)),
        tuple(core),
        figure((0.583, 0.49, 0.67)) if core else None,
        figure((0.512, 0.4, 0.6)),
        (next(iter(attacks)), 2),
        figure(mean),
    )


def hand_record(**given: Any) -> RunRecord:
    """A record around such rows, which are given beside it."""
    jobs = tuple(
        JobRecord(stage=stage, key=f"{k}", label=f"{stage} {k}", state="done", seconds=seconds)
        for k, (stage, seconds) in enumerate(
            [("target", 100.0), ("unlearn", 10.0), ("score", 2.0), ("attack", 30.0)]
        )
    )
    plain: dict[str, Any] = {
        "run": "mini-npo-1",
        "suite": "mini",
        "suite_version": 2,
        "method": {"use": "npo", "settings": {}},
        "method_version": 1,
        "seeds": (0,),
        "attacks": ("a",),
        "engine": "hf",
        "dtype": "float32",
        "rows": {},
        "cost": {},
        "jobs": jobs,
    }
    return RunRecord(**plain | given)
