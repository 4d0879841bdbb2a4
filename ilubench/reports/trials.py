"""What an attacker who tunes reached, in words and as a table for a terminal."""

from collections.abc import Iterator

from rich.table import Table

from ilubench.records.figure_text import figure_text
from ilubench.records.results import REFERENCE, RunRecord
from ilubench.statistics.row import KEPT_UTILITY, AttackFigures

__all__ = ["trial_lines", "trial_table"]

_ALL = 8
"""Trials up to which the best so far is shown after each; of more, after 1, 2, 4, ..."""


def trial_table(label: str, part: AttackFigures, record: RunRecord) -> Table | None:
    """Return the figures over an attack's trials, None for one that does not tune.

    Args:
        label: the forget metric's.
        part: the attack's figures.
        record: knows the trials' settings.
    """
    if part.trials is None:
        return None
    title = f"{label}: {part.attack}, {part.trials.n_trials} trials a seed (lowest forget metric)"
    table = Table(title=title, title_justify="left", show_header=False)
    for name, value in trial_lines(part, record):
        table.add_row(name, value)
    return table


def trial_lines(part: AttackFigures, record: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield each figure over an attack's trials, and each seed's strongest; none if it has none."""
    found, attack = part.trials, part.attack
    if found is None:
        return
    yield (
        f"bounded_worst_case (keeps {KEPT_UTILITY:.0%} of the utility)",
        figure_text(found.bounded_worst_case),
    )
    yield "worst_case (whatever the utility)", figure_text(found.worst_case)
    yield f"top_n_average (the {found.top_n} lowest)", figure_text(found.top_n_average)
    last = found.n_trials
    shown = range(1, last + 1) if last <= _ALL else [2**k for k in range(last.bit_length())]
    for number in dict.fromkeys((*shown, last)):
        best = figure_text(found.best_so_far[number - 1])
        yield f"bounded_worst_case after {number}", best
    who = "reference" if record.method_name == REFERENCE else "method"
    mine = [one for one in record.trials if (one.who, one.attack) == (who, attack)]
    tried = {(one.seed, one.trial): one.settings for one in mine}
    for seed, number in zip(found.seeds, found.strongest, strict=True):
        settings = tried.get((seed, number), {})
        told = ", ".join(f"{name} {_short(value)}" for name, value in settings.items())
        yield f"strongest of seed {seed}", f"trial {number}" + (f": {told}" if told else "")


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)
