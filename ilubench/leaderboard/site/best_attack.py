"""The best known attack on an entry: submitted by somebody, verified, and credited. Pure."""

from dataclasses import dataclass

from ilubench.leaderboard.records.files import Board
from ilubench.records.results import rows_of
from ilubench.statistics.intervals import Figure

__all__ = ["BestAttack", "best_attack"]


@dataclass(frozen=True, slots=True)
class BestAttack:
    """An attack that brings back more than all of the suite's.

    Attributes:
        attack: the id of its record.
        title: what tables show.
        by: who submitted it.
        figure: its worst case.
    """

    attack: str
    title: str
    by: str
    figure: Figure


def best_attack(board: Board, entry: str, label: str, own: Figure) -> BestAttack | None:
    """Return the verified submitted attack with the lowest worst case below the entry's own.

    Returns:
        None where no verified attack is stronger than those of the suite.
    """
    found: list[tuple[float, BestAttack]] = []
    for attack in board.attacks:
        for result in attack.results:
            if result.entry != entry or not result.verified or label not in result.run.rows:
                continue
            row = rows_of(result.run)[label]
            value = row.worst_case.value
            if value is not None and (own.value is None or value < own.value):
                credit = BestAttack(
                    attack.entry, attack.title, attack.submission.by, row.worst_case
                )
                found.append((value, credit))
    return min(found, key=lambda one: one[0])[1] if found else None
