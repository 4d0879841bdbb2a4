"""What a reader must know beside a row: destroyed utility, one option for every question. Pure.

A destroyed model answers nothing right and so looks robust: RA alone would count it as forgotten.
"""

from collections.abc import Iterable, Iterator, Mapping

from ilubench.records.results import ModelScore
from ilubench.specs import AttackSpec
from ilubench.statistics.row import KEPT_UTILITY, AttackFigures, RobustnessRow

__all__ = ["option_notes", "protocol_notes", "row_notes", "selection_note"]

OTHER_PROTOCOL = (
    "protocol: default (run with another length, batch or learning rate than was chosen)"
)

ONE_OPTION = 0.9
"""Share of the items from which on one chosen option is worth a note."""


def utility_note(attack: AttackFigures) -> str:
    """Return where an attack destroys the utility, or nothing where it keeps it."""
    kept = [
        (s.level or f"step {s.step}", s.utility_kept.value)
        for s in attack.steps
        if s.step > 0 and not s.eligible
    ]
    below = [(where, value) for where, value in kept if value is not None]
    if not below:
        return ""
    least = min(value for _, value in below)
    return (
        f"{attack.attack}: utility fell below {KEPT_UTILITY:.0%} of the unlearned model's at "
        f"{below[0][0]} (lowest: {least:.0%}); RA counts such checkpoints, the worst case does not"
    )


def selection_note(attack: AttackFigures) -> str:
    """Return that an attack's figures are those of a selected trial, or nothing."""
    if attack.trials is None:
        return ""
    return (
        f"{attack.attack}: each seed's strongest of {attack.trials.n_trials} trials, selected on "
        "the items that it is scored on: other items would show a weaker attack"
    )


def row_notes(rows: Mapping[str, RobustnessRow]) -> Iterator[str]:
    """Yield what is to be said of a run's rows, each once: the utility is the same in all."""
    attacks = [attack for row in rows.values() for attack in row.attacks]
    for said in (utility_note, selection_note):
        yield from dict.fromkeys(note for note in map(said, attacks) if note)


def option_notes(scores: Iterable[ModelScore]) -> Iterator[str]:
    """Yield the scores of an unlearned model that chose one option nearly always."""
    for score in scores:
        share = score.most_chosen
        if score.who == "method" and share is not None and share >= ONE_OPTION:
            yield (
                f"{score.scorer}, seed {score.seed}: the unlearned model chose one and the same "
                f"option for {share:.0%} of {score.n} items"
            )


def protocol_notes(
    attacks: Mapping[str, AttackSpec], changed: Mapping[str, bool] | None = None
) -> Iterator[str]:
    """Yield where the attacks' length and learning rate come from, each once.

    Args:
        attacks: name -> attack; one that does not say is left out.
        changed: those that were run with other settings than their own, and whether the protocol
            speaks of these.
    """
    found: dict[str, list[str]] = {}
    for name, attack in attacks.items():
        if attack.protocol is not None:
            words = f"protocol: {attack.protocol.kind} ({attack.protocol.note})"
            if changed is not None and name in changed:
                words += "; run with other settings here"
                words = OTHER_PROTOCOL if changed[name] else words
            found.setdefault(words, []).append(name)
    for words, names in found.items():
        yield f"{', '.join(names)}: {words}"
