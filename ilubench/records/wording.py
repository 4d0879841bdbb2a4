"""The words of notes: the only place that has them, for terminals, Markdown and the page. Pure."""

from collections.abc import Iterable, Iterator, Mapping

from ilubench.records.labels import RA_CORE
from ilubench.statistics.notes import Note, NoteKind

__all__ = ["note_text", "table_note_texts"]

WORDS: Mapping[NoteKind, str] = {
    NoteKind.ZERO_VARIANCE: (
        "zero variance: no seed and no item makes a difference, the interval has no width"
    ),
    NoteKind.UNDEFINED: "undefined",
    NoteKind.NO_INTERVAL: "no interval: undefined when a single seed or item is left out",
    NoteKind.BEYOND: ">{numbers[0]:g}",
    NoteKind.OPEN_END: "upper end >{numbers[0]:g}",
    NoteKind.NO_STEPS: "n/a: the attack takes no steps",
    NoteKind.NO_ORDER: "n/a: trials have no order",
    NoteKind.CORE_NOT_RUN: "core attacks not run: {listed}",
    NoteKind.ONLY_FURTHER: "n/a: none of the suite's benign attacks was run",
    NoteKind.UTILITY_AT_CHANCE: "undefined: the utility to compare with is not above chance",
    NoteKind.NO_UTILITY_KEPT: (
        "n/a: no checkpoint keeps {numbers[0]:.0%} of the unlearned model's utility"
    ),
    NoteKind.BELOW_ORIGINAL: "undefined: f_u is below f_0, nothing was forgotten",
    NoteKind.NOT_FORGOTTEN: "undefined: the interval of f_u - f_0 contains 0",
    NoteKind.NOT_ATTACKED: "n/a: the {names[0]} model was not attacked with {names[1]}",
    NoteKind.NO_FA: "n/a: fine-tuning accuracy was not measured",
    NoteKind.NO_SHARED_SEED: "n/a: no seed is shared",
    NoteKind.RETRAIN_SHARES_NO_SEED: (
        "n/a: the retrained model was attacked with no seed of the method"
    ),
    NoteKind.TOO_FEW_RUNS: "n/a: fewer than two runs to join",
    NoteKind.OUTSIDE_SWEEP: (
        "n/a: f_u {numbers[0]:.3f} is outside the sweep, {numbers[1]:.3f}-{numbers[2]:.3f}"
    ),
    NoteKind.NO_RECOVERY: "n/a: no run of {names[0]} has a recovery",
    NoteKind.NO_COMMON_LEVEL: (
        "n/a: the sweeps share no f_u ({numbers[0]:.3f}-{numbers[1]:.3f} and "
        "{numbers[2]:.3f}-{numbers[3]:.3f})"
    ),
    NoteKind.NOT_COMPARED: "n/a: nothing could be compared",
    NoteKind.ALL_TRAINED_ON: "n/a: every attack was trained on by a row",
    NoteKind.PAIR_TRAINED_ON_ALL: "one of the two trained on every attack",
    NoteKind.ATTACK_MISSING: "an attack is missing",
    NoteKind.CONTROL_DESTROYS: "n/a: the control left {numbers[0]:.0%} of the utility",
    NoteKind.OTHER_ITEMS: "n/a: the attacks scored other items",
    NoteKind.UNREAD: "{names[0]}",
    NoteKind.TOO_FEW_LEVELS: "no components: they need two seeds and two items",
    NoteKind.ALL_EQUAL: "no components: all scores are equal",
    NoteKind.COLLAPSED: "collapsed: {names[0]} {numbers[0]:.0%}",
    NoteKind.UNKNOWN: "unknown utility",
    NoteKind.INCOMPLETE: "incomplete",
    NoteKind.DIVERGED: "diverged",
    NoteKind.REFERENCE: "reference",
    NoteKind.TRAINED_ON: "trained on {listed}",
    NoteKind.NO_CORE: f"no {RA_CORE}",
    NoteKind.NO_SAMPLES: "not recomputed",
    NoteKind.NO_ROW: "no row",
    NoteKind.ALONE: "nothing to compare with",
    NoteKind.ONE_SEED: "1 seed: a rank needs two shared seeds",
    NoteKind.FEW_ITEMS: "{numbers[0]:g} items: a rank needs three",
    NoteKind.FEW_SHARED_SEEDS: "fewer than two seeds shared with {listed}",
    NoteKind.NO_VARIANCE: (
        "the difference from {listed} is the same for every seed and item: no test can rest on it"
    ),
}

BELOW: Mapping[NoteKind, str] = {
    NoteKind.FEW_SEEDS: (
        "some ranks rest on {numbers[0]:g} seeds: with fewer than five, equal methods are told "
        "apart by chance in 6-11 % of tables, not in 5 %"
    ),
    NoteKind.UNREAD: "without a rank: {of} ({listed}); figures are as recorded, not checked",
    NoteKind.CORE_UNKNOWN: (
        "without a rank: {of} (not all of the suite's core_unseen attacks were run, or it names "
        "none)"
    ),
    NoteKind.CORE_NOT_RUN: (
        "without a rank: {of} (of the suite's core_unseen attacks, {listed} not run)"
    ),
    NoteKind.NO_CORE_NAMED: "without a rank: {of} (the suite names no core_unseen attacks)",
    NoteKind.LACKS_ATTACKS: "{of} lacks {listed}: its RA is over the other attacks",
    NoteKind.NO_ROW: "{of}: no row in {listed}",
    NoteKind.OTHER_LIBRARY: "with {names[0]} {names[1]}: {of}; rounding may differ",
    NoteKind.CONDITION_UNKNOWN: "{listed} unknown, nothing recorded it: {of}",
}
"""What kinds say below a table."""


def note_text(note: Note | None) -> str:
    """Return what a note beside a figure or a row says; empty where there is none."""
    return "" if note is None else _filled(WORDS.get(note.kind, note.kind), note)


def table_note_texts(notes: Iterable[Note]) -> Iterator[str]:
    """Yield the lines below a table; who is not told from whom is one line, the first."""
    given = list(notes)
    tied = [note for note in given if note.kind == NoteKind.NOT_TOLD_APART]
    if tied:
        pairs = (f"{', '.join(note.about)} from {', '.join(note.names)}" for note in tied)
        yield f"not told apart: {'; '.join(pairs)}"
    for note in given:
        if note.kind == NoteKind.REFERENCE:
            verb = "is a reference" if len(note.about) == 1 else "are references"
            yield f"{' and '.join(note.about)} {verb}: listed, never ranked"
        elif note.kind not in (NoteKind.NOT_TOLD_APART, NoteKind.OFF_QUARTILES):
            yield _filled(BELOW[note.kind], note)
    off = [note for note in given if note.kind == NoteKind.OFF_QUARTILES]
    for numbers in dict.fromkeys(note.numbers for note in off):
        attacks = ", ".join(note.about[0] for note in off if note.numbers == numbers)
        half = len(numbers) // 2
        found, wanted = (
            ", ".join(f"{100 * share:.0f}" for share in shares)
            for shares in (numbers[:half], numbers[half:])
        )
        yield (
            f"RA of {attacks} averages checkpoints at {found} % of the steps, "
            f"the nearest to {wanted} % that were scored"
        )


def _filled(words: str, note: Note) -> str:
    listed, of = ", ".join(note.names), ", ".join(note.about)
    try:
        return words.format(names=note.names, numbers=note.numbers, listed=listed, of=of)
    except IndexError:  # a stranger's record has kinds without their data
        return note.kind
